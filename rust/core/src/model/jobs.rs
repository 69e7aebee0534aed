//! Programs that outlive their client.

use bytes::Bytes;

use super::ExecExit;

/// What is known about a job. Times are milliseconds since the epoch, by the guest's clock.
#[derive(Debug, Clone, PartialEq)]
pub struct JobInfo {
    pub id: String,
    /// Of the agent's run: jobs of another one are gone.
    pub boot: String,
    /// Its number in the captured log.
    pub session: u64,
    pub command: Vec<String>,
    pub tty: bool,
    pub pid: u32,
    pub stdin_closed: bool,
    pub started_ms: f64,
    pub finished_ms: Option<f64>,
    /// Absent while it runs.
    pub exit: Option<ExecExit>,
}

/// Something about jobs; the answer is what is known about those concerned.
#[derive(Debug, Clone, PartialEq)]
pub enum JobCall {
    /// Oldest first.
    List,
    Inspect {
        job: String,
    },
    /// Answered when it has ended.
    Wait {
        job: String,
    },
    /// To its process group; 9 kills the whole tree.
    Signal {
        job: String,
        signal: i32,
    },
    /// Waits while the program does not read.
    Input {
        job: String,
        data: Bytes,
    },
    /// End of input; Ctrl-D for a terminal.
    CloseInput {
        job: String,
    },
}

impl JobCall {
    /// The job it is about.
    pub fn job(&self) -> Option<&str> {
        match self {
            JobCall::List => None,
            JobCall::Inspect { job }
            | JobCall::Wait { job }
            | JobCall::Signal { job, .. }
            | JobCall::Input { job, .. }
            | JobCall::CloseInput { job } => Some(job),
        }
    }
}
