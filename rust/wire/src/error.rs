//! Error bodies.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

/// `{"error": {"code", "message", "details"}}`; a client also accepts the inner object alone, key by key.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct CloudErrorBody {
    pub error: CloudErrorDetails,
}

#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize, ToSchema)]
pub struct CloudErrorDetails {
    pub code: String,
    pub message: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub details: Option<Value>,
}

/// The codes that both sides know. The first eight are those of the control plane; the server of this project adds the others.
pub mod code {
    pub const SANDBOX_NOT_FOUND: &str = "sandbox_not_found";
    pub const VOLUME_NOT_FOUND: &str = "volume_not_found";
    pub const VOLUME_FILE_NOT_FOUND: &str = "volume_file_not_found";
    pub const NAME_ALREADY_EXISTS: &str = "name_already_exists";
    pub const INVALID_REQUEST: &str = "invalid_request";
    pub const INVALID_SANDBOX_CONFIG: &str = "invalid_sandbox_config";
    pub const INVALID_VOLUME_PATH: &str = "invalid_volume_path";
    pub const INVALID_API_KEY: &str = "invalid_api_key";

    /// 409; `details`: `{"name", "status"}`.
    pub const SANDBOX_NOT_RUNNING: &str = "sandbox_not_running";
    /// 409.
    pub const SANDBOX_STILL_RUNNING: &str = "sandbox_still_running";
    /// 409; `details`: `{"name", "holder"}`.
    pub const VOLUME_IN_USE: &str = "volume_in_use";
    /// 409: the name now belongs to a different sandbox.
    pub const SANDBOX_REPLACED: &str = "sandbox_replaced";
    /// 400; `details`: `{"cursor"}`.
    pub const INVALID_CURSOR: &str = "invalid_cursor";
    /// 422; `details`: `{"image"}`.
    pub const NO_DEFAULT_COMMAND: &str = "no_default_command";
    /// 429; `details`: `{"resource"}`.
    pub const RESOURCE_EXHAUSTED: &str = "resource_exhausted";
    /// 422; `details`: `{"demanded", "reason", "hint"}`.
    pub const ISOLATION_UNAVAILABLE: &str = "isolation_unavailable";
    /// 422; `details`: `{"feature", "available_when"}`.
    pub const UNSUPPORTED: &str = "unsupported";
    /// 422; `details`: `{"kind", "errno", "errno_name", "stage"}`.
    pub const EXEC_FAILED: &str = "exec_failed";
    /// 408; `details`: `{"secs"}`.
    pub const EXEC_TIMEOUT: &str = "exec_timeout";
    /// 404; `details`: `{"operation", "path"}`.
    pub const PATH_NOT_FOUND: &str = "path_not_found";
    /// 409; `details`: `{"operation", "path", "kind", "errno"}`.
    pub const FILESYSTEM: &str = "filesystem";
    /// 404.
    pub const IMAGE_NOT_FOUND: &str = "image_not_found";
    /// 422; `details` as in the record of a failed boot.
    pub const BOOT_FAILED: &str = "boot_failed";
    /// 403: the key lacks the scope that `details.scope` names.
    pub const FORBIDDEN: &str = "forbidden";
    /// 429.
    pub const TOO_MANY_REQUESTS: &str = "too_many_requests";
    /// 413.
    pub const TOO_LARGE: &str = "too_large";
    pub const NOT_FOUND: &str = "not_found";
    pub const INTERNAL: &str = "internal";
    pub const UNAVAILABLE: &str = "unavailable";
}
