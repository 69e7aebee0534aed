//! From an [`ExecRequest`](microsandbox_protocol::message::ExecRequest) to a running process.

pub mod environment;
pub mod failure;
pub mod launch;
pub mod limits;
pub mod program;
pub mod terminal;
pub mod user;

use std::ffi::{CString, NulError};

use microsandbox_protocol::names;

/// A word for the kernel: text of the wire, in which bytes that are not UTF-8 have characters of their own.
pub fn c_word(text: &str) -> Result<CString, NulError> {
    CString::new(names::to_bytes(text).into_owned())
}
