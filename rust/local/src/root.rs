//! From an image source to layers, binds and tmpfs.

use microsandbox_contract::{BindSpec, Lower, RootSpec};

use super::{host_image, runtime_layer};
use microsandbox_core::backend::PullProgressFn;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{EnvVar, ImageDefaults, ImageSource, PullRequest, RegistryAccess, SandboxSpec};
use microsandbox_core::validate;
use microsandbox_home::{Home, blocking};
use microsandbox_images as images;

/// What the image gives a sandbox for good; resolved once, at create. The lease keeps an image of the store until the record of
/// the sandbox does.
pub async fn image_defaults(
    home: &Home,
    spec: &SandboxSpec,
    access: RegistryAccess,
    progress: Option<PullProgressFn>,
) -> MicrosandboxResult<(ImageDefaults, Option<images::Lease>)> {
    match &spec.image {
        ImageSource::Host { prefixes } => {
            host_image::prepare(home, prefixes).await?;
            Ok((ImageDefaults { host_prefixes: prefixes.clone(), ..ImageDefaults::default() }, None))
        }
        ImageSource::Bind { .. } => Ok((ImageDefaults::default(), None)),
        ImageSource::DiskImage { .. } => Err(MicrosandboxError::unsupported(
            "disk-image rootfs",
            microsandbox_core::backend::available_when::DISK_IMAGES,
        )),
        ImageSource::Oci { reference } => {
            let (reference, policy) = (reference.clone(), spec.pull_policy);
            let request = PullRequest { reference, policy, access, platform: None };
            let operation = format!("create sandbox {}", spec.name);
            let resolved = images::ready(home, &request, operation, progress).await?;
            let config = resolved.detail.config.unwrap_or_default();
            let defaults = ImageDefaults {
                reference: Some(resolved.detail.handle.reference),
                manifest_digest: resolved.detail.handle.manifest_digest,
                diff_ids: resolved.detail.layers.into_iter().map(|layer| layer.diff_id).collect(),
                env: config.env.iter().filter_map(|text| split_variable(text)).collect(),
                entrypoint: config.entrypoint,
                cmd: config.cmd,
                workdir: config.working_dir.filter(|dir| !dir.is_empty()),
                user: config.user.filter(|user| !user.is_empty()),
                host_prefixes: Vec::new(),
            };
            Ok((defaults, Some(resolved.lease)))
        }
    }
}

fn split_variable(text: &str) -> Option<EnvVar> {
    let (key, value) = text.split_once('=')?;
    (!key.is_empty()).then(|| EnvVar { key: key.into(), value: value.into() })
}

/// Refuses an image in which nothing could run: no `/bin`, and no default program of its own. A guest would boot and
/// answer every call with "not found"; the mistake (an archive of something else, a directory too deep) is better
/// reported before.
pub fn startable(home: &Home, spec: &SandboxSpec) -> MicrosandboxResult<()> {
    let layers = match &spec.image {
        ImageSource::Bind { path } => vec![path.clone()],
        ImageSource::Oci { .. } => images::layer_dirs(home, &spec.image_defaults.diff_ids)?,
        // Holds this machine's own programs.
        ImageSource::Host { .. } | ImageSource::DiskImage { .. } => return Ok(()),
    };
    let has = |path: &str| {
        // A path that cannot be examined may exist: the boot finds out. A link counts, whatever its target inside.
        let there = |layer: &std::path::PathBuf| !matches!(layer.join(path).symlink_metadata(), Err(e) if e.kind() == std::io::ErrorKind::NotFound);
        layers.iter().any(there)
    };
    let own = spec.runtime.entrypoint.as_ref().or(spec.image_defaults.entrypoint.as_ref());
    let own = own.or(spec.runtime.cmd.as_ref()).or(spec.image_defaults.cmd.as_ref());
    let program = own.and_then(|words| words.first()?.strip_prefix('/'));
    if has("bin") || program.is_some_and(has) {
        return Ok(());
    }
    Err(MicrosandboxError::InvalidConfig(format!(
        "image {} has no /bin and no default program: nothing could run in it; is it a root file system, with its \
         programs at /bin?",
        spec.image.describe()
    )))
}

/// The root file system, and the environment that comes with it.
pub async fn assemble(home: &Home, spec: &SandboxSpec) -> MicrosandboxResult<(RootSpec, Vec<EnvVar>)> {
    let layer = |path| Lower { path, host_ids: false };
    let mut root = RootSpec { lowers: vec![layer(runtime_layer::prepare(home).await?)], ..RootSpec::default() };
    let mut env = spec.image_defaults.env.clone();
    match &spec.image {
        ImageSource::Host { .. } => {
            let host = host_image::prepare(home, &spec.image_defaults.host_prefixes).await?;
            root.lowers.push(layer(host.skeleton));
            root.binds.extend(host.binds);
            env.extend(host.env);
        }
        ImageSource::Bind { path } => {
            let (path, config) = (path.clone(), home.config().clone());
            let pin = blocking(move || validate::directory_root(&path, &config).map(super::mounts::pinned)).await?;
            root.lowers.push(Lower { path: pin.path.clone(), host_ids: true });
            root.pinned.push(pin);
        }
        ImageSource::Oci { .. } => {
            let (home, diff_ids) = (home.clone(), spec.image_defaults.diff_ids.clone());
            let dirs = blocking(move || images::layer_dirs(&home, &diff_ids)).await?;
            root.lowers.extend(dirs.into_iter().map(layer));
        }
        ImageSource::DiskImage { .. } => {
            return Err(MicrosandboxError::unsupported(
                "disk-image rootfs",
                microsandbox_core::backend::available_when::DISK_IMAGES,
            ));
        }
    }
    let of_host = std::mem::take(&mut root.binds);
    super::mounts::add(home, spec, &mut root).await?;
    let mounted = root.binds.clone();
    let shown = match mounted.is_empty() {
        true => of_host,
        false => blocking(move || Ok(super::mounts::shown_beside(of_host, &mounted))).await?,
    };
    root.binds.splice(0..0, shown);
    if !spec.runtime.scripts.is_empty() {
        let source = home.sandbox_dir(&spec.name).join("scripts");
        root.binds.push(BindSpec {
            source,
            target: "/.msb/scripts".into(),
            readonly: true,
            view: true,
            noexec: false,
            host_ids: false,
            home_ids: false,
            optional: false,
            shown_as: None,
            set_ids: false,
        });
    }
    Ok((root, env))
}

#[cfg(test)]
mod tests {
    use super::*;
    use microsandbox_core::config::LocalConfig;

    fn of(path: &std::path::Path) -> SandboxSpec {
        SandboxSpec { image: ImageSource::Bind { path: path.into() }, ..SandboxSpec::default() }
    }

    #[test]
    fn an_image_in_which_nothing_could_run_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(LocalConfig::default_for_home(dir.path().join("home")));
        let root = dir.path().join("root");
        std::fs::create_dir_all(root.join("etc")).unwrap();
        let error = startable(&home, &of(&root)).unwrap_err();
        assert!(matches!(error, MicrosandboxError::InvalidConfig(_)), "{error:?}");
        let text = error.to_string();
        assert!(text.contains("has no /bin") && text.contains(&root.display().to_string()), "{text}");

        let mut own = of(&root);
        own.image_defaults.cmd = Some(vec!["/app".into()]);
        assert!(startable(&home, &own).is_err(), "its default program is not there either");
        std::fs::write(root.join("app"), "").unwrap();
        startable(&home, &own).unwrap();
        // A link that leads nowhere on this side, as in a merged /usr.
        std::os::unix::fs::symlink("usr/bin", root.join("bin")).unwrap();
        startable(&home, &of(&root)).unwrap();
    }

    #[test]
    fn this_machines_own_programs_are_there() {
        let dir = tempfile::tempdir().unwrap();
        let home = Home::new(LocalConfig::default_for_home(dir.path()));
        let image = ImageSource::Host { prefixes: Vec::new() };
        startable(&home, &SandboxSpec { image, ..SandboxSpec::default() }).unwrap();
    }
}
