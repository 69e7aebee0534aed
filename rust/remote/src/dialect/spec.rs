//! A specification as the create request of the dialect `spec`. Every option is sent or refused by name; with a new field of the
//! model this file does not compile until it handles the field.

use microsandbox_wire::create::{
    CreateRequest, EnvVar, Image, Lifecycle, Network, PullPolicy as WirePull, Registry, Resources, Rlimit, Runtime,
    SecurityProfile as WireProfile,
};

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    DEFAULT_METRICS_SAMPLE_INTERVAL_MS, DEFAULT_PIDS, ImageSource, Isolation, MetricsOptions, PullPolicy,
    RegistryAccess, RuntimeOptions, SandboxConfig, SandboxPolicy, SandboxResources, SandboxSpec, SecurityProfile,
};

/// `available_when` of the options that the service decides.
const LOCAL: &str = "on the local backend; the service decides this";

fn refused<T>(feature: &str, available_when: &str) -> MicrosandboxResult<T> {
    Err(MicrosandboxError::unsupported(feature, available_when))
}

/// The request, or the first option that cannot be carried.
pub fn create(config: &SandboxConfig) -> MicrosandboxResult<CreateRequest> {
    // Replacing is done by this client, in steps (see `operations`); the options of no backend are refused before.
    let SandboxConfig { spec, replace_existing: _, replace_timeout: _, no_network, patches, unsupported, registry } =
        config;
    if let Some(option) = unsupported.first() {
        return refused(&option.feature, &option.available_when);
    }
    if !patches.is_empty() {
        return refused("create(patches=)", LOCAL);
    }
    // Which addresses the service may talk to is the service's to decide.
    let RegistryAccess { auth, insecure, ca_certs, anonymous, public_only: _ } = registry;
    if *insecure {
        return refused("create(registry_insecure=)", LOCAL);
    }
    if !ca_certs.is_empty() {
        return refused("create(registry_ca_certs=)", LOCAL);
    }
    let registry = match auth {
        Some(auth) => Some(Registry::Inline { username: auth.username.clone(), password: auth.password.clone() }),
        None => anonymous.then_some(Registry::Anonymous),
    };
    let SandboxSpec {
        name,
        image,
        resources,
        runtime,
        env,
        labels,
        rlimits,
        mounts,
        init,
        pull_policy,
        lifecycle,
        security_profile,
        isolation,
        // Results of the creation, not options.
        isolation_actual: _,
        id: _,
        image_defaults: _,
        // Sandboxes of a service always outlive the caller.
        detached: _,
        metrics,
    } = spec;
    let resources = resources_of(resources)?;
    let runtime = runtime_of(runtime)?;
    metrics_of(metrics)?;
    if *isolation != Isolation::Auto {
        return refused("create(isolation=)", LOCAL);
    }
    Ok(CreateRequest {
        name: name.clone(),
        image: image_of(image)?,
        resources,
        runtime,
        env: env.iter().map(|var| EnvVar { key: var.key.clone(), value: var.value.clone() }).collect(),
        labels: labels.clone(),
        rlimits: rlimits
            .iter()
            .map(|limit| Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        mounts: mounts
            .iter()
            .map(|mount| serde_json::to_value(mount).map_err(|error| MicrosandboxError::json("a mount", error)))
            .collect::<MicrosandboxResult<_>>()?,
        patches: Vec::new(),
        network: Network { enabled: !no_network, ..Network::default() },
        init: init.as_ref().and_then(|init| serde_json::to_value(init).ok()),
        pull_policy: match pull_policy {
            PullPolicy::IfMissing => WirePull::IfMissing,
            PullPolicy::Always => WirePull::Always,
            PullPolicy::Never => WirePull::Never,
        },
        security_profile: match security_profile {
            SecurityProfile::Default => WireProfile::Default,
            SecurityProfile::Restricted => WireProfile::Restricted,
        },
        lifecycle: lifecycle_of(lifecycle)?,
        slug: None,
        registry,
    })
}

fn resources_of(resources: &SandboxResources) -> MicrosandboxResult<Resources> {
    let SandboxResources { cpus, max_cpus, memory_mib, max_memory_mib, pids, thp } = resources;
    if max_cpus != cpus {
        return refused("create(max_cpus=)", LOCAL);
    }
    if max_memory_mib != memory_mib {
        return refused("create(max_memory=)", LOCAL);
    }
    if *pids != DEFAULT_PIDS {
        return refused("pids", LOCAL);
    }
    if thp.is_some() {
        return refused("create(thp=)", LOCAL);
    }
    Ok(Resources { vcpus: *cpus, memory_mib: *memory_mib, disk_size_mib: None })
}

fn runtime_of(runtime: &RuntimeOptions) -> MicrosandboxResult<Runtime> {
    let RuntimeOptions { hostname, workdir, shell, user, scripts, entrypoint, cmd, log_level } = runtime;
    if hostname.is_some() {
        return refused("create(hostname=)", LOCAL);
    }
    Ok(Runtime {
        workdir: workdir.clone(),
        shell: shell.clone(),
        scripts: scripts.clone(),
        entrypoint: entrypoint.clone(),
        cmd: cmd.clone(),
        user: user.clone(),
        log_level: log_level.map(|level| level.as_str().to_owned()),
    })
}

/// The service decides about sampling: an explicit interval is refused, the default of a home, "off", is not.
fn metrics_of(metrics: &MetricsOptions) -> MicrosandboxResult<()> {
    let MetricsOptions { sample_interval_ms, disabled: _ } = metrics;
    match sample_interval_ms {
        None | Some(0 | DEFAULT_METRICS_SAMPLE_INTERVAL_MS) => Ok(()),
        Some(_) => refused("metrics_sample_interval_ms", LOCAL),
    }
}

fn lifecycle_of(lifecycle: &SandboxPolicy) -> MicrosandboxResult<Lifecycle> {
    let SandboxPolicy { max_duration_secs, idle_timeout_secs, ephemeral } = lifecycle;
    Ok(Lifecycle {
        ephemeral: *ephemeral,
        max_duration_secs: whole("max_duration", *max_duration_secs)?,
        idle_timeout_secs: whole("idle_timeout", *idle_timeout_secs)?,
    })
}

/// The wire has whole seconds; rounding would change the option silently.
pub fn whole(option: &str, seconds: Option<f64>) -> MicrosandboxResult<Option<u64>> {
    let Some(seconds) = seconds else { return Ok(None) };
    if !(0.0..=9e15).contains(&seconds) || seconds.fract() != 0.0 {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "{option} is {seconds}: the service accepts whole seconds only"
        )));
    }
    Ok(Some(seconds as u64))
}

fn image_of(image: &ImageSource) -> MicrosandboxResult<Image> {
    match image {
        // A self-hosted server uses the system of its own machine for this name.
        ImageSource::Host { .. } => Ok(Image::Oci { reference: "host".into() }),
        ImageSource::Oci { reference } => Ok(Image::Oci { reference: reference.clone() }),
        ImageSource::Bind { .. } => refused("image-from-host-dir", "when cloud volumes ship"),
        ImageSource::DiskImage { .. } => refused("disk-image rootfs", "never on cloud"),
    }
}
