//! What every verb receives: the backend, resolved once; the streams; the signals.

use std::future::Future;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use microsandbox_core::SharedBackend;
use microsandbox_sdk::default_backend::BackendInfo;

use crate::output::failure::{Failure, Outcome};
use crate::terminal::console::Console;
use crate::terminal::signals::Signals;

/// The backend, and what selected it.
pub struct Home {
    pub backend: SharedBackend,
    pub info: BackendInfo,
    /// The Python interpreter whose pip downloads wheels.
    pub python: PathBuf,
}

/// One run of the command.
pub struct Invocation {
    pub backend: SharedBackend,
    pub info: BackendInfo,
    pub python: PathBuf,
    pub console: Console,
    pub signals: Signals,
    /// Start time; ages in tables are relative to it.
    pub now: DateTime<Utc>,
}

impl Invocation {
    /// Reads an answer; true if it begins with y. Can be interrupted.
    pub async fn confirmed(&self) -> Outcome<bool> {
        let mut input = crate::terminal::input::InputStream::open(&self.console.input)
            .map_err(|error| Failure::message(format!("cannot read the answer: {error}")))?;
        let answer = input.next().await.unwrap_or_default();
        Ok(answer.first().is_some_and(|first| matches!(first, b'y' | b'Y')))
    }

    /// Runs `work`; a signal that asks for an exit drops `work` at its current await point.
    pub async fn interruptible<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            result = work => result,
            signal = self.signals.ending() => Err(Failure::Signalled(signal)),
        }
    }
}
