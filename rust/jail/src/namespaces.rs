//! The namespaces of a sandbox and what is set inside them.

use microsandbox_sys::network;
use rustix::fd::BorrowedFd;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socket_with};

use microsandbox_sys::process::{self, Cloned, Creator};

/// Every namespace made at the clone. The cgroup namespace comes later, from inside: its root is the group the process
/// is in at that moment, and a v1 group is joined after the clone.
const AT_CLONE: i32 = libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWNET;

/// Clones this process into a new namespace of each kind. What the sandbox takes of kernel objects that are counted for a user
/// is counted for its creator as well.
pub fn clone_init(creator: Creator, cgroup: Option<BorrowedFd<'_>>) -> Result<Cloned, Errno> {
    process::clone_child_as(creator, AT_CLONE as u64, cgroup)
}

/// Hides the host's cgroup paths from the sandbox.
pub fn enter_cgroup_namespace() -> Result<(), Errno> {
    process::unshare(libc::CLONE_NEWCGROUP)
}

/// Brings the loopback interface up.
pub fn loopback_up() -> Result<(), Errno> {
    let socket = socket_with(AddressFamily::INET, SocketType::DGRAM, SocketFlags::CLOEXEC, None)?;
    network::loopback_up(&socket)
}
