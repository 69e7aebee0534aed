//! Files of a local sandbox: a connection of their own each. Copies to and from this machine.

mod host_target;

use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use crate::agent::{AgentAddress, AgentClient, FileWriter, check_path};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{FsEntry, FsEntryKind, FsMetadata, FsReadStream, FsWriteSink, FsWriter};
use crate::sandbox::DEFAULT_CONNECT_TIMEOUT;
use host_target::HostTarget;

/// Read from a host file at once.
const HOST_CHUNK: usize = 1 << 20;

async fn connect(address: &AgentAddress) -> MicrosandboxResult<AgentClient> {
    AgentClient::connect(address, DEFAULT_CONNECT_TIMEOUT).await
}

/// The whole file.
pub async fn read(address: &AgentAddress, path: &str) -> MicrosandboxResult<Bytes> {
    check_path("read", path)?;
    connect(address).await?.read_file(path)?.collect().await
}

/// The file in pieces, read from the sandbox as they are asked for. A missing file is the first item's error.
pub async fn read_stream(address: &AgentAddress, path: &str) -> MicrosandboxResult<FsReadStream> {
    check_path("read", path)?;
    let reader = connect(address).await?.read_file(path)?;
    Ok(Box::pin(stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|data| (data, reader))) },
    )))
}

/// Creates or replaces the file at once: another reader sees the old or the new content, never a part.
pub async fn write(address: &AgentAddress, path: &str, data: Bytes) -> MicrosandboxResult<()> {
    check_path("write", path)?;
    let mut writer = connect(address).await?.write_file(path, None)?;
    writer.write(data).await?;
    writer.finish().await
}

/// The same in pieces; the file is in place when `close` returned.
pub async fn write_stream(address: &AgentAddress, path: &str) -> MicrosandboxResult<FsWriteSink> {
    check_path("write", path)?;
    let writer = connect(address).await?.write_file(path, None)?;
    Ok(Box::new(Sink { writer: Arc::new(Mutex::new(writer)) }))
}

struct Sink {
    writer: Arc<Mutex<FileWriter>>,
}

impl FsWriter for Sink {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move { self.writer.lock().await.write(data).await })
    }
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move { self.writer.lock().await.finish().await })
    }
}

/// One level, sorted by path.
pub async fn list(address: &AgentAddress, path: &str) -> MicrosandboxResult<Vec<FsEntry>> {
    check_path("list", path)?;
    connect(address).await?.list(path).await
}

/// Follows a link in the last component.
pub async fn stat(address: &AgentAddress, path: &str) -> MicrosandboxResult<FsMetadata> {
    check_path("stat", path)?;
    connect(address).await?.stat("stat", path).await
}

pub async fn exists(address: &AgentAddress, path: &str) -> MicrosandboxResult<bool> {
    check_path("exists", path)?;
    connect(address).await?.exists(path).await
}

pub async fn mkdir(address: &AgentAddress, path: &str) -> MicrosandboxResult<()> {
    check_path("mkdir", path)?;
    connect(address).await?.mkdir(path).await
}

pub async fn remove(address: &AgentAddress, path: &str, recursive: bool) -> MicrosandboxResult<()> {
    check_path("remove", path)?;
    connect(address).await?.remove(path, recursive).await
}

pub async fn copy(address: &AgentAddress, from: &str, to: &str) -> MicrosandboxResult<()> {
    check_path("copy", from)?;
    check_path("copy", to)?;
    connect(address).await?.copy(from, to).await
}

pub async fn rename(address: &AgentAddress, from: &str, to: &str) -> MicrosandboxResult<()> {
    check_path("rename", from)?;
    check_path("rename", to)?;
    connect(address).await?.rename(from, to).await
}

/// One regular host file to one guest file, with its permission bits (never setuid).
pub async fn copy_from_host(address: &AgentAddress, host: &Path, guest: &str) -> MicrosandboxResult<()> {
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
    let mut writer = connect(address).await?.write_file(guest, Some(mode))?;
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
pub async fn copy_to_host(address: &AgentAddress, guest: &str, host: &Path) -> MicrosandboxResult<()> {
    check_path("read", guest)?;
    let mut client = connect(address).await?;
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
