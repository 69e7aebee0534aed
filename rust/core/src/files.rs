//! Files of a sandbox or of a volume: the trait, and its implementation over a connection to an agent.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use futures::stream::{self, TryStreamExt};
use rustix::fs::OFlags;
use tokio::io::AsyncReadExt;
use tokio::sync::Mutex;

use crate::agent::failure;
use crate::agent::{AgentClient, Dialer, DirectoryReader, FileReader, FileWriter, Stream, StreamAgent, check_path};
use crate::backend::{Operation, available_when, refuse};
use crate::collected::{collect, whole_listing};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::guest_dirs::{self, GuestDirs};
use crate::host_target::HostTarget;
use crate::model::{
    FsAttributes, FsEntry, FsEntryKind, FsListStream, FsMetadata, FsReadStream, FsWatchStream, FsWriteSink, FsWriter,
    TransferProgress,
};

/// Read from a host file in one call.
const HOST_CHUNK: usize = 1 << 20;
/// By how much a file may grow while it is copied (`fs.copy_growth`): the guest's word about its size is not the end of what it
/// sends.
const COPY_GROWTH: u64 = 64 << 20;

/// Files below one root: of a running sandbox, where paths are absolute guest paths, or of a volume, where they are
/// relative to its root. A call that an implementation lacks fails with [`Files::lacks`].
#[allow(unused_variables, reason = "default bodies refuse")]
pub trait Files: Send + Sync {
    /// The error of a call that these files lack.
    fn lacks(&self, call: &'static str) -> MicrosandboxError;

    /// The directories of this machine in which a guest may have put links, for copies from and to this machine.
    fn guest_dirs(&self) -> MicrosandboxResult<GuestDirs> {
        Ok(GuestDirs::default())
    }

    /// The whole file, which may have `most` bytes; [`READ_BYTES`](crate::collected::READ_BYTES) is the default of every face.
    fn read<'a>(&'a self, path: &'a str, most: u64) -> Operation<'a, Bytes> {
        Box::pin(async move { collect(self.read_pieces(path).await?, path, most).await })
    }
    /// [`Files::read`] for a caller that collects the pieces itself, within [`too_large`](crate::collected::too_large).
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        refuse(self.lacks("read"))
    }
    /// The file in pieces, each read when it is asked for. A missing file is the first item's error.
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        refuse(self.lacks("read_stream"))
    }
    /// Creates or replaces the file atomically: another reader sees the old or the new content, never a part. Parents must
    /// exist.
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        refuse(self.lacks("write"))
    }
    /// The same in pieces; the file is in place when `close` returned.
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        refuse(self.lacks("write_stream"))
    }
    /// One level, sorted by path; an error above [`LIST_BYTES`](crate::collected::LIST_BYTES).
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        refuse(self.lacks("list"))
    }
    /// One level in the directory's own order, in pages, each read when it is asked for. A directory that is missing is an
    /// error of the call.
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        refuse(self.lacks("list_stream"))
    }
    /// `follow`: of the target of a link, else of the link.
    fn stat<'a>(&'a self, path: &'a str, follow: bool) -> Operation<'a, FsMetadata> {
        refuse(self.lacks("stat"))
    }
    fn set<'a>(&'a self, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        refuse(self.lacks("set"))
    }
    /// Makes a symbolic link at `link`; `target` is kept as it is.
    fn symlink<'a>(&'a self, target: &'a str, link: &'a str) -> Operation<'a, ()> {
        refuse(self.lacks("symlink"))
    }
    fn readlink<'a>(&'a self, path: &'a str) -> Operation<'a, String> {
        refuse(self.lacks("readlink"))
    }
    /// The path without links, `.` and `..`.
    fn realpath<'a>(&'a self, path: &'a str) -> Operation<'a, String> {
        refuse(self.lacks("realpath"))
    }
    /// The content of a directory as a tar archive, made while it is read.
    fn read_tar<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        refuse(self.lacks("read_tar"))
    }
    /// The same with an entry for the directory itself, `./`.
    fn read_tree<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        refuse(self.lacks("read_tree"))
    }
    /// Unpacks a tar archive below a directory, which is made if it is missing; complete when `close` returned.
    fn write_tar<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        refuse(self.lacks("write_tar"))
    }
    /// Returns once the watch is active; later changes are reported.
    fn watch<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, FsWatchStream> {
        refuse(self.lacks("watch"))
    }
    /// With parents; an existing directory is no error.
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        refuse(self.lacks("mkdir"))
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        refuse(self.lacks("remove"))
    }
    /// An existing target file is replaced.
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        refuse(self.lacks("copy"))
    }
    /// As `rename(2)`: an existing target file is replaced.
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        refuse(self.lacks("rename"))
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        refuse(self.lacks("exists"))
    }
    /// One regular host file to one file here, with its permission bits (never setuid) and its modification time. A file that
    /// is mounted here is written in place and keeps its own mode.
    fn copy_from_host<'a>(
        &'a self,
        host: &'a Path,
        path: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        refuse(self.lacks("copy_from_host"))
    }
    /// One regular file here to one host file. The host file appears, or is replaced, complete; a symbolic link in its place
    /// is refused; the modification time and the permission bits are those of the file, without setuid, setgid and sticky.
    fn copy_to_host<'a>(
        &'a self,
        path: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        refuse(self.lacks("copy_to_host"))
    }
}

/// The files of a sandbox whose backend has no calls for them.
pub struct NoFiles(pub &'static str);

impl Files for NoFiles {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("SandboxFs::{call}"), self.0)
    }
}

impl<D: Dialer> StreamAgent<D> {
    /// A call on these paths: checked first, then on a connection of its own.
    fn on_paths<'a, T, W>(
        &'a self,
        operation: &'static str,
        paths: [Option<&'a str>; 2],
        call: impl FnOnce(AgentClient<D::Stream>) -> W + Send + 'a,
    ) -> Operation<'a, T>
    where
        T: Send + 'a,
        W: Future<Output = MicrosandboxResult<T>> + Send + 'a,
    {
        self.explained(async move {
            paths.into_iter().flatten().try_for_each(|path| check_path(operation, path))?;
            call(self.dialer.dial().await?).await
        })
    }
}

impl<D: Dialer> Files for StreamAgent<D> {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("SandboxFs::{call}"), available_when::FS)
    }
    fn guest_dirs(&self) -> MicrosandboxResult<GuestDirs> {
        self.dialer.guest_dirs()
    }
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.read_stream(path)
    }
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_paths("read", [Some(path), None], move |client| async move { Ok(pieces(client.read_file(path)?)) })
    }
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.on_paths("write", [Some(path), None], move |client| async move {
            let mut writer = client.write_file(path, None, None)?;
            writer.write(data).await?;
            writer.finish().await
        })
    }
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.on_paths("write", [Some(path), None], move |client| async move {
            Ok(sink(client.write_file(path, None, None)?))
        })
    }
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        Box::pin(async move { whole_listing(self.list_stream(path).await?, path).await })
    }
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        self.on_paths("list", [Some(path), None], move |client| async move { Ok(pages(client.list(path).await?)) })
    }
    fn stat<'a>(&'a self, path: &'a str, follow: bool) -> Operation<'a, FsMetadata> {
        self.on_paths(
            "stat",
            [Some(path), None],
            move |mut client| async move { client.stat("stat", path, follow).await },
        )
    }
    fn set<'a>(&'a self, path: &'a str, attributes: FsAttributes) -> Operation<'a, ()> {
        self.on_paths("set", [Some(path), None], move |mut client| async move { client.set(path, attributes).await })
    }
    fn symlink<'a>(&'a self, target: &'a str, link: &'a str) -> Operation<'a, ()> {
        self.on_paths(
            "symlink",
            [Some(link), None],
            move |mut client| async move { client.symlink(target, link).await },
        )
    }
    fn readlink<'a>(&'a self, path: &'a str) -> Operation<'a, String> {
        self.on_paths("readlink", [Some(path), None], move |mut client| async move { client.readlink(path).await })
    }
    fn realpath<'a>(&'a self, path: &'a str) -> Operation<'a, String> {
        self.on_paths("realpath", [Some(path), None], move |mut client| async move { client.realpath(path).await })
    }
    fn read_tar<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_paths(
            "read_tar",
            [Some(path), None],
            move |client| async move { Ok(pieces(client.read_tar(path, false)?)) },
        )
    }
    fn read_tree<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.on_paths(
            "read_tar",
            [Some(path), None],
            move |client| async move { Ok(pieces(client.read_tar(path, true)?)) },
        )
    }
    fn write_tar<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.on_paths("write_tar", [Some(path), None], move |client| async move { Ok(sink(client.write_tar(path)?)) })
    }
    fn watch<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, FsWatchStream> {
        self.on_paths("watch", [Some(path), None], move |client| async move {
            let watcher = client.watch(path, recursive).await?;
            let events = stream::try_unfold(watcher, |mut watcher| async move {
                let events = watcher.next().await?;
                Ok::<_, MicrosandboxError>(events.map(|events| (stream::iter(events.into_iter().map(Ok)), watcher)))
            });
            let events: FsWatchStream = Box::pin(events.try_flatten());
            Ok(events)
        })
    }
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        self.on_paths("mkdir", [Some(path), None], move |mut client| async move { client.mkdir(path).await })
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.on_paths(
            "remove",
            [Some(path), None],
            move |mut client| async move { client.remove(path, recursive).await },
        )
    }
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_paths("copy", [Some(from), Some(to)], move |mut client| async move { client.copy(from, to).await })
    }
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.on_paths("rename", [Some(from), Some(to)], move |mut client| async move { client.rename(from, to).await })
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        self.on_paths("exists", [Some(path), None], move |mut client| async move { client.exists(path).await })
    }
    fn copy_from_host<'a>(
        &'a self,
        host: &'a Path,
        path: &'a str,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        self.explained(copy_from_host(&self.dialer, host, path, progress))
    }
    fn copy_to_host<'a>(
        &'a self,
        path: &'a str,
        host: &'a Path,
        progress: Option<TransferProgress>,
    ) -> Operation<'a, ()> {
        self.explained(copy_to_host(&self.dialer, path, host, progress))
    }
}

fn pieces<S: Stream>(reader: FileReader<S>) -> FsReadStream {
    Box::pin(stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|data| (data, reader))) },
    ))
}

fn pages<S: Stream>(reader: DirectoryReader<S>) -> FsListStream {
    Box::pin(stream::try_unfold(
        reader,
        |mut reader| async move { Ok(reader.next().await?.map(|page| (page, reader))) },
    ))
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

async fn copy_from_host<D: Dialer>(
    dialer: &D,
    host: &Path,
    guest: &str,
    progress: Option<TransferProgress>,
) -> MicrosandboxResult<()> {
    check_path("write", guest)?;
    let failed = |error| MicrosandboxError::io("read", host, error);
    let (guests, path) = (dialer.guest_dirs()?, host.to_owned());
    // A path that a guest can change may be a fifo: it is opened without waiting for its other end.
    let opened = tokio::task::spawn_blocking(move || guests.open(&path, OFlags::RDONLY)).await.map_err(panicked)?;
    let mut file =
        tokio::fs::File::from_std(opened.map_err(|refusal| guest_dirs::refused("read", host, refusal))?.into());
    let metadata = file.metadata().await.map_err(failed)?;
    if metadata.is_dir() {
        return Err(failed(std::io::ErrorKind::IsADirectory.into()));
    }
    if !metadata.is_file() {
        return Err(failed(std::io::Error::new(std::io::ErrorKind::InvalidInput, "not a regular file")));
    }
    file.set_max_buf_size(HOST_CHUNK);
    let mode = metadata.mode() & 0o777;
    let mtime = (metadata.mtime(), u32::try_from(metadata.mtime_nsec()).unwrap_or_default());
    let mut writer = dialer.dial().await?.write_file(guest, Some(mode), Some(mtime))?;
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

/// Reports the progress of a transfer.
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

async fn copy_to_host<D: Dialer>(
    dialer: &D,
    guest: &str,
    host: &Path,
    progress: Option<TransferProgress>,
) -> MicrosandboxResult<()> {
    check_path("read", guest)?;
    let mut client = dialer.dial().await?;
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
    let mut target = HostTarget::create(host, stat.mode & 0o777, stat.modified, &dialer.guest_dirs()?)?;
    let mut tally = Tally { done: 0, total: stat.size, progress };
    while let Some(data) = reader.next().await? {
        let count = data.len();
        if tally.done + count as u64 > stat.size.saturating_add(COPY_GROWTH) {
            return Err(MicrosandboxError::Filesystem {
                operation: "read".into(),
                path: failure::quote(guest),
                kind: "LimitExceeded".into(),
                errno: Some(libc::EFBIG),
                message: format!(
                    "it had {} bytes when the copy began, and has more than {COPY_GROWTH} bytes more now (fs.copy_growth); \
                     copy it when it no longer grows, or use read_stream",
                    stat.size
                ),
            });
        }
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
pub fn write_host(host: &Path, mode: u32, data: &[u8]) -> MicrosandboxResult<()> {
    let mut target = HostTarget::create(host, mode, None, &GuestDirs::default())?;
    target.write(data)?;
    target.publish()
}
