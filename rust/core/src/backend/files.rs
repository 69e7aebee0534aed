//! Guest files over the agent, whoever dials: a connection of their own each. Copies to and from this machine.

mod host_target;

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite};
use tokio::sync::Mutex;

use crate::agent::{AgentClient, FileWriter, check_path};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{FsEntry, FsEntryKind, FsMetadata, FsReadStream, FsWriteSink, FsWriter};
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
    let reader = dial.await?.read_file(path)?;
    Ok(Box::pin(stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|data| (data, reader))) },
    )))
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
    let writer = dial.await?.write_file(path, None)?;
    Ok(Box::new(Sink { writer: Arc::new(Mutex::new(writer)) }))
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

/// Follows a link in the last component.
pub async fn stat<S: Stream>(dial: impl Dial<S>, path: &str) -> MicrosandboxResult<FsMetadata> {
    check_path("stat", path)?;
    dial.await?.stat("stat", path).await
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
pub async fn copy_from_host<S: Stream>(dial: impl Dial<S>, host: &Path, guest: &str) -> MicrosandboxResult<()> {
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
    loop {
        let mut chunk = BytesMut::with_capacity(HOST_CHUNK);
        if file.read_buf(&mut chunk).await.map_err(failed)? == 0 {
            return writer.finish().await;
        }
        writer.write(chunk.freeze()).await?;
    }
}

/// One regular guest file to one host file. The host file appears, or is replaced, complete; a symbolic link in its
/// place is refused; permission bits are the guest's without setuid, setgid and sticky, less the umask.
pub async fn copy_to_host<S: Stream>(dial: impl Dial<S>, guest: &str, host: &Path) -> MicrosandboxResult<()> {
    check_path("read", guest)?;
    let mut client = dial.await?;
    let stat = client.stat("read", guest).await?;
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
    while let Some(data) = reader.next().await? {
        target = write_blocking(target, data).await?;
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
