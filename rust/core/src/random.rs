//! Random bits from the kernel.

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// At most 256 bytes, which the kernel gives whole.
pub fn bytes<const N: usize>() -> MicrosandboxResult<[u8; N]> {
    let mut bytes = [0; N];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|e| MicrosandboxError::Io { context: "read random bytes".into(), source: e.into() })?;
    Ok(bytes)
}

/// The same as text, two hexadecimal digits a byte.
pub fn hex<const N: usize>() -> MicrosandboxResult<String> {
    Ok(hex::encode(bytes::<N>()?))
}
