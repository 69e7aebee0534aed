//! The keywords of `create`, and the request they make.

use microsandbox_core::backend::available_when;
use microsandbox_core::config::{self, SandboxDefaults};
use microsandbox_core::model::{
    self, EnvVar, RuntimeOptions, SandboxConfig, SandboxPolicy, SandboxResources, SandboxSpec, UnsupportedOption,
};
use pyo3::exceptions::{PyFileNotFoundError, PyValueError};
use pyo3::prelude::*;

use crate::arguments::{Cpus, Env, Flag, Location, Mib, Seconds, StrMap, Text, Word, Words, keywords, newtype};
use crate::enums::{Member, ViolationAction};
use crate::errors::invalid_config;
use crate::exec::Rlimits;
use crate::image_source::Image;
use crate::init::Init;
use crate::mounts::Mounts;
use crate::network::{NetworkArg, Ports, Vsock};
use crate::patches::Patches;
use crate::registry::{CaCerts, RegistryAuth};
use crate::secrets::{Secrets, Violation};

keywords! {
    /// Everything that `create` takes besides the name and the backend.
    pub struct CreateKeywords {
        image: Image,
        from_snapshot: Location,
        memory: Mib,
        cpus: Cpus,
        max_memory: Mib,
        max_cpus: Cpus,
        workdir: Word,
        shell: Word,
        security: Member<model::SecurityProfile>,
        hostname: Text,
        user: Word,
        entrypoint: Words,
        cmd: Words,
        init: Init,
        replace: Flag,
        replace_with_timeout: Seconds,
        max_duration: Seconds,
        idle_timeout: Seconds,
        ephemeral: Flag,
        env: Env,
        rlimits: Rlimits,
        labels: StrMap,
        scripts: StrMap,
        pull_policy: Member<model::PullPolicy>,
        log_level: Member<model::LogLevel>,
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
        secret_violation_action: Member<ViolationAction>,
        intercept_tls: Flag,
        detached: Flag,
        cpu_placement: Member<config::CpuPlacement>,
        placement_profile: Text,
        thp: Thp,
        deployment_profile: Member<config::DeploymentProfile>,
        isolation: Member<model::Isolation>,
    }
}

newtype!(
    /// Transparent huge pages; checked only.
    Thp(()) = |object| {
        let Text(text) = object.extract()?;
        if ["always", "madvise", "never"].contains(&text.as_str()) {
            return Ok(());
        }
        Err(PyValueError::new_err(format!(
            "unknown transparent huge-page policy {text:?}; use always, madvise or never"
        )))
    }
);

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
            registry: model::RegistryAccess {
                auth: self.registry_auth.take().map(|auth| auth.0),
                insecure: self.registry_insecure.as_ref().is_some_and(|flag| flag.0),
                ca_certs: self.registry_ca_certs.take().map(|pems| pems.0).unwrap_or_default(),
                ..model::RegistryAccess::default()
            },
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
            ("create(ports=)", some(self.ports.as_ref().map(|p| p.0)), available_when::NETWORK),
            ("create(vsock=)", some(self.vsock.as_ref().map(|v| v.0)), available_when::VSOCK),
            ("create(network=)", self.network.as_ref().is_some_and(|none| !none.0), available_when::NETWORK),
            ("create(secrets=)", some(self.secrets.as_ref().map(|s| s.0)), available_when::SECRETS),
            ("create(on_secret_violation=)", self.on_secret_violation.is_some(), available_when::SECRETS),
            ("create(secret_violation_action=)", self.secret_violation_action.is_some(), available_when::SECRETS),
            ("create(intercept_tls=)", on(&self.intercept_tls), available_when::NETWORK),
            (
                "create(cpu_placement=)",
                self.cpu_placement.is_some_and(|p| p.0 != config::CpuPlacement::Inherit),
                available_when::PLACEMENT,
            ),
            ("create(placement_profile=)", self.placement_profile.is_some(), available_when::PLACEMENT),
            ("create(thp=)", self.thp.is_some(), available_when::HUGE_PAGES),
            (
                "create(deployment_profile=)",
                self.deployment_profile.is_some_and(|p| p.0 != config::DeploymentProfile::SingleTenant),
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
                log_level: self.log_level.map(|level| level.0),
            },
            env: env.into_iter().map(|(key, value)| EnvVar { key, value }).collect(),
            rlimits: self.rlimits.map(|limits| limits.0).unwrap_or_default(),
            labels: self.labels.map(|map| map.0).unwrap_or_default(),
            init: self.init.map(|init| init.0),
            mounts: self.volumes.map(|volumes| volumes.0.0).unwrap_or_default(),
            pull_policy: self.pull_policy.map(|policy| policy.0).unwrap_or_default(),
            lifecycle: SandboxPolicy {
                max_duration_secs: self.max_duration.map(|seconds| seconds.0),
                idle_timeout_secs: self.idle_timeout.map(|seconds| seconds.0),
                ephemeral: self.ephemeral.is_some_and(|flag| flag.0),
            },
            security_profile: self.security.map(|profile| profile.0).unwrap_or_default(),
            isolation: self.isolation.map(|isolation| isolation.0).unwrap_or_default(),
            metrics: model::MetricsOptions {
                sample_interval_ms: defaults.metrics_sample_interval_ms,
                disabled: defaults.disable_metrics_sample,
            },
            detached: self.detached.is_some_and(|flag| flag.0),
            ..SandboxSpec::default()
        }
    }
}
