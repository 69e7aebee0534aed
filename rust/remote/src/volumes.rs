//! Volumes of the service and their files, over plain HTTP.

use std::path::PathBuf;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use futures::{FutureExt as _, stream};
use microsandbox_protocol::names;
use microsandbox_wire::paths;
use microsandbox_wire::volume::{
    CloudVolume, CreateVolume, FileEntries, FileExists, FileInfo, FileMetadata, FromTo, PathBody,
};
use reqwest::Method;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinHandle;

use super::errors::{About, Route, cut};
use super::http::{Call, broken};
use super::{CloudBackend, dialect};
use microsandbox_core::backend::{Files, Operation, VolumeBackend, available_when, take_back_volume};
use microsandbox_core::collected::whole_listing;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    FsEntry, FsEntryKind, FsListStream, FsMetadata, FsReadStream, FsWriteSink, FsWriter, VolumeConfig, VolumeInfo,
    VolumeKind, VolumeQuery,
};
use microsandbox_core::undo;
use microsandbox_core::writing::Writing;

/// Pieces of a body that are queued.
const QUEUE: usize = 8;

impl CloudBackend {
    /// The list, of one name or of all. The two parameters are extensions of the server of this project: another service
    /// ignores them, lists all volumes and measures as it likes.
    async fn listed(&self, name: Option<&str>, usage: bool) -> MicrosandboxResult<Vec<CloudVolume>> {
        let mut call = Call::get(paths::VOLUMES.into(), Route::volume("GET /v1/volumes", ""));
        if let Some(name) = name {
            call = call.query("name", name);
        }
        if usage {
            call = call.query("usage", "true");
        }
        self.http.json(call).await
    }

    /// Volumes are addressed by id; the wire finds the id of a name only through the list.
    async fn volume(&self, name: &str, usage: bool) -> MicrosandboxResult<CloudVolume> {
        if name.is_empty() {
            return self.default_volume().await;
        }
        let listed = self.listed(Some(name), usage).await?;
        let found = listed.into_iter().find(|volume| volume.name.as_deref() == Some(name));
        found.ok_or_else(|| MicrosandboxError::VolumeNotFound(name.into()))
    }

    async fn default_volume(&self) -> MicrosandboxResult<CloudVolume> {
        self.http.json(Call::get(paths::DEFAULT_VOLUME.into(), Route::volume("GET /v1/volumes/default", ""))).await
    }

    async fn post_volume(&self, config: &VolumeConfig) -> MicrosandboxResult<CloudVolume> {
        if config.kind == VolumeKind::Disk || config.capacity_mib.is_some() {
            return Err(MicrosandboxError::unsupported("Volume::create(kind=DISK)", "on the local backend"));
        }
        let capacity_gib = match config.quota_mib {
            None => None,
            Some(mib) if mib > 0 && mib % 1024 == 0 => Some(mib / 1024),
            Some(mib) => {
                return Err(MicrosandboxError::InvalidConfig(format!(
                    "quota_mib is {mib}: the service accepts whole GiB, so use a multiple of 1024"
                )));
            }
        };
        let body = CreateVolume { name: config.name.clone(), labels: config.labels.clone(), capacity_gib };
        let route = Route { label: "POST /v1/volumes", subject: &config.name, about: About::CreateVolume };
        self.http.json(Call::new(Method::POST, paths::VOLUMES.into(), route).json(&body)?).await
    }

    /// A call on a file; the path is sent in a header.
    async fn on_file<'a>(
        &self,
        method: Method,
        suffix: &str,
        route: Route<'a>,
        path: Option<&str>,
    ) -> MicrosandboxResult<Call<'a>> {
        let id = self.volume(route.subject, false).await?.id;
        let call = Call::new(method, format!("{}{suffix}", paths::files(&id)), route);
        Ok(match path {
            Some(path) => call.header(paths::FILE_PATH_HEADER, paths::encode_file_path(&names::to_bytes(path))),
            None => call,
        })
    }

    async fn put(&self, name: &str, path: &str, data: Bytes) -> MicrosandboxResult<()> {
        let mut call = self.on_file(Method::PUT, "/content", file("PUT …/files/content", name), Some(path)).await?;
        call.headers.push(("content-type", "application/octet-stream".into()));
        call.body = Some(data);
        // Without a timeout: the content may be large.
        self.http.open(&call).await.map(drop)
    }
}

fn file<'a>(label: &'static str, volume: &'a str) -> Route<'a> {
    Route { label, subject: volume, about: About::VolumeFile }
}

fn info(volume: CloudVolume) -> VolumeInfo {
    VolumeInfo {
        is_default: volume.name.is_none(),
        name: volume.name.unwrap_or_default(),
        id: Some(volume.id),
        kind: VolumeKind::Directory,
        owner: None,
        quota_mib: volume.capacity_bytes.map(|bytes| bytes >> 20),
        used_bytes: volume.used_bytes.unwrap_or_default(),
        capacity_bytes: volume.capacity_bytes,
        disk_format: None,
        disk_fstype: None,
        labels: volume.labels,
        created_at: volume.created_at,
        updated_at: volume.updated_at,
    }
}

fn millis(time: Option<DateTime<Utc>>) -> Option<f64> {
    time.map(|time| time.timestamp_micros() as f64 / 1000.0)
}

fn entry(info: FileInfo) -> FsEntry {
    FsEntry {
        kind: FsEntryKind::parse(&info.kind),
        size: info.size,
        mode: info.mode,
        modified_ms: millis(info.modified_at),
        path: cut(&info.path),
    }
}

/// A body that is being written: its pieces reach the request through a short queue. If it is dropped before it is closed, the
/// request is aborted, because the piece that marks the end is missing.
struct Upload {
    body: Mutex<Writing<Body>>,
}

/// The queue of pieces, and the request that sends them.
struct Body {
    pieces: mpsc::Sender<Bytes>,
    request: JoinHandle<MicrosandboxResult<()>>,
}

impl FsWriter for Upload {
    fn write(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let mut place = self.body.lock().await;
            let body = place.step()?;
            // An empty piece would mark the end.
            if !data.is_empty() && body.pieces.send(data).await.is_err() {
                // The request ended before its body; its result is the reason.
                return body.request.await.map_err(panicked)?.and(Err(MicrosandboxError::Http(
                    "PUT …/files/content: the service responded before it had received the whole file".into(),
                )));
            }
            place.resume(body);
            Ok(())
        })
    }
    fn close(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            let mut place = self.body.lock().await;
            if let Some(Body { pieces, request }) = place.last_step()? {
                let _ = pieces.send(Bytes::new()).await;
                drop(pieces);
                request.await.map_err(panicked)??;
                place.finish();
            }
            Ok(())
        })
    }
}

fn panicked(error: tokio::task::JoinError) -> MicrosandboxError {
    MicrosandboxError::Runtime(format!("an upload was aborted: {error}"))
}

impl VolumeBackend for CloudBackend {
    fn create(&self, config: VolumeConfig) -> Operation<'_, VolumeInfo> {
        self.spec_only("Volume::create", dialect::flat::VOLUMES, async move {
            let (backend, for_undo) = (self.clone(), self.clone());
            let create = |_cut| async move { Ok(info(backend.post_volume(&config).await?)) };
            let remove = move |made: VolumeInfo| {
                let backend = for_undo.clone();
                async move { take_back_volume(&backend, &made).await }.boxed()
            };
            undo::whole(create, remove).await
        })
    }
    fn get<'a>(&'a self, name: &'a str) -> Operation<'a, VolumeInfo> {
        self.spec_only("Volume::get", dialect::flat::VOLUMES, async move { Ok(info(self.volume(name, true).await?)) })
    }
    fn get_default(&self) -> Operation<'_, VolumeInfo> {
        self.spec_only(
            "Volume::get_default",
            dialect::flat::VOLUMES,
            async move { Ok(info(self.default_volume().await?)) },
        )
    }
    fn list(&self, query: VolumeQuery) -> Operation<'_, Vec<VolumeInfo>> {
        self.spec_only("Volume::list", dialect::flat::VOLUMES, async move {
            let VolumeQuery { name, unmeasured, owners: _ } = query;
            let listed = self.listed(name.as_deref(), !unmeasured).await?.into_iter().map(info);
            Ok(listed.filter(|volume| name.as_ref().is_none_or(|name| volume.name == *name)).collect())
        })
    }
    fn remove<'a>(&'a self, name: &'a str) -> Operation<'a, ()> {
        self.spec_only("Volume::remove", dialect::flat::VOLUMES, async move {
            let id = self.volume(name, false).await?.id;
            let route = Route::volume("DELETE /v1/volumes/{id}", name);
            self.http.done(Call::new(Method::DELETE, paths::volume(&id), route)).await
        })
    }
    fn path(&self, _name: &str) -> MicrosandboxResult<PathBuf> {
        Err(MicrosandboxError::unsupported("Volume::path", dialect::flat::VOLUMES))
    }
    fn files<'a>(&'a self, name: &'a str) -> Box<dyn Files + 'a> {
        Box::new(RemoteVolume { backend: self, name })
    }
}

/// The files of one volume of the service.
struct RemoteVolume<'a> {
    backend: &'a CloudBackend,
    name: &'a str,
}

impl RemoteVolume<'_> {
    /// A call that only the dialect `spec` has.
    fn spec_only<'a, T: Send + 'a>(
        &'a self,
        feature: &'static str,
        work: impl Future<Output = MicrosandboxResult<T>> + Send + 'a,
    ) -> Operation<'a, T> {
        self.backend.spec_only(feature, dialect::flat::VOLUMES, work)
    }
}

impl Files for RemoteVolume<'_> {
    fn lacks(&self, call: &'static str) -> MicrosandboxError {
        MicrosandboxError::unsupported(format!("VolumeFs::{call}"), available_when::VOLUMES)
    }
    fn read_pieces<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.spec_only("VolumeFs::read", self.read_stream(path))
    }
    fn read_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsReadStream> {
        self.spec_only("VolumeFs::read_stream", async move {
            let route = file("GET …/files/content", self.name);
            let mut call = self.backend.on_file(Method::GET, "/content", route, Some(path)).await?;
            call.headers.push(("accept", "application/octet-stream".into()));
            let response = self.backend.http.open(&call).await?;
            let stream: FsReadStream = Box::pin(stream::try_unfold(response, |mut response| async move {
                match response.chunk().await {
                    Ok(chunk) => Ok(chunk.map(|chunk| (chunk, response))),
                    Err(error) => Err(MicrosandboxError::Http(format!(
                        "GET …/files/content: the connection closed before the end of the file: {}",
                        broken(&error)
                    ))),
                }
            }));
            Ok(stream)
        })
    }
    fn write<'a>(&'a self, path: &'a str, data: Bytes) -> Operation<'a, ()> {
        self.spec_only("VolumeFs::write", self.backend.put(self.name, path, data))
    }
    fn write_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsWriteSink> {
        self.spec_only("VolumeFs::write_stream", async move {
            let label = "PUT …/files/content";
            let found = self.backend.on_file(Method::PUT, "/content", file(label, self.name), Some(path)).await?;
            let mut call = Call::new(found.method, found.path, file(label, ""));
            call.headers = found.headers;
            call.headers.push(("content-type", "application/octet-stream".into()));
            let (pieces, queue) = mpsc::channel(QUEUE);
            let http = self.backend.http.clone();
            let request = tokio::spawn(async move { http.stream_body(call, queue).await });
            let sink: FsWriteSink = Box::new(Upload { body: Mutex::new(Writing::Open(Body { pieces, request })) });
            Ok(sink)
        })
    }
    fn list<'a>(&'a self, path: &'a str) -> Operation<'a, Vec<FsEntry>> {
        self.spec_only("VolumeFs::list", async move { whole_listing(self.list_stream(path).await?, path).await })
    }
    /// The wire has one answer with all entries, which is bounded as every answer is.
    fn list_stream<'a>(&'a self, path: &'a str) -> Operation<'a, FsListStream> {
        self.spec_only("VolumeFs::list_stream", async move {
            let call = self.backend.on_file(Method::GET, "", file("GET …/files", self.name), Some(path)).await?;
            let listed: FileEntries = self.backend.http.json(call).await?;
            let page: Vec<FsEntry> = listed.entries.into_iter().map(entry).collect();
            let pages = (!page.is_empty()).then_some(Ok(page));
            let pages: FsListStream = Box::pin(stream::iter(pages));
            Ok(pages)
        })
    }
    fn stat<'a>(&'a self, path: &'a str, _follow: bool) -> Operation<'a, FsMetadata> {
        self.spec_only("VolumeFs::stat", async move {
            let call =
                self.backend.on_file(Method::GET, "/stat", file("GET …/files/stat", self.name), Some(path)).await?;
            let FileMetadata { metadata } = self.backend.http.json(call).await?;
            Ok(FsMetadata {
                kind: FsEntryKind::parse(&metadata.kind),
                size: metadata.size,
                mode: metadata.mode,
                uid: metadata.uid,
                gid: metadata.gid,
                readonly: metadata.readonly,
                modified_ms: millis(metadata.modified_at),
                modified: None,
                created_ms: millis(metadata.created_at),
            })
        })
    }
    fn mkdir<'a>(&'a self, path: &'a str) -> Operation<'a, ()> {
        self.spec_only("VolumeFs::mkdir", async move {
            let call =
                self.backend.on_file(Method::POST, "/mkdir", file("POST …/files/mkdir", self.name), None).await?;
            self.backend.http.done(call.json(&PathBody { path: path.into() })?).await
        })
    }
    fn remove<'a>(&'a self, path: &'a str, recursive: bool) -> Operation<'a, ()> {
        self.spec_only("VolumeFs::remove", async move {
            let call = self.backend.on_file(Method::DELETE, "", file("DELETE …/files", self.name), Some(path)).await?;
            self.backend.http.done(call.header(paths::FILE_RECURSIVE_HEADER, recursive.to_string())).await
        })
    }
    fn copy<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.spec_only("VolumeFs::copy", async move {
            let call = self.backend.on_file(Method::POST, "/copy", file("POST …/files/copy", self.name), None).await?;
            self.backend.http.done(call.json(&FromTo { from: from.into(), to: to.into() })?).await
        })
    }
    fn rename<'a>(&'a self, from: &'a str, to: &'a str) -> Operation<'a, ()> {
        self.spec_only("VolumeFs::rename", async move {
            let call =
                self.backend.on_file(Method::POST, "/rename", file("POST …/files/rename", self.name), None).await?;
            self.backend.http.done(call.json(&FromTo { from: from.into(), to: to.into() })?).await
        })
    }
    fn exists<'a>(&'a self, path: &'a str) -> Operation<'a, bool> {
        self.spec_only("VolumeFs::exists", async move {
            let call =
                self.backend.on_file(Method::GET, "/exists", file("GET …/files/exists", self.name), Some(path)).await?;
            Ok(self.backend.http.json::<FileExists>(call).await?.exists)
        })
    }
}
