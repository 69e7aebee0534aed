//! The removal job: a tree that may hold files of mapped ids.

use microsandbox_contract::{IdMap, JobError, JobErrorKind, RemoveTreeSpec, Report};
use microsandbox_rooted::remove;
use rustix::io::Errno;

use super::in_user_namespace;
use crate::report::Reporter;

/// Runs the job; the result is the exit code of the process.
pub fn run(spec: &RemoveTreeSpec, reporter: &mut Reporter) -> i32 {
    match remove_tree(spec) {
        Ok(()) => {
            reporter.send(&Report::Done);
            0
        }
        Err(error) => {
            reporter.send(&Report::Failed(error));
            1
        }
    }
}

fn remove_tree(spec: &RemoveTreeSpec) -> Result<(), JobError> {
    // Host root owns or may remove everything; so may a user whose single id is the only one mapped.
    let direct = rustix::process::geteuid().is_root() || matches!(spec.ids, IdMap::Single { .. });
    if !direct {
        let code = in_user_namespace::run(&spec.ids, || match remove::content(&spec.path) {
            Ok(()) | Err(Errno::NOENT | Errno::NOTDIR) => 0,
            Err(error) => error.raw_os_error() & 0xff,
        })?;
        if code != 0 {
            return Err(failed(spec, Errno::from_raw_os_error(code)));
        }
    }
    remove::tree(&spec.path).map_err(|error| failed(spec, error))
}

fn failed(spec: &RemoveTreeSpec, errno: Errno) -> JobError {
    let text = std::io::Error::from_raw_os_error(errno.raw_os_error());
    let (kind, hint) = match errno {
        Errno::ACCESS | Errno::PERM => {
            (JobErrorKind::Denied, "run as the user who created it, with the same id mapping")
        }
        Errno::XDEV | Errno::BUSY => (JobErrorKind::Io, "something is mounted inside: unmount it first"),
        _ => (JobErrorKind::Io, "check the file system of the product home"),
    };
    JobError {
        kind,
        message: format!("remove {}: {text}", spec.path.display()),
        errno: Some(errno.raw_os_error()),
        hint: hint.into(),
    }
}
