//! The files of a sandbox and of a volume, bound to the backend: the calls are those of [`Files`].

use std::ops::Deref;

use crate::backend::{Files, SharedBackend};

/// Guest files of one sandbox; paths are absolute guest paths. Each call has a connection of its own.
///
/// ```ignore
/// sandbox.fs().write("/tmp/a", "text".into()).await?;
/// ```
pub struct SandboxFs<'a> {
    files: Box<dyn Files + 'a>,
}

impl<'a> SandboxFs<'a> {
    /// Connects to nothing.
    pub fn with_backend(backend: &'a SharedBackend, name: &'a str) -> Self {
        SandboxFs { files: backend.sandboxes().agent(name).files() }
    }
}

impl<'a> Deref for SandboxFs<'a> {
    type Target = dyn Files + 'a;
    fn deref(&self) -> &Self::Target {
        &*self.files
    }
}

/// Files of one volume; paths are relative to its root and never leave it.
pub struct VolumeFs<'a> {
    files: Box<dyn Files + 'a>,
}

impl<'a> VolumeFs<'a> {
    /// Connects to nothing.
    pub fn with_backend(backend: &'a SharedBackend, name: &'a str) -> Self {
        VolumeFs { files: backend.volumes().files(name) }
    }
}

impl<'a> Deref for VolumeFs<'a> {
    type Target = dyn Files + 'a;
    fn deref(&self) -> &Self::Target {
        &*self.files
    }
}
