//! Guest files over the agent, whoever dials: a connection of their own each. Copies to and from this machine.

mod host_target;

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, TryStreamExt};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Mutex;

use crate::agent::{AgentClient, FileReader, FileWriter, check_path};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{
    FsAttributes, FsEntry, FsEntryKind, FsMetadata, FsReadStream, FsWatchStream, FsWriteSink, FsWriter,
    TransferProgress,
};
use host_target::HostTarget;

/// Read from a host file at once.
const HOST_CHUNK: usize = 1 << 20;

/// What an agent can be reached over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// A connection to come. Arguments are checked before it is awaited.
pub trait Dial<S>: Future<Output = MicrosandboxResult<AgentClient<S>>> {}
impl<S, F: Future<Output = MicrosandboxResult<AgentClient<S>>>> Dial<S> for F {}

/// The whole file.
pub async fn read<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<Bytes> {
    check_path("read", path)?;
    dial.await?.read_file(path)?.collect().await
}

/// The file in pieces, read from the sandbox as they are asked for. A missing file is the first item's error.
pub async fn read_stream<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<FsReadStream> {
    check_path("read", path)?;
    Ok(pieces(dial.await?.read_file(path)?))
}

fn pieces<S: Stream>(reader: FileReader<S>) -> FsReadStream {
    Box::pin(stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|data| (data, reader))) },
    ))
}

/// Creates or replaces the file at once: another reader sees the old or the new content, never a part.
pub async fn write<S: Stream>(dial: impl Dial<S>, path: &str, data: Bytes) -> MicrosandboxResult<()> {
    check_path("write", path)?;
    let mut writer = dial.await?.write_file(path, None)?;
    writer.write(data).await?;
    writer.finish().await
}

/// The same in pieces; the file is in place when `close` returned.
pub async fn write_stream<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<FsWriteSink> {
    check_path("write", path)?;
    Ok(sink(dial.await?.write_file(path, None)?))
}

fn sink<S: Stream>(writer: FileWriter<S>) -> FsWriteSink {
    Box::new(Sink { writer: Arc::new(Mutex::new(writer)) })
}

struct Sink<S> {
    writer: Arc<Mutex<FileWriter<S>>>,
}

impl<S: Stream> FsWriter for Sink<S> {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move { self.writer.lock().await.write(data).await })
    }
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move { self.writer.lock().await.finish().await })
    }
}

/// One level, sorted by path.
pub async fn list<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
    check_path("list", path)?;
    dial.await?.list(path).await
}

/// `follow`: of what a link in the last component leads to.
pub async fn stat<S: Stream>(dial: impl Dial<S>, path: &str, follow: bool) -> MicrosandboxResult<FsMetadata> {
    check_path("stat", path)?;
    dial.await?.stat("stat", path, follow).await
}

pub async fn set<S: Stream>(dial: impl Dial<S>, path: &str, attributes: FsAttributes) -> MicrosandboxResult<()> {
    check_path("set", path)?;
    dial.await?.set(path, attributes).await
}

pub async fn symlink<S: Stream>(dial: impl Dial<S>, target: &str, link: &str) -> MicrosandboxResult<()> {
    check_path("symlink", link)?;
    dial.await?.symlink(target, link).await
}

pub async fn readlink<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<String> {
    check_path("readlink", path)?;
    dial.await?.readlink(path).await
}

pub async fn realpath<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<String> {
    check_path("realpath", path)?;
    dial.await?.realpath(path).await
}

/// What is in a directory as a tar archive, made as it is asked for.
pub async fn read_tar<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<FsReadStream> {
    check_path("read_tar", path)?;
    Ok(pieces(dial.await?.read_tar(path)?))
}

/// A tar archive to be unpacked while it comes; it is all there when `close` returned.
pub async fn write_tar<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<FsWriteSink> {
    check_path("write_tar", path)?;
    Ok(sink(dial.await?.write_tar(path)?))
}

/// Changes from now on.
pub async fn watch<S: Stream>(dial: impl Dial<S>, path: &str, recursive: bool) -> MicrosandboxResult<FsWatchStream> {
    check_path("watch", path)?;
    let watcher = dial.await?.watch(path, recursive).await?;
    let events = stream::try_unfold(watcher, |mut watcher| async move {
        let events = watcher.next().await?;
        Ok::<_, MicrosandboxError>(events.map(|events| (stream::iter(events.into_iter().map(Ok)), watcher)))
    });
    Ok(Box::pin(events.try_flatten()))
}

pub async fn exists<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<bool> {
    check_path("exists", path)?;
    dial.await?.exists(path).await
}

pub async fn mkdir<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<()> {
    check_path("mkdir", path)?;
    dial.await?.mkdir(path).await
}

pub async fn remove<S: Stream>(dial: impl Dial<S>, path: &str, recursive: bool) -> MicrosandboxResult<()> {
    check_path("remove", path)?;
    dial.await?.remove(path, recursive).await
}

pub async fn copy<S: Stream>(dial: impl Dial<S>, from: &str, to: &str) -> MicrosandboxResult<()> {
    check_path("copy", from)?;
    check_path("copy", to)?;
    dial.await?.copy(from, to).await
}

pub async fn rename<S: Stream>(dial: impl Dial<S>, from: &str, to: &str) -> MicrosandboxResult<()> {
    check_path("rename", from)?;
    check_path("rename", to)?;
    dial.await?.rename(from, to).await
}

/// One regular host file to one guest file, with its permission bits (never setuid).
pub async fn copy_from_host<S: Stream>(
    dial: impl Dial<S>,
    host: &Path,
    guest: &str,
    progress: Option<TransferProgress>,
) -> MicrosandboxResult<()> {
    check_path("write", guest)?;
    let failed = |error| MicrosandboxError::io("read", host, error);
    let mut file = tokio::fs::File::open(host).await.map_err(failed)?;
    let metadata = file.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    file.set_max_buf_size(HOST_CHUNK);
    let mode = std::os::unix::fs::PermissionsExt::mode(&metadata.permissions()) & 0o777;
    let mut writer = dial.await?.write_file(guest, Some(mode))?;
    let mut tally = Tally { done: 0, total: metadata.len(), progress };
    loop {
        let mut chunk = BytesMut::with_capacity(HOST_CHUNK);
        let count = file.read_buf(&mut chunk).await.map_err(failed)?;
        if count == 0 {
            return writer.finish().await;
        }
        writer.write(chunk.freeze()).await?;
        tally.add(count);
    }
}

/// Tells how far a transfer is.
struct Tally {
    done: u64,
    /// As the source said at the start; it may have grown.
    total: u64,
    progress: Option<TransferProgress>,
}

impl Tally {
    fn add(&mut self, count: usize) {
        self.done += count as u64;
        if let Some(progress) = &self.progress {
            progress(self.done, Some(self.total.max(self.done)));
        }
    }
}

/// One regular guest file to one host file. The host file appears, or is replaced, complete; a symbolic link in its
/// place is refused; permission bits are the guest's without setuid, setgid and sticky, less the umask.
pub async fn copy_to_host<S: Stream>(
    dial: impl Dial<S>,
    guest: &str,
    host: &Path,
    progress: Option<TransferProgress>,
) -> MicrosandboxResult<()> {
    check_path("read", guest)?;
    let mut client = dial.await?;
    let stat = client.stat("read", guest, true).await?;
    if stat.kind != FsEntryKind::File {
        let (kind, errno) = match stat.kind {
            FsEntryKind::Directory => ("EISDIR", Some(libc::EISDIR)),
            _ => ("NotRegularFile", None),
        };
        return Err(MicrosandboxError::Filesystem {
            operation: "read".into(),
            path: guest.into(),
            kind: kind.into(),
            errno,
            message: "only a regular file can be copied to the host".into(),
        });
    }
    let mut reader = client.read_file(guest)?;
    let mut target = HostTarget::create(host, stat.mode & 0o777)?;
    let mut tally = Tally { done: 0, total: stat.size, progress };
    while let Some(data) = reader.next().await? {
        let count = data.len();
        target = write_blocking(target, data).await?;
        tally.add(count);
    }
    tokio::task::spawn_blocking(move || target.publish()).await.map_err(panicked)?
}

async fn write_blocking(mut target: HostTarget, data: Bytes) -> MicrosandboxResult<HostTarget> {
    tokio::task::spawn_blocking(move || target.write(&data).map(|()| target)).await.map_err(panicked)?
}

fn panicked(error: tokio::task::JoinError) -> MicrosandboxError {
    MicrosandboxError::Runtime(format!("a file task ended early: {error}"))
}

/// The host's side of a copy whose content is at hand.
pub(crate) fn write_host(host: &Path, mode: u32, data: &[u8]) -> MicrosandboxResult<()> {
    let mut target = HostTarget::create(host, mode)?;
    target.write(data)?;
    target.publish()
}
