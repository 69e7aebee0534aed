//! Why a boot failed: the named step, the cause, and what the user can do.

use microsandbox_protocol::launch::BootError;
use rustix::io::Errno;
use serde::{Deserialize, Serialize};

use crate::steps::{Step, epoch_ms};

/// A step that could not be done.
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

    /// A failed system call: `action` says what was attempted on which object.
    pub fn call(step: Step, action: impl std::fmt::Display, error: Errno, hint: impl Into<String>) -> Failure {
        let text = std::io::Error::from_raw_os_error(error.raw_os_error());
        Failure { step, message: format!("{action}: {text}"), errno: Some(error.raw_os_error()), hint: hint.into() }
    }

    /// The document for `boot-error.json`.
    pub fn into_boot_error(self, log_tail: String) -> BootError {
        BootError {
            t: epoch_ms(),
            stage: self.step.stage().to_owned(),
            step: self.step.name().to_owned(),
            message: self.message,
            errno: self.errno,
            hint: self.hint,
            log_tail,
        }
    }
}

/// Shorthand for `map_err`: names the action and the hint of a failed call.
pub fn failed<'a>(
    step: Step,
    action: impl std::fmt::Display + 'a,
    hint: &'a str,
) -> impl FnOnce(Errno) -> Failure + 'a {
    move |error| Failure::call(step, action, error, hint)
}

/// The same for `std::io::Error`.
pub fn failed_io<'a>(
    step: Step,
    action: impl std::fmt::Display + 'a,
    hint: &'a str,
) -> impl FnOnce(std::io::Error) -> Failure + 'a {
    move |error| Failure {
        step,
        message: format!("{action}: {error}"),
        errno: error.raw_os_error(),
        hint: hint.to_owned(),
    }
}
