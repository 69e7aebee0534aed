//! From an image source to layers, binds and tmpfs.

use microsandbox_protocol::launch::{BindSpec, Lower, RootSpec, TmpfsSpec};

use super::{LocalBackend, host_image, runtime_layer};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::images;
use crate::model::{EnvVar, ImageDefaults, ImageSource, SandboxSpec};

const MIB: u64 = 1 << 20;
/// Largest default `/tmp`; it is a quarter of the memory otherwise.
const TMP_MAX: u64 = 512 * MIB;

/// What the image gives a sandbox for good; resolved once, at create.
pub async fn image_defaults(backend: &LocalBackend, image: &ImageSource) -> MicrosandboxResult<ImageDefaults> {
    match image {
        ImageSource::Host { prefixes } => {
            host_image::prepare(backend, prefixes).await?;
            Ok(ImageDefaults { host_prefixes: prefixes.clone(), ..ImageDefaults::default() })
        }
        ImageSource::Bind { .. } => Ok(ImageDefaults::default()),
        ImageSource::DiskImage { .. } => {
            Err(MicrosandboxError::unsupported("disk-image rootfs", crate::backend::available_when::MICROVM))
        }
        ImageSource::Oci { reference } => {
            let resolved = images::resolve(backend, reference).await?;
            let config = resolved.detail.config.unwrap_or_default();
            Ok(ImageDefaults {
                reference: Some(resolved.detail.handle.reference),
                manifest_digest: resolved.detail.handle.manifest_digest,
                diff_ids: resolved.detail.layers.into_iter().map(|layer| layer.diff_id).collect(),
                env: config.env.iter().filter_map(|text| split_variable(text)).collect(),
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                workdir: config.working_dir.filter(|dir| !dir.is_empty()),
                user: config.user.filter(|user| !user.is_empty()),
                host_prefixes: Vec::new(),
            })
        }
    }
}

fn split_variable(text: &str) -> Option<EnvVar> {
    let (key, value) = text.split_once('=')?;
    (!key.is_empty()).then(|| EnvVar { key: key.into(), value: value.into() })
}

/// The root file system, and the environment that comes with it.
pub async fn assemble(backend: &LocalBackend, spec: &SandboxSpec) -> MicrosandboxResult<(RootSpec, Vec<EnvVar>)> {
    let layer = |path| Lower { path, host_ids: false };
    let mut root = RootSpec { lowers: vec![layer(runtime_layer::prepare(backend).await?)], ..RootSpec::default() };
    let mut env = spec.image_defaults.env.clone();
    match &spec.image {
        ImageSource::Host { .. } => {
            let host = host_image::prepare(backend, &spec.image_defaults.host_prefixes).await?;
            root.lowers.push(layer(host.skeleton));
            root.binds.extend(host.binds);
            env.extend(host.env);
        }
        ImageSource::Bind { path } => root.lowers.push(Lower { path: path.clone(), host_ids: true }),
        ImageSource::Oci { .. } => {
            let dirs = images::layer_dirs(backend, &spec.image_defaults.diff_ids)?;
            root.lowers.extend(dirs.into_iter().map(layer));
        }
        ImageSource::DiskImage { .. } => {
            return Err(MicrosandboxError::unsupported("disk-image rootfs", crate::backend::available_when::MICROVM));
        }
    }
    let quarter = u64::from(spec.resources.memory_mib) * MIB / 4;
    if !matches!(spec.image, ImageSource::Bind { .. }) {
        root.tmpfs.push(TmpfsSpec { target: "/tmp".into(), size_bytes: quarter.clamp(MIB, TMP_MAX), mode: 0o1777 });
    }
    if !spec.runtime.scripts.is_empty() {
        let source = backend.sandbox_dir(&spec.name).join("scripts");
        root.binds.push(BindSpec {
            source,
            target: "/.msb/scripts".into(),
            readonly: true,
            noexec: false,
            optional: false,
        });
    }
    Ok((root, env))
}
