//! A program started in a session of its own, from a process with threads.
//!
//! `posix_spawn` shares the caller's memory until the exec, so the cost does not grow with the caller's size, and it is
//! sound in a program with threads.

use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;

/// Executes the file behind `program` with `arguments`, the first of which is its name, and an empty environment. The child
/// gets each descriptor under its number; no number may be that of a descriptor in the list. Signals are unblocked and have their default actions.
/// Returns the process id.
pub fn detached(program: BorrowedFd<'_>, arguments: &[&CStr], descriptors: &[(OwnedFd, i32)]) -> io::Result<i32> {
    // Through the descriptor, which this path names in the child as well: above every number that is given away, which the
    // program's own may be in a process whose standard streams are closed.
    let above = descriptors.iter().map(|(_, target)| target + 1).max().unwrap_or(0);
    let program = rustix::io::fcntl_dupfd_cloexec(program, above)?;
    let path = CString::new(format!("/proc/self/fd/{}", program.as_raw_fd()))?;
    let argv = arguments.iter().map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]);
    let argv: Vec<*mut libc::c_char> = argv.collect();
    let envp = [ptr::null_mut()];
    let mut actions = Actions::new()?;
    for (source, target) in descriptors {
        actions.duplicate(source, *target)?;
    }
    let attributes = Attributes::for_new_session()?;
    let mut pid = 0;
    // SAFETY: both objects are initialised; path, argv, envp and the strings that they point to outlive the call.
    check(unsafe {
        libc::posix_spawn(&mut pid, path.as_ptr(), &actions.0, &attributes.0, argv.as_ptr(), envp.as_ptr())
    })?;
    Ok(pid)
}

/// What the child does with descriptors before it executes the program.
struct Actions(libc::posix_spawn_file_actions_t);

impl Actions {
    fn new() -> io::Result<Actions> {
        // SAFETY: an all-zero value is valid storage for the initialisation, which comes before every other use.
        let mut actions = unsafe { std::mem::zeroed() };
        // SAFETY: `actions` is storage for one object and is initialised once.
        check(unsafe { libc::posix_spawn_file_actions_init(&mut actions) })?;
        Ok(Actions(actions))
    }

    fn duplicate(&mut self, source: &OwnedFd, target: i32) -> io::Result<()> {
        // SAFETY: the object is initialised; the numbers are only stored.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut self.0, source.as_raw_fd(), target) })
    }
}

impl Drop for Actions {
    fn drop(&mut self) {
        // SAFETY: initialised in `new`, destroyed here and nowhere else.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

/// How the child differs from its parent.
struct Attributes(libc::posix_spawnattr_t);

impl Attributes {
    fn for_new_session() -> io::Result<Attributes> {
        // SAFETY: an all-zero value is valid storage for the initialisation, which comes before every other use.
        let mut attributes = unsafe { std::mem::zeroed() };
        // SAFETY: `attributes` is storage for one object and is initialised once.
        check(unsafe { libc::posix_spawnattr_init(&mut attributes) })?;
        let mut attributes = Attributes(attributes);
        let (none, all) = (crate::signal::set_of(&[]), crate::signal::full_set());
        // SAFETY: the object and both sets are initialised; the sets are copied.
        check(unsafe { libc::posix_spawnattr_setsigmask(&mut attributes.0, &none) })?;
        // SAFETY: as above.
        check(unsafe { libc::posix_spawnattr_setsigdefault(&mut attributes.0, &all) })?;
        // A session of its own: a Ctrl-C at the caller's terminal is the caller's business.
        let flags =
            libc::POSIX_SPAWN_SETSIGMASK | libc::POSIX_SPAWN_SETSIGDEF | libc::POSIX_SPAWN_SETSID as libc::c_int;
        // SAFETY: the object is initialised; the flags are only stored.
        check(unsafe { libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short) })?;
        Ok(attributes)
    }
}

impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: initialised in `for_new_session`, destroyed here and nowhere else.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}

/// These functions return the error number itself.
fn check(code: i32) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_program_gets_its_descriptors_and_a_session_of_its_own() {
        let program = std::fs::File::open("/bin/cat").unwrap();
        let (read, write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).unwrap();
        let input = OwnedFd::from(std::fs::File::open("/proc/self/stat").unwrap());
        let lifted = |fd: OwnedFd| rustix::io::fcntl_dupfd_cloexec(fd, 32).unwrap();
        let pid = detached(program.as_fd(), &[c"a-name"], &[(lifted(input), 0), (lifted(write), 1)]).unwrap();
        let mut text = String::new();
        std::fs::File::from(read).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        let status =
            rustix::process::waitpid(rustix::process::Pid::from_raw(pid), rustix::process::WaitOptions::empty())
                .unwrap();
        assert_eq!(status.unwrap().1.exit_status(), Some(0));
    }

    #[test]
    fn what_is_no_program_is_an_error() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(detached(file.as_fd(), &[c"a-name"], &[]).is_err());
    }
}
