//! Ending a sandbox: through its agent, else by signal. Only the kill waits for the end.

use std::time::Duration;

use microsandbox_core::agent::AgentClient;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::SandboxStatus;
use microsandbox_home::failpoint::failpoint;
use microsandbox_home::{Home, process};

use super::running;
use crate::{freeze, reconcile};

/// Connecting to an agent that is asked to shut down.
const SHUTDOWN_CONNECT: Duration = Duration::from_secs(5);

/// Through the agent, which syncs; SIGTERM to the runtime only when the agent cannot be reached.
pub async fn stop(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, identity) = running(home, name).await?;
    if row.status == SandboxStatus::Paused {
        // A frozen agent cannot stop anything.
        freeze::resume(home, name).await?;
    }
    home.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Draining).await?;
    failpoint("draining");
    let asked = async {
        let client = AgentClient::connect(&home.agent_address(name).await?, SHUTDOWN_CONNECT).await?;
        client.shutdown(None).await
    };
    if let Err(error) = asked.await {
        tracing::info!(sandbox = name, %error, "the agent cannot be asked to stop; signalling its runtime");
        if let Some(pidfd) = identity.and_then(|identity| process::open(&identity.runtime)) {
            rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::TERM).map_err(|e| {
                MicrosandboxError::Io { context: format!("signal the runtime of {name}"), source: e.into() }
            })?;
        }
    }
    Ok(())
}

/// No new programs; the sandbox ends when the last one that runs has.
pub async fn drain(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, _identity) = running(home, name).await?;
    if row.status == SandboxStatus::Paused {
        freeze::resume(home, name).await?;
    }
    AgentClient::connect(&home.agent_address(name).await?, SHUTDOWN_CONNECT).await?.drain().await?;
    home.store().await?.set_status(row.id, &[SandboxStatus::Running], SandboxStatus::Draining).await.map(drop)
}

/// By force; the guest dies with its first process.
pub async fn kill(home: &Home, name: &str) -> MicrosandboxResult<()> {
    let (row, identity) = running(home, name).await?;
    let store = home.store().await?;
    store.set_status(row.id, &[SandboxStatus::Running, SandboxStatus::Paused], SandboxStatus::Draining).await?;
    if let Some(identity) = identity {
        reconcile::kill(&identity).await;
    }
    Ok(())
}
