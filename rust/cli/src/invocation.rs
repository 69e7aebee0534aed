//! What every verb is given: the backend, resolved once; the streams; the signals.

use std::future::Future;
use std::path::PathBuf;

use chrono::{DateTime, Utc};
use microsandbox_core::SharedBackend;
use microsandbox_sdk::default_backend::BackendInfo;

use crate::console::Console;
use crate::failure::{Failure, Outcome};
use crate::signals::Signals;

/// Where sandboxes live, and why there.
pub struct Home {
    pub backend: SharedBackend,
    pub info: BackendInfo,
    /// The interpreter whose pip fetches things.
    pub python: PathBuf,
}

/// One run of the command.
pub struct Invocation {
    pub backend: SharedBackend,
    pub info: BackendInfo,
    pub python: PathBuf,
    pub console: Console,
    pub signals: Signals,
    /// When it began: ages in tables count from here.
    pub now: DateTime<Utc>,
}

impl Invocation {
    /// One line of input that begins with y. Can be interrupted.
    pub async fn confirmed(&self) -> Outcome<bool> {
        let mut input = crate::input::InputStream::open(&self.console.input)
            .map_err(|error| Failure::message(format!("cannot read the answer: {error}")))?;
        let answer = input.next().await.unwrap_or_default();
        Ok(answer.first().is_some_and(|first| matches!(first, b'y' | b'Y')))
    }

    /// Runs `work` unless a signal asks for an end first; then it is dropped where it stands.
    pub async fn interruptible<T>(&self, work: impl Future<Output = Outcome<T>>) -> Outcome<T> {
        tokio::select! {
            result = work => result,
            signal = self.signals.ending() => Err(Failure::Signalled(signal)),
        }
    }
}
