//! Applies patches through the agent of the fresh sandbox, before any other client can reach the sandbox. The agent
//! resolves their paths inside the sandbox, so no path of an image can lead to a file of the host.

use std::path::Path;

use futures::TryStreamExt as _;
use microsandbox_core::agent::{AgentAddress, AgentClient, Dialer};
use microsandbox_core::backend::Files;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::guest_dirs::GuestDirs;
use microsandbox_core::host_tree::{self, Bits};
use microsandbox_core::model::{FsAttributes, FsEntryKind, Patch};
use microsandbox_home::Home;
use tokio::net::UnixStream;

/// The agent of a fresh sandbox, for copies from this machine.
pub struct PatchDialer<'a> {
    pub address: AgentAddress,
    pub home: &'a Home,
}

impl Dialer for PatchDialer<'_> {
    type Stream = UnixStream;

    async fn dial(&self) -> MicrosandboxResult<AgentClient> {
        self.address.dial().await
    }
    fn guest_dirs(&self) -> MicrosandboxResult<GuestDirs> {
        GuestDirs::of(&self.home.config().home)
    }
}

/// Applies the patches in order and stops at the first that fails.
pub async fn apply(files: &dyn Files, patches: &[Patch]) -> MicrosandboxResult<()> {
    for patch in patches {
        let target = patch.target();
        let there = kind_of(files, target).await.map_err(|error| patch.failed(error))?;
        if there.is_some() && !patch.replaces() {
            return Err(patch.failed("it exists already; replace=True allows that"));
        }
        if there.is_none() && matches!(patch, Patch::Append { .. }) {
            return Err(patch.failed("there is no such file to append to"));
        }
        one(files, patch, there).await.map_err(|error| patch.failed(error))?;
    }
    Ok(())
}

/// Of the path itself, not of what a link leads to.
async fn kind_of(files: &dyn Files, path: &str) -> MicrosandboxResult<Option<FsEntryKind>> {
    match files.stat(path, false).await {
        Ok(found) => Ok(Some(found.kind)),
        Err(MicrosandboxError::PathNotFound { .. }) => Ok(None),
        Err(error) => Err(error),
    }
}

async fn one(files: &dyn Files, patch: &Patch, there: Option<FsEntryKind>) -> MicrosandboxResult<()> {
    match patch {
        Patch::File { path, content, mode, .. } => {
            parent(files, path).await?;
            files.write(path, content.clone()).await?;
            set_mode(files, path, *mode).await
        }
        Patch::Mkdir { path, mode } => {
            files.mkdir(path).await?;
            set_mode(files, path, *mode).await
        }
        Patch::Append { path, content } => {
            // Piece by piece: how long the file is, the image decides.
            let mut old = files.read_stream(path).await?;
            let sink = files.write_stream(path).await?;
            while let Some(piece) = old.try_next().await? {
                sink.write(piece).await?;
            }
            sink.write(content.clone()).await?;
            sink.close().await
        }
        Patch::CopyFile { src, dst, mode, .. } => {
            parent(files, dst).await?;
            files.copy_from_host(src, dst, None).await?;
            set_mode(files, dst, *mode).await
        }
        Patch::CopyDir { src, dst, .. } => copy_dir(files, src, dst).await,
        Patch::Symlink { target, link, .. } => {
            parent(files, link).await?;
            remove(files, link, there).await?;
            files.symlink(target, link).await
        }
        Patch::Remove { path } => remove(files, path, there).await,
    }
}

async fn parent(files: &dyn Files, path: &str) -> MicrosandboxResult<()> {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some((parent, _)) if !parent.is_empty() => files.mkdir(parent).await,
        _ => Ok(()),
    }
}

async fn set_mode(files: &dyn Files, path: &str, mode: Option<u32>) -> MicrosandboxResult<()> {
    match mode {
        Some(_) => files.set(path, FsAttributes { mode, ..FsAttributes::default() }).await,
        None => Ok(()),
    }
}

async fn remove(files: &dyn Files, path: &str, there: Option<FsEntryKind>) -> MicrosandboxResult<()> {
    match there {
        Some(kind) => files.remove(path, kind == FsEntryKind::Directory).await,
        None => Ok(()),
    }
}

/// With what it has of set-id bits: it is the image's maker who says so.
async fn copy_dir(files: &dyn Files, src: &Path, dst: &str) -> MicrosandboxResult<()> {
    let left_out = host_tree::send(files, src, dst, Bits::All).await?;
    match left_out.first() {
        None => Ok(()),
        Some(first) => {
            let text = format!("{first} is no file, directory or link");
            Err(MicrosandboxError::io("read", src, std::io::Error::new(std::io::ErrorKind::InvalidInput, text)))
        }
    }
}
