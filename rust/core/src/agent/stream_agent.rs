//! [`Agent`] over a stream: the one implementation for a unix socket and for a WebSocket.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{AgentAddress, AgentClient, check_exec};
use crate::backend::{Agent, ExecRequest, Operation};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::files::Files;
use crate::guest_dirs::GuestDirs;
use crate::model::{ExecExit, ExecHandle, ExecOutput, JobCall, JobInfo};

/// What an agent can be reached over.
pub trait Stream: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> Stream for S {}

/// Completes what an agent claims about the end of a program with what the host knows.
pub type Verdict = Box<dyn Fn(&mut ExecExit) + Send + Sync>;

/// How the agent of one sandbox is reached.
pub trait Dialer: Send + Sync {
    type Stream: Stream;

    /// A connection for one call.
    fn dial(&self) -> impl Future<Output = MicrosandboxResult<AgentClient<Self::Stream>>> + Send;
    /// A connection for a program that runs to its end: one that an earlier call left idle may serve.
    fn dial_idle(&self) -> impl Future<Output = MicrosandboxResult<AgentClient<Self::Stream>>> + Send {
        self.dial()
    }
    /// Takes a connection that a finished call left in good order.
    fn keep(&self, _client: AgentClient<Self::Stream>) {}
    /// What the host will know about the end of a program that starts now.
    fn verdict(&self) -> Option<Verdict> {
        None
    }
    /// The directories of this machine in which a guest may have put links.
    fn guest_dirs(&self) -> MicrosandboxResult<GuestDirs> {
        Ok(GuestDirs::default())
    }
    /// What a failure to reach the agent, or its loss, means.
    fn explain(&self, error: MicrosandboxError) -> impl Future<Output = MicrosandboxError> + Send {
        std::future::ready(error)
    }
}

/// The agent that a [`Dialer`] reaches.
pub struct StreamAgent<D> {
    pub(crate) dialer: D,
}

impl<D: Dialer> StreamAgent<D> {
    pub fn new(dialer: D) -> Self {
        StreamAgent { dialer }
    }

    /// A call whose failure the dialer explains.
    pub(crate) fn explained<'a, T: Send + 'a>(
        &'a self,
        call: impl Future<Output = MicrosandboxResult<T>> + Send + 'a,
    ) -> Operation<'a, T> {
        Box::pin(async move {
            match call.await {
                Ok(value) => Ok(value),
                Err(error) => Err(self.dialer.explain(error).await),
            }
        })
    }
}

impl<D: Dialer> Agent for StreamAgent<D> {
    fn exec<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecOutput> {
        self.explained(async move {
            let ExecRequest { spec, cmd, options } = request;
            check_exec(&cmd, &options)?;
            let client = self.dialer.dial_idle().await?;
            // The count before the program starts; what it belongs to is known once the agent is reached.
            let verdict = self.dialer.verdict();
            let (output, client) = client.exec_and_keep(spec, cmd, options).await;
            if let Some(client) = client {
                self.dialer.keep(client);
            }
            let mut output = output?;
            if let Some(verdict) = verdict {
                verdict(&mut output.exit);
            }
            Ok(output)
        })
    }
    fn exec_stream<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, ExecHandle> {
        self.explained(async move {
            let ExecRequest { spec, cmd, options } = request;
            check_exec(&cmd, &options)?;
            let client = self.dialer.dial().await?;
            let verdict = self.dialer.verdict();
            let handle = client.exec_stream(spec, cmd, options)?;
            Ok(match verdict {
                Some(verdict) => handle.with_verdict(verdict),
                None => handle,
            })
        })
    }
    fn start_job<'a>(&'a self, request: ExecRequest<'a>) -> Operation<'a, JobInfo> {
        self.explained(async move {
            let ExecRequest { spec, cmd, options } = request;
            self.dialer.dial().await?.start_job(spec, cmd, options).await
        })
    }
    fn job(&self, call: JobCall) -> Operation<'_, Vec<JobInfo>> {
        self.explained(async move { self.dialer.dial().await?.job(call).await })
    }
    fn attach_job(&self, job: String, replay: Option<u64>) -> Operation<'_, ExecHandle> {
        self.explained(async move { self.dialer.dial().await?.attach_job(job, replay) })
    }
    fn files<'a>(self: Box<Self>) -> Box<dyn Files + 'a>
    where
        Self: 'a,
    {
        self
    }
    fn ping(&self) -> Operation<'_, Duration> {
        self.explained(async move { self.dialer.dial().await?.ping().await })
    }
    fn touch(&self) -> Operation<'_, u64> {
        self.explained(async move { self.dialer.dial().await?.touch().await })
    }
}

/// The agent on a socket of this machine, and nothing more.
impl Dialer for AgentAddress {
    type Stream = tokio::net::UnixStream;

    async fn dial(&self) -> MicrosandboxResult<AgentClient> {
        AgentAddress::dial(self).await
    }
}
