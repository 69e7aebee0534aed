//! Errors as responses: status, code, message, details.

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use microsandbox_core::MicrosandboxError;
use microsandbox_wire::error::{CloudErrorBody, CloudErrorDetails, code};
use serde_json::{Value, json};

/// Longest message that is sent, in characters.
const MESSAGE_CHARS: usize = 2000;

pub type ApiResult<T = axum::response::Response> = Result<T, ApiError>;

/// An error as it is sent to a client.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiError {
    pub status: StatusCode,
    pub code: &'static str,
    pub message: String,
    pub details: Option<Value>,
    /// Seconds.
    pub retry_after: Option<u32>,
}

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        ApiError { status, code, message: message.into(), details: None, retry_after: None }
    }
    pub fn invalid(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::BAD_REQUEST, code::INVALID_REQUEST, message)
    }
    pub fn not_found(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::NOT_FOUND, code::NOT_FOUND, message)
    }
    pub fn sandbox_not_found(name: &str) -> Self {
        MicrosandboxError::SandboxNotFound(name.into()).into()
    }
    pub fn too_large(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE, message)
    }
    pub fn too_many(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, code::TOO_MANY_REQUESTS, message).retry(1)
    }
    /// A budget has no room.
    pub fn exhausted(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, code::RESOURCE_EXHAUSTED, message).retry(1)
    }
    pub fn unavailable(message: impl Into<String>) -> Self {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, code::UNAVAILABLE, message).retry(1)
    }
    /// A feature that this server does not have: the same request will never succeed.
    pub fn unsupported(feature: &str, available_when: &str) -> Self {
        MicrosandboxError::unsupported(feature, available_when).into()
    }
    pub fn details(mut self, details: Value) -> Self {
        self.details = Some(details);
        self
    }
    fn retry(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> axum::response::Response {
        // The layer that knows the caller rewords it.
        let kept = self.clone();
        let message = self.message.chars().take(MESSAGE_CHARS).collect();
        let error = CloudErrorDetails { code: self.code.into(), message, details: self.details };
        let body = serde_json::to_vec(&CloudErrorBody { error }).unwrap_or_default();
        let mut response = Response::new(Body::from(body));
        *response.status_mut() = self.status;
        response.extensions_mut().insert(kept);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// The one place where errors of the core become responses. Errors that only the owner of this machine can repair (its
/// database, its files) are sent without paths; the full text goes to the log.
impl From<MicrosandboxError> for ApiError {
    fn from(error: MicrosandboxError) -> Self {
        use MicrosandboxError as E;
        let text = error.to_string();
        let client = |status: StatusCode, code| ApiError::new(status, code, text.clone());
        let internal = |what: &str| {
            tracing::error!(error = %text, "a request failed because of this machine");
            ApiError::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                code::INTERNAL,
                format!("{what}: see the log of the server"),
            )
        };
        match &error {
            E::InvalidConfig(_) => client(StatusCode::BAD_REQUEST, code::INVALID_REQUEST),
            E::InvalidCursor(cursor) => {
                client(StatusCode::BAD_REQUEST, code::INVALID_CURSOR).details(json!({ "cursor": cursor }))
            }
            E::NoDefaultCommand { image } => {
                client(StatusCode::UNPROCESSABLE_ENTITY, code::NO_DEFAULT_COMMAND).details(json!({ "image": image }))
            }
            E::SandboxNotFound(name) => {
                client(StatusCode::NOT_FOUND, code::SANDBOX_NOT_FOUND).details(json!({ "name": name }))
            }
            E::SandboxAlreadyExists(name) | E::VolumeAlreadyExists(name) => {
                client(StatusCode::CONFLICT, code::NAME_ALREADY_EXISTS).details(json!({ "name": name }))
            }
            E::SandboxStillRunning(name) => {
                client(StatusCode::CONFLICT, code::SANDBOX_STILL_RUNNING).details(json!({ "name": name }))
            }
            E::SandboxNotRunning { name, status } => {
                let status = crate::convert::status(*status);
                client(StatusCode::CONFLICT, code::SANDBOX_NOT_RUNNING)
                    .details(json!({ "name": name, "status": status }))
            }
            E::SandboxReplaced(_) => client(StatusCode::CONFLICT, code::SANDBOX_REPLACED),
            E::StopTimeout { .. } | E::KillTimeout { .. } => client(StatusCode::GATEWAY_TIMEOUT, code::UNAVAILABLE),
            E::ExecTimeout { secs, .. } => {
                client(StatusCode::REQUEST_TIMEOUT, code::EXEC_TIMEOUT).details(json!({ "secs": secs }))
            }
            E::ExecFailed(failure) => client(StatusCode::UNPROCESSABLE_ENTITY, code::EXEC_FAILED).details(json!({
                "kind": failure.kind, "errno": failure.errno, "errno_name": failure.errno_name, "stage": failure.stage,
            })),
            E::OutputLimit { limit, .. } => {
                client(StatusCode::PAYLOAD_TOO_LARGE, code::TOO_LARGE).details(json!({ "limit": limit }))
            }
            E::Filesystem { operation, path, kind, errno, .. } => client(StatusCode::CONFLICT, code::FILESYSTEM)
                .details(json!({ "operation": operation, "path": path, "kind": kind, "errno": errno })),
            E::PathNotFound { operation, path } => client(StatusCode::NOT_FOUND, code::PATH_NOT_FOUND)
                .details(json!({ "operation": operation, "path": path })),
            // Clients control jobs through the agent, not through this server.
            E::Job { .. } => client(StatusCode::CONFLICT, code::INVALID_REQUEST),
            // No request of the wire has patches yet, but a backend may apply patches of its own.
            E::PatchFailed { path, .. } => {
                client(StatusCode::UNPROCESSABLE_ENTITY, code::INVALID_SANDBOX_CONFIG).details(json!({ "path": path }))
            }
            E::VolumeNotFound(name) => {
                client(StatusCode::NOT_FOUND, code::VOLUME_NOT_FOUND).details(json!({ "name": name }))
            }
            E::VolumeInUse { name, holder } => {
                client(StatusCode::CONFLICT, code::VOLUME_IN_USE).details(json!({ "name": name, "holder": holder }))
            }
            E::ImageNotFound(reference) => {
                client(StatusCode::NOT_FOUND, code::IMAGE_NOT_FOUND).details(json!({ "reference": reference }))
            }
            E::ImageInUse { .. } => client(StatusCode::CONFLICT, code::INVALID_REQUEST),
            E::ImagePull { kind, .. } => client(StatusCode::UNPROCESSABLE_ENTITY, code::INVALID_SANDBOX_CONFIG)
                .details(json!({ "kind": kind.as_str() })),
            E::MetricsDisabled(_) | E::MetricsUnavailable { .. } => client(StatusCode::CONFLICT, code::INVALID_REQUEST),
            E::Unsupported { feature, available_when } => client(StatusCode::UNPROCESSABLE_ENTITY, code::UNSUPPORTED)
                .details(json!({ "feature": feature, "available_when": available_when })),
            // What the machine lacks is described in terms of its devices and files.
            E::IsolationUnavailable { demanded, .. } => {
                tracing::error!(error = %text, "a request needs an isolation that this machine lacks");
                let reason = "the machine of the server cannot provide it";
                let hint = "ask the owner of the server";
                let text = format!("isolation {demanded} is not available: {reason}; {hint}");
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code::ISOLATION_UNAVAILABLE, text)
                    .details(json!({ "demanded": demanded, "reason": reason, "hint": hint }))
            }
            // Only where it failed: message, hint and log show files and settings of the machine.
            E::BootStart(failure) => {
                tracing::error!(error = %text, "a sandbox did not boot");
                let message = "see the log of the server";
                let text = format!("sandbox {} did not boot: it failed at {}: {message}", failure.name, failure.step);
                ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, code::BOOT_FAILED, text).details(json!({
                    "name": failure.name, "stage": failure.stage, "step": failure.step, "errno": failure.errno,
                    "message": message,
                }))
            }
            E::Protocol { .. } | E::AgentLost { .. } | E::GuestStalled { .. } | E::AgentTooOld { .. } => {
                client(StatusCode::BAD_GATEWAY, code::UNAVAILABLE)
            }
            E::InvalidState(_) => client(StatusCode::CONFLICT, code::INVALID_REQUEST),
            E::ResourceExhausted { resource, .. } => client(StatusCode::TOO_MANY_REQUESTS, code::RESOURCE_EXHAUSTED)
                .retry(1)
                .details(json!({ "resource": resource })),
            E::StateBusy { .. } => ApiError::unavailable("the state database is busy"),
            E::StateReadOnly { .. } => internal("the state database is not writable"),
            E::StateCorrupt { .. } => internal("the state database is damaged"),
            E::StateLost { .. } => internal("the state database was replaced or removed while open"),
            E::Database { .. } => internal("the state database returned an error"),
            E::CloudHttp { .. } | E::Http(_) | E::Tls { .. } | E::Unreachable { .. } => {
                ApiError::new(StatusCode::BAD_GATEWAY, code::UNAVAILABLE, "the backend behind this server failed")
            }
            E::Io { .. } => internal("a file operation on the machine of the server failed"),
            E::Json { .. } => internal("a stored record cannot be decoded"),
            E::Runtime(_) | E::Custom(_) => internal("the backend failed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    #[test]
    fn internal_failures_name_no_path() {
        let error = MicrosandboxError::Database { path: PathBuf::from("/secret/home/msb.db"), message: "x".into() };
        let error = ApiError::from(error);
        assert_eq!(error.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(!error.message.contains("secret"), "{}", error.message);
    }

    #[test]
    fn a_failed_boot_is_reported_without_what_the_machine_wrote() {
        let failure = microsandbox_core::error::BootFailure {
            name: "box".into(),
            stage: microsandbox_contract::Stage::parse("container"),
            step: "mount_root".into(),
            errno: Some(13),
            message: "mount /secret/upper".into(),
            hint: "check /secret".into(),
            log_tail: "secret line".into(),
        };
        let error = ApiError::from(MicrosandboxError::BootStart(Box::new(failure)));
        let sent = format!("{} {}", error.message, error.details.unwrap());
        assert!(sent.contains("mount_root") && sent.contains("13") && !sent.contains("secret"), "{sent}");
        let lack = microsandbox_core::error::Lack::new("/dev/secret is absent", "modprobe secret").no_microvm();
        let error = ApiError::from(lack);
        let sent = format!("{} {}", error.message, error.details.unwrap());
        assert!(sent.contains("microvm") && !sent.contains("secret"), "{sent}");
    }

    #[test]
    fn an_unsupported_feature_is_a_client_error() {
        let error = ApiError::unsupported("init", "later");
        assert_eq!((error.status.as_u16(), error.code), (422, "unsupported"));
        assert_eq!(error.details.unwrap()["feature"], "init");
    }
}
