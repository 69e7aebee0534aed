//! File names as text, without a loss.
//!
//! A Linux name is bytes, the wire and every caller's language have text. A byte that is not part of UTF-8 travels as one
//! character of Unicode's plane 16, which is for private use: 0x80 as U+10FE80, up to 0xff as U+10FEFF. A name that really
//! holds one of these characters is written in the same way, byte by byte, so that two names never have one text. It is
//! what Python does with lone surrogates (PEP 383), in characters that UTF-8, CBOR and JSON can carry.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::os::unix::ffi::{OsStrExt, OsStringExt};

/// Stands for the byte 0x80.
const FIRST: u32 = 0x10_fe80;
const LOW: u32 = 0x80;

fn byte(c: char) -> Option<u8> {
    u8::try_from(u32::from(c).checked_sub(FIRST)? + LOW).ok()
}

fn push(text: &mut String, bytes: &[u8]) {
    // The sum is at most U+10FEFF, which is a character; bytes of UTF-8's own sequences are never below 0x80 here.
    text.extend(bytes.iter().filter_map(|byte| char::from_u32(FIRST - LOW + u32::from(*byte))));
}

/// Does the text stand for a name that is not UTF-8?
pub fn is_escaped(text: &str) -> bool {
    // U+10FE80 to U+10FEFF, and nothing else, begin with these bytes.
    text.as_bytes().windows(3).any(|three| matches!(three, [0xf4, 0x8f, 0xba | 0xbb]))
}

/// The text for a name or path.
pub fn to_text(name: &[u8]) -> Cow<'_, str> {
    if let Ok(text) = std::str::from_utf8(name)
        && !is_escaped(text)
    {
        return Cow::Borrowed(text);
    }
    let mut text = String::with_capacity(name.len());
    for chunk in name.utf8_chunks() {
        for c in chunk.valid().chars() {
            match byte(c) {
                Some(_) => push(&mut text, c.encode_utf8(&mut [0; 4]).as_bytes()),
                None => text.push(c),
            }
        }
        push(&mut text, chunk.invalid());
    }
    Cow::Owned(text)
}

/// The name or path that a text stands for.
pub fn to_bytes(text: &str) -> Cow<'_, [u8]> {
    if !is_escaped(text) {
        return Cow::Borrowed(text.as_bytes());
    }
    let mut name = Vec::with_capacity(text.len());
    for c in text.chars() {
        match byte(c) {
            Some(byte) => name.push(byte),
            None => name.extend_from_slice(c.encode_utf8(&mut [0; 4]).as_bytes()),
        }
    }
    Cow::Owned(name)
}

/// [`to_bytes`], for system calls.
pub fn to_os(text: &str) -> Cow<'_, OsStr> {
    match to_bytes(text) {
        Cow::Borrowed(bytes) => Cow::Borrowed(OsStr::from_bytes(bytes)),
        Cow::Owned(bytes) => Cow::Owned(std::ffi::OsString::from_vec(bytes)),
    }
}

/// Whether a character would do something to the place where text is shown: move the cursor, set a title, or show other text
/// in another order (embeddings, overrides, isolates and marks of direction, Unicode UAX 9).
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// For people to read: bytes that are not UTF-8 as `\xff`.
pub fn shown(text: &str) -> Cow<'_, str> {
    if !is_escaped(text) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match byte(c) {
            Some(byte) => out.push_str(&format!("\\x{byte:02x}")),
            None => out.push(c),
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: [&[u8]; 9] = [
        b"",
        b"/plain/name",
        "naïve/Ω ☃ 𝄞".as_bytes(),
        b"\xff",
        b"a\x80b/\xc3\x28/\xf0\x9f",
        // A surrogate of UTF-16, which is no UTF-8.
        b"\xed\xa0\x80",
        // The characters that stand for bytes, and their neighbours.
        "\u{10fe80}\u{10feff}".as_bytes(),
        "\u{10fe7f}\u{10ff00}".as_bytes(),
        b"\xf4\x8f\xba",
    ];

    #[test]
    fn every_name_comes_back() {
        for name in NAMES {
            let text = to_text(name);
            assert_eq!(&*to_bytes(&text), name, "{text:?}");
            assert_eq!(to_os(&text).as_bytes(), name);
        }
    }

    #[test]
    fn no_two_names_have_one_text() {
        let texts: std::collections::BTreeSet<String> = NAMES.iter().map(|name| to_text(name).into_owned()).collect();
        assert_eq!(texts.len(), NAMES.len());
        let real = to_text("\u{10feff}".as_bytes()).into_owned();
        assert_ne!(real, to_text(b"\xff"));
        assert_eq!(real.chars().count(), 4, "{real:?}");
    }

    #[test]
    fn utf8_stays_as_it_is() {
        assert!(matches!(to_text("grün".as_bytes()), Cow::Borrowed("grün")));
        assert!(matches!(to_bytes("\u{10fe7f}\u{10ff00}"), Cow::Borrowed(_)));
    }

    #[test]
    fn no_text_stands_for_a_separator_or_an_end() {
        for c in '\u{10fe00}'..='\u{10ffff}' {
            let bytes = to_bytes(c.encode_utf8(&mut [0; 4])).into_owned();
            assert!(bytes.iter().all(|byte| *byte >= 0x80), "{c:?}");
        }
    }

    #[test]
    fn people_see_the_bytes() {
        assert_eq!(shown(&to_text(b"/tmp/a\xff\x80z")), r"/tmp/a\xff\x80z");
        assert_eq!(shown("/tmp/ü"), "/tmp/ü");
    }
}
