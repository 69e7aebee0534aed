//! Answers about sandboxes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A sandbox, in both dialects: `spec` and `last_failure_message` are the one's names, `config` and `last_error` the
/// other's. A server sends both; a client reads whichever is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudSandbox {
    /// UUID.
    pub id: String,
    /// UUID.
    pub org_id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    pub status: CloudSandboxStatus,
    /// Only while starting; a text that is not known reads as absent.
    #[serde(default, deserialize_with = "known_reason")]
    pub status_reason: Option<StatusReason>,
    /// Curated: hosts' paths and values of secrets are left out.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub spec: Option<Value>,
    /// The create request of the dialect `flat`.
    #[serde(default)]
    #[schema(value_type = Option<Object>)]
    pub config: Option<Value>,
    pub ephemeral: bool,
    pub created_at: DateTime<Utc>,
    #[serde(default)]
    pub started_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub stopped_at: Option<DateTime<Utc>>,
    #[serde(default)]
    pub last_failure_message: Option<String>,
    #[serde(default)]
    pub last_error: Option<String>,
}

impl CloudSandbox {
    /// Whatever describes its configuration.
    pub fn configuration(&self) -> Option<&Value> {
        self.spec.as_ref().or(self.config.as_ref())
    }
    pub fn failure(&self) -> Option<&str> {
        self.last_failure_message.as_deref().or(self.last_error.as_deref())
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum CloudSandboxStatus {
    Created,
    Starting,
    Running,
    Stopping,
    Stopped,
    Failed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum StatusReason {
    Scheduling,
    InsufficientCapacity,
}

fn known_reason<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Option<StatusReason>, D::Error> {
    let value = Option::<Value>::deserialize(from)?;
    Ok(value.and_then(|value| serde_json::from_value(value).ok()))
}

/// One page. A client reads `data` and `next_cursor`; none means the last page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudPaginated<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub next_cursor: Option<String>,
    #[serde(default)]
    pub has_more: bool,
}

/// Answer of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct CloudMessageResponse {
    #[serde(default)]
    pub message: String,
}

/// Data of the event `log`; its cursor is the event's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEvent {
    /// `stdout stderr output system`.
    pub source: String,
    pub ts: DateTime<Utc>,
    pub text: String,
    /// Number of the program's session; this server's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<u64>,
    /// Standard base64 of the raw bytes when they are not UTF-8; this server's extension.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<String>,
    /// In pages only, where there is no event id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
