//! The naming rule of sandboxes and volumes.

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// Longest name in bytes. Mirrors the control plane's `MAX_SANDBOX_NAME_BYTES`: change both or neither.
pub const MAX_SANDBOX_NAME_BYTES: usize = 128;

/// Names become paths and URL parts: 1 to 128 bytes of ASCII letters, digits, `.`, `-`, `_`, the first a letter or digit.
pub fn validate_sandbox_name(name: &str) -> MicrosandboxResult<()> {
    validate_name("sandbox", name)
}

/// Volumes follow the rule of sandboxes.
pub fn validate_volume_name(name: &str) -> MicrosandboxResult<()> {
    validate_name("volume", name)
}

fn validate_name(what: &str, name: &str) -> MicrosandboxResult<()> {
    let rule = "use 1 to 128 of A-Z a-z 0-9 . _ - and begin with a letter or digit";
    if name.is_empty() {
        return Err(MicrosandboxError::InvalidConfig(format!("{what} name must not be empty; {rule}")));
    }
    if name.len() > MAX_SANDBOX_NAME_BYTES {
        return Err(MicrosandboxError::InvalidConfig(format!(
            "{what} name must be at most {MAX_SANDBOX_NAME_BYTES} characters: got {}",
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
