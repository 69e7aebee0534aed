//! Jobs: programs that are known after their client has left.

use serde::{Deserialize, Serialize};

use super::bounded::{self, Weigh};
use super::exec::ExecExited;

/// Binds this id to a job, as if its program had been started by this client: `exec.started`, the newest kept output,
/// then what follows. One client at a time; leaving does not end the job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobAttach {
    pub job: String,
    /// Bytes of kept output to begin with; all that is kept when absent.
    #[serde(default)]
    pub replay: Option<u64>,
    /// As in [`ExecRequest`](super::ExecRequest).
    #[serde(default)]
    pub window: Option<u64>,
}

/// Something about jobs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct JobRequest {
    pub op: JobOp,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobOp {
    /// Every job that is known, oldest first.
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
    Input {
        job: String,
        #[serde(with = "serde_bytes")]
        data: Vec<u8>,
    },
    /// End of input; Ctrl-D for a terminal.
    CloseInput {
        job: String,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobResponse {
    /// `unknown_job`, `ended`, `bad_signal`, `input_closed`, `input_full`; absent when all went well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refused: Option<String>,
    #[serde(default, deserialize_with = "bounded::list")]
    pub jobs: Vec<JobInfo>,
}

/// What is known about a job. Times are milliseconds since the epoch, by the guest's clock.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct JobInfo {
    pub id: String,
    /// Of the agent's run: jobs of another one are gone.
    pub boot: String,
    /// Its number in the captured log.
    pub session: u64,
    #[serde(deserialize_with = "bounded::list")]
    pub command: Vec<String>,
    pub tty: bool,
    pub pid: u32,
    pub stdin_closed: bool,
    pub started_ms: u64,
    #[serde(default)]
    pub finished_ms: Option<u64>,
    #[serde(default)]
    pub exit: Option<ExecExited>,
}

impl Weigh for JobInfo {
    fn held(&self) -> usize {
        let command = self.command.iter().map(|word| size_of::<String>() + word.capacity()).sum::<usize>();
        self.id.capacity() + self.boot.capacity() + command
    }
}
