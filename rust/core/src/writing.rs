//! Whether a file that is being written can still become a whole one.

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// What is being written. A step that failed, or whose future was dropped, leaves the file broken: a partial file must
/// not pass for a complete one.
pub enum Writing<T> {
    Open(T),
    Broken,
    Closed,
}

impl<T> Writing<T> {
    /// For one step; broken unless [`Writing::resume`] or [`Writing::finish`] says otherwise.
    pub fn step(&mut self) -> MicrosandboxResult<T> {
        match std::mem::replace(self, Writing::Broken) {
            Writing::Open(work) => Ok(work),
            Writing::Broken => Err(broken()),
            Writing::Closed => {
                *self = Writing::Closed;
                Err(MicrosandboxError::InvalidState("the file is closed".into()))
            }
        }
    }

    /// The step succeeded.
    pub fn resume(&mut self, work: T) {
        *self = Writing::Open(work);
    }

    /// For the last step; `None` when it was taken before.
    pub fn last_step(&mut self) -> MicrosandboxResult<Option<T>> {
        match self {
            Writing::Closed => Ok(None),
            _ => self.step().map(Some),
        }
    }

    /// The last step succeeded.
    pub fn finish(&mut self) {
        *self = Writing::Closed;
    }
}

fn broken() -> MicrosandboxError {
    MicrosandboxError::InvalidState("the file was given up: a write of it failed or was cancelled".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_broke_never_closes_well() {
        let mut writing = Writing::Open(1);
        let work = writing.step().unwrap();
        writing.resume(work + 1);
        assert_eq!(writing.step().unwrap(), 2);
        // It was not resumed: it failed, or was cancelled.
        assert!(writing.step().is_err());
        assert!(writing.last_step().is_err());
        assert!(writing.last_step().is_err());
    }

    #[test]
    fn closing_twice_is_fine_and_writing_afterwards_is_not() {
        let mut writing = Writing::Open(());
        assert!(writing.last_step().unwrap().is_some());
        writing.finish();
        assert!(writing.last_step().unwrap().is_none());
        assert!(writing.step().unwrap_err().to_string().contains("closed"));
    }
}
