//! Jobs over the agent.

use std::time::Duration;

use bytes::Bytes;
use microsandbox_protocol::frame::{Flags, Message};
use microsandbox_protocol::message::{
    ExecFailed, ExecStarted, JobAttach, JobInfo as WireJob, JobOp, JobRequest, JobResponse, Kind,
};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::Instant;

use super::exec_session::verdict;
use super::{AgentClient, STALL_DEADLINE, exec_request, failure};
use crate::error::{MicrosandboxError, MicrosandboxResult};
use crate::model::{ExecHandle, ExecOptions, JobCall, JobInfo, SandboxSpec, StdinSource};

/// Input in one message.
const INPUT_PIECE: usize = 256 << 10;
/// How often a program that does not read is asked again.
const INPUT_RETRY: Duration = Duration::from_millis(20);
/// Jobs in one answer: more than an agent remembers.
const JOBS_MAX: usize = 4096;

fn refused(code: &str, job: &str) -> MicrosandboxError {
    let message = match code {
        "unknown_job" => format!("no job {job} in this run of the sandbox; jobs end with it"),
        "ended" => format!("job {job} has ended"),
        "bad_signal" => "no such signal; use 1 to 64".to_owned(),
        "input_closed" => format!("the input of job {job} is closed"),
        "input_full" => format!("job {job} stopped reading its input"),
        other => format!("the agent refused: {}", failure::quote(other)),
    };
    MicrosandboxError::Job { code: code.to_owned(), message, job: job.to_owned() }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> AgentClient<S> {
    /// Starts a job and returns once it runs.
    pub async fn start_job(
        mut self,
        spec: &SandboxSpec,
        cmd: String,
        options: ExecOptions,
    ) -> MicrosandboxResult<JobInfo> {
        let mut request = exec_request(spec, cmd, &options)?;
        request.job = true;
        request.kill_on_disconnect = false;
        let id = self.connection.id()?;
        self.connection
            .queue(id, Flags::SESSION_START, &Kind::ExecRequest, &request)
            .map_err(|_too_large| exec_request::too_long(&request.cmd))?;
        let job = self.started(id).await?;
        if let StdinSource::Bytes(data) = options.stdin {
            self.job(JobCall::Input { job: job.clone(), data }).await?;
            self.job(JobCall::CloseInput { job: job.clone() }).await?;
        }
        let mut known = self.job(JobCall::Inspect { job }).await?;
        known.pop().ok_or_else(|| self.connection.broke("an answer about a job without the job"))
    }

    async fn started(&mut self, id: u32) -> MicrosandboxResult<String> {
        let message = self.connection.answer(id).await?;
        match message.kind {
            Kind::ExecStarted => {
                let started: ExecStarted = self.connection.parse(&message)?;
                let job = started.job.as_deref().and_then(|job| failure::word(Some(job)));
                job.ok_or_else(|| self.connection.broke("a job started without an id"))
            }
            Kind::ExecFailed => {
                let failed: ExecFailed = self.connection.parse(&message)?;
                Err(MicrosandboxError::ExecFailed(Box::new(failure::exec_failure(failed))))
            }
            other => Err(self.connection.broke(format!("`{}` in answer to a job", failure::quote(other.as_wire())))),
        }
    }

    /// Anything about jobs.
    pub async fn job(&mut self, call: JobCall) -> MicrosandboxResult<Vec<JobInfo>> {
        match call {
            JobCall::List => self.ask(JobOp::List, "").await,
            JobCall::Inspect { job } => self.ask(JobOp::Inspect { job: job.clone() }, &job).await,
            JobCall::Wait { job } => self.ask(JobOp::Wait { job: job.clone() }, &job).await,
            JobCall::Signal { job, signal } => self.ask(JobOp::Signal { job: job.clone(), signal }, &job).await,
            JobCall::CloseInput { job } => self.ask(JobOp::CloseInput { job: job.clone() }, &job).await,
            JobCall::Input { job, data } => self.feed(&job, data).await,
        }
    }

    async fn feed(&mut self, job: &str, mut data: Bytes) -> MicrosandboxResult<Vec<JobInfo>> {
        let mut moved = Instant::now();
        loop {
            let piece = data.slice(..data.len().min(INPUT_PIECE));
            if piece.is_empty() {
                return Ok(Vec::new());
            }
            match self.ask(JobOp::Input { job: job.to_owned(), data: piece.to_vec() }, job).await {
                Ok(_) => {
                    data = data.slice(piece.len()..);
                    moved = Instant::now();
                }
                Err(MicrosandboxError::Job { code, .. })
                    if code == "input_full" && moved.elapsed() < STALL_DEADLINE =>
                {
                    tokio::time::sleep(INPUT_RETRY).await;
                }
                Err(error) => return Err(error),
            }
        }
    }

    async fn ask(&mut self, op: JobOp, job: &str) -> MicrosandboxResult<Vec<JobInfo>> {
        let id = self.connection.id()?;
        self.connection
            .queue(id, Flags::NONE, &Kind::JobRequest, &JobRequest { op })
            .map_err(|error| self.connection.broke(error.to_string()))?;
        let message = self.connection.patient_answer(id).await?;
        let message: Message = self.connection.expect(message, Kind::JobResponse)?;
        let response: JobResponse = self.connection.parse(&message)?;
        if let Some(code) = response.refused {
            return Err(refused(failure::word(Some(&code)).as_deref().unwrap_or("refused"), job));
        }
        if response.jobs.len() > JOBS_MAX {
            return Err(self.connection.broke("more jobs than an agent keeps"));
        }
        Ok(response.jobs.into_iter().map(info).collect())
    }

    /// Binds to a job: the newest `replay` bytes of its kept output (all of it when absent), then what follows. Dropping
    /// the handle leaves the job running.
    pub fn attach_job(self, job: String, replay: Option<u64>) -> MicrosandboxResult<ExecHandle> {
        self.exec_handle(|connection, window| {
            super::exec_session::ExecSession::attach(connection, &JobAttach { job, replay, window: Some(window) })
        })
    }
}

fn info(wire: WireJob) -> JobInfo {
    JobInfo {
        id: failure::quote(&wire.id),
        boot: failure::quote(&wire.boot),
        session: wire.session,
        command: wire.command,
        tty: wire.tty,
        pid: wire.pid,
        stdin_closed: wire.stdin_closed,
        started_ms: wire.started_ms as f64,
        finished_ms: wire.finished_ms.map(|at| at as f64),
        exit: wire.exit.map(|exited| verdict(&exited, Duration::from_nanos(exited.duration_ns))),
    }
}
