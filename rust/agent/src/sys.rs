//! System calls that `rustix` does not offer as safe functions.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use bytes::{BufMut, BytesMut};

/// Takes over a descriptor inherited under a fixed number, made close-on-exec and non-blocking.
pub fn inherit(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl on any number is harmless; EBADF is reported.
    let flags = check(unsafe { libc::fcntl(fd, libc::F_GETFL) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFL, flags | libc::O_NONBLOCK) })?;
    // SAFETY: as above.
    check(unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) })?;
    // SAFETY: the number is open (checked above) and by contract belongs to nobody else in this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Blocks every signal for this thread and those it starts later, and sets every disposition to the default, so that
/// no handler can ever run in a child that shares our memory.
pub fn quiet_signals() {
    // SAFETY: the set is initialised by sigfillset before use; an all-zero kernel sigaction is the default disposition,
    // which runs no code.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigfillset(&mut set);
        libc::sigprocmask(libc::SIG_SETMASK, &set, std::ptr::null_mut());
        // Not through glibc, which keeps 32 and 33 to itself: an inherited "ignored" would reach every program.
        let default = [0u64; 4];
        for signal in 1..=64 {
            let null = std::ptr::null_mut::<u64>();
            libc::syscall(libc::SYS_rt_sigaction, signal as libc::c_long, default.as_ptr(), null, size_of::<u64>());
        }
    }
}

/// By these a program asks its init to end the machine: those of busybox's `reboot`, `poweroff` and `halt`.
pub const END_REQUESTS: [i32; 3] = [libc::SIGTERM, libc::SIGUSR2, libc::SIGUSR1];

/// A descriptor that becomes readable when a child ends or someone asks the agent to end.
pub fn signal_fd() -> io::Result<OwnedFd> {
    // SAFETY: the set is initialised by sigemptyset; the new descriptor is owned by nobody else.
    unsafe {
        let mut set: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut set);
        libc::sigaddset(&mut set, libc::SIGCHLD);
        for signal in END_REQUESTS {
            libc::sigaddset(&mut set, signal);
        }
        let fd = check(libc::signalfd(-1, &set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// The signal number at the front of a `struct signalfd_siginfo`, if there is a whole one.
pub fn signal_number(record: &[u8]) -> Option<i32> {
    let number: [u8; 4] = record.get(..4)?.try_into().ok()?;
    Some(i32::from_ne_bytes(number))
}

/// One heap for all threads, and large blocks from the heap too: chunk buffers are reused warm instead of being mapped
/// anew each time. [`trim_heap`] gives the pages back when the agent falls idle.
pub fn tune_heap() {
    // SAFETY: plain tuning calls, made before any thread exists.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, 16 << 20);
        libc::mallopt(libc::M_TRIM_THRESHOLD, 32 << 20);
    }
}

/// Returns free heap pages to the kernel.
pub fn trim_heap() {
    // SAFETY: malloc_trim takes the heap's own lock.
    unsafe { libc::malloc_trim(0) };
}

/// `poll(2)`; an interrupted wait counts as nothing ready.
pub fn poll(fds: &mut [libc::pollfd], timeout_ms: i32) -> io::Result<usize> {
    // SAFETY: pointer and length describe one live slice.
    let ready = unsafe { libc::poll(fds.as_mut_ptr(), fds.len() as libc::nfds_t, timeout_ms) };
    match check(ready) {
        Ok(count) => Ok(count as usize),
        Err(error) if error.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(error) => Err(error),
    }
}

/// Every writer of this pipe (or every program on this terminal) is gone.
pub fn hung_up(fd: BorrowedFd<'_>) -> bool {
    let mut set = [libc::pollfd { fd: fd.as_raw_fd(), events: 0, revents: 0 }];
    poll(&mut set, 0).is_ok() && set[0].revents & libc::POLLHUP != 0
}

/// Splits this process, which must have one thread only: true in the child.
pub fn fork() -> io::Result<bool> {
    // SAFETY: with one thread no lock can be held by another, so the child may do everything that its parent may.
    check(unsafe { libc::fork() }).map(|pid| pid == 0)
}

/// Closes everything but the standard streams and what closes by itself at an exec.
pub fn close_inherited() {
    // SAFETY: plain flags on descriptors of this process; none is used under its number afterwards.
    unsafe {
        for fd in 3..64 {
            let flags = libc::fcntl(fd, libc::F_GETFD);
            if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
                libc::close(fd);
            }
        }
    }
}

/// Collects what has ended; true if there is no child left.
pub fn is_childless() -> bool {
    loop {
        // SAFETY: no status is asked for.
        match check(unsafe { libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) }) {
            Ok(0) => return false,
            Ok(_) => {}
            Err(error) => return error.raw_os_error() == Some(libc::ECHILD),
        }
    }
}

/// As `execve` wants them: valid as long as the strings are.
pub fn pointers(strings: &[CString]) -> Vec<*const libc::c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect()
}

/// Becomes the program, with every signal as a new program expects it. Returns only on failure.
pub fn execute(program: &std::ffi::CStr, argv: &[CString], envp: &[CString]) -> rustix::io::Errno {
    let (argv, envp) = (pointers(argv), pointers(envp));
    quiet_signals();
    // SAFETY: the set is initialised by sigemptyset; all pointers are to null-terminated data that outlives the call.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, std::ptr::null_mut());
        libc::execve(program.as_ptr(), argv.as_ptr(), envp.as_ptr());
    }
    rustix::io::Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(rustix::io::Errno::NOEXEC)
}

/// Sends any signal number, also unnamed real-time ones. A negative pid is a process group.
pub fn kill(pid: i32, signal: i32) -> io::Result<()> {
    // SAFETY: kill touches no memory of ours.
    check(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Appends what one `read` gives to `buffer`, at most `max` bytes.
pub fn read_append(fd: BorrowedFd<'_>, buffer: &mut BytesMut, max: usize) -> io::Result<usize> {
    buffer.reserve(max.min(64 << 10));
    let spare = buffer.chunk_mut();
    let len = spare.len().min(max);
    // SAFETY: the kernel writes at most `len` bytes into the spare capacity, which is ours.
    let got = unsafe { libc::read(fd.as_raw_fd(), spare.as_mut_ptr().cast(), len) };
    if got < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: exactly `got` bytes behind the old length were just initialised.
    unsafe { buffer.advance_mut(got as usize) };
    Ok(got as usize)
}

/// Sets the size of a terminal.
pub fn set_winsize(fd: BorrowedFd<'_>, rows: u16, cols: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: TIOCSWINSZ reads one winsize.
    check(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ, &size) }).map(drop)
}

/// `fchmodat2` on the object behind an `O_PATH` descriptor (Linux 6.6).
pub fn chmod_path_fd(fd: BorrowedFd<'_>, mode: u32) -> io::Result<()> {
    const SYS_FCHMODAT2: libc::c_long = 452;
    // SAFETY: an empty NUL-terminated path and plain integers.
    let done =
        unsafe { libc::syscall(SYS_FCHMODAT2, fd.as_raw_fd(), c"".as_ptr(), mode & 0o7777, libc::AT_EMPTY_PATH) };
    check(done as i32).map(drop)
}

/// Sets the interface `lo` up.
pub fn loopback_up(socket: &OwnedFd) -> io::Result<()> {
    // SAFETY: an all-zero ifreq is valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l' as libc::c_char;
    request.ifr_name[1] = b'o' as libc::c_char;
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as i16;
    // SAFETY: SIOCSIFFLAGS reads an ifreq.
    check(unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &request) }).map(drop)
}

/// Options of `linux/vm_sockets.h`; the maximum has to be raised first.
const SO_VM_SOCKETS_BUFFER_MAX_SIZE: i32 = 2;
const SO_VM_SOCKETS_BUFFER_SIZE: i32 = 0;
/// Receive window of a vsock connection. Large, because guest kernels since 6.12.92 reset a connection whose host side
/// sends many small packets into a small window.
const VSOCK_WINDOW: u64 = 8 << 20;
/// Clients that may wait to be accepted.
const VSOCK_BACKLOG: i32 = 128;

/// A listening vsock socket of this machine. Accepted connections inherit its window.
pub fn vsock_listen(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket(libc::SOCK_NONBLOCK)?;
    let address = vsock_address(libc::VMADDR_CID_ANY, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr_vm of the given length.
    check(unsafe { libc::bind(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    // SAFETY: listen on an open socket.
    check(unsafe { libc::listen(socket.as_raw_fd(), VSOCK_BACKLOG) })?;
    Ok(socket)
}

/// Connects to a port of the host that runs this machine; non-blocking afterwards.
pub fn vsock_connect_host(port: u32) -> io::Result<OwnedFd> {
    let socket = vsock_socket(0)?;
    let address = vsock_address(libc::VMADDR_CID_HOST, port);
    let length = size_of::<libc::sockaddr_vm>() as libc::socklen_t;
    // SAFETY: the address is a live sockaddr_vm of the given length.
    check(unsafe { libc::connect(socket.as_raw_fd(), (&raw const address).cast(), length) })?;
    rustix::io::ioctl_fionbio(&socket, true)?;
    Ok(socket)
}

fn vsock_socket(flags: i32) -> io::Result<OwnedFd> {
    // SAFETY: a new descriptor, owned by nobody else.
    let socket = unsafe {
        OwnedFd::from_raw_fd(check(libc::socket(libc::AF_VSOCK, libc::SOCK_STREAM | libc::SOCK_CLOEXEC | flags, 0))?)
    };
    let window = VSOCK_WINDOW;
    for option in [SO_VM_SOCKETS_BUFFER_MAX_SIZE, SO_VM_SOCKETS_BUFFER_SIZE] {
        let length = size_of::<u64>() as libc::socklen_t;
        // SAFETY: the option takes a u64, which lives.
        check(unsafe {
            libc::setsockopt(socket.as_raw_fd(), libc::AF_VSOCK, option, (&raw const window).cast(), length)
        })?;
    }
    Ok(socket)
}

fn vsock_address(cid: u32, port: u32) -> libc::sockaddr_vm {
    // SAFETY: an all-zero sockaddr_vm is valid.
    let mut address: libc::sockaddr_vm = unsafe { std::mem::zeroed() };
    address.svm_family = libc::AF_VSOCK as libc::sa_family_t;
    address.svm_cid = cid;
    address.svm_port = port;
    address
}

/// Tells the monitor of this machine with which status to end (an ioctl of its file system, see libkrun's `AugmentFs`).
pub fn set_machine_status(code: u8) {
    const EXIT_CODE: libc::Ioctl = 0x7602;
    if let Ok(root) =
        rustix::fs::open("/", rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC, rustix::fs::Mode::empty())
    {
        // SAFETY: the request passes its argument as a number. Another file system refuses it.
        unsafe { libc::ioctl(root.as_raw_fd(), EXIT_CODE, libc::c_ulong::from(code)) };
    }
}

fn check(result: i32) -> io::Result<i32> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}
