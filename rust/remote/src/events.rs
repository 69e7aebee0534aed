//! Server-sent events (HTML standard, section 9.2): the fields `id`, `event` and `data`; a blank line ends an event.

use bytes::{Buf, BytesMut};

/// Largest event.
const EVENT_MAX: usize = 16 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    pub id: Option<String>,
    pub event: Option<String>,
    pub data: String,
}

/// Why the stream cannot be decoded.
#[derive(Debug, PartialEq, Eq)]
pub enum Malformed {
    TooLarge,
    NotUtf8,
}

/// Splits a byte stream into events.
#[derive(Default)]
pub struct Decoder {
    input: BytesMut,
    /// Bytes at the front that contain no line end.
    seen: usize,
    current: Event,
    begun: bool,
    has_data: bool,
    size: usize,
}

impl Decoder {
    pub fn feed(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next complete event.
    pub fn next(&mut self) -> Result<Option<Event>, Malformed> {
        while let Some(end) = self.input[self.seen..].iter().position(|&byte| byte == b'\n') {
            let end = self.seen + end;
            let mut line = self.input.split_to(end);
            self.input.advance(1);
            self.seen = 0;
            if line.last() == Some(&b'\r') {
                line.truncate(line.len() - 1);
            }
            if line.is_empty() {
                if std::mem::take(&mut self.begun) {
                    self.size = 0;
                    self.has_data = false;
                    return Ok(Some(std::mem::take(&mut self.current)));
                }
                continue;
            }
            self.size += line.len();
            if self.size > EVENT_MAX {
                return Err(Malformed::TooLarge);
            }
            self.line(std::str::from_utf8(&line).map_err(|_error| Malformed::NotUtf8)?);
        }
        self.seen = self.input.len();
        if self.size + self.input.len() > EVENT_MAX { Err(Malformed::TooLarge) } else { Ok(None) }
    }

    fn line(&mut self, line: &str) {
        if line.starts_with(':') {
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => self.current.id = Some(value.into()),
            "event" => self.current.event = Some(value.into()),
            "data" => {
                if std::mem::replace(&mut self.has_data, true) {
                    self.current.data.push('\n');
                }
                self.current.data.push_str(value);
            }
            _ => return,
        }
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(text: &[u8], step: usize) -> Vec<Event> {
        let mut decoder = Decoder::default();
        let mut out = Vec::new();
        for piece in text.chunks(step) {
            decoder.feed(piece);
            while let Some(event) = decoder.next().unwrap() {
                out.push(event);
            }
        }
        out
    }

    #[test]
    fn chunk_boundaries_do_not_change_events() {
        let text = b": hello\r\n\r\nid: 7\nevent: log\ndata: one\ndata:two\n\nevent:end\r\ndata\r\n\r\nunknown: x\n\n";
        let first = Event { id: Some("7".into()), event: Some("log".into()), data: "one\ntwo".into() };
        let second = Event { id: None, event: Some("end".into()), data: String::new() };
        for step in 1..text.len() {
            assert_eq!(all(text, step), [first.clone(), second.clone()], "step {step}");
        }
    }

    #[test]
    fn an_endless_event_and_invalid_utf8_are_errors() {
        let mut decoder = Decoder::default();
        let block = vec![b'x'; 1 << 20];
        let mut result = Ok(None);
        for _ in 0..20 {
            decoder.feed(&block);
            result = decoder.next();
            if result.is_err() {
                break;
            }
        }
        assert_eq!(result, Err(Malformed::TooLarge));
        let mut decoder = Decoder::default();
        decoder.feed(b"data: \xff\n\n");
        assert_eq!(decoder.next(), Err(Malformed::NotUtf8));
    }
}
