//! From requests of the wire to a configuration, and from records to responses.
//!
//! A remote caller never names a path of this machine. No option is dropped: an option that this server does not support is
//! refused by name.

use std::collections::BTreeMap;

use chrono::Utc;
use microsandbox_core::SandboxHandle;
use microsandbox_core::backend::available_when;
use microsandbox_core::model::{
    self, EnvVar, ImageSource, LogLevel, Mount, RegistryAccess, RegistryAuth, SandboxConfig, SandboxPolicy,
    SandboxResources, SandboxSpec, SandboxStatus,
};
use microsandbox_local::derived_hostname;
use microsandbox_wire::create::{CreateRequest, Image, PullPolicy, Registry, SecurityProfile};
use microsandbox_wire::flat::CloudCreateSandboxRequest;
use microsandbox_wire::sandbox::{CloudSandbox, CloudSandboxStatus, Known};
use serde_json::{Map, Value, json};

use crate::error::{ApiError, ApiResult};
use crate::serve::Policy;
use crate::tenancy::{Caller, without_paths};

/// Longest failure message in a response, in characters.
const FAILURE_CHARS: usize = 2000;
/// The image that consists of the system of this machine.
const HOST_IMAGE: &str = "host";
const REMOTE_PATHS: &str =
    "never over the wire, where paths of the machine of the server are not accepted; use an image";

const SPEC_KEYS: [&str; 16] = [
    "name",
    "image",
    "resources",
    "runtime",
    "env",
    "labels",
    "rlimits",
    "mounts",
    "patches",
    "network",
    "init",
    "pull_policy",
    "security_profile",
    "lifecycle",
    "slug",
    "registry",
];
const FLAT_KEYS: [&str; 15] = [
    "name",
    "image",
    "vcpus",
    "memory_mib",
    "env",
    "ephemeral",
    "workdir",
    "shell",
    "entrypoint",
    "hostname",
    "user",
    "log_level",
    "scripts",
    "max_duration_secs",
    "idle_timeout_secs",
];

/// Either dialect: an image that is a string means `flat`.
pub fn config(body: Value, policy: &Policy) -> ApiResult<SandboxConfig> {
    let Value::Object(object) = &body else {
        return Err(ApiError::invalid("the request must be a JSON object"));
    };
    let flat = object.get("image").is_some_and(Value::is_string);
    let known: &[&str] = if flat { &FLAT_KEYS } else { &SPEC_KEYS };
    if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
        return Err(ApiError::invalid(format!("unknown key {key:?}: this server does not support it")));
    }
    let mut registry = RegistryAccess { public_only: true, ..RegistryAccess::default() };
    let mut spec = if flat {
        from_flat(parse(body)?)?
    } else {
        let mut request: CreateRequest = parse(body)?;
        match request.registry.take() {
            None | Some(Registry::Auto) => {}
            Some(Registry::Anonymous) => registry.anonymous = true,
            Some(Registry::Inline { username, password }) => {
                registry.auth = Some(RegistryAuth { username, password });
            }
            Some(Registry::Specific { .. }) => {
                return Err(ApiError::unsupported("registry.mode specific", "on the hosted service"));
            }
        }
        from_spec(request)?
    };
    spec.isolation = policy.isolation;
    check_image(&spec.image, policy)?;
    Ok(SandboxConfig { spec, registry, ..SandboxConfig::default() })
}

/// Refuses an image that the owner of the server does not offer.
pub fn check_image(image: &ImageSource, policy: &Policy) -> ApiResult<()> {
    match image {
        ImageSource::Host { .. } if !policy.host_image => {
            Err(ApiError::unsupported("image host", "where the server was started with --allow-host-image"))
        }
        // They name files and daemons of the server.
        ImageSource::Oci { reference } if ImageSource::is_local_source(reference) => {
            Err(ApiError::unsupported("image from a file, a directory or a daemon", REMOTE_PATHS))
        }
        _ => Ok(()),
    }
}

fn parse<T: serde::de::DeserializeOwned>(body: Value) -> ApiResult<T> {
    serde_json::from_value(body)
        .map_err(|error| ApiError::invalid(format!("the request does not match its schema: {error}")))
}

fn from_spec(request: CreateRequest) -> ApiResult<SandboxSpec> {
    refuse_unsupported(&request)?;
    let image = match request.image {
        Image::Oci { reference } => image(reference),
        Image::Bind { .. } => return Err(ApiError::unsupported("image-from-host-dir", REMOTE_PATHS)),
        Image::DiskImage { .. } => return Err(ApiError::unsupported("disk-image rootfs", REMOTE_PATHS)),
    };
    let env = request.env.into_iter().map(|var| EnvVar { key: var.key, value: var.value }).collect();
    let rlimits = request.rlimits.into_iter();
    let runtime = request.runtime;
    Ok(SandboxSpec {
        name: request.name,
        image,
        resources: resources(request.resources.vcpus, request.resources.memory_mib),
        runtime: model::RuntimeOptions {
            hostname: None,
            workdir: runtime.workdir,
            shell: runtime.shell,
            user: runtime.user,
            scripts: runtime.scripts,
            entrypoint: runtime.entrypoint,
            cmd: runtime.cmd,
            log_level: log_level(runtime.log_level)?,
        },
        env,
        labels: request.labels,
        rlimits: rlimits.map(|l| model::Rlimit { resource: l.resource, soft: l.soft, hard: l.hard }).collect(),
        mounts: request.mounts.into_iter().map(mount).collect::<ApiResult<_>>()?,
        pull_policy: match request.pull_policy {
            PullPolicy::IfMissing => model::PullPolicy::IfMissing,
            PullPolicy::Always => model::PullPolicy::Always,
            PullPolicy::Never => model::PullPolicy::Never,
        },
        security_profile: match request.security_profile {
            SecurityProfile::Default => model::SecurityProfile::Default,
            SecurityProfile::Restricted => model::SecurityProfile::Restricted,
        },
        lifecycle: lifecycle(
            request.lifecycle.ephemeral,
            request.lifecycle.max_duration_secs,
            request.lifecycle.idle_timeout_secs,
        ),
        detached: true,
        ..SandboxSpec::default()
    })
}

/// Refuses the options that this build does not support, in the order of the keys of the contract.
fn refuse_unsupported(request: &CreateRequest) -> ApiResult<()> {
    let network = &request.network;
    let checks = [
        (request.resources.disk_size_mib.is_some(), "resources.disk_size_mib", available_when::ROOT_DISK),
        (!request.patches.is_empty(), "patches", available_when::PATCHES),
        (network.policy.is_some(), "network.policy", available_when::NETWORK),
        (network.secrets.is_some(), "network.secrets", available_when::SECRETS),
        (network.max_connections.is_some(), "network.max_connections", available_when::NETWORK),
        (request.init.is_some(), "init", available_when::INIT),
        (request.slug.is_some(), "slug", "on the hosted service"),
    ];
    match checks.into_iter().find(|(given, ..)| *given) {
        Some((_, feature, when)) => Err(ApiError::unsupported(feature, when)),
        None => Ok(()),
    }
}

fn mount(value: Value) -> ApiResult<Mount> {
    let mount: Mount = serde_json::from_value(value)
        .map_err(|error| ApiError::invalid(format!("a mount does not match its schema: {error}")))?;
    match mount {
        Mount::Named { .. } | Mount::Tmpfs { .. } => Ok(mount),
        Mount::Bind { .. } => Err(ApiError::unsupported("mounts of the type bind", REMOTE_PATHS)),
        Mount::DiskImage { .. } => Err(ApiError::unsupported("mounts of the type disk_image", REMOTE_PATHS)),
    }
}

fn from_flat(request: CloudCreateSandboxRequest) -> ApiResult<SandboxSpec> {
    Ok(SandboxSpec {
        name: request.name,
        image: image(request.image),
        resources: resources(request.vcpus, request.memory_mib),
        runtime: model::RuntimeOptions {
            hostname: request.hostname,
            workdir: request.workdir,
            shell: request.shell,
            user: request.user,
            scripts: request.scripts,
            entrypoint: request.entrypoint,
            cmd: None,
            log_level: log_level(request.log_level)?,
        },
        env: request.env.into_iter().map(|(key, value)| EnvVar { key, value }).collect(),
        lifecycle: lifecycle(request.ephemeral, request.max_duration_secs, request.idle_timeout_secs),
        detached: true,
        ..SandboxSpec::default()
    })
}

fn image(reference: String) -> ImageSource {
    if reference == HOST_IMAGE {
        // The interpreter's prefix is the operator's, with what was installed into it.
        ImageSource::Host { prefixes: Vec::new() }
    } else {
        ImageSource::Oci { reference }
    }
}

fn resources(cpus: u8, memory_mib: u32) -> SandboxResources {
    SandboxResources { cpus, max_cpus: cpus, memory_mib, max_memory_mib: memory_mib, ..SandboxResources::default() }
}

fn lifecycle(ephemeral: bool, max_duration: Option<u64>, idle_timeout: Option<u64>) -> SandboxPolicy {
    SandboxPolicy {
        max_duration_secs: max_duration.map(|secs| secs as f64),
        idle_timeout_secs: idle_timeout.map(|secs| secs as f64),
        ephemeral,
    }
}

fn log_level(text: Option<String>) -> ApiResult<Option<LogLevel>> {
    let Some(text) = text else { return Ok(None) };
    match LogLevel::parse(&text) {
        Some(level) => Ok(Some(level)),
        None => Err(ApiError::invalid(format!("log_level must be one of error warn info debug trace: got {text:?}"))),
    }
}

/// A status in the terms of the wire. No other status is reported as stopped.
pub fn status(status: SandboxStatus) -> Known<CloudSandboxStatus> {
    Known::Value(match status {
        SandboxStatus::Created => CloudSandboxStatus::Created,
        SandboxStatus::Starting => CloudSandboxStatus::Starting,
        SandboxStatus::Running | SandboxStatus::Paused => CloudSandboxStatus::Running,
        SandboxStatus::Draining => CloudSandboxStatus::Stopping,
        SandboxStatus::Stopped => CloudSandboxStatus::Stopped,
        SandboxStatus::Crashed => CloudSandboxStatus::Failed,
        // Of a backend that is itself a client.
        SandboxStatus::Unknown => return Known::Other("unknown".into()),
    })
}

/// A record as a response. `spec` and `config` are absent when the stored configuration cannot be decoded: the caller can
/// still stop and remove the sandbox.
pub fn sandbox(handle: &SandboxHandle, caller: &Caller, org_id: &str, private: &[String]) -> CloudSandbox {
    let spec = serde_json::from_str::<SandboxSpec>(handle.config_json()).ok();
    let state = handle.status_snapshot();
    let name = caller.shown(handle.name());
    let failure = handle.last_error_snapshot().map(|text| without_paths(text, private));
    let failure = failure.map(|text| text.chars().take(FAILURE_CHARS).collect::<String>());
    CloudSandbox {
        id: uuid(handle.id()),
        org_id: org_id.into(),
        name: name.into(),
        slug: None,
        status: status(state),
        status_reason: None,
        spec: spec.as_ref().map(|spec| projection(spec, caller)),
        config: spec.as_ref().map(|spec| flat(spec, caller)),
        ephemeral: spec.as_ref().is_some_and(|spec| spec.lifecycle.ephemeral),
        created_at: handle.created_at().unwrap_or_else(Utc::now),
        started_at: handle.updated_at().filter(|_| state.is_live()),
        stopped_at: handle.updated_at().filter(|_| state.is_terminal()),
        last_failure_message: failure.clone(),
        last_error: failure,
    }
}

fn image_text(image: &ImageSource) -> Option<&str> {
    match image {
        ImageSource::Host { .. } => Some(HOST_IMAGE),
        ImageSource::Oci { reference } => Some(reference),
        // A path of this machine: not sent to remote callers.
        ImageSource::Bind { .. } | ImageSource::DiskImage { .. } => None,
    }
}

/// The hostname that was asked for: without one the server derives it from the name.
fn hostname<'a>(spec: &'a SandboxSpec, caller: &Caller) -> Option<&'a str> {
    let derived = derived_hostname(caller.shown(&spec.name));
    spec.runtime.hostname.as_deref().filter(|hostname| *hostname != derived)
}

/// The names; what they stand for may be secret, and is sent empty.
fn names_only<'a>(names: impl Iterator<Item = &'a String>) -> BTreeMap<String, String> {
    names.map(|name| (name.clone(), String::new())).collect()
}

/// The reduced form: without paths of this machine, values of variables and bodies of scripts.
fn projection(spec: &SandboxSpec, caller: &Caller) -> Value {
    let runtime = &spec.runtime;
    json!({
        "name": caller.shown(&spec.name),
        "image": image_text(&spec.image),
        "resources": { "vcpus": spec.resources.cpus, "memory_mib": spec.resources.memory_mib, "disk_size_mib": null },
        "runtime": {
            "workdir": runtime.workdir, "shell": runtime.shell, "scripts": names_only(runtime.scripts.keys()),
            "entrypoint": runtime.entrypoint, "cmd": runtime.cmd, "user": runtime.user,
            "hostname": hostname(spec, caller), "log_level": runtime.log_level,
            "metrics_sample_interval_ms": spec.metrics.effective_interval_ms(),
            "disable_metrics_sample": spec.metrics.disabled,
        },
        "env": spec.env.iter().map(|var| json!({ "key": var.key, "value": "" })).collect::<Vec<_>>(),
        "labels": spec.labels,
        "rlimits": spec.rlimits.iter().map(|limit| json!({
            "resource": cap_word(&limit.resource), "soft": limit.soft, "hard": limit.hard,
        })).collect::<Vec<_>>(),
        "mounts": spec.mounts.iter().map(|mount| mount_projection(mount, caller)).collect::<Vec<_>>(),
        "network": { "enabled": false },
        "pull_policy": match spec.pull_policy {
            model::PullPolicy::Always => "always",
            model::PullPolicy::IfMissing => "if_missing",
            model::PullPolicy::Never => "never",
        },
        "security_profile": spec.security_profile,
        "lifecycle": policy(&spec.lifecycle),
        "isolation": spec.isolation_actual.map(model::Isolation::as_str),
    })
}

fn policy(policy: &SandboxPolicy) -> Value {
    let secs = |value: Option<f64>| value.map(|secs| secs as u64);
    json!({
        "ephemeral": policy.ephemeral,
        "max_duration_secs": secs(policy.max_duration_secs),
        "idle_timeout_secs": secs(policy.idle_timeout_secs),
    })
}

fn mount_projection(mount: &Mount, caller: &Caller) -> Value {
    let kind = match mount {
        Mount::Bind { .. } => "Bind",
        Mount::Named { .. } => "Named",
        Mount::Tmpfs { .. } => "Tmpfs",
        Mount::DiskImage { .. } => "DiskImage",
    };
    let mut shown = Map::from_iter([
        ("type".to_owned(), json!(kind)),
        ("guest".to_owned(), json!(mount.guest())),
        ("options".to_owned(), json!(mount.options())),
    ]);
    match mount {
        // The name of a volume is not a path.
        Mount::Named { name, .. } => shown.insert("name".into(), json!(caller.shown(name))),
        Mount::Tmpfs { size_mib: Some(size), .. } => shown.insert("size_mib".into(), json!(size)),
        _ => None,
    };
    Value::Object(shown)
}

fn cap_word(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase()).into_iter().chain(chars).collect()
}

/// The create request of `flat` that would create this sandbox, as far as it is shown.
fn flat(spec: &SandboxSpec, caller: &Caller) -> Value {
    let secs = |value: Option<f64>| value.map(|secs| secs as u64);
    json!(CloudCreateSandboxRequest {
        name: caller.shown(&spec.name).to_owned(),
        image: image_text(&spec.image).unwrap_or_default().to_owned(),
        vcpus: spec.resources.cpus,
        memory_mib: spec.resources.memory_mib,
        env: names_only(spec.env.iter().map(|var| &var.key)),
        ephemeral: spec.lifecycle.ephemeral,
        workdir: spec.runtime.workdir.clone(),
        shell: spec.runtime.shell.clone(),
        entrypoint: spec.runtime.entrypoint.clone(),
        hostname: hostname(spec, caller).map(str::to_owned),
        user: spec.runtime.user.clone(),
        log_level: spec.runtime.log_level.map(|level| level.as_str().to_owned()),
        scripts: names_only(spec.runtime.scripts.keys()),
        max_duration_secs: secs(spec.lifecycle.max_duration_secs),
        idle_timeout_secs: secs(spec.lifecycle.idle_timeout_secs),
    })
}

/// 32 hexadecimal digits as the text of a UUID; any other text unchanged.
pub fn uuid(hex: &str) -> String {
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return hex.to_owned();
    }
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// The inverse of [`uuid`].
pub fn from_uuid(text: &str) -> String {
    let hex: String = text.chars().filter(|c| *c != '-').collect::<String>().to_ascii_lowercase();
    if hex.len() == 32 && hex.bytes().all(|b| b.is_ascii_hexdigit()) { hex } else { text.to_owned() }
}

#[cfg(test)]
mod tests;
