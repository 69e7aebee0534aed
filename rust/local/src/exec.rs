//! Programs of a local sandbox: while one runs, its connection is its own.

use tokio::net::UnixStream;

use microsandbox_core::agent::{AgentAddress, AgentClient, check_exec};
use microsandbox_core::agent::connections::Connections;
use microsandbox_core::error::MicrosandboxResult;
use microsandbox_core::model::{ExecHandle, ExecOptions, ExecOutput, SandboxSpec};
use microsandbox_core::api::DEFAULT_CONNECT_TIMEOUT;

/// Runs to the end and collects both streams.
pub async fn exec(
    connections: &Connections<UnixStream>,
    address: &AgentAddress,
    spec: &SandboxSpec,
    cmd: String,
    options: ExecOptions,
) -> MicrosandboxResult<ExecOutput> {
    check_exec(&cmd, &options)?;
    let client = match connections.take(&address.name, &address.token) {
        Some(client) => client,
        None => AgentClient::connect(address, DEFAULT_CONNECT_TIMEOUT).await?,
    };
    let (output, client) = client.exec_and_keep(spec, cmd, options).await;
    if let Some(client) = client {
        connections.put(&address.name, &address.token, client);
    }
    output
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
