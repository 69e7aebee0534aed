//! A process beside the supervisor that makes the kernel forget names of the read-only views, so that names which the host makes,
//! replaces or removes show inside. The supervisor cannot do it: Landlock takes every change of a mount from it. This process has no
//! capability (it is the owner of the sandbox's user namespace, which suffices), reads nothing, and ends with the runtime.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::time::{Duration, Instant};

use microsandbox_contract::LaunchSpec;
use microsandbox_jail::views::MAX_LIVE;
use microsandbox_jail::{caps, views};
use microsandbox_sys::process::Creator;
use microsandbox_sys::{descriptor, process};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{Gid, Uid};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType, recvmsg, sendmsg, socketpair,
};
use rustix::process::{WaitId, WaitIdOptions};

/// How long a name of the host may be out of date.
const PERIOD: Duration = Duration::from_millis(250);
/// At most this share of the time is spent: a refresh of many names takes long.
const SHARE: u32 = 50;

/// Whether the sandbox has views in which names change.
pub fn is_wanted(spec: &LaunchSpec) -> bool {
    spec.root.binds.iter().any(|bind| bind.view && bind.readonly && bind.host_ids)
}

/// The process, as the runtime sees it: it ends with this, or with the runtime. Not by a signal: Landlock keeps the supervisor from
/// sending any outside of its domain, the one at the death of a parent among them.
pub struct Refresher {
    /// Open in the runtime alone once the sandbox runs.
    lifeline: Option<OwnedFd>,
    process: OwnedFd,
}

impl Drop for Refresher {
    fn drop(&mut self) {
        drop(self.lifeline.take());
        // Where process 1 reaps nothing, it would stay as a zombie.
        let _ = rustix::process::waitid(WaitId::PidFd(self.process.as_fd()), WaitIdOptions::EXITED);
    }
}

/// Starts the process, as the user who makes the sandbox's user namespace; the other result takes the views.
pub fn start(creator: Creator) -> Result<(Refresher, OwnedFd), Errno> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    let lifeline = rustix::io::fcntl_dupfd_cloexec(&ours, 0)?;
    match process::clone_child(0, None)? {
        process::Cloned::Child => {
            let _ = run(&theirs, creator);
            process::exit_now(0)
        }
        process::Cloned::Parent { pidfd, .. } => Ok((Refresher { lifeline: Some(lifeline), process: pidfd }, ours)),
    }
}

/// Gives it the views.
pub fn hand_over(refresher: &OwnedFd, live: &[OwnedFd]) -> Result<(), Errno> {
    let views: Vec<BorrowedFd<'_>> = live.iter().map(AsFd::as_fd).collect();
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LIVE))];
    let mut message = SendAncillaryBuffer::new(&mut space);
    if !message.push(SendAncillaryMessage::ScmRights(&views)) {
        return Err(Errno::TOOBIG);
    }
    sendmsg(refresher, &[IoSlice::new(b"v")], &mut message, SendFlags::NOSIGNAL).map(drop)
}

/// Returns when there is nothing to do any more.
fn run(socket: &OwnedFd, creator: Creator) -> Result<(), Errno> {
    // Nothing else of the runtime's may stay open here: the ends of its pipes are what others wait for.
    descriptor::place(socket, 0)?;
    descriptor::close_from(1)?;
    if let Some((uid, gid)) = creator {
        let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
        rustix::thread::set_thread_groups(&[])?;
        rustix::thread::set_thread_res_gid(gid, gid, gid)?;
        rustix::thread::set_thread_res_uid(uid, uid, uid)?;
    }
    caps::drop_all()?;
    let socket = rustix::stdio::stdin();
    let views = receive(socket)?;
    let mut pause = PERIOD;
    while !views.is_empty() && !is_over(socket, pause)? {
        let begin = Instant::now();
        views.iter().try_for_each(views::refresh)?;
        pause = PERIOD.max(begin.elapsed() * SHARE);
    }
    Ok(())
}

/// Waits that long, or until the runtime has closed its end.
fn is_over(socket: BorrowedFd<'_>, pause: Duration) -> Result<bool, Errno> {
    let pause = Timespec { tv_sec: pause.as_secs() as i64, tv_nsec: i64::from(pause.subsec_nanos()) };
    match poll(&mut [PollFd::from_borrowed_fd(socket, PollFlags::IN)], Some(&pause)) {
        Err(Errno::INTR) => Ok(false),
        count => count.map(|count| count > 0),
    }
}

fn receive(socket: BorrowedFd<'_>) -> Result<Vec<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_LIVE))];
    let mut message = RecvAncillaryBuffer::new(&mut space);
    recvmsg(socket, &mut [IoSliceMut::new(&mut [0])], &mut message, RecvFlags::CMSG_CLOEXEC)?;
    let rights = message.drain().filter_map(|part| match part {
        RecvAncillaryMessage::ScmRights(views) => Some(views),
        _ => None,
    });
    Ok(rights.flatten().collect())
}
