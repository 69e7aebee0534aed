//! The create request of the dialect `spec`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// Body of `POST /v1/sandboxes`.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct CreateRequest {
    pub name: String,
    pub image: Image,
    pub resources: Resources,
    pub runtime: Runtime,
    /// The order is kept.
    pub env: Vec<EnvVar>,
    pub labels: BTreeMap<String, String>,
    pub rlimits: Vec<Rlimit>,
    /// Parents before children; each mount has the form of `Mount` in the model.
    #[schema(value_type = Vec<Object>)]
    pub mounts: Vec<Value>,
    #[schema(value_type = Vec<Object>)]
    pub patches: Vec<Value>,
    pub network: Network,
    #[schema(value_type = Option<Object>)]
    pub init: Option<Value>,
    pub pull_policy: PullPolicy,
    pub security_profile: SecurityProfile,
    pub lifecycle: Lifecycle,
    /// Globally unique; the service chooses one when it is absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    /// Absent: the service decides.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub registry: Option<Registry>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Image {
    Oci {
        reference: String,
    },
    Bind {
        path: String,
    },
    DiskImage {
        path: String,
        format: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        fstype: Option<String>,
    },
}

impl Default for Image {
    fn default() -> Self {
        Image::Oci { reference: String::new() }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Resources {
    #[serde(alias = "cpus")]
    #[schema(minimum = 1)]
    pub vcpus: u8,
    #[schema(minimum = 1)]
    pub memory_mib: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_size_mib: Option<u32>,
}

impl Default for Resources {
    fn default() -> Self {
        Resources { vcpus: 1, memory_mib: 512, disk_size_mib: None }
    }
}

/// Unknown keys are an error.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Runtime {
    pub workdir: Option<String>,
    pub shell: Option<String>,
    pub scripts: BTreeMap<String, String>,
    pub entrypoint: Option<Vec<String>>,
    pub cmd: Option<Vec<String>>,
    pub user: Option<String>,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub log_level: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct EnvVar {
    pub key: String,
    pub value: String,
}

/// A limit in the units of `setrlimit(2)`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Rlimit {
    /// Lower-case name without the prefix `RLIMIT_`: `nofile`, `cpu` …
    pub resource: String,
    pub soft: u64,
    pub hard: u64,
}

/// Unknown keys are an error. It may contain secrets: never log it.
#[derive(Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Network {
    pub enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub policy: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub secrets: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_connections: Option<u32>,
}

impl Default for Network {
    fn default() -> Self {
        Network { enabled: true, policy: None, secrets: None, max_connections: None }
    }
}

impl std::fmt::Debug for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Network").field("enabled", &self.enabled).finish_non_exhaustive()
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PullPolicy {
    #[default]
    IfMissing,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SecurityProfile {
    #[default]
    Default,
    Restricted,
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct Lifecycle {
    pub ephemeral: bool,
    pub max_duration_secs: Option<u64>,
    pub idle_timeout_secs: Option<u64>,
}

/// Credentials for the pull. The debug form hides the password.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "mode", rename_all = "snake_case")]
pub enum Registry {
    Auto,
    Anonymous,
    Inline { username: String, password: String },
    Specific { credential_id: String },
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Registry::Auto => "Auto",
            Registry::Anonymous => "Anonymous",
            Registry::Inline { .. } => "Inline { .. }",
            Registry::Specific { .. } => "Specific { .. }",
        })
    }
}
