//! The naming rule of sandboxes and volumes.

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Longest name in bytes. Mirrors the control plane's `MAX_SANDBOX_NAME_BYTES`: change both or neither.
pub const MAX_SANDBOX_NAME_BYTES: usize = 128;

/// Longest name that is stored: a server puts the owner and a dash in front of the name that its client chose.
pub const MAX_STORED_NAME_BYTES: usize = MAX_SANDBOX_NAME_BYTES + 17;

/// Names become paths and URL parts: 1 to 128 bytes of ASCII letters, digits, `.`, `-`, `_`, the first a letter or digit.
pub fn validate_sandbox_name(name: &str) -> MicrosandboxResult<()> {
    validate_name("sandbox", name, MAX_SANDBOX_NAME_BYTES)
}

/// Volumes follow the rule of sandboxes.
pub fn validate_volume_name(name: &str) -> MicrosandboxResult<()> {
    validate_name("volume", name, MAX_SANDBOX_NAME_BYTES)
}

/// The rule for what exists: a name that a user chose, or one that a server made of it. `what` is `sandbox` or `volume`.
pub fn validate_stored_name(what: &str, name: &str) -> MicrosandboxResult<()> {
    validate_name(what, name, MAX_STORED_NAME_BYTES)
}

fn validate_name(what: &str, name: &str, most: usize) -> MicrosandboxResult<()> {
    let rule = format!("use 1 to {most} of A-Z a-z 0-9 . _ - and begin with a letter or digit");
    if name.is_empty() {
        return Err(MicrosandboxError::InvalidConfig(format!("{what} name must not be empty; {rule}")));
    }
    if name.len() > most {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "{what} name must be at most {most} characters: got {}",
            name.chars().count()
        )));
    }
    let bytes = name.as_bytes();
    let legal = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
    if !bytes[0].is_ascii_alphanumeric() || !bytes.iter().all(legal) {
        return Err(MicrosandboxError::InvalidConfig(format!("{what} name {name:?} is not allowed; {rule}")));
    }
    Ok(())
}
