//! The address of the service and the key: validated once, before anything is sent.

use reqwest::header::HeaderValue;
use url::Url;

use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// A longer text is not a key.
const KEY_MAX: usize = 4096;

/// The base of every request: `http` or `https`, a host, optionally a path prefix. No credentials, no query.
pub fn base_url(text: &str) -> MicrosandboxResult<String> {
    let text = microsandbox_core::config::normalise_url(text)?;
    let invalid = |why: &str| {
        Err(MicrosandboxError::InvalidConfig(format!("the URL of the service {why}: use https://HOST[:PORT]")))
    };
    if !text.contains("://") {
        return invalid(&format!("has no scheme: {:?}", shown(&text)));
    }
    let url = match Url::parse(&text) {
        Ok(url) => url,
        Err(error) => return invalid(&format!("is malformed ({error})")),
    };
    if !matches!(url.scheme(), "http" | "https") {
        return invalid(&format!("has the scheme {:?}", url.scheme()));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return invalid("contains credentials, which belong in the API key");
    }
    if url.host_str().is_none_or(str::is_empty) {
        return invalid("names no host");
    }
    if url.query().is_some() || url.fragment().is_some() {
        return invalid("has a query or a fragment");
    }
    Ok(text)
}

/// Enough of the text to recognise it, without what could be a password.
fn shown(text: &str) -> String {
    text.rsplit('@').next().unwrap_or_default().chars().take(80).collect()
}

/// `Bearer <key>`, marked as sensitive, so that it is never printed.
pub fn bearer(key: &str) -> MicrosandboxResult<HeaderValue> {
    let key = key.trim();
    let invalid = |why: &str| Err(MicrosandboxError::InvalidConfig(format!("the API key {why}")));
    if key.is_empty() {
        return invalid("is empty: set MSB_API_KEY, or name a profile");
    }
    if key.len() > KEY_MAX {
        return invalid(&format!("is longer than {KEY_MAX} bytes: this is not an API key"));
    }
    if !key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return invalid("contains a line break, a space or another character that no key has: copy it again");
    }
    match HeaderValue::from_str(&format!("Bearer {key}")) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(value)
        }
        Err(_) => invalid("cannot be sent in a header"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_checked_and_normalised() {
        assert_eq!(base_url(" https://example.test:8443/prefix/// ").unwrap(), "https://example.test:8443/prefix");
        for (bad, why) in [
            ("", "empty"),
            ("example.test", "no scheme"),
            ("ftp://example.test", "scheme"),
            ("https://user:secret@example.test", "credentials"),
            ("https://example.test:99999", "malformed"),
            ("https://", "no scheme"),
            ("https://example.test/?a=b", "query"),
        ] {
            let text = base_url(bad).unwrap_err().to_string();
            assert!(text.contains(why), "{bad}: {text}");
            assert!(!text.contains("secret"), "{text}");
        }
    }

    #[test]
    fn keys_are_checked_and_never_quoted() {
        assert!(format!("{:?}", bearer(" msb_live_x ").unwrap()).contains("Sensitive"));
        for bad in ["", "  ", "two words", "line\nbreak", "naïve", &"x".repeat(5000)] {
            let text = bearer(bad).unwrap_err().to_string();
            assert!(bad.trim().is_empty() || !text.contains(bad), "{text}");
        }
    }
}
