//! Two requests to `/dev/kvm`.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Result;

use crate::check;

/// `_IO(KVMIO, 0x00)` and `_IO(KVMIO, 0x01)`: Documentation/virt/kvm/api.rst, sections 4.1 and 4.2.
const GET_API_VERSION: libc::c_ulong = 0xAE00;
const CREATE_VM: libc::c_ulong = 0xAE01;

/// The version of the interface.
pub fn api_version(device: impl AsFd) -> Result<i32> {
    // SAFETY: the request takes no argument and touches no memory of this process; another file refuses it.
    check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), GET_API_VERSION as _, 0) })
}

/// Makes a machine of the default type, which ends when the descriptor is closed.
pub fn create_machine(device: impl AsFd) -> Result<OwnedFd> {
    // SAFETY: the argument 0 is the default type of machine; the result is a new descriptor or an error.
    let machine = check(unsafe { libc::ioctl(device.as_fd().as_raw_fd(), CREATE_VM as _, 0) })?;
    // SAFETY: the kernel has just created this descriptor, so no other owner exists.
    Ok(unsafe { OwnedFd::from_raw_fd(machine) })
}
