//! Error responses as [`MicrosandboxError`]: by the code in the body, else by the status.

use microsandbox_wire::error::code;
use serde_json::Value;

use microsandbox_contract::Stage;
use microsandbox_core::error::{BootFailure, ExecFailure, MicrosandboxError};
use microsandbox_core::model::SandboxStatus;
use microsandbox_core::names;

/// Longest text of the service that is quoted, in characters.
const QUOTE: usize = 2000;

/// The kind of a route, which decides what a 404 or 409 means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum About {
    CreateSandbox,
    Sandbox,
    CreateVolume,
    Volume,
    VolumeFile,
}

/// A route, for errors.
#[derive(Debug, Clone, Copy)]
pub struct Route<'a> {
    /// Method and path template.
    pub label: &'static str,
    /// The name of the sandbox or volume.
    pub subject: &'a str,
    pub about: About,
}

impl<'a> Route<'a> {
    pub fn sandbox(label: &'static str, subject: &'a str) -> Self {
        Route { label, subject, about: About::Sandbox }
    }
    pub fn volume(label: &'static str, subject: &'a str) -> Self {
        Route { label, subject, about: About::Volume }
    }
}

/// The error body of the service.
#[derive(Debug, Default)]
struct ErrorBody {
    code: Option<String>,
    message: Option<String>,
    details: Value,
}

/// Reads the nested or the flat form; anything else is an empty body.
fn read(body: &[u8]) -> ErrorBody {
    let Ok(Value::Object(outer)) = serde_json::from_slice::<Value>(body) else { return ErrorBody::default() };
    let inner = outer.get("error").and_then(Value::as_object);
    let text = |key: &str| {
        let found = inner.and_then(|inner| inner.get(key)).or_else(|| outer.get(key));
        found.and_then(Value::as_str).filter(|text| !text.is_empty()).map(cut)
    };
    let details = inner.and_then(|inner| inner.get("details")).or_else(|| outer.get("details"));
    ErrorBody { code: text("code"), message: text("message"), details: details.cloned().unwrap_or_default() }
}

/// Text of the service: control characters and marks of direction escaped, cut to [`QUOTE`].
pub fn cut(text: &str) -> String {
    let mut out = String::new();
    for (index, character) in text.chars().enumerate() {
        if index == QUOTE {
            out.push('…');
            break;
        }
        if names::is_active(character) && character != '\n' {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// The error of a call that the service refused.
pub fn refusal(route: &Route<'_>, status: u16, body: &[u8]) -> MicrosandboxError {
    let found = read(body);
    let plain = match &found.message {
        Some(message) => message.clone(),
        None => match cut(String::from_utf8_lossy(body).trim()) {
            text if text.is_empty() => format!("status {status} without a message"),
            text => text,
        },
    };
    if let Some(error) = by_code(route, &found, &plain) {
        return error;
    }
    let message = format!("{}: {plain}", route.label);
    match status {
        400 | 422 => MicrosandboxError::InvalidConfig(message),
        404 => match route.about {
            About::Volume | About::CreateVolume => MicrosandboxError::VolumeNotFound(route.subject.into()),
            About::VolumeFile => filesystem(route.label, &found.details, plain),
            About::Sandbox | About::CreateSandbox => MicrosandboxError::SandboxNotFound(route.subject.into()),
        },
        409 if route.about == About::CreateSandbox => MicrosandboxError::SandboxAlreadyExists(route.subject.into()),
        409 if route.about == About::CreateVolume => MicrosandboxError::VolumeAlreadyExists(route.subject.into()),
        // Without a code it is the word of a proxy in between, and the same call may succeed later.
        502 if found.code.is_some() => MicrosandboxError::Runtime(message),
        _ => MicrosandboxError::CloudHttp { status, message: with_remedy(status, message), code: found.code },
    }
}

fn with_remedy(status: u16, message: String) -> String {
    match status {
        300..=399 => format!("{message}; the service redirects this call elsewhere: check its URL"),
        401 => format!("{message}; check the API key: it may be mistyped, revoked or expired"),
        403 => format!("{message}; the API key lacks the permission for this call"),
        429 => format!("{message}; the service received too many requests: send fewer"),
        _ => message,
    }
}

fn by_code(route: &Route<'_>, found: &ErrorBody, plain: &str) -> Option<MicrosandboxError> {
    let subject = if route.subject.is_empty() { plain } else { route.subject };
    let text = |key: &str| found.details.get(key).and_then(Value::as_str).map(cut).unwrap_or_default();
    // An error of a route of sandboxes may name a volume.
    let named = Some(text("name")).filter(|name| !name.is_empty()).unwrap_or_else(|| subject.into());
    let labelled = || format!("{}: {plain}", route.label);
    let error = match found.code.as_deref()? {
        code::SANDBOX_NOT_FOUND => MicrosandboxError::SandboxNotFound(subject.into()),
        code::VOLUME_NOT_FOUND => MicrosandboxError::VolumeNotFound(named),
        code::VOLUME_FILE_NOT_FOUND => filesystem(route.label, &found.details, plain.into()),
        code::NAME_ALREADY_EXISTS => match route.about {
            About::CreateVolume | About::Volume => MicrosandboxError::VolumeAlreadyExists(subject.into()),
            _ => MicrosandboxError::SandboxAlreadyExists(subject.into()),
        },
        code::INVALID_REQUEST | code::INVALID_SANDBOX_CONFIG | code::INVALID_VOLUME_PATH => {
            said_once(MicrosandboxError::InvalidConfig, plain)
        }
        "orchestrator_unreachable" | "nomad_job_failed" => MicrosandboxError::Runtime(labelled()),
        code::INVALID_CURSOR => MicrosandboxError::InvalidCursor(text("cursor")),
        code::SANDBOX_NOT_RUNNING => {
            let status =
                serde_json::from_value(found.details["status"].clone()).map(|status| crate::response::status(&status));
            let status = status.unwrap_or(SandboxStatus::Stopped);
            MicrosandboxError::SandboxNotRunning { name: subject.into(), status }
        }
        code::SANDBOX_STILL_RUNNING => MicrosandboxError::SandboxStillRunning(subject.into()),
        code::SANDBOX_REPLACED => MicrosandboxError::SandboxReplaced(subject.into()),
        code::VOLUME_IN_USE => MicrosandboxError::VolumeInUse { name: named, holder: text("holder") },
        code::UNSUPPORTED => MicrosandboxError::unsupported(text("feature"), text("available_when")),
        code::EXEC_FAILED => {
            let failed = |message| {
                MicrosandboxError::ExecFailed(Box::new(ExecFailure {
                    kind: text("kind"),
                    message,
                    errno: number(&found.details, "errno"),
                    errno_name: optional(&found.details, "errno_name"),
                    stage: optional(&found.details, "stage"),
                }))
            };
            said_once(failed, plain)
        }
        code::EXEC_TIMEOUT => {
            let secs = found.details.get("secs").and_then(Value::as_f64).unwrap_or_default();
            MicrosandboxError::ExecTimeout { secs, output: None }
        }
        code::PATH_NOT_FOUND => MicrosandboxError::PathNotFound { operation: text("operation"), path: text("path") },
        code::FILESYSTEM => filesystem(route.label, &found.details, plain.into()),
        code::IMAGE_NOT_FOUND => MicrosandboxError::ImageNotFound(text("reference")),
        code::NO_DEFAULT_COMMAND => MicrosandboxError::NoDefaultCommand { image: text("image") },
        code::RESOURCE_EXHAUSTED => {
            said_once(|message| MicrosandboxError::ResourceExhausted { resource: text("resource"), message }, plain)
        }
        code::ISOLATION_UNAVAILABLE => MicrosandboxError::IsolationUnavailable {
            demanded: text("demanded"),
            reason: text("reason"),
            hint: text("hint"),
        },
        code::BOOT_FAILED => MicrosandboxError::BootStart(Box::new(BootFailure {
            name: subject.into(),
            stage: Stage::parse(&text("stage")),
            step: text("step"),
            errno: number(&found.details, "errno"),
            message: text("message"),
            hint: text("hint"),
            log_tail: text("log_tail"),
        })),
        _ => return None,
    };
    Some(error)
}

/// The error with this message. `msb serve` sends the whole text of an error, and the error made of it here begins with the same
/// words: they are said once.
fn said_once(error: impl Fn(String) -> MicrosandboxError, message: &str) -> MicrosandboxError {
    let whole = error(message.into()).to_string();
    let begin = whole.strip_suffix(message).unwrap_or_default();
    error(message.strip_prefix(begin).unwrap_or(message).into())
}

fn number(details: &Value, key: &str) -> Option<i32> {
    details.get(key).and_then(Value::as_i64).and_then(|number| i32::try_from(number).ok())
}

fn optional(details: &Value, key: &str) -> Option<String> {
    details.get(key).and_then(Value::as_str).map(cut)
}

/// An error on a file of a volume. A missing file has its own variant, as on every backend.
fn filesystem(label: &str, details: &Value, message: String) -> MicrosandboxError {
    let operation = optional(details, "operation").unwrap_or_else(|| label.into());
    let path = optional(details, "path").unwrap_or_default();
    match optional(details, "kind") {
        Some(kind) if kind != "ENOENT" => {
            let errno = number(details, "errno");
            let failed = |message| MicrosandboxError::Filesystem {
                operation: operation.clone(),
                path: path.clone(),
                kind: kind.clone(),
                errno,
                message,
            };
            said_once(failed, &message)
        }
        _ => MicrosandboxError::PathNotFound { operation, path },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: Route<'static> =
        Route { label: "GET /v1/sandboxes/by-name/{name}", subject: "box", about: About::Sandbox };

    fn about(about: About) -> Route<'static> {
        Route { about, ..ROUTE }
    }

    #[test]
    fn the_code_takes_precedence_over_the_status() {
        let nested = br#"{"error":{"code":"sandbox_not_found","message":"no such thing"}}"#;
        assert!(matches!(refusal(&ROUTE, 500, nested), MicrosandboxError::SandboxNotFound(name) if name == "box"));
        let flat = br#"{"code":"invalid_request","message":"no"}"#;
        assert!(matches!(refusal(&ROUTE, 409, flat), MicrosandboxError::InvalidConfig(_)));
        let mixed = br#"{"code":"name_already_exists","error":{"message":"taken"}}"#;
        assert!(matches!(refusal(&about(About::CreateVolume), 409, mixed), MicrosandboxError::VolumeAlreadyExists(_)));
    }

    #[test]
    fn every_status_has_its_variant() {
        use MicrosandboxError as E;
        let of = |route: Route<'static>, status| refusal(&route, status, b"");
        assert!(matches!(of(ROUTE, 400), E::InvalidConfig(_)));
        assert!(matches!(of(ROUTE, 422), E::InvalidConfig(_)));
        assert!(matches!(of(ROUTE, 404), E::SandboxNotFound(_)));
        assert!(matches!(of(about(About::Volume), 404), E::VolumeNotFound(_)));
        assert!(matches!(of(about(About::VolumeFile), 404), E::PathNotFound { .. }));
        assert!(matches!(of(about(About::CreateSandbox), 409), E::SandboxAlreadyExists(_)));
        assert!(matches!(of(about(About::CreateVolume), 409), E::VolumeAlreadyExists(_)));
        assert!(matches!(of(ROUTE, 502), E::CloudHttp { status: 502, .. }) && of(ROUTE, 502).is_retryable());
        for status in [401, 403, 409, 418, 429, 500, 503, 504] {
            assert!(matches!(of(ROUTE, status), E::CloudHttp { status: got, .. } if got == status), "{status}");
        }
    }

    #[test]
    fn a_served_error_says_its_kind_once() {
        let config = MicrosandboxError::InvalidConfig("cpus must be 1 to 255".into());
        let room = MicrosandboxError::ResourceExhausted { resource: "sandboxes".into(), message: "remove one".into() };
        for (code, details, error) in
            [("invalid_request", "{}", config), ("resource_exhausted", r#"{"resource":"sandboxes"}"#, room)]
        {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"{error}","details":{details}}}}}"#);
            assert_eq!(refusal(&ROUTE, 500, body.as_bytes()).to_string(), error.to_string());
        }
    }

    #[test]
    fn any_body_is_quoted_escaped_and_shortened() {
        let text = refusal(&ROUTE, 500, "\u{1b}[31m<html>\0".as_bytes()).to_string();
        assert!(text.contains(r"\u{1b}[31m<html>"), "{text}");
        assert!(refusal(&ROUTE, 500, &b"x".repeat(100_000)).to_string().len() < 3000);
        assert!(refusal(&ROUTE, 503, b"").to_string().contains("status 503 without a message"));
    }
}
