//! Programs of a local sandbox: a connection of their own each.

use crate::agent::{AgentAddress, AgentClient, check_exec};
use crate::error::MicrosandboxResult;
use crate::model::{ExecHandle, ExecOptions, ExecOutput, SandboxSpec};
use crate::sandbox::DEFAULT_CONNECT_TIMEOUT;

/// Runs to the end and collects both streams.
pub async fn exec(
    address: &AgentAddress,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecOutput> {
    check_exec(&cmd, &options)?;
    AgentClient::connect(address, DEFAULT_CONNECT_TIMEOUT).await?.exec(spec, cmd, options).await
}

/// Starts and returns a handle on the events.
pub async fn exec_stream(
    address: &AgentAddress,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecHandle> {
    check_exec(&cmd, &options)?;
    AgentClient::connect(address, DEFAULT_CONNECT_TIMEOUT).await?.exec_stream(spec, cmd, options)
}
