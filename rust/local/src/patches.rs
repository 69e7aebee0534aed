//! Applies patches through the agent of the fresh sandbox, before any other client can reach the sandbox. The agent
//! resolves their paths inside the sandbox, so no path of an image can lead to a file of the host.

use std::fs::{File, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use bytes::Bytes;
use tokio::sync::mpsc;

use microsandbox_core::backend::Files;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{FsAttributes, FsEntryKind, Patch};

/// Bytes of an archive per piece.
const PIECE: usize = 1 << 20;
/// Pieces between the reader of the host's tree and the sandbox.
const QUEUE: usize = 4;

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
            let old = files.read(path).await?;
            files.write(path, [old, content.clone()].concat().into()).await
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

/// As one archive that is made while it goes over.
async fn copy_dir(files: &dyn Files, src: &Path, dst: &str) -> MicrosandboxResult<()> {
    let sink = files.write_tar(dst).await?;
    let (sender, mut pieces) = mpsc::channel(QUEUE);
    let (from, shown) = (src.to_owned(), src.to_owned());
    let reading = tokio::task::spawn_blocking(move || archive(&from, Pieces { sender, held: Vec::new() }));
    while let Some(piece) = pieces.recv().await {
        sink.write(piece).await?;
    }
    let read =
        reading.await.map_err(|error| MicrosandboxError::Runtime(format!("a file task ended early: {error}")))?;
    read.map_err(|error| MicrosandboxError::io("read", &shown, error))?;
    sink.close().await
}

/// Whoever makes the archive writes here; the sandbox takes it piece by piece.
struct Pieces {
    sender: mpsc::Sender<Bytes>,
    held: Vec<u8>,
}

impl Write for Pieces {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.held.extend_from_slice(data);
        if self.held.len() >= PIECE {
            self.flush()?;
        }
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        let piece = std::mem::take(&mut self.held).into();
        self.sender.blocking_send(piece).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }
}

fn archive(src: &Path, pieces: Pieces) -> io::Result<()> {
    let mut archive = tar::Builder::new(pieces);
    let mut todo = vec![(src.to_owned(), std::path::PathBuf::new())];
    while let Some((directory, inside)) = todo.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let (path, inside) = (entry.path(), inside.join(entry.file_name()));
            let metadata = entry.metadata()?;
            let mut header = header(&metadata);
            if metadata.is_dir() {
                header.set_entry_type(tar::EntryType::Directory);
                archive.append_data(&mut header, &inside, io::empty())?;
                todo.push((path, inside));
            } else if metadata.is_symlink() {
                header.set_entry_type(tar::EntryType::Symlink);
                archive.append_link(&mut header, &inside, std::fs::read_link(path)?)?;
            } else if metadata.is_file() {
                header.set_size(metadata.len());
                // No more than was announced, should it grow.
                archive.append_data(&mut header, &inside, io::Read::take(File::open(path)?, metadata.len()))?;
            } else {
                let text = format!("{} is no file, directory or link", path.display());
                return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
            }
        }
    }
    archive.into_inner()?.flush()
}

/// Owned by root, as what an image brings is.
fn header(metadata: &Metadata) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(tar::EntryType::Regular);
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_size(0);
    let modified = metadata.modified().ok().and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok());
    header.set_mtime(modified.map_or(0, |since| since.as_secs()));
    header.set_uid(0);
    header.set_gid(0);
    header
}
