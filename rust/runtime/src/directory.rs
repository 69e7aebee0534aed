//! The sandbox directory: the runtime keeps it open and reaches everything in it by descriptor.

use std::path::Path;

use microsandbox_rooted::{make, remove};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{self, AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, socket_with};

/// What helps when something cannot be made in it.
pub const HINT: &str = "check that the product home exists, is writable for the user who runs this and has free space";

/// `<home>/sandboxes/<name>` with the parts that the runtime writes to.
pub struct SandboxDir {
    pub root: OwnedFd,
    pub logs: OwnedFd,
    pub runtime: OwnedFd,
}

impl SandboxDir {
    /// Opens it, making the parts that are missing. `upper` and `work` are handed to the inside root.
    pub fn open(path: &Path, inside_root: (u32, u32)) -> Result<SandboxDir, Errno> {
        let root = fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
        let logs = subdirectory(&root, "logs", 0o700)?;
        let runtime = subdirectory(&root, "runtime", 0o700)?;
        for name in ["upper", "work"] {
            let mode = if name == "upper" { 0o755 } else { 0o700 };
            let dir = subdirectory(&root, name, mode)?;
            let stat = fs::fstat(&dir)?;
            if (stat.st_uid, stat.st_gid) != inside_root {
                let (uid, gid) = (fs::Uid::from_raw(inside_root.0), fs::Gid::from_raw(inside_root.1));
                fs::fchown(&dir, Some(uid), Some(gid))?;
                fs::fchmod(&dir, Mode::from_raw_mode(mode))?;
            }
        }
        Ok(SandboxDir { root, logs, runtime })
    }
}

fn subdirectory(root: &OwnedFd, name: &str, mode: u32) -> Result<OwnedFd, Errno> {
    match fs::mkdirat(root, name, Mode::from_raw_mode(mode)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(error) => return Err(error),
    }
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    fs::openat(root, name, flags, Mode::empty())
}

/// Puts a file in place complete or not at all. Not synced: its content is about a process, and no process survives the
/// loss of power that a sync would guard against.
pub fn publish(dir: impl AsFd, name: &str, content: &[u8]) -> Result<(), Errno> {
    make::write_file(dir, name, content, 0o600)
}

/// Removes a file that may be absent.
pub fn remove_file(dir: impl AsFd, name: &str) -> Result<(), Errno> {
    match fs::unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Listens on a socket that only the owner of the directory can connect to, replacing one of before. Bound through the
/// directory's descriptor: the path may be longer than a socket address can hold.
pub fn listen(dir: impl AsFd, name: &str, flags: SocketFlags, backlog: i32) -> Result<OwnedFd, Errno> {
    let dir = dir.as_fd();
    remove_file(dir, name)?;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags | SocketFlags::CLOEXEC, None)?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{name}", dir.as_raw_fd()))?;
    let before = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = bind(&socket, &address);
    rustix::process::umask(before);
    bound?;
    net::listen(&socket, backlog)?;
    Ok(socket)
}

/// Moves a socket out of a directory that a tenant can write to. What the tenant left under that name is looked at where it can no
/// longer be exchanged: anything but a socket (a link to another socket of the user, for one) is removed, and `ENOTSOCK`.
pub fn take_socket(from: impl AsFd, to: impl AsFd, name: &str) -> Result<(), Errno> {
    let to = to.as_fd();
    fs::renameat(from, name, to, name)?;
    let taken = fs::openat(to, name, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if FileType::from_raw_mode(fs::fstat(&taken)?.st_mode) == FileType::Socket {
        return Ok(());
    }
    remove::entry(to, name.as_bytes())?;
    Err(Errno::NOTSOCK)
}

/// Opens `logs/` of a sandbox directory, making it if it is missing.
pub fn open_logs(path: &Path) -> Result<OwnedFd, Errno> {
    let root = fs::openat(CWD, path, OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    subdirectory(&root, "logs", 0o700)
}
