//! Why an image was refused.

use std::path::Path;

use microsandbox_contract::{JobError, JobErrorKind};

use microsandbox_core::error::{ImageErrorKind, MicrosandboxError};

/// A refusal, or any other error on the way.
#[derive(Debug)]
pub enum Failure {
    Image { kind: ImageErrorKind, message: String },
    Other(MicrosandboxError),
}

impl Failure {
    pub fn of(kind: ImageErrorKind, message: impl Into<String>) -> Failure {
        Failure::Image { kind, message: message.into() }
    }

    /// What was wrong with the image, if it was the image.
    #[cfg(test)]
    pub fn kind(&self) -> Option<ImageErrorKind> {
        match self {
            Failure::Image { kind, .. } => Some(*kind),
            Failure::Other(_) => None,
        }
    }

    /// The error for the caller who asked to pull `reference`; `near` says how to name what may have been meant.
    pub fn pulling(self, reference: &str, near: Near) -> MicrosandboxError {
        match self {
            Failure::Image { kind, message } => {
                let near = match kind {
                    ImageErrorKind::Transport | ImageErrorKind::Denied => near.directory(reference),
                    _ => String::new(),
                };
                let message = format!("pull {reference}: {}{near}", printable(&message));
                MicrosandboxError::ImagePull { kind, message }
            }
            Failure::Other(MicrosandboxError::ImageNotFound(message)) => {
                MicrosandboxError::ImageNotFound(format!("{}{}", printable(&message), near.path(reference)))
            }
            Failure::Other(error) => error,
        }
    }

    /// The error for the caller whose operation this was.
    pub fn during(self, operation: &str) -> MicrosandboxError {
        match self {
            Failure::Image { kind, message } => {
                MicrosandboxError::ImagePull { kind, message: format!("{operation}: {}", printable(&message)) }
            }
            Failure::Other(error) => error,
        }
    }
}

/// Whether an error may say what lies in the working directory: it is the caller's, not that of a server's client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Near {
    Shown,
    Hidden,
}

impl Near {
    /// How the path of a directory is written.
    pub fn path(self, reference: &str) -> String {
        let directory = self.directory(reference);
        if directory.is_empty() { "; the path of a directory begins with / or ./".to_owned() } else { directory }
    }

    /// The same, where a directory of that name is there.
    fn directory(self, reference: &str) -> String {
        if self == Near::Hidden || !Path::new(reference).is_dir() {
            return String::new();
        }
        format!(
            "; the path of a directory begins with / or ./: for the directory {reference} of the working directory write \
             ./{reference}"
        )
    }
}

/// As [`microsandbox_home::blocking`], for work that may refuse an image.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Failure> {
    microsandbox_home::blocking(move || Ok(work())).await?
}

/// Text of strangers, without what could steer a terminal.
fn printable(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for character in text.chars() {
        if microsandbox_core::names::is_active(character) {
            out.extend(character.escape_default());
        } else {
            out.push(character);
        }
    }
    out
}

impl From<MicrosandboxError> for Failure {
    fn from(error: MicrosandboxError) -> Failure {
        Failure::Other(error)
    }
}

pub fn corrupt(message: impl Into<String>) -> Failure {
    Failure::of(ImageErrorKind::CorruptLayer, message)
}

pub fn limit(message: impl Into<String>) -> Failure {
    Failure::of(ImageErrorKind::LimitExceeded, message)
}

pub fn mismatch(message: impl Into<String>) -> Failure {
    Failure::of(ImageErrorKind::DigestMismatch, message)
}

/// An I/O failure on the host; a full disk has an error of its own.
pub fn io(action: &str, path: &Path, error: std::io::Error) -> Failure {
    if matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded) {
        return Failure::Other(no_space(format!("{action} {}: {error}", path.display())));
    }
    Failure::Other(MicrosandboxError::io(action, path, error))
}

fn no_space(message: String) -> MicrosandboxError {
    MicrosandboxError::ResourceExhausted { resource: "disk".into(), message }
}

/// What the unpacking process reported.
pub fn job(error: JobError) -> Failure {
    let message = if error.hint.is_empty() { error.message } else { format!("{}; {}", error.message, error.hint) };
    match error.kind {
        JobErrorKind::UnsafeEntry => Failure::of(ImageErrorKind::UnsafeEntry, message),
        JobErrorKind::LimitExceeded => limit(message),
        JobErrorKind::DigestMismatch => mismatch(message),
        JobErrorKind::CorruptLayer => corrupt(message),
        JobErrorKind::Denied => Failure::of(ImageErrorKind::Denied, message),
        JobErrorKind::NoSpace => Failure::Other(no_space(message)),
        JobErrorKind::Io => Failure::Other(MicrosandboxError::Runtime(format!("unpack an image: {message}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(kind: JobErrorKind) -> JobError {
        JobError { kind, message: "m".into(), errno: None, hint: "h".into() }
    }

    #[test]
    fn each_kind_of_the_unpacker_keeps_its_meaning() {
        for (kind, expected) in [
            (JobErrorKind::UnsafeEntry, ImageErrorKind::UnsafeEntry),
            (JobErrorKind::LimitExceeded, ImageErrorKind::LimitExceeded),
            (JobErrorKind::DigestMismatch, ImageErrorKind::DigestMismatch),
            (JobErrorKind::CorruptLayer, ImageErrorKind::CorruptLayer),
            (JobErrorKind::Denied, ImageErrorKind::Denied),
        ] {
            assert_eq!(job(error(kind)).kind(), Some(expected));
        }
        let full = job(error(JobErrorKind::NoSpace)).during("load a.tar");
        assert!(matches!(full, MicrosandboxError::ResourceExhausted { ref resource, .. } if resource == "disk"));
        assert!(matches!(job(error(JobErrorKind::Io)).during("load a"), MicrosandboxError::Runtime(_)));
    }

    #[test]
    fn quoted_guest_data_cannot_move_the_cursor() {
        let text = corrupt("bad \u{1b}[2J name\n").during("load a.tar").to_string();
        assert!(!text.contains('\u{1b}') && !text.contains('\n'), "{text}");
    }
}
