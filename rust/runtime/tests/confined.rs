//! E8: what Landlock leaves the supervisor. Each test confines a thread of its own, as the kernel does it, so the process
//! that runs the tests stays as it is.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use crate::support::{Runtime, Scratch, eventually, is_root, read, spec};
use microsandbox_contract::MechanismState;
use microsandbox_jail::landlock::confine_supervisor;
use microsandbox_jail::seccomp;
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// Runs `inside` on a thread that is confined to `own`; `None`, with the reason printed, where the kernel lacks it.
fn confined<T: Send>(own: &Path, inside: impl FnOnce() -> T + Send) -> Option<T> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let line = confine_supervisor(own, &[]);
            if line.state != MechanismState::On {
                eprintln!("skipped: landlock is {:?}: {:?}", line.state, line.reason);
                return None;
            }
            Some(inside())
        });
        thread.join().unwrap()
    })
}

fn denied<T>(what: &str, result: Result<T, Errno>, expected: &[Errno]) {
    match result {
        Ok(_) => panic!("{what} was allowed"),
        Err(errno) => assert!(expected.contains(&errno), "{what}: {errno}"),
    }
}

fn io<T>(result: std::io::Result<T>) -> Result<T, Errno> {
    result.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))
}

// hazard: E8
#[test]
fn the_supervisor_reaches_its_own_directory_and_nothing_else() {
    let scratch = Scratch::new("confined");
    let (own, other) = (scratch.sandbox("own"), scratch.sandbox("other"));
    let (inside, outside) = (own.join("log"), other.join("secret"));
    std::fs::write(&inside, "mine").unwrap();
    std::fs::write(&outside, "theirs").unwrap();
    let mut before = File::open(&outside).unwrap();
    confined(&own, || {
        std::fs::write(own.join("new"), "x").unwrap();
        std::fs::rename(own.join("new"), own.join("log.1")).unwrap();
        assert_eq!(std::fs::read_to_string(&inside).unwrap(), "mine");

        let no = [Errno::ACCESS];
        denied("reading outside", io(File::open(&outside)), &no);
        denied("reading /etc", io(std::fs::read("/etc/hostname")), &no);
        denied("writing outside", io(File::options().write(true).open(&outside)), &no);
        denied("truncating outside", io(File::options().write(true).truncate(true).open(&outside)), &no);
        denied("making a file outside", io(File::create(other.join("new"))), &no);
        denied("listing outside", io(std::fs::read_dir(&other)), &no);
        denied("removing outside", io(std::fs::remove_file(&outside)), &no);
        let across = [Errno::ACCESS, Errno::XDEV];
        denied("renaming out", io(std::fs::rename(&inside, other.join("moved"))), &across);
        denied("renaming in", io(std::fs::rename(&outside, own.join("moved"))), &across);
        denied("linking in", io(std::fs::hard_link(&outside, own.join("linked"))), &across);
        let flags = OFlags::TMPFILE | OFlags::RDWR;
        denied("a nameless file outside", rustix::fs::openat(CWD, &other, flags, Mode::RWXU), &no);
        // What was open before stays open, as documented; its name in /proc opens nothing anew.
        let again = format!("/proc/self/fd/{}", before.as_raw_fd());
        denied("opening an earlier descriptor anew", io(File::options().write(true).open(&again)), &no);
        denied("reading an earlier descriptor anew", io(File::open(&again)), &no);
        let mut text = String::new();
        before.read_to_string(&mut text).unwrap();
        assert_eq!(text, "theirs");
    });
}

// hazard: E8
#[test]
fn the_supervisor_reaches_no_outside_process_or_socket() {
    let scratch = Scratch::new("scoped");
    let own = scratch.sandbox("own");
    let name = SocketAddr::from_abstract_name(format!("msb-e8-{}", std::process::id())).unwrap();
    let _listener = UnixListener::bind_addr(&name).unwrap();
    confined(&own, || {
        // The test's parent: a process outside of the domain. Signal 0 asks and does nothing.
        let parent = rustix::process::getppid().unwrap();
        denied("a signal", rustix::process::test_kill_process(parent), &[Errno::PERM]);
        denied("an abstract socket", io(UnixStream::connect_addr(&name)), &[Errno::PERM]);
    });
}

/// Runs `inside` on a thread that has this filter.
fn filtered<T: Send>(filter: fn() -> Result<(), Errno>, inside: impl FnOnce() -> T + Send) -> T {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            rustix::thread::set_no_new_privs(true).unwrap();
            filter().unwrap();
            inside()
        });
        thread.join().unwrap()
    })
}

// hazard: E8
#[test]
fn the_runtimes_filters_leave_no_program_process_or_socket() {
    let scratch = Scratch::new("filtered");
    let file = scratch.0.join("file");
    for filter in [seccomp::confine_supervisor, seccomp::confine_unpacker] {
        filtered(filter, || {
            let no = [Errno::NOSYS];
            denied("a socket", io(UnixStream::pair()), &no);
            denied("a network", io(std::net::TcpStream::connect("127.0.0.1:1")), &no);
            #[allow(clippy::disallowed_methods, reason = "the attempt to start one")]
            let program = std::process::Command::new("/bin/true").status();
            denied("a program", io(program), &[Errno::NOSYS, Errno::PERM]);
            denied("a session", rustix::process::setsid(), &no);
            denied("another identity", rustix::thread::set_thread_uid(rustix::fs::Uid::ROOT), &no);
            std::fs::write(&file, "what it is there for").unwrap();
            std::fs::remove_file(&file).unwrap();
        });
    }
    filtered(seccomp::confine_unpacker, || {
        denied("a process", microsandbox_sys::process::fork(), &[Errno::PERM]);
        std::thread::spawn(|| ()).join().unwrap();
    });
    filtered(seccomp::confine_supervisor, || denied("a process", microsandbox_sys::process::fork(), &[Errno::NOSYS]));
}

// hazard: E8
#[test]
fn a_supervisor_has_its_filter_once_it_reported_ready() {
    if !is_root() {
        return;
    }
    let scratch = Scratch::new("supervisor");
    let runtime = Runtime::launch(&spec(&scratch.sandbox("s"), ""));
    let ready = runtime.ready();
    let status = format!("/proc/{}/status", ready.identity.runtime.pid);
    eventually("the supervisor has no filter", || read(&status).lines().any(|line| line == "Seccomp:\t2"));
    assert_eq!(runtime.end(), 0);
}
