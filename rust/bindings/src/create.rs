//! The keywords of `create`, and the request they make.

use std::path::{Path, PathBuf};

use microsandbox_core::backend::available_when;
use microsandbox_core::config::SandboxDefaults;
use microsandbox_core::model::{
    self, EnvVar, ImageSource, RuntimeOptions, SandboxConfig, SandboxPolicy, SandboxResources, SandboxSpec,
    UnsupportedOption,
};
use pyo3::exceptions::{PyFileNotFoundError, PyTypeError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::PyString;

use crate::convert::{
    self, CaCerts, CpuPlacement, Cpus, DeploymentProfile, Env, Flag, Init, Isolation, Location, LogLevel, Mib, Mounts,
    NetworkArg, Patches, Ports, PullPolicy, RegistryAuth, Seconds, Secrets, SecurityProfile, StrMap, Text, Texts, Thp,
    Violation, ViolationAction, Vsock, keywords,
};
use crate::errors::invalid_config;

keywords! {
    /// Everything that `create` takes besides the name and the backend.
    pub struct CreateKeywords {
        image: Image,
        from_snapshot: Location,
        memory: Mib,
        cpus: Cpus,
        max_memory: Mib,
        max_cpus: Cpus,
        workdir: Text,
        shell: Text,
        security: SecurityProfile,
        hostname: Text,
        user: Text,
        entrypoint: Texts,
        cmd: Texts,
        init: Init,
        replace: Flag,
        replace_with_timeout: Seconds,
        max_duration: Seconds,
        idle_timeout: Seconds,
        ephemeral: Flag,
        env: Env,
        labels: StrMap,
        scripts: StrMap,
        pull_policy: PullPolicy,
        log_level: LogLevel,
        registry_auth: RegistryAuth,
        registry_insecure: Flag,
        registry_ca_certs: CaCerts,
        volumes: Mounts,
        patches: Patches,
        ports: Ports,
        vsock: Vsock,
        network: NetworkArg,
        secrets: Secrets,
        on_secret_violation: Violation,
        secret_violation_action: ViolationAction,
        intercept_tls: Flag,
        detached: Flag,
        cpu_placement: CpuPlacement,
        placement_profile: Text,
        thp: Thp,
        deployment_profile: DeploymentProfile,
        isolation: Isolation,
    }
}

/// A root file system: the source, and whether its disk was shaped in a way that this build cannot.
pub struct Image {
    source: ImageSource,
    root_disk: bool,
}

impl<'a, 'py> FromPyObject<'a, 'py> for Image {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        if let Ok(text) = object.cast::<PyString>() {
            return from_text(py, &text.extract::<String>()?);
        }
        if object.hasattr("__fspath__")? {
            let Location(path) = object.extract()?;
            return Ok(Image::plain(local(path)));
        }
        let class = convert::types(py)?.getattr("ImageSource")?;
        if !object.is_instance(&class)? {
            let text = format!("{{}} must be str, os.PathLike or ImageSource, not {}", convert::type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        from_source(&object)
    }
}

impl Image {
    fn plain(source: ImageSource) -> Self {
        Image { source, root_disk: false }
    }
}

fn from_text(py: Python<'_>, text: &str) -> PyResult<Image> {
    if text.is_empty() {
        return Err(invalid_config(py, "image must not be empty"));
    }
    if text == "host" {
        return Ok(Image::plain(host(py)?));
    }
    let looks_local = [".", ".."].contains(&text) || ["/", "./", "../"].iter().any(|start| text.starts_with(start));
    if looks_local || Path::new(text).exists() {
        return Ok(Image::plain(local(PathBuf::from(text))));
    }
    Ok(Image::plain(ImageSource::Oci { reference: text.into() }))
}

/// A disk image by its extension, else a directory.
fn local(path: PathBuf) -> ImageSource {
    let extension = path.extension().and_then(|e| e.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some(format @ ("qcow2" | "raw" | "vmdk")) if !path.is_dir() => {
            ImageSource::DiskImage { format: Some(format.into()), fstype: None, path }
        }
        _ => ImageSource::Bind { path: convert::from_here(path) },
    }
}

/// This machine's system directories and the prefixes of the running interpreter.
fn host(py: Python<'_>) -> PyResult<ImageSource> {
    let sys = py.import("sys")?;
    let mut prefixes: Vec<PathBuf> = Vec::new();
    for name in ["prefix", "base_prefix", "exec_prefix", "base_exec_prefix"] {
        let prefix: PathBuf = sys.getattr(name)?.extract()?;
        if !prefixes.contains(&prefix) {
            prefixes.push(prefix);
        }
    }
    Ok(ImageSource::Host { prefixes })
}

fn from_source(object: &Bound<'_, PyAny>) -> PyResult<Image> {
    let py = object.py();
    let optional = |name: &str| -> PyResult<Option<String>> {
        let value = object.getattr(name)?;
        if value.is_none() { Ok(None) } else { Ok(Some(value.str()?.extract()?)) }
    };
    let need = |name: &str| {
        optional(name)?.ok_or_else(|| PyValueError::new_err(format!("ImageSource.{name} is required for this kind")))
    };
    let kind = convert::enum_value(&object.getattr("_type")?, "ImageSourceKind");
    let kind = kind.map_err(|e| convert::named(py, "ImageSource._type", e))?;
    let source = match kind.as_str() {
        "host" => host(py)?,
        "bind" => ImageSource::Bind { path: convert::from_here(need("_path")?.into()) },
        "disk" => {
            let path = PathBuf::from(need("_path")?);
            let format = match (optional("_format")?, local(path.clone())) {
                (None, ImageSource::DiskImage { format, .. }) => format,
                (format, _) => format,
            };
            ImageSource::DiskImage { path, format, fstype: optional("_fstype")? }
        }
        _ => ImageSource::Oci { reference: need("_reference")? },
    };
    let root_disk = optional("_root_disk")?.is_some() || optional("_upper_size_mib")?.is_some();
    Ok(Image { source, root_disk })
}

impl CreateKeywords {
    /// The request. Options that no backend of this build honours are listed in it, so that `create` refuses them by
    /// name instead of dropping them.
    pub fn request(mut self, py: Python<'_>, name: String, defaults: &SandboxDefaults) -> PyResult<SandboxConfig> {
        match (&self.image, &self.from_snapshot) {
            (Some(_), Some(_)) => return Err(PyValueError::new_err("image= or from_snapshot=, not both")),
            (None, None) => return Err(PyValueError::new_err("image= or from_snapshot= is required")),
            (None, Some(Location(path))) => {
                if path.components().count() > 1 && !path.exists() {
                    return Err(PyFileNotFoundError::new_err(format!(
                        "snapshot artifact {} is absent",
                        path.display()
                    )));
                }
            }
            (Some(_), None) => {}
        }
        if let Some(Text(hostname)) = &self.hostname
            && !(1..=64).contains(&hostname.len())
        {
            return Err(invalid_config(py, format!("hostname must be 1 to 64 bytes: got {}", hostname.len())));
        }
        let resources = self.resources(py, defaults)?;
        let unsupported = self.unsupported();
        Ok(SandboxConfig {
            replace_existing: self.replace.as_ref().is_some_and(|flag| flag.0) || self.replace_with_timeout.is_some(),
            replace_timeout: self.replace_with_timeout.as_ref().map(|seconds| seconds.0),
            no_network: self.network.as_ref().is_some_and(|none| none.0),
            unsupported,
            patches: self.patches.take().map(|patches| patches.0).unwrap_or_default(),
            spec: self.spec(name, resources, defaults),
        })
    }

    fn resources(&self, py: Python<'_>, defaults: &SandboxDefaults) -> PyResult<SandboxResources> {
        let cpus = self.cpus.as_ref().map_or(defaults.cpus, |cpus| cpus.0);
        let memory_mib = self.memory.as_ref().map_or(defaults.memory_mib, |memory| memory.0);
        let max_cpus = self.max_cpus.as_ref().map_or(cpus, |cpus| cpus.0);
        let max_memory_mib = self.max_memory.as_ref().map_or(memory_mib, |memory| memory.0);
        if max_cpus < cpus {
            return Err(invalid_config(py, format!("max_cpus ({max_cpus}) is below cpus ({cpus})")));
        }
        if max_memory_mib < memory_mib {
            return Err(invalid_config(py, format!("max_memory ({max_memory_mib}) is below memory ({memory_mib})")));
        }
        Ok(SandboxResources { cpus, max_cpus, memory_mib, max_memory_mib, ..SandboxResources::default() })
    }

    fn unsupported(&self) -> Vec<UnsupportedOption> {
        let on = |flag: &Option<Flag>| flag.as_ref().is_some_and(|flag| flag.0);
        let some = |count: Option<usize>| count.is_some_and(|count| count > 0);
        let given = [
            ("create(from_snapshot=)", self.from_snapshot.is_some(), available_when::SNAPSHOTS),
            ("create(root_disk=)", self.image.as_ref().is_some_and(|image| image.root_disk), available_when::ROOT_DISK),
            ("create(registry_auth=)", self.registry_auth.is_some(), available_when::REGISTRY),
            ("create(registry_insecure=)", on(&self.registry_insecure), available_when::REGISTRY),
            (
                "create(registry_ca_certs=)",
                some(self.registry_ca_certs.as_ref().map(|c| c.0)),
                available_when::REGISTRY,
            ),
            ("create(ports=)", some(self.ports.as_ref().map(|p| p.0)), available_when::NETWORK),
            ("create(vsock=)", some(self.vsock.as_ref().map(|v| v.0)), available_when::VSOCK),
            ("create(network=)", self.network.as_ref().is_some_and(|none| !none.0), available_when::NETWORK),
            ("create(secrets=)", some(self.secrets.as_ref().map(|s| s.0)), available_when::SECRETS),
            ("create(on_secret_violation=)", self.on_secret_violation.is_some(), available_when::SECRETS),
            ("create(secret_violation_action=)", self.secret_violation_action.is_some(), available_when::SECRETS),
            ("create(intercept_tls=)", on(&self.intercept_tls), available_when::NETWORK),
            (
                "create(cpu_placement=)",
                self.cpu_placement.as_ref().is_some_and(|p| p.0 != "inherit"),
                available_when::PLACEMENT,
            ),
            ("create(placement_profile=)", self.placement_profile.is_some(), available_when::PLACEMENT),
            ("create(thp=)", self.thp.is_some(), available_when::HUGE_PAGES),
            (
                "create(deployment_profile=)",
                self.deployment_profile.as_ref().is_some_and(|profile| profile.0 != "single-tenant"),
                available_when::NETWORK,
            ),
        ];
        let mounts = self.volumes.iter().flat_map(|volumes| &volumes.0.1).map(|feature| UnsupportedOption {
            feature: feature.clone(),
            available_when: "later; create the volume with Volume.create and mount it by name".into(),
        });
        given
            .into_iter()
            .filter(|(_, given, _)| *given)
            .map(|(feature, _, when)| UnsupportedOption { feature: feature.into(), available_when: when.into() })
            .chain(mounts)
            .collect()
    }

    fn spec(self, name: String, resources: SandboxResources, defaults: &SandboxDefaults) -> SandboxSpec {
        let env = self.env.map(|env| env.0).unwrap_or_default();
        SandboxSpec {
            name,
            image: self.image.map(|image| image.source).unwrap_or_default(),
            resources,
            runtime: RuntimeOptions {
                hostname: self.hostname.map(|text| text.0),
                workdir: self.workdir.map(|text| text.0).or_else(|| defaults.workdir.clone()),
                shell: self.shell.map(|text| text.0).or_else(|| Some(defaults.shell.clone())),
                user: self.user.map(|text| text.0),
                scripts: self.scripts.map(|map| map.0).unwrap_or_default(),
                entrypoint: self.entrypoint.map(|texts| texts.0),
                cmd: self.cmd.map(|texts| texts.0),
                log_level: self.log_level.and_then(|level| model::LogLevel::parse(&level.0)),
            },
            env: env.into_iter().map(|(key, value)| EnvVar { key, value }).collect(),
            labels: self.labels.map(|map| map.0).unwrap_or_default(),
            init: self.init.map(|init| init.0),
            mounts: self.volumes.map(|volumes| volumes.0.0).unwrap_or_default(),
            pull_policy: match self.pull_policy.as_ref().map(|policy| policy.0.as_str()) {
                Some("always") => model::PullPolicy::Always,
                Some("never") => model::PullPolicy::Never,
                _ => model::PullPolicy::IfMissing,
            },
            lifecycle: SandboxPolicy {
                max_duration_secs: self.max_duration.map(|seconds| seconds.0),
                idle_timeout_secs: self.idle_timeout.map(|seconds| seconds.0),
                ephemeral: self.ephemeral.is_some_and(|flag| flag.0),
            },
            security_profile: match self.security.as_ref().map(|profile| profile.0.as_str()) {
                Some("restricted") => model::SecurityProfile::Restricted,
                _ => model::SecurityProfile::Default,
            },
            isolation: self.isolation.and_then(|isolation| model::Isolation::parse(&isolation.0)).unwrap_or_default(),
            metrics: model::MetricsOptions {
                sample_interval_ms: defaults.metrics_sample_interval_ms,
                disabled: defaults.disable_metrics_sample,
            },
            detached: self.detached.is_some_and(|flag| flag.0),
            ..SandboxSpec::default()
        }
    }
}
