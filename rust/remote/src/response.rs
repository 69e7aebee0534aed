//! A sandbox as the service describes it: records, live sandboxes, and a specification built from a response.

use microsandbox_wire::sandbox::{CloudSandbox, CloudSandboxStatus, Known};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::errors::cut;
use microsandbox_core::api::{
    SandboxCloudState, SandboxHandleCloudState, SandboxHandleInner, SandboxInner, SandboxRecord,
};
use microsandbox_core::backend::LiveRecord;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    DEFAULT_CPUS, DEFAULT_MEMORY_MIB, EnvVar, ImageSource, LogLevel, RuntimeOptions, SandboxPolicy, SandboxResources,
    SandboxSpec, SandboxStatus,
};

/// Longest name of a status that is shown.
const WORD_MAX: usize = 24;

pub fn status(wire: &Known<CloudSandboxStatus>) -> SandboxStatus {
    let Known::Value(wire) = wire else { return SandboxStatus::Unknown };
    match wire {
        CloudSandboxStatus::Created => SandboxStatus::Created,
        CloudSandboxStatus::Starting => SandboxStatus::Starting,
        CloudSandboxStatus::Running => SandboxStatus::Running,
        CloudSandboxStatus::Stopping => SandboxStatus::Draining,
        CloudSandboxStatus::Stopped => SandboxStatus::Stopped,
        CloudSandboxStatus::Failed => SandboxStatus::Crashed,
    }
}

/// The last failure; a status that this version does not know is in front of it, so that users still see it.
fn failure(sandbox: &CloudSandbox) -> Option<String> {
    let failure = sandbox.failure().map(cut);
    match &sandbox.status {
        Known::Value(_) => failure,
        Known::Other(text) => {
            let unknown = format!("the service reports the status {}, which this version does not know", word(text));
            Some(failure.map_or_else(|| unknown.clone(), |failure| format!("{unknown}; {failure}")))
        }
    }
}

/// A status as a word. Other text of the service is left out: it may echo the key.
fn word(text: &str) -> &str {
    let is_word = (1..=WORD_MAX).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
    if is_word { text } else { "(not a word)" }
}

/// The record of a handle.
pub fn record(sandbox: CloudSandbox) -> MicrosandboxResult<SandboxRecord> {
    let config_json = serde_json::to_string(&sandbox.configuration())
        .map_err(|error| MicrosandboxError::json(format!("configuration of sandbox {}", sandbox.name), error))?;
    Ok(SandboxRecord {
        status: status(&sandbox.status),
        config_json,
        owner: None,
        created_at: Some(sandbox.created_at),
        // In this order of preference: the wire has no time of the last update.
        updated_at: sandbox.stopped_at.or(sandbox.started_at).or(Some(sandbox.created_at)),
        isolation: None,
        last_run: None,
        last_error: failure(&sandbox),
        inner: SandboxHandleInner::Cloud(SandboxHandleCloudState {
            id: sandbox.id.clone(),
            org_id: sandbox.org_id,
            ephemeral: sandbox.ephemeral,
            started_at: sandbox.started_at,
            stopped_at: sandbox.stopped_at,
        }),
        id: sandbox.id,
        name: sandbox.name,
    })
}

/// The state of a live sandbox.
pub fn inner(sandbox: &CloudSandbox) -> SandboxInner {
    SandboxInner::Cloud(SandboxCloudState {
        id: sandbox.id.clone(),
        org_id: sandbox.org_id.clone(),
        created_at: sandbox.created_at,
    })
}

/// A running sandbox, as far as the service describes it.
pub fn live(sandbox: &CloudSandbox) -> LiveRecord {
    LiveRecord { inner: inner(sandbox), spec: specification(sandbox), boot: Vec::new() }
}

/// Checks, after create with start and after start, that the sandbox runs. It is never removed here.
pub fn check_running(sandbox: &CloudSandbox) -> MicrosandboxResult<()> {
    let name = &sandbox.name;
    let why = failure(sandbox);
    let text = match status(&sandbox.status) {
        SandboxStatus::Running => return Ok(()),
        SandboxStatus::Crashed => {
            format!("sandbox {name} failed to start: {}", why.unwrap_or_else(|| "the service gives no reason".into()))
        }
        SandboxStatus::Starting => {
            format!("sandbox {name} is still starting after the longest wait: check it with Sandbox.get, or remove it")
        }
        SandboxStatus::Unknown => format!("sandbox {name} may not run after its start: {}", why.unwrap_or_default()),
        other => format!("sandbox {name} is {} after its start", other.as_str().to_lowercase()),
    };
    Err(MicrosandboxError::Runtime(text))
}

/// A specification from the fields of the response. A field that is missing or cannot be decoded keeps its default, so this is
/// not the full configuration of the creator. Reads no file.
pub fn specification(sandbox: &CloudSandbox) -> SandboxSpec {
    let empty = Value::Null;
    let given = sandbox.configuration().unwrap_or(&empty);
    let resources = &given["resources"];
    let runtime = section(given, "runtime");
    let lifecycle = section(given, "lifecycle");
    let cpus = read(&resources["vcpus"]).or_else(|| read(&resources["cpus"])).or_else(|| read(&given["vcpus"]));
    let memory: Option<u32> = read(&resources["memory_mib"]).or_else(|| read(&given["memory_mib"]));
    let cpus = cpus.unwrap_or(DEFAULT_CPUS);
    let memory_mib = memory.unwrap_or(DEFAULT_MEMORY_MIB);
    SandboxSpec {
        name: sandbox.name.clone(),
        id: sandbox.id.clone(),
        image: image(&given["image"]),
        resources: SandboxResources {
            cpus,
            max_cpus: cpus,
            memory_mib,
            max_memory_mib: memory_mib,
            ..SandboxResources::default()
        },
        runtime: RuntimeOptions {
            hostname: read(&runtime["hostname"]),
            workdir: read(&runtime["workdir"]),
            shell: read(&runtime["shell"]),
            user: read(&runtime["user"]),
            scripts: read(&runtime["scripts"]).unwrap_or_default(),
            // An empty list means that no entrypoint was given.
            entrypoint: read(&runtime["entrypoint"]).filter(|list: &Vec<String>| !list.is_empty()),
            cmd: read(&runtime["cmd"]).filter(|list: &Vec<String>| !list.is_empty()),
            // An unknown level is ignored, not an error.
            log_level: runtime["log_level"].as_str().and_then(|text| LogLevel::parse(&text.to_ascii_lowercase())),
        },
        env: env(&given["env"]),
        labels: read(&given["labels"]).unwrap_or_default(),
        rlimits: read(&given["rlimits"]).unwrap_or_default(),
        lifecycle: SandboxPolicy {
            max_duration_secs: read(&lifecycle["max_duration_secs"]),
            idle_timeout_secs: read(&lifecycle["idle_timeout_secs"]),
            ephemeral: read(&lifecycle["ephemeral"]).unwrap_or(sandbox.ephemeral),
        },
        detached: true,
        ..SandboxSpec::default()
    }
}

/// The nested section of `spec`, or the document itself, where `flat` has the same keys.
fn section<'a>(given: &'a Value, name: &str) -> &'a Value {
    if given[name].is_object() { &given[name] } else { given }
}

fn read<T: DeserializeOwned>(value: &Value) -> Option<T> {
    if value.is_null() { None } else { T::deserialize(value).ok() }
}

fn image(value: &Value) -> ImageSource {
    let reference = value.as_str().or_else(|| value["reference"].as_str());
    ImageSource::Oci { reference: reference.unwrap_or_default().into() }
}

fn env(value: &Value) -> Vec<EnvVar> {
    match value {
        Value::Object(map) => map
            .iter()
            .filter_map(|(key, value)| Some(EnvVar { key: key.clone(), value: value.as_str()?.into() }))
            .collect(),
        list => read(list).unwrap_or_default(),
    }
}
