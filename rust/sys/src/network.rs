//! The loopback interface and vsock.

use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use rustix::io::Result;

use crate::check;

/// Sets the interface `lo` of this network namespace up. Any socket of the namespace will do.
pub fn loopback_up(socket: impl AsFd) -> Result<()> {
    // SAFETY: an all-zero ifreq is a valid value of this plain structure.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads one ifreq, which lives until the call returns.
    check(unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::SIOCSIFFLAGS, &request) })?;
    Ok(())
}

/// Options of `linux/vm_sockets.h`; the maximum has to be raised first.
const SO_VM_SOCKETS_BUFFER_MAX_SIZE: i32 = 2;
const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
/// Receive window of a vsock connection. Large, because guest kernels since 6.12.92 reset a connection whose host side
/// sends many small packets into a small window.
const VSOCK_WINDOW: u64 = 8 << 20;
/// Clients that may wait to be accepted.
const VSOCK_BACKLOG: i32 = 128;

/// A listening, non-blocking vsock socket of this machine. Accepted connections inherit its window.
pub fn vsock_listen(port: u32) -> Result<OwnedFd> {
    let socket = vsock_socket(libc::SOCK_NONBLOCK)?;
    let address = vsock_address(libc::VMADDR_CID_ANY, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr_vm of the given length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    rustix::net::listen(&socket, VSOCK_BACKLOG)?;
    Ok(socket)
}

/// Connects to a port of the host that runs this machine; non-blocking afterwards.
pub fn vsock_connect_host(port: u32) -> Result<OwnedFd> {
    let socket = vsock_socket(0)?;
    let address = vsock_address(libc::VMADDR_CID_HOST, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr_vm of the given length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

fn vsock_socket(flags: i32) -> Result<OwnedFd> {
    // SAFETY: plain integers; the kernel touches no memory of this process.
    let number = check(unsafe { libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0) })?;
    // SAFETY: the kernel has just created this descriptor, so no other owner exists.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    let window = VSOCK_WINDOW;
    for option in [SO_VM_SOCKETS_BUFFER_MAX_SIZE, SO_VM_SOCKETS_BUFFER_SIZE] {
        let length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the option takes a u64, which lives until the call returns.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::AF_VSOCK, option, (&raw const window).cast(), length)
        })?;
    }
    Ok(socket)
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: an all-zero sockaddr_vm is a valid value of this plain structure.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}
