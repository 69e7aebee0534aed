//! Responses about sandboxes.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// A sandbox, in both dialects: `spec` uses `spec` and `last_failure_message`, `flat` uses `config` and `last_error`. A server
/// sends all four; a client reads those that are present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudSandbox {
    /// UUID.
    pub id: String,
    /// UUID.
    pub org_id: String,
    pub name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slug: Option<String>,
    #[schema(value_type = CloudSandboxStatus)]
    pub status: Known<CloudSandboxStatus>,
    /// Only while starting; an unknown text is read as absent.
    #[serde(default, deserialize_with = "known_reason")]
    pub status_reason: Option<StatusReason>,
    /// Reduced: without paths of the host and values of secrets.
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
    /// The configuration, from the dialect that is present.
    pub fn configuration(&self) -> Option<&Value> {
        self.spec.as_ref().or(self.config.as_ref())
    }
    pub fn failure(&self) -> Option<&str> {
        self.last_failure_message.as_deref().or(self.last_error.as_deref())
    }
}

/// A value, or the text of a service that knows more of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Known<T> {
    Value(T),
    Other(String),
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

/// One page. A client reads `data` and `next_cursor`; without a cursor it is the last page.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct CloudPaginated<T> {
    pub data: Vec<T>,
    #[serde(default)]
    pub next_cursor: Option<String>,
    #[serde(default)]
    pub has_more: bool,
}

/// Response of a removal.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
pub struct CloudMessageResponse {
    #[serde(default)]
    pub message: String,
}

/// Data of the event `log`; its cursor is the event's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct LogEvent {
    /// `stdout`, `stderr`, `output` or `system`.
    pub source: String,
    pub ts: DateTime<Utc>,
    pub text: String,
    /// Number of the session of the program; an extension of the server of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session_id: Option<u64>,
    /// Standard base64 of the raw bytes when they are not UTF-8; an extension of the server of this project.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub b64: Option<String>,
    /// In pages only: they have no event id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cursor: Option<String>,
}
