//! Open files and directories of one connection.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use rustix::fs::Dir;

use super::error::FsError;

/// Open handles of one connection.
pub const MAX_HANDLES: usize = 256;

pub struct Handle {
    pub fd: OwnedFd,
    /// As the client named it; for messages and entry paths.
    pub path: String,
    /// The position of a listing.
    pub listing: Option<Mutex<Dir>>,
}

#[derive(Default)]
pub struct Handles {
    open: HashMap<u64, Arc<Handle>>,
    last: u64,
}

impl Handles {
    pub fn insert(&mut self, handle: Handle) -> Result<u64, FsError> {
        if self.open.len() >= MAX_HANDLES {
            return Err(FsError::limit(format!("{MAX_HANDLES} handles are open on this connection (fs.handles)")));
        }
        self.last += 1;
        self.open.insert(self.last, Arc::new(handle));
        Ok(self.last)
    }

    pub fn get(&self, handle: u64) -> Result<Arc<Handle>, FsError> {
        self.open.get(&handle).cloned().ok_or_else(|| unknown(handle))
    }

    pub fn remove(&mut self, handle: u64) -> Result<(), FsError> {
        self.open.remove(&handle).map(drop).ok_or_else(|| unknown(handle))
    }
}

fn unknown(handle: u64) -> FsError {
    FsError { kind: "EBADF", errno: Some(libc::EBADF), message: format!("handle {handle} is not open") }
}
