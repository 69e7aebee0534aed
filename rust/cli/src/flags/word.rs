//! Words of a program inside: bytes to the kernel, so also those that are not UTF-8.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;

use clap::builder::{OsStringValueParser, TypedValueParser};
use microsandbox_core::names;

fn text(word: &OsString) -> String {
    names::to_text(word.as_bytes()).into_owned()
}

/// A program, an argument, a directory, a user.
pub fn word() -> impl TypedValueParser<Value = String> {
    OsStringValueParser::new().map(|word| text(&word))
}

/// What `parse` makes of a word.
pub fn parsed<T: Clone + Send + Sync + 'static>(
    parse: fn(&str) -> Result<T, String>,
) -> impl TypedValueParser<Value = T> {
    OsStringValueParser::new().try_map(move |word| parse(&text(&word)))
}
