//! Every path and header of the wire in one file, so that a change of the control plane is followed by editing this file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The path as base64url without padding.
pub const FILE_PATH_HEADER: &str = "x-msb-file-path";
/// `true` or `false`.
pub const FILE_RECURSIVE_HEADER: &str = "x-msb-file-recursive";
/// On requests that the client may retry: a second request with the same value gets the result of the first.
pub const IDEMPOTENCY_HEADER: &str = "idempotency-key";
/// On a removal: refused if the name now belongs to a different sandbox. Only the server of this project knows it.
pub const EXPECTED_ID_HEADER: &str = "x-msb-expected-id";
/// The cursor at which a log stream resumes.
pub const LAST_EVENT_ID: &str = "last-event-id";

pub const SANDBOXES: &str = "/v1/sandboxes";
pub const VOLUMES: &str = "/v1/volumes";
pub const DEFAULT_VOLUME: &str = "/v1/volumes/default";

/// All but `A-Z a-z 0-9 - . _ ~`.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// One path segment, percent-encoded.
pub fn segment(text: &str) -> String {
    utf8_percent_encode(text, SEGMENT).to_string()
}

pub fn by_name(name: &str) -> String {
    format!("{SANDBOXES}/by-name/{}", segment(name))
}
pub fn start(name: &str) -> String {
    format!("{}/start", by_name(name))
}
pub fn stop(name: &str) -> String {
    format!("{}/stop", by_name(name))
}
/// Dialect `flat`.
pub fn exec(name: &str) -> String {
    format!("{}/exec", by_name(name))
}
/// Dialect `flat`.
pub fn logs_by_name(name: &str) -> String {
    format!("{}/logs", by_name(name))
}
/// Dialect `spec`.
pub fn logs(id: &str) -> String {
    format!("{SANDBOXES}/{}/logs", segment(id))
}
/// Dialect `spec`: upgraded to a WebSocket.
pub fn agent(id: &str) -> String {
    format!("{SANDBOXES}/{}/agent", segment(id))
}
/// Only the server of this project has it.
pub fn isolation(id: &str) -> String {
    format!("{SANDBOXES}/{}/isolation", segment(id))
}
pub fn volume(id: &str) -> String {
    format!("{VOLUMES}/{}", segment(id))
}
pub fn files(id: &str) -> String {
    format!("{}/files", volume(id))
}

/// A path for [`FILE_PATH_HEADER`].
pub fn encode_file_path(path: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(path)
}
/// The path in [`FILE_PATH_HEADER`]; `None` when the text is not base64url.
pub fn decode_file_path(header: &str) -> Option<Vec<u8>> {
    URL_SAFE_NO_PAD.decode(header.trim()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_percent_encoded() {
        assert_eq!(segment("a/../b c%ü~"), "a%2F..%2Fb%20c%25%C3%BC~");
        assert_eq!(start("box"), "/v1/sandboxes/by-name/box/start");
    }

    #[test]
    fn file_paths_survive_encoding_in_a_header() {
        for path in ["naïve/Ω ?.txt".as_bytes(), b"not/\xff"] {
            assert_eq!(decode_file_path(&encode_file_path(path)).as_deref(), Some(path));
        }
        assert_eq!(decode_file_path("***"), None);
    }
}
