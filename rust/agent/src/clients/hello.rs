//! The greeting: who may speak, and in which version.

use microsandbox_protocol::message::{CoreError, Hello};
use microsandbox_protocol::version::{EXTENSION, EXTENSION_MIN, negotiate};
use microsandbox_protocol::{Kind, Message, ProtocolError};

/// What the first frame of a connection amounts to.
#[derive(Debug, PartialEq, Eq)]
pub enum Greeting {
    /// The extension both sides will use.
    Welcome(u32),
    /// To be sent as `core.error`, then the connection closes.
    Refused(CoreError),
}

/// Judges the first frame. The token is looked at before anything else a stranger sent.
pub fn judge(token: &[u8], message: &Message) -> Result<Greeting, ProtocolError> {
    if message.kind != Kind::Hello {
        return Ok(refuse("unauthorized", "the first frame must be core.hello".to_owned()));
    }
    let hello: Hello = message.parse()?;
    // An empty token would match an agent that was never given one.
    if token.is_empty() || !same(token, &hello.token) {
        return Ok(refuse("unauthorized", "the session token is wrong".to_owned()));
    }
    Ok(match negotiate((EXTENSION_MIN, EXTENSION), (hello.extension_min, hello.extension_max)) {
        Some(extension) => Greeting::Welcome(extension),
        None => refuse(
            "version",
            format!(
                "the agent understands extensions {EXTENSION_MIN}..={EXTENSION}, the client {}..={}",
                hello.extension_min, hello.extension_max
            ),
        ),
    })
}

fn refuse(kind: &str, message: String) -> Greeting {
    Greeting::Refused(CoreError { kind: kind.to_owned(), message, offending_type: None })
}

/// Comparison whose time depends on the lengths only.
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    let difference = a.iter().zip(b).fold(0u8, |acc, (x, y)| acc | (x ^ y));
    std::hint::black_box(difference) == 0
}
