//! Paths that were resolved before the launch, opened once more.

use std::path::Path;

use microsandbox_contract::Pinned;
use microsandbox_rooted::named;
use rustix::fd::OwnedFd;
use rustix::fs::{self, Mode, OFlags};
use rustix::io::Errno;

/// The hint for `ESTALE`.
pub const HINT: &str = "another program put something else in its place while the sandbox started; start it again";

/// An `O_PATH` descriptor. Of a path among `pins`: through no link, and `ESTALE` if something else has its place now.
pub fn open(path: &Path, pins: &[Pinned], flags: OFlags) -> Result<OwnedFd, Errno> {
    match pins.iter().find(|pin| pin.path == path) {
        Some(pin) => named::open_again(path, (pin.device, pin.inode), flags),
        None => fs::open(path, OFlags::PATH | OFlags::CLOEXEC | flags, Mode::empty()),
    }
}
