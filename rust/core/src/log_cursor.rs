//! The text of a position: standard base64 of one count byte, then generation and offset of each file, u64 LE.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use crate::error::{MicrosandboxError, MicrosandboxResult};

/// A place in a family of rotated files; the default is its beginning.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Position {
    /// Tells one file from those that had or will have its name.
    pub generation: u64,
    pub offset: u64,
}

/// More files than this build has.
const POSITIONS_MAX: usize = 3;

pub fn encode(positions: impl ExactSizeIterator<Item = Position>) -> String {
    let mut bytes = Vec::with_capacity(1 + 16 * positions.len());
    bytes.push(positions.len() as u8);
    for position in positions {
        bytes.extend_from_slice(&position.generation.to_le_bytes());
        bytes.extend_from_slice(&position.offset.to_le_bytes());
    }
    STANDARD.encode(bytes)
}

/// Empty text is the beginning, as `AA==`.
pub fn decode(text: &str) -> MicrosandboxResult<Vec<Position>> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let invalid = |why: &str| MicrosandboxError::InvalidCursor(format!("not a position in a log ({why})"));
    // Longest legal text is 68 characters; nothing longer is decoded.
    if text.len() > 128 {
        return Err(invalid("too long"));
    }
    let bytes = STANDARD.decode(text).map_err(|_error| invalid("not base64"))?;
    let (&count, rest) = bytes.split_first().ok_or_else(|| invalid("empty"))?;
    if usize::from(count) > POSITIONS_MAX || rest.len() != usize::from(count) * 16 {
        return Err(invalid("wrong length"));
    }
    let (words, _) = rest.as_chunks::<8>();
    Ok(words
        .chunks_exact(2)
        .map(|pair| Position { generation: u64::from_le_bytes(pair[0]), offset: u64::from_le_bytes(pair[1]) })
        .collect())
}
