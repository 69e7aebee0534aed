//! A directory as a tar archive, for a client that reads it in steps.

use microsandbox_protocol::names::to_text;
use microsandbox_rooted::pack::{Failure, Owners, Pack as Packing, Rules};
use rustix::fs::{Mode, OFlags};

use super::error::{FsError, check_path};
use super::root::Root;

/// The transfer. Fifos, sockets and devices are left out: they mean nothing elsewhere; a comment in the archive names them.
pub struct Pack {
    path: String,
    /// The directory itself is an entry.
    top: bool,
    packing: Option<Box<Packing>>,
    /// Bytes produced so far.
    pub total: u64,
}

impl Pack {
    pub fn new(path: String, top: bool) -> Pack {
        Pack { path, top, packing: None, total: 0 }
    }

    /// The next bytes of the archive, about `budget`, and whether they were the last.
    pub fn step(&mut self, root: &Root, budget: usize) -> Result<(Vec<u8>, bool), FsError> {
        let packing = match &mut self.packing {
            Some(packing) => packing,
            empty => empty.insert(Box::new(begin(root, &self.path, self.top)?)),
        };
        let (chunk, ended) = packing.step(budget).map_err(|failure| stopped(failure, &self.path))?;
        self.total += chunk.len() as u64;
        Ok((chunk, ended))
    }
}

fn begin(root: &Root, path: &str, with_top: bool) -> Result<Packing, FsError> {
    check_path(path)?;
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let top = root
        .open(path, flags, Mode::empty())
        .and_then(|top| Packing::new(top, Rules { owners: Owners::Kept, mode: 0o7777, with_top }));
    top.map_err(|error| FsError::at(error, "cannot archive", path))
}

fn stopped(failure: Failure, base: &str) -> FsError {
    match failure {
        Failure::TooDeep { depth } => {
            FsError::limit(format!("{base} is deeper than {depth} directories: archive the deeper ones by themselves"))
        }
        Failure::TooMany { what, limit } => {
            FsError::limit(format!("{base} has more than {limit} bytes of {what}: archive parts of it"))
        }
        Failure::Io { path, errno } if path.is_empty() => FsError::at(errno, "cannot read below", base),
        Failure::Io { path, errno } => {
            FsError::at(errno, "cannot archive", &format!("{}/{}", base.trim_end_matches('/'), to_text(&path)))
        }
    }
}
