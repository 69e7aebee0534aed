//! Dialect `flat`: runs one program and returns its output when it exits.

use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use microsandbox_core::MicrosandboxError;
use microsandbox_core::backend;
use microsandbox_core::model::{ExecOptions, Rlimit, StdinSource};
use microsandbox_wire::flat::{ExecRequest, ExecResponse};

use super::{Segment, json, json_bytes, parse};
use crate::app::App;
use crate::error::{ApiError, ApiResult};
use crate::tenancy::Caller;

pub async fn exec(
    State(app): State<Arc<App>>,
    Extension(caller): Extension<Caller>,
    Segment(name): Segment,
    headers: HeaderMap,
    body: Body,
) -> ApiResult {
    let request: ExecRequest = parse(&json_bytes(&app, &headers, body).await?)?;
    let cmd = request.cmd.clone();
    let options = options(&app, request)?;
    let handle = app.get(&caller, &name).await?;
    if !handle.status_snapshot().is_live() {
        let status = handle.status_snapshot();
        return Err(MicrosandboxError::SandboxNotRunning { name, status }.into());
    }
    let spec = handle.config()?;
    let output =
        app.backend.sandboxes().agent(handle.name()).exec(backend::ExecRequest { spec: &spec, cmd, options }).await?;
    json(&ExecResponse {
        exit_code: output.exit.code,
        signal: output.exit.signal,
        oom_killed: output.exit.oom_killed,
        timed_out: output.exit.timed_out,
        duration_ms: output.exit.duration.as_secs_f64() * 1000.0,
        stdout: STANDARD.encode(&output.stdout),
        stderr: STANDARD.encode(&output.stderr),
        stdout_total: output.stdout_total,
        stderr_total: output.stderr_total,
    })
}

fn options(app: &App, request: ExecRequest) -> ApiResult<ExecOptions> {
    let timeout = match request.timeout_secs {
        None => app.limits.exec_timeout,
        Some(secs) => Some(microsandbox_core::seconds::duration(secs))
            .filter(|timeout| !timeout.is_zero())
            .ok_or_else(|| ApiError::invalid(format!("timeout_secs must be greater than 0: got {secs}")))?
            .min(app.limits.exec_timeout),
    };
    let stdin = match request.stdin {
        None => StdinSource::Null,
        Some(text) => {
            let bytes = STANDARD.decode(text).map_err(|_error| ApiError::invalid("stdin must be standard base64"))?;
            StdinSource::Bytes(Bytes::from(bytes))
        }
    };
    let rlimits = request.rlimits.into_iter();
    Ok(ExecOptions {
        args: request.args,
        cwd: request.cwd,
        user: request.user,
        env: request.env.into_iter().map(|var| (var.key, var.value)).collect(),
        timeout: Some(timeout),
        stdin,
        rlimits: rlimits.map(|l| Rlimit { resource: l.resource, soft: l.soft, hard: l.hard }).collect(),
        max_output_bytes: Some(request.max_output_bytes.unwrap_or(u64::MAX).min(app.limits.exec_output)),
        ..ExecOptions::default()
    })
}
