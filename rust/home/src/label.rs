//! The label of a runtime: which sandbox of which home it runs, in the arguments of its process.
//!
//! A sandbox directory can be deleted while its sandbox runs, and the state database can be replaced. The label is then the
//! one thing that still says what the process is. It holds no path and no name: other users of the machine can read it.

use std::ffi::{CStr, CString};
use std::io::Read as _;
use std::os::fd::OwnedFd;
use std::path::Path;

use microsandbox_contract::ProcessIdentity;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use sha2::Digest as _;

use crate::process;

/// First argument of every runtime.
pub const PROGRAM: &CStr = c"msb-runtime";
/// Longest arguments of a process that are read: those of a runtime are shorter.
const ARGUMENTS_MAX: u64 = 4096;
/// Bytes of the digest of the home's path.
const HOME_BYTES: usize = 16;

/// Which sandbox of which home a runtime runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The id of the sandbox.
    pub sandbox: String,
    /// Digest of the path of the home.
    home: String,
}

/// The runtime of a sandbox, found by its label.
#[derive(Debug)]
pub struct Labelled {
    pub label: Label,
    pub runtime: ProcessIdentity,
    pub pidfd: OwnedFd,
}

impl Label {
    pub fn new(home: &Path, sandbox: &str) -> Label {
        Label { sandbox: sandbox.to_owned(), home: digest(home) }
    }

    /// Whether it is a label of this home.
    pub fn is_of(&self, home: &Path) -> bool {
        self.home == digest(home)
    }

    /// The arguments after the first one.
    pub fn arguments(&self) -> MicrosandboxResult<Vec<CString>> {
        let text = |text: &str| {
            CString::new(text).map_err(|_| MicrosandboxError::Runtime(format!("the id {text:?} contains a NUL byte")))
        };
        Ok(vec![text(&self.sandbox)?, text(&self.home)?])
    }

    fn parse(arguments: &[u8]) -> Option<Label> {
        let mut parts = arguments.split(|&byte| byte == 0);
        if parts.next()? != PROGRAM.to_bytes() {
            return None;
        }
        let mut text = || Some(std::str::from_utf8(parts.next()?).ok()?.to_owned());
        Some(Label { sandbox: text()?, home: text()? })
    }
}

fn digest(home: &Path) -> String {
    let path = home.canonicalize().unwrap_or_else(|_| home.to_owned());
    hex::encode(&sha2::Sha256::digest(path.as_os_str().as_encoded_bytes())[..HOME_BYTES])
}

/// The runtime with this pid, if it is one of this user and has a label. Other users can give their processes any arguments.
pub fn read(pid: i32) -> Option<Labelled> {
    let (runtime, pidfd) = process::of(pid)?;
    let file = std::fs::File::open(format!("/proc/{pid}/cmdline")).ok()?;
    let mut arguments = Vec::new();
    file.take(ARGUMENTS_MAX).read_to_end(&mut arguments).ok()?;
    let label = Label::parse(&arguments)?;
    // Still the process that the descriptor holds.
    (is_of_this_user(pid) && process::is_alive(&runtime)).then_some(Labelled { label, runtime, pidfd })
}

/// Every runtime of this home.
pub fn find(home: &Path) -> Vec<Labelled> {
    let ours = digest(home);
    process::all().filter_map(read).filter(|found| found.label.home == ours).collect()
}

/// By the real user id (proc_pid_status(5)): the owner of the files of a process that cannot be dumped is root.
fn is_of_this_user(pid: i32) -> bool {
    let Ok(status) = std::fs::read_to_string(format!("/proc/{pid}/status")) else { return false };
    let line = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    let uid = line.and_then(|ids| ids.split_whitespace().next()?.parse::<u32>().ok());
    uid == Some(rustix::process::geteuid().as_raw())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_is_read_back_from_the_arguments() {
        let home = tempfile::tempdir().unwrap();
        let label = Label::new(home.path(), "0123abcd");
        let arguments = label.arguments().unwrap();
        let all = [PROGRAM].into_iter().chain(arguments.iter().map(CString::as_c_str));
        let joined: Vec<u8> = all.flat_map(|text| text.to_bytes_with_nul().to_vec()).collect();
        assert_eq!(Label::parse(&joined), Some(label.clone()));
        assert!(label.is_of(home.path()) && !label.is_of(Path::new("/elsewhere")));
        for other in [&b"msb-runtime\0"[..], b"", b"sh\0id\0home\0", b"msb-runtime\0id"] {
            assert_eq!(Label::parse(other), None);
        }
        assert!(Label::new(home.path(), "a\0b").arguments().is_err());
    }

    #[test]
    fn a_process_without_a_label_is_no_runtime() {
        assert!(read(std::process::id() as i32).is_none());
        assert!(read(i32::MAX).is_none());
        assert!(find(Path::new("/a-home-that-does-not-exist")).is_empty());
    }
}
