//! The agent as the first process of its own kernel. What the jail of a container prepares from outside (kernel file
//! systems, loopback, host name, limits) it does itself here, and it ends the machine when it ends.
//!
//! Everything here runs inside the guest, on the guest's own kernel: nothing of the host is within reach.

pub mod handover;
pub mod init;

use std::io;
use std::os::fd::OwnedFd;

use microsandbox_protocol::capabilities::PROGRAM_CAPABILITIES;
use microsandbox_protocol::machine::{AGENT_PORT, CONTROL_PORT, ENDED_WITHOUT_AGENT, INIT_ARGUMENT};
use microsandbox_protocol::message::{Machine, MachineTmpfs};
use microsandbox_sys::{file, inherited, network};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, mount};
use rustix::process::{Resource, Rlimit};
use rustix::thread::CapabilitySet;

use crate::files::root::Root;

/// Kernel file systems: kind, place, flags, options. A place that the image made something else of is left alone.
const FILE_SYSTEMS: [(&str, &str, MountFlags, &str); 5] = [
    ("proc", "/proc", LOCKED, ""),
    ("sysfs", "/sys", LOCKED, ""),
    ("devtmpfs", "/dev", MountFlags::NOSUID.union(MountFlags::NOEXEC), "mode=0755"),
    ("devpts", "/dev/pts", MountFlags::NOSUID.union(MountFlags::NOEXEC), "newinstance,ptmxmode=0666,mode=620,gid=5"),
    ("mqueue", "/dev/mqueue", LOCKED, ""),
];
const LOCKED: MountFlags = MountFlags::NOSUID.union(MountFlags::NODEV).union(MountFlags::NOEXEC);
/// Made in `/dev`, which the kernel fills with devices only.
const DEVICE_LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/ptmx", "pts/ptmx"),
];
/// Devices that every user may open; the kernel gives them to root alone.
const OPEN_DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// All that `net.ipv4.ping_group_range` takes (Linux, `ip-sysctl.rst`).
const PING_GROUPS: &str = "0 2147483647";

/// Whether the kernel has started this program as its first process.
pub fn is_ours() -> bool {
    rustix::process::getpid().as_raw_nonzero().get() == 1
        && std::env::args_os().nth(1).is_some_and(|argument| argument == INIT_ARGUMENT)
}

/// The limits that programs start with, those of an init of the image's included: the kernel's own for its first process
/// are those of its version, and allow few open files.
pub fn set_limits() {
    let files = Rlimit { current: Some(1024), maximum: Some(inherited::OPEN_FILES) };
    // Refused only beyond the kernel's own bound, which is this one unless it was built otherwise.
    let _ = rustix::process::setrlimit(Resource::Nofile, files);
    inherited::reset_limits();
    inherited::settle_ceilings(std::iter::empty());
}

/// Mounts what a Linux program expects, then opens the way to the host: the listening socket and the private channel.
pub fn begin() -> io::Result<(OwnedFd, OwnedFd)> {
    file::set_machine_status(ENDED_WITHOUT_AGENT);
    // For programs, not for this process: a machine without ACPI that a program powers off would halt, never to be heard of
    // again. They ask their init instead ([`crate::machine::init::END_REQUESTS`]), as in a container.
    rustix::thread::remove_capability_from_bounding_set(CapabilitySet::SYS_BOOT)
        .map_err(|error| named("keep reboot(2) from programs", error))?;
    // As in a container: neither device nodes nor set-uid bits of an image count, and with that no exec asks the host for
    // the capabilities of its file. What the host has mounted below it takes this over.
    rustix::mount::mount_remount("/", MountFlags::BIND | MountFlags::NOSUID | MountFlags::NODEV, "")
        .map_err(|error| named("restrict the root mount", error))?;
    for (kind, place, flags, options) in FILE_SYSTEMS {
        // `/dev/pts` and the like: inside what was mounted before.
        let _ = rustix::fs::mkdir(place, Mode::from_raw_mode(0o755));
        match mount_at(kind, place, flags, options) {
            // The kernel may have mounted its devices already, as it thinks right.
            Err(Errno::BUSY) => rustix::mount::mount_remount(place, MountFlags::BIND | flags, "")
                .map_err(|error| named(&format!("restrict {place}"), error))?,
            // It need not know every kind.
            Ok(()) | Err(Errno::NODEV) => {}
            Err(error) if place == "/proc" || place == "/dev" => return Err(named(&format!("mount {place}"), error)),
            Err(_) => {}
        }
    }
    for (link, target) in DEVICE_LINKS {
        let _ = rustix::fs::unlink(link);
        rustix::fs::symlink(target, link).map_err(|error| named(&format!("make {link}"), error))?;
    }
    for device in OPEN_DEVICES {
        let _ = rustix::fs::chmod(format!("/dev/{device}"), Mode::from_raw_mode(0o666));
    }
    quiet_standard_streams()?;
    // Every group may `ping`; a kernel without the setting has no such sockets either.
    let _ = std::fs::write("/proc/sys/net/ipv4/ping_group_range", PING_GROUPS);
    let socket = rustix::net::socket(rustix::net::AddressFamily::INET, rustix::net::SocketType::DGRAM, None)
        .map_err(io::Error::from)?;
    network::loopback_up(&socket).map_err(|error| named("bring up the loopback", error))?;
    let listener = network::vsock_listen(AGENT_PORT)?;
    let control = network::vsock_connect_host(CONTROL_PORT)?;
    Ok((listener, control))
}

/// Applies what the runtime asked for; programs start only after it.
pub fn settle(machine: &Machine, restricted: bool) -> io::Result<()> {
    rustix::system::sethostname(machine.hostname.as_bytes()).map_err(|error| named("set the host name", error))?;
    let _ = rustix::fs::mkdir("/dev/shm", Mode::from_raw_mode(0o1777));
    let plain = MountFlags::NOSUID | MountFlags::NODEV;
    let size = format!("mode=1777,size={}", machine.shm_bytes);
    mount_at("tmpfs", "/dev/shm", plain, &size).map_err(|error| named("mount /dev/shm", error))?;
    for tmpfs in &machine.tmpfs {
        mount_tmpfs(tmpfs).map_err(|error| named(&format!("mount {}", tmpfs.target), error))?;
    }
    limit_processes(machine.pids)?;
    if restricted { restrict_programs() } else { Ok(()) }
}

/// What root among the programs of a restricted machine may do: as much as in a container. Among what is missing is what would
/// bring the rest back: mounts (SYS_ADMIN), the memory of this process (SYS_PTRACE) and of the kernel (SYS_RAWIO, SYS_MODULE, BPF),
/// and the limit below (SYS_RESOURCE).
const RESTRICTED: CapabilitySet = CapabilitySet::from_bits_retain(PROGRAM_CAPABILITIES);

/// Programs inherit it from this thread, which starts them; what this process has already, it keeps.
fn restrict_programs() -> io::Result<()> {
    for number in 0..64u32 {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match rustix::thread::capability_is_in_bounding_set(capability) {
            Ok(true) if !RESTRICTED.contains(capability) => {
                rustix::thread::remove_capability_from_bounding_set(capability)
                    .map_err(|error| named("restrict the capabilities of programs", error))?;
            }
            Ok(_) => {}
            // The kernel knows no capability of this number, nor any beyond it.
            Err(Errno::INVAL) => break,
            Err(error) => return Err(named("look at the capabilities of programs", error)),
        }
    }
    // In a user namespace of its own a program would have all of them again. A kernel without these has no such file.
    match std::fs::write("/proc/sys/user/max_user_namespaces", "0") {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            return Err(io::Error::new(error.kind(), format!("refuse user namespaces: {error}")));
        }
        _ => {}
    }
    rustix::thread::set_no_new_privs(true).map_err(|error| named("refuse programs new privileges", error))
}

/// Beneath the root and through its own descriptor, so that a link in the image leads nowhere else.
fn mount_tmpfs(tmpfs: &MachineTmpfs) -> Result<(), Errno> {
    let root = Root::of_process()?;
    let target = root.open(&tmpfs.target, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    let place = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&target));
    let options = format!("mode={:o},size={}", tmpfs.mode & 0o7777, tmpfs.size_bytes);
    let mut flags = MountFlags::NOSUID | MountFlags::NODEV;
    flags.set(MountFlags::RDONLY, tmpfs.readonly);
    flags.set(MountFlags::NOEXEC, tmpfs.noexec);
    mount_at("tmpfs", &place, flags, &options)
}

/// The kernel counts its own threads too, so the limit starts from those that exist before any program does.
fn limit_processes(pids: u32) -> io::Result<()> {
    let load = std::fs::read_to_string("/proc/loadavg")?;
    let own: u64 = load
        .split_whitespace()
        .nth(3)
        .and_then(|field| field.split_once('/')?.1.parse().ok())
        .ok_or_else(|| io::Error::other("count the threads of the kernel: /proc/loadavg has another form"))?;
    let limit = own + u64::from(pids);
    std::fs::write("/proc/sys/kernel/threads-max", limit.to_string())
}

fn mount_at(kind: &str, place: &str, flags: MountFlags, options: &str) -> Result<(), Errno> {
    let options = std::ffi::CString::new(options).map_err(|_| Errno::INVAL)?;
    mount(kind, place, kind, flags, options.as_c_str())
}

fn named(what: &str, error: Errno) -> io::Error {
    let error = io::Error::from(error);
    io::Error::new(error.kind(), format!("{what}: {error}"))
}

/// Standard input and output become `/dev/null`; standard error stays the console, which the runtime keeps.
fn quiet_standard_streams() -> io::Result<()> {
    let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
    rustix::stdio::dup2_stdin(&null)?;
    rustix::stdio::dup2_stdout(&null)?;
    if rustix::fs::fstat(rustix::stdio::stderr()).is_err() {
        let console = rustix::fs::open("/dev/console", OFlags::WRONLY | OFlags::NOCTTY, Mode::empty());
        rustix::stdio::dup2_stderr(console.as_ref().unwrap_or(&null))?;
    }
    Ok(())
}

/// Writes every file system back and ends the machine; the host sees `code` as the monitor's own.
pub fn power_off(code: u8) -> ! {
    rustix::fs::sync();
    file::set_machine_status(code);
    loop {
        // Refused only without the privilege that the first process always has.
        let _ = rustix::system::reboot(rustix::system::RebootCommand::Restart);
        std::thread::sleep(std::time::Duration::from_secs(1));
    }
}
