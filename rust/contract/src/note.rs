//! What a booting guest reports to its runtime, as JSON lines on a pipe: the child until it executes its program, a
//! monitor until its machine runs.

use serde::{Deserialize, Serialize};

use crate::isolation::Mechanism;
use crate::report::BootError;
use crate::step::Step;

#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Note {
    /// The step is finished; microseconds since the runtime's first instruction.
    Done(Step, u64),
    Mechanism(Mechanism),
    Failed(Failure),
    /// The failpoint of a test is reached: the runtime has to exit here.
    Failpoint,
}

/// A step that could not be done: the cause, and what the user can do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Failure {
    pub step: Step,
    pub message: String,
    pub errno: Option<i32>,
    pub hint: String,
}

impl Failure {
    pub fn new(step: Step, message: impl Into<String>, hint: impl Into<String>) -> Failure {
        Failure { step, message: message.into(), errno: None, hint: hint.into() }
    }

    /// A failed call: `action` says what was attempted on which object.
    pub fn call(
        step: Step,
        action: impl std::fmt::Display,
        error: impl Into<std::io::Error>,
        hint: impl Into<String>,
    ) -> Failure {
        let error = error.into();
        Failure { step, message: format!("{action}: {error}"), errno: error.raw_os_error(), hint: hint.into() }
    }

    /// The document for `boot-error.json`; `t` is milliseconds since the epoch.
    pub fn into_boot_error(self, t: u64, log_tail: String) -> BootError {
        BootError {
            t,
            stage: self.step.stage(),
            step: self.step,
            message: self.message,
            errno: self.errno,
            hint: self.hint,
            log_tail,
        }
    }
}

/// Shorthand for `map_err`: names the action and the hint of a failed call.
pub fn failed<'a, E: Into<std::io::Error>>(
    step: Step,
    action: impl std::fmt::Display + 'a,
    hint: &'a str,
) -> impl FnOnce(E) -> Failure + 'a {
    move |error| Failure::call(step, action, error, hint)
}
