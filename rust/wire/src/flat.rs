//! The dialect `flat`: a create request of fifteen keys, programs and bounded logs over plain HTTP.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::sandbox::LogEvent;

/// Exactly these fifteen keys; `cmd` and `rlimits` are absent on purpose. Absent options are not sent; a missing key and null
/// have the same meaning.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct CloudCreateSandboxRequest {
    pub name: String,
    pub image: String,
    #[serde(default = "one")]
    #[schema(minimum = 1)]
    pub vcpus: u8,
    #[serde(default = "half_gibibyte")]
    #[schema(minimum = 1)]
    pub memory_mib: u32,
    #[serde(default, deserialize_with = "or_default")]
    pub env: BTreeMap<String, String>,
    #[serde(default)]
    pub ephemeral: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workdir: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shell: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log_level: Option<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub scripts: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_duration_secs: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_timeout_secs: Option<u64>,
}

fn one() -> u8 {
    1
}
fn half_gibibyte() -> u32 {
    512
}
fn or_default<'de, D: serde::Deserializer<'de>, T: Deserialize<'de> + Default>(from: D) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

/// Body of `POST /v1/sandboxes/by-name/{name}/exec`: one program, which runs until it exits.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ExecRequest {
    pub cmd: String,
    #[serde(default)]
    pub args: Vec<String>,
    /// Merged over the environment of the sandbox; the order is kept.
    #[serde(default)]
    pub env: Vec<crate::create::EnvVar>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cwd: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user: Option<String>,
    /// Standard base64; absent: empty input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stdin: Option<String>,
    /// Seconds after which the whole process tree is killed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_secs: Option<f64>,
    #[serde(default)]
    pub rlimits: Vec<crate::create::Rlimit>,
    /// Largest number of bytes of each stream in the response; the newest are kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_output_bytes: Option<u64>,
}

/// How the program exited. A program that could not be started, or exceeded its timeout, is an error body instead.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct ExecResponse {
    /// Exit status, or 128 + signal.
    pub exit_code: i32,
    pub signal: Option<i32>,
    pub oom_killed: bool,
    pub timed_out: bool,
    pub duration_ms: f64,
    /// Standard base64.
    pub stdout: String,
    /// Standard base64.
    pub stderr: String,
    pub stdout_total: u64,
    pub stderr_total: u64,
}

/// Response of `GET /v1/sandboxes/by-name/{name}/logs` without `Accept: text/event-stream`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct LogPage {
    pub entries: Vec<LogEvent>,
}
