//! A backend with fixed results: sandboxes in memory, one image, one report of the doctor.

use std::path::Path;
use std::sync::{Arc, Mutex};

use microsandbox_core::backend::{
    Backend, BackendKind, ImageBackend, Operation, ProgressFn, SandboxBackend, VolumeBackend,
};
use microsandbox_core::model::{
    DoctorCheck, DoctorReport, ImageConfigDetail, ImageDetail, ImageHolder, ImageInfo, ImageLayerDetail, ImageProgress,
    ImagePruneReport, ImagePruneRequest, Isolation, LibraryRung, MechanismState,
};
use microsandbox_core::{MicrosandboxError, SharedBackend};
use microsandbox_fake::MemoryBackend;

/// Bytes of an archive, and the requested tag.
pub type Loaded = (Vec<u8>, Option<String>);

/// One image, one report.
#[derive(Clone)]
pub struct FixedBackend {
    pub memory: MemoryBackend,
    pub report: DoctorReport,
    /// The archive that was loaded last.
    pub loaded: Arc<Mutex<Option<Loaded>>>,
}

impl FixedBackend {
    pub fn new() -> Self {
        FixedBackend {
            memory: MemoryBackend::new(),
            report: report(Isolation::Container, None),
            loaded: Arc::default(),
        }
    }

    pub fn backend(&self) -> SharedBackend {
        Arc::new(self.clone())
    }
}

/// A doctor's report; `failure`: why no container starts.
pub fn report(isolation: Isolation, failure: Option<&str>) -> DoctorReport {
    let check = |name: &str, state, detail: &str, hint: Option<&str>| DoctorCheck {
        name: name.into(),
        state,
        detail: detail.into(),
        hint: hint.map(str::to_owned),
    };
    let mut checks = vec![
        check("kvm", MechanismState::Off, "there is no /dev/kvm", Some("load the kvm module")),
        check("seccomp", MechanismState::On, "works", None),
        check("memory_limit", MechanismState::Degraded, "no delegation", Some("run as root")),
    ];
    if let Some(failure) = failure {
        checks.push(check("container", MechanismState::Off, failure, None));
    }
    DoctorReport {
        isolation,
        reason: Some("there is no /dev/kvm".into()),
        hint: Some("load the kvm module".into()),
        checks,
        libkrunfw: vec![
            rung("MSB_LIBKRUNFW_PATH", None, "unset"),
            rung("system", Some("/usr/lib64/libkrunfw.so.5"), "absent"),
            rung("home", Some("/home/joe/.microsandbox/lib/libkrunfw.so.5"), "taken"),
        ],
    }
}

fn rung(rung: &str, path: Option<&str>, found: &str) -> LibraryRung {
    LibraryRung { rung: rung.into(), path: path.map(Into::into), found: found.into(), detail: None }
}

pub fn image() -> ImageInfo {
    ImageInfo {
        reference: "docker.io/library/debian:12".into(),
        manifest_digest: Some(format!("sha256:{}", "0123456789abcdef".repeat(4))),
        architecture: Some("amd64".into()),
        os: Some("linux".into()),
        layer_count: 1,
        size_bytes: Some(48_000_000),
        created_at: chrono::DateTime::from_timestamp(1_700_000_000, 0),
        last_used_at: None,
    }
}

impl Backend for FixedBackend {
    fn kind(&self) -> BackendKind {
        BackendKind::Local
    }
    fn sandboxes(&self) -> &dyn SandboxBackend {
        self.memory.sandboxes()
    }
    fn volumes(&self) -> &dyn VolumeBackend {
        self.memory.volumes()
    }
    fn images(&self) -> &dyn ImageBackend {
        self
    }
}

impl ImageBackend for FixedBackend {
    fn load<'a>(
        &'a self,
        archive: &'a Path,
        tag: Option<String>,
        progress: Option<ProgressFn>,
    ) -> Operation<'a, Vec<ImageInfo>> {
        Box::pin(async move {
            let bytes = std::fs::read(archive).map_err(|error| MicrosandboxError::io("read", archive, error))?;
            if let Some(progress) = progress {
                let total = bytes.len() as u64;
                progress(ImageProgress {
                    phase: "unpack",
                    layer_index: 0,
                    layer_count: 1,
                    completed_bytes: total,
                    total_bytes: total,
                });
            }
            *self.loaded.lock().unwrap() = Some((bytes, tag));
            Ok(vec![image()])
        })
    }
    fn list<'a>(&'a self) -> Operation<'a, Vec<ImageInfo>> {
        Box::pin(async { Ok(vec![image()]) })
    }
    fn inspect<'a>(&'a self, reference: &'a str) -> Operation<'a, ImageDetail> {
        Box::pin(async move {
            if reference != image().reference {
                return Err(MicrosandboxError::ImageNotFound(reference.to_owned()));
            }
            Ok(ImageDetail {
                handle: image(),
                config: Some(ImageConfigDetail {
                    digest: "sha256:c0ffee".into(),
                    env: vec!["PATH=/usr/bin:/bin".into(), "LANG=C.UTF-8".into()],
                    cmd: Some(vec!["bash".into(), "-l".into()]),
                    ..ImageConfigDetail::default()
                }),
                layers: vec![ImageLayerDetail {
                    diff_id: "sha256:d1ff".into(),
                    blob_digest: "sha256:b10b".into(),
                    media_type: None,
                    compressed_size_bytes: Some(20_000_000),
                    erofs_size_bytes: Some(48_000_000),
                    position: 0,
                }],
            })
        })
    }
    fn remove<'a>(&'a self, reference: &'a str, force: bool) -> Operation<'a, ()> {
        Box::pin(async move {
            if force {
                return Ok(());
            }
            Err(MicrosandboxError::ImageInUse { reference: reference.to_owned(), holder: "box".into() })
        })
    }
    fn prune(&self, request: ImagePruneRequest) -> Operation<'_, ImagePruneReport> {
        Box::pin(async move {
            Ok(ImagePruneReport {
                dry_run: request.dry_run,
                image_refs_removed: 2,
                manifests_removed: 1,
                layers_removed: 3,
                blobs_removed: 4,
                parts_removed: 5,
                skipped_in_use: 1,
                bytes_reclaimed: Some(5 << 20),
                removed: vec!["old:1".into(), "old:2".into()],
                in_use: vec![ImageHolder { reference: "busy:1".into(), holder: "box".into() }],
            })
        })
    }
    fn doctor<'a>(&'a self, _recheck: bool) -> Operation<'a, DoctorReport> {
        Box::pin(async { Ok(self.report.clone()) })
    }
}
