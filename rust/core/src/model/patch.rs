//! Changes of a root file system between the first boot and the first program.

use std::path::PathBuf;

use bytes::Bytes;

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// One change. Guest paths are absolute; `mode` is permission bits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Patch {
    /// A file with this content; missing parents are made.
    File {
        path: String,
        content: Bytes,
        mode: Option<u32>,
        replace: bool,
    },
    /// A directory and its parents; an existing one is fine.
    Mkdir {
        path: String,
        mode: Option<u32>,
    },
    /// Content at the end of a file that exists.
    Append {
        path: String,
        content: Bytes,
    },
    /// A file of the host.
    CopyFile {
        src: PathBuf,
        dst: String,
        mode: Option<u32>,
        replace: bool,
    },
    /// A directory of the host with all that is in it, owned by root.
    CopyDir {
        src: PathBuf,
        dst: String,
        replace: bool,
    },
    Symlink {
        target: String,
        link: String,
        replace: bool,
    },
    /// A file or tree is not there afterwards.
    Remove {
        path: String,
    },
}

impl Patch {
    /// The guest path that it changes.
    pub fn target(&self) -> &str {
        match self {
            Patch::File { path, .. }
            | Patch::Mkdir { path, .. }
            | Patch::Append { path, .. }
            | Patch::Remove { path } => path,
            Patch::CopyFile { dst, .. } | Patch::CopyDir { dst, .. } => dst,
            Patch::Symlink { link, .. } => link,
        }
    }

    /// Whether an existing target is allowed.
    pub fn replaces(&self) -> bool {
        match self {
            Patch::File { replace, .. }
            | Patch::CopyFile { replace, .. }
            | Patch::CopyDir { replace, .. }
            | Patch::Symlink { replace, .. } => *replace,
            Patch::Mkdir { .. } | Patch::Append { .. } | Patch::Remove { .. } => true,
        }
    }

    pub fn failed(&self, why: impl std::fmt::Display) -> MicrosandboxError {
        MicrosandboxError::PatchFailed { path: self.target().to_owned(), message: why.to_string() }
    }

    /// Refuses, before anything is made, what no root file system could take.
    pub fn check(&self) -> MicrosandboxResult<()> {
        let target = self.target();
        if !target.starts_with('/') {
            return Err(self.failed("the path must be absolute"));
        }
        let mut depth = 0_i32;
        for part in target.split('/') {
            depth += match part {
                "" | "." => 0,
                ".." => -1,
                _ => 1,
            };
            if depth < 0 {
                return Err(self.failed("the path leads out of the root"));
            }
        }
        if depth == 0 {
            return Err(self.failed("the root itself cannot be changed"));
        }
        match self {
            Patch::CopyFile { src, .. } => self.check_source(src, std::fs::Metadata::is_file, "a regular file"),
            Patch::CopyDir { src, .. } => self.check_source(src, std::fs::Metadata::is_dir, "a directory"),
            _ => Ok(()),
        }
    }

    fn check_source(
        &self,
        src: &std::path::Path,
        fits: fn(&std::fs::Metadata) -> bool,
        wanted: &str,
    ) -> MicrosandboxResult<()> {
        match std::fs::metadata(src) {
            Ok(metadata) if fits(&metadata) => Ok(()),
            Ok(_) => Err(self.failed(format!("{} is not {wanted}", src.display()))),
            Err(error) => Err(self.failed(format!("{}: {error}", src.display()))),
        }
    }
}
