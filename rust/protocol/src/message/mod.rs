//! Message kinds and their payloads.
//!
//! Field and kind names are those of the hosted service (generation 7). Fields and kinds marked *ext* are our
//! extension; they are optional on the wire, so a peer without it is still understood.

mod bounded;
mod control;
mod exec;
mod files;
mod jobs;
mod machine;

pub use control::{
    Activity, BASE_PATH, Bootstrap, CoreError, Credit, Empty, Hello, InitProgram, LogRecord, LogSync, Ready, Settings,
    Shutdown, Stats, Touched,
};
pub use exec::{Data, ExecExited, ExecFailed, ExecRequest, ExecStarted, Resize, Rlimit, Signal, StdinError};
pub use files::{FsAttrs, FsData, FsEntry, FsEvent, FsEvents, FsOp, FsRequest, FsResponse, OpenOptions};
pub use jobs::{JobAttach, JobInfo, JobOp, JobRequest, JobResponse};
pub use machine::{Machine, MachineTmpfs};

macro_rules! kinds {
    ($($(#[$doc:meta])* $name:ident = $wire:literal),+ $(,)?) => {
        /// What a message means: the `t` of its envelope.
        #[derive(Debug, Clone, PartialEq, Eq, Hash)]
        pub enum Kind {
            $($(#[$doc])* $name,)+
            /// A kind this build does not know; the receiver answers `core.error` or ignores it, never fails.
            Unknown(String),
        }
        impl Kind {
            /// Every known kind.
            pub const ALL: &'static [Kind] = &[$(Kind::$name),+];

            pub fn as_wire(&self) -> &str {
                match self { $(Kind::$name => $wire,)+ Kind::Unknown(text) => text }
            }
            pub fn from_wire(text: &str) -> Kind {
                match text { $($wire => Kind::$name,)+ other => Kind::Unknown(other.chars().take(64).collect()) }
            }
        }
    };
}

kinds! {
    /// *ext* First frame of a client on a token-guarded socket: [`Hello`].
    Hello = "core.hello",
    /// The agent is ready: [`Ready`].
    Ready = "core.ready",
    /// Orderly end: [`Shutdown`].
    Shutdown = "core.shutdown",
    /// [`CoreError`].
    Error = "core.error",
    Ping = "core.ping",
    Pong = "core.pong",
    /// Reset the idle timer.
    Touch = "core.touch",
    /// [`Touched`].
    Touched = "core.touched",
    /// *ext* [`Credit`].
    Credit = "core.credit",
    /// *ext* Ask for [`Stats`].
    StatsRequest = "core.stats.request",
    /// *ext* [`Stats`].
    StatsResponse = "core.stats.response",
    /// *ext* New programs are refused, and when the last running one has ended, so does the sandbox. Answered by
    /// `core.settings.done`.
    Drain = "core.drain",
    /// *ext* [`Settings`].
    Settings = "core.settings",
    /// *ext* They hold.
    Settled = "core.settings.done",
    /// *ext* Ask for the log to be complete: what the agent sent to any client before this is to be in its file. The agent
    /// passes it on to the runtime, on the private channel, as [`LogSync`].
    LogSync = "core.log.sync",
    /// *ext* It is; from runtime to agent [`LogSync`].
    LogSynced = "core.log.synced",
    /// [`ExecRequest`].
    ExecRequest = "core.exec.request",
    /// [`ExecStarted`].
    ExecStarted = "core.exec.started",
    /// [`Data`]; empty means end of input.
    ExecStdin = "core.exec.stdin",
    /// [`StdinError`].
    ExecStdinError = "core.exec.stdin.error",
    /// [`Data`].
    ExecStdout = "core.exec.stdout",
    /// [`Data`].
    ExecStderr = "core.exec.stderr",
    /// [`ExecExited`].
    ExecExited = "core.exec.exited",
    /// [`ExecFailed`].
    ExecFailed = "core.exec.failed",
    /// [`Resize`].
    ExecResize = "core.exec.resize",
    /// [`Signal`].
    ExecSignal = "core.exec.signal",
    /// *ext* [`JobAttach`]: answered as an exec request is.
    JobAttach = "core.job.attach",
    /// *ext* [`JobRequest`].
    JobRequest = "core.job.request",
    /// *ext* [`JobResponse`].
    JobResponse = "core.job.response",
    /// [`FsRequest`].
    FsRequest = "core.fs.request",
    /// [`FsResponse`].
    FsResponse = "core.fs.response",
    /// [`Data`]; empty ends a write.
    FsData = "core.fs.data",
    /// *ext* [`FsEvents`].
    FsEvent = "core.fs.event",
    /// Runtime to agent, once, on the private channel: [`Bootstrap`].
    Bootstrap = "core.bootstrap",
    /// *ext* Agent to runtime, private channel: [`LogRecord`].
    Log = "host.log",
    /// *ext* Agent to runtime, private channel: [`Activity`].
    Activity = "host.activity",
}
