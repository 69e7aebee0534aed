//! One line of `exec.log`: `{"t": RFC 3339, "s": source, "d": text, "id": session}`, with `"e": "b64"` when the bytes
//! are not UTF-8, or when as text they would grow more than base64 does (a control character takes six bytes). `id` is
//! absent for lines that belong to no session. Written by hand: it is the hot path of every byte a sandbox prints.

use base64_simd::STANDARD;
use std::time::{SystemTime, UNIX_EPOCH};

/// What a line says.
pub struct Line<'a> {
    pub time_ns: u64,
    pub source: &'a str,
    pub session: u32,
    pub data: &'a [u8],
}

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Nanoseconds since the epoch; zero for a clock before it.
pub fn now_ns() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
}

/// Appends the line to `out`.
pub fn encode(out: &mut Vec<u8>, line: &Line<'_>) {
    out.reserve(line.data.len() + line.data.len() / 8 + 128);
    out.extend_from_slice(b"{\"t\":\"");
    timestamp(out, line.time_ns);
    out.extend_from_slice(b"\",\"s\":\"");
    out.extend_from_slice(line.source.as_bytes());
    out.extend_from_slice(b"\",\"d\":\"");
    // In this order: bytes that are no text say so early, the other question looks at all of them.
    let text = std::str::from_utf8(line.data).is_ok() && compact_as_text(line.data);
    if text {
        escape(out, line.data);
    } else {
        base64(out, line.data);
    }
    out.push(b'"');
    if line.session != 0 {
        out.extend_from_slice(b",\"id\":");
        out.extend_from_slice(line.session.to_string().as_bytes());
    }
    out.extend_from_slice(if text { b"}\n" } else { b",\"e\":\"b64\"}\n" });
}

/// Whether escaping adds less than the third that base64 adds. Line breaks and tabs cost one byte, other control
/// characters five.
fn compact_as_text(data: &[u8]) -> bool {
    let long = |byte: u8| byte < 0x20 && !matches!(byte, b'\n' | b'\r' | b'\t');
    // Without a branch a byte, this test is vector instructions; most output ends here.
    if !data.iter().fold(false, |any, &byte| any | long(byte)) {
        return true;
    }
    let added = data.iter().filter(|&&byte| long(byte)).count() * 5;
    added <= data.len() / 3 + 8
}

fn escape(out: &mut Vec<u8>, mut data: &[u8]) {
    if !data.iter().fold(false, |any, &byte| any | (byte < 0x20 && byte != b'\n')) {
        return escape_lines(out, data);
    }
    while let Some(index) = next_escape(data) {
        out.extend_from_slice(&data[..index]);
        escape_byte(out, data[index]);
        data = &data[index + 1..];
    }
    out.extend_from_slice(data);
}

/// Text whose only control characters are line ends: what most programs print.
fn escape_lines(out: &mut Vec<u8>, data: &[u8]) {
    let mut clean = 0;
    for index in memchr::memchr3_iter(b'\n', b'"', b'\\', data) {
        out.extend_from_slice(&data[clean..index]);
        escape_byte(out, data[index]);
        clean = index + 1;
    }
    out.extend_from_slice(&data[clean..]);
}

/// Where the first control character, quote or backslash is; eight bytes are looked at together (the lowest mark of
/// these tests is exact, borrows only disturb the ones above it).
fn next_escape(data: &[u8]) -> Option<usize> {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const HIGH: u64 = 0x80 * ONES;
    let zero = |word: u64| word.wrapping_sub(ONES) & !word;
    let words = data.chunks_exact(8);
    let tail = words.remainder();
    for (index, bytes) in words.enumerate() {
        // The slice has eight bytes; the other arm does not happen.
        let word = bytes.try_into().map_or(0, u64::from_le_bytes);
        let control = word.wrapping_sub(0x20 * ONES) & !word;
        let marks = (control | zero(word ^ (0x22 * ONES)) | zero(word ^ (0x5c * ONES))) & HIGH;
        if marks != 0 {
            return Some(index * 8 + marks.trailing_zeros() as usize / 8);
        }
    }
    let special = |byte: &u8| *byte < 0x20 || *byte == b'"' || *byte == b'\\';
    tail.iter().position(special).map(|index| data.len() - tail.len() + index)
}

fn escape_byte(out: &mut Vec<u8>, byte: u8) {
    let short = match byte {
        b'"' => b"\\\"",
        b'\\' => b"\\\\",
        b'\n' => b"\\n",
        b'\r' => b"\\r",
        b'\t' => b"\\t",
        _ => {
            out.extend_from_slice(&[b'\\', b'u', b'0', b'0', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
            return;
        }
    };
    out.extend_from_slice(short);
}

/// Standard alphabet with padding (RFC 4648 section 4).
fn base64(out: &mut Vec<u8>, data: &[u8]) {
    STANDARD.encode_append(data, out);
}

/// RFC 3339 in UTC with microseconds.
pub fn timestamp(out: &mut Vec<u8>, time_ns: u64) {
    let seconds = time_ns / 1_000_000_000;
    let micros = time_ns % 1_000_000_000 / 1000;
    let (year, month, day) = date(seconds / 86_400);
    let of_day = seconds % 86_400;
    let mut number = |mut value: u64, width: usize, end: u8| {
        let mut digits = [b'0'; 20];
        for digit in digits[..width].iter_mut().rev() {
            *digit = b'0' + (value % 10) as u8;
            value /= 10;
        }
        out.extend_from_slice(&digits[..width]);
        out.push(end);
    };
    number(year, 4, b'-');
    number(month, 2, b'-');
    number(day, 2, b'T');
    number(of_day / 3600, 2, b':');
    number(of_day / 60 % 60, 2, b':');
    number(of_day % 60, 2, b'.');
    number(micros, 6, b'Z');
}

/// Year, month and day of the proleptic Gregorian calendar, from days since the epoch (Howard Hinnant's
/// `civil_from_days`). By hand, because it is all that this program needs of a calendar (no zones, no parsing, one
/// direction), it runs for every line that a sandbox prints, and the program stays in memory once for each sandbox.
fn date(days: u64) -> (u64, u64, u64) {
    let z = days + 719_468;
    let era = z / 146_097;
    let doe = z % 146_097;
    let yoe = (doe - doe / 1460 + doe / 36_524 - doe / 146_096) / 365;
    let doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
    let mp = (5 * doy + 2) / 153;
    let month = if mp < 10 { mp + 3 } else { mp - 9 };
    (yoe + era * 400 + u64::from(month <= 2), month, doy - (153 * mp + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(data: &[u8]) -> serde_json::Value {
        let mut out = Vec::new();
        encode(&mut out, &Line { time_ns: 951_782_400_000_001_999, source: "stdout", session: 7, data });
        assert_eq!(out.pop(), Some(b'\n'));
        assert!(!out.contains(&b'\n'));
        serde_json::from_slice(&out).unwrap()
    }

    #[test]
    fn every_byte_survives_as_text() {
        let all: String = (0..0x250u32).filter_map(char::from_u32).collect();
        for start in 0..64 {
            let text: String = all.chars().skip(start).collect();
            assert_eq!(line(text.as_bytes())["d"], text);
        }
    }

    #[test]
    fn other_bytes_are_base64() {
        for (data, text) in
            [(&b"\xff"[..], "/w=="), (b"\xff\xfe", "//4="), (b"\xff\xfe\xfd", "//79"), (b"a\xffbc", "Yf9iYw==")]
        {
            let line = line(data);
            assert_eq!((line["d"].as_str().unwrap(), line["e"].as_str().unwrap()), (text, "b64"));
        }
    }

    #[test]
    fn what_would_grow_as_text_is_base64() {
        let line = line(&[0; 4096]);
        assert_eq!(line["e"], "b64");
        assert_eq!(STANDARD.decode_to_vec(line["d"].as_str().unwrap()).unwrap(), [0; 4096]);
    }

    #[test]
    fn what_no_session_said_has_no_id() {
        let mut out = Vec::new();
        encode(&mut out, &Line { time_ns: 0, source: "system", session: 0, data: b"x" });
        assert!(serde_json::from_slice::<serde_json::Value>(&out).unwrap().get("id").is_none());
    }

    #[test]
    fn time_is_rfc_3339() {
        assert_eq!(line(b"x")["t"], "2000-02-29T00:00:00.000001Z");
        assert_eq!(line(b"x")["id"], 7);
    }
}
