//! The agent's errors in the words of [`MicrosandboxError`]. All text from the guest is a quotation: bounded and escaped.

use microsandbox_protocol::message::{CoreError, ExecFailed};
use microsandbox_protocol::names;
use microsandbox_protocol::version::{EXTENSION, EXTENSION_MIN};

use crate::error::{ExecFailure, MicrosandboxError};
use crate::model::SandboxStatus;

/// Longest quotation of guest text, in characters.
const QUOTE_CHARS: usize = 1000;
/// The kernel's largest errno.
const ERRNO_MAX: i32 = 4095;

const EXEC_KINDS: [&str; 10] = [
    "not_found",
    "permission_denied",
    "not_executable",
    "bad_cwd",
    "bad_args",
    "resource_limit",
    "user_setup_failed",
    "out_of_memory",
    "pty_setup_failed",
    "other",
];

pub(crate) fn protocol(name: &str, what: impl Into<String>) -> MicrosandboxError {
    MicrosandboxError::Protocol { name: name.into(), what: what.into() }
}

pub(crate) fn lost(name: &str, reason: impl Into<String>) -> MicrosandboxError {
    MicrosandboxError::AgentLost { name: name.into(), reason: reason.into() }
}

/// Guest text that may be shown: control characters and marks of direction escaped, cut to a bound.
pub(crate) fn quote(text: &str) -> String {
    let mut out = String::with_capacity(text.len().min(QUOTE_CHARS));
    for (index, character) in text.chars().enumerate() {
        if index == QUOTE_CHARS {
            out.push('…');
            break;
        }
        if names::is_active(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

/// An errno that could be one.
pub(crate) fn errno(claim: Option<i32>) -> Option<i32> {
    claim.filter(|errno| (1..=ERRNO_MAX).contains(errno))
}

/// A short identifier, as in `kind` and `errno_name`.
pub(crate) fn word(claim: Option<&str>) -> Option<String> {
    let legal = |text: &&str| {
        (1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b'-')
    };
    claim.filter(legal).map(str::to_string)
}

/// A `core.error` of the agent.
pub(crate) fn refusal(name: &str, error: &CoreError) -> MicrosandboxError {
    let said = quote(&error.message);
    match error.kind.as_str() {
        "unauthorized" => {
            lost(name, format!("it refused this run's token; the sandbox may have been restarted ({said})"))
        }
        "version" => protocol(
            name,
            format!(
                "no common extension: this client understands {EXTENSION_MIN} to {EXTENSION}, the agent says: {said}"
            ),
        ),
        "too_many" => MicrosandboxError::ResourceExhausted { resource: "agent.clients".into(), message: said },
        "shutting_down" => MicrosandboxError::SandboxNotRunning { name: name.into(), status: SandboxStatus::Draining },
        "unsupported" => {
            let operation = error.offending_type.as_deref().map(quote).unwrap_or_else(|| "this call".into());
            MicrosandboxError::AgentTooOld { name: name.into(), operation, said }
        }
        "malformed" => protocol(name, format!("it could not read our message: {said}")),
        // Said by a server on the way to the agent, as its routes say it.
        "forbidden" => MicrosandboxError::CloudHttp {
            status: 403,
            message: format!("sandbox {name}: {said}"),
            code: Some(error.kind.clone()),
        },
        "unknown_job" | "job_attached" => {
            MicrosandboxError::Job { code: error.kind.clone(), message: said, job: String::new() }
        }
        other => MicrosandboxError::Runtime(format!("the agent of sandbox {name} failed ({}): {said}", quote(other))),
    }
}

/// A program that could not be started.
pub(crate) fn exec_failure(failed: ExecFailed) -> ExecFailure {
    let known = EXEC_KINDS.contains(&failed.kind.as_str());
    ExecFailure {
        kind: if known { failed.kind } else { "other".into() },
        message: quote(&failed.message),
        errno: errno(failed.errno),
        errno_name: word(failed.errno_name.as_deref()),
        stage: failed.stage.as_deref().map(quote),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_the_agent_does_not_know_names_its_age() {
        let said = CoreError {
            kind: "unsupported".into(),
            message: "unknown kind".into(),
            offending_type: Some("fs.new".into()),
        };
        match refusal("box", &said) {
            MicrosandboxError::AgentTooOld { name, operation, .. } => {
                assert_eq!((name.as_str(), operation.as_str()), ("box", "fs.new"));
            }
            other => panic!("{other:?}"),
        }
    }
}
