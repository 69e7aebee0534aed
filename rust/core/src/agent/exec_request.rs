//! What may be asked of exec. Everything that is wrong in itself is refused here, before anything is sent.

use std::time::Duration;

use microsandbox_protocol::message::{ExecRequest, Rlimit};

use crate::error::{ExecFailure, MicrosandboxError, MicrosandboxResult};
use crate::model::{ExecOptions, SandboxSpec, StdinSource};

const DEFAULT_ROWS: u16 = 24;
const DEFAULT_COLS: u16 = 80;
/// The terminal's `TERM` when the caller names none.
const DEFAULT_TERM: &str = "xterm-256color";

/// `RLIMIT_*` names, lower case.
const RESOURCES: [&str; 16] = [
    "as",
    "core",
    "cpu",
    "data",
    "fsize",
    "locks",
    "memlock",
    "msgqueue",
    "nice",
    "nofile",
    "nproc",
    "rss",
    "rtprio",
    "rttime",
    "sigpending",
    "stack",
];

fn bad(kind: &str, stage: &str, errno: i32, errno_name: &str, message: String) -> MicrosandboxError {
    MicrosandboxError::ExecFailed(Box::new(ExecFailure {
        kind: kind.into(),
        message,
        errno: Some(errno),
        errno_name: Some(errno_name.into()),
        stage: Some(stage.into()),
    }))
}

/// The arguments do not fit into one message, let alone into `execve`.
pub(crate) fn too_long(cmd: &str) -> MicrosandboxError {
    let message = format!("exec {}: argument list too long", super::failure::quote(cmd));
    bad("bad_args", "request", libc::E2BIG, "E2BIG", message)
}

/// Refuses what could never run.
pub fn check_exec(cmd: &str, options: &ExecOptions) -> MicrosandboxResult<()> {
    let invalid = |what: String| bad("bad_args", "request", libc::EINVAL, "EINVAL", what);
    if cmd.is_empty() {
        return Err(invalid("exec: the command is empty".into()));
    }
    if cmd.contains('\0') || options.args.iter().any(|arg| arg.contains('\0')) {
        return Err(invalid("exec: command and arguments must not contain NUL".into()));
    }
    if let Some(cwd) = &options.cwd
        && (!cwd.starts_with('/') || cwd.contains('\0'))
    {
        let message =
            format!("exec: working directory {:?} must be an absolute path without NUL", super::failure::quote(cwd));
        return Err(bad("bad_cwd", "request", libc::EINVAL, "EINVAL", message));
    }
    check_env(&options.env)?;
    check_user(options.user.as_deref())?;
    options.rlimits.iter().try_for_each(check_rlimit)
}

fn check_env(env: &[(String, String)]) -> MicrosandboxResult<()> {
    for (key, value) in env {
        if key.is_empty() || key.contains(['=', '\0']) {
            let shown = super::failure::quote(key);
            return Err(MicrosandboxError::InvalidConfig(format!(
                "environment variable name {shown:?} must not be empty or contain `=` or NUL"
            )));
        }
        if value.contains('\0') {
            let shown = super::failure::quote(key);
            return Err(MicrosandboxError::InvalidConfig(format!("environment variable {shown}: NUL in its value")));
        }
    }
    Ok(())
}

/// `name`, `uid`, `name:group` or `uid:gid`; who exists is the agent's to say.
fn check_user(user: Option<&str>) -> MicrosandboxResult<()> {
    let Some(user) = user else { return Ok(()) };
    let legal = |part: &str| {
        !part.is_empty()
            && !part.starts_with('-')
            && part.chars().all(|c| !c.is_control() && !c.is_whitespace() && c != '/')
    };
    let mut parts = user.splitn(3, ':');
    let fine = parts.next().is_some_and(legal) && parts.next().is_none_or(legal) && parts.next().is_none();
    if fine {
        return Ok(());
    }
    let shown = super::failure::quote(user);
    Err(MicrosandboxError::InvalidConfig(format!("user {shown:?} must be a name, a uid, or `uid:gid`")))
}

fn check_rlimit(limit: &crate::model::Rlimit) -> MicrosandboxResult<()> {
    if !RESOURCES.contains(&limit.resource.as_str()) {
        let shown = super::failure::quote(&limit.resource);
        return Err(MicrosandboxError::InvalidConfig(format!(
            "unknown rlimit {shown:?}; use one of {}",
            RESOURCES.join(" ")
        )));
    }
    if limit.soft > limit.hard {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "rlimit {}: soft {} is above hard {}",
            limit.resource, limit.soft, limit.hard
        )));
    }
    Ok(())
}

/// The request on the wire. The sandbox's own environment, directory and user are the agent's defaults already, so only
/// what this call adds is sent.
pub(crate) fn exec_request(spec: &SandboxSpec, cmd: String, options: &ExecOptions) -> MicrosandboxResult<ExecRequest> {
    check_exec(&cmd, options)?;
    let mut env: Vec<String> = options.env.iter().map(|(key, value)| format!("{key}={value}")).collect();
    let has_term = options.env.iter().any(|(key, _)| key == "TERM") || spec.env.iter().any(|var| var.key == "TERM");
    if options.tty && !has_term {
        env.push(format!("TERM={DEFAULT_TERM}"));
    }
    let or = |given: u16, default: u16| if given == 0 { default } else { given };
    Ok(ExecRequest {
        cmd,
        args: options.args.clone(),
        env,
        cwd: options.cwd.clone(),
        user: options.user.clone(),
        tty: options.tty,
        rows: or(options.rows, DEFAULT_ROWS),
        cols: or(options.cols, DEFAULT_COLS),
        rlimits: options
            .rlimits
            .iter()
            .map(|limit| Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard })
            .collect(),
        no_stdin: options.stdin == StdinSource::Null,
        window: None,
        timeout_ms: options.timeout.map(millis),
        kill_on_disconnect: !options.detachable,
        job: false,
    })
}

/// At least one millisecond: zero on the wire would mean nothing.
fn millis(timeout: Duration) -> u64 {
    u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX).max(1)
}
