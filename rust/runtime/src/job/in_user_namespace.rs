//! Work inside an id mapping: a child in a user namespace of its own, as its root, for jobs that create or remove files
//! of mapped ids.

use microsandbox_contract::{IdMap, JobError, JobErrorKind};
use rustix::fd::AsFd;
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{Signal, WaitId, WaitIdOptions};

use microsandbox_jail::ids;
use microsandbox_sys::process::{self, Cloned};

/// Runs `work` as the root of the mapping, in a process that ends with this one; its result is the exit code.
pub fn run(map: &IdMap, work: impl FnOnce() -> i32) -> Result<i32, JobError> {
    ids::lines(map).map_err(|message| denied(message, None))?;
    let call = |errno: Errno| denied(format!("create a user namespace: {errno}"), Some(errno.raw_os_error()));
    let (go_read, go_write) = pipe_with(PipeFlags::CLOEXEC).map_err(call)?;
    // Not for host root, whom the limits of the kernel's tables must not meet.
    let privileged = matches!(map, IdMap::Range { .. }) && process::may_choose_creator();
    let creator = privileged.then(|| ids::root_ids(map));
    let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWNET | libc::CLONE_NEWIPC;
    let (pid, pidfd) = match process::clone_child_as(creator, flags as u64, None).map_err(call)? {
        Cloned::Child => {
            drop(go_write);
            let _ = rustix::process::set_parent_process_death_signal(Some(Signal::KILL));
            let ready = rustix::io::read(&go_read, &mut [0; 1]) == Ok(1) && become_root(map).is_ok();
            process::exit_now(if ready { work() } else { 70 });
        }
        Cloned::Parent { pid, pidfd } => (pid, pidfd),
    };
    let mapped = ids::write_maps(pid, map);
    if mapped.is_ok() {
        let _ = rustix::io::write(&go_write, b"g");
    }
    drop(go_write);
    let status = rustix::process::waitid(WaitId::PidFd(pidfd.as_fd()), WaitIdOptions::EXITED).map_err(call)?;
    mapped.map_err(|message| denied(message, None))?;
    match status.and_then(|status| status.exit_status()) {
        Some(code) => Ok(code),
        None => Err(denied("the working process was killed".into(), None)),
    }
}

fn become_root(map: &IdMap) -> Result<(), Errno> {
    if ids::allows_setgroups(map) {
        rustix::thread::set_thread_groups(&[])?;
    }
    rustix::thread::set_thread_res_gid(Gid::ROOT, Gid::ROOT, Gid::ROOT)?;
    rustix::thread::set_thread_res_uid(Uid::ROOT, Uid::ROOT, Uid::ROOT)?;
    // A change of ids clears it.
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))?;
    rustix::process::umask(rustix::fs::Mode::empty());
    rustix::thread::set_no_new_privs(true)
}

fn denied(message: String, errno: Option<i32>) -> JobError {
    JobError { kind: JobErrorKind::Denied, message, errno, hint: ids::MAP_HINT.into() }
}
