//! How long to wait before a retry.

use std::time::{Duration, SystemTime};

/// What a Retry-After header asks for: seconds, or a date in any of the three forms (RFC 9110 sections 10.2.3 and 5.6.7); a
/// date that has passed is no pause.
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(value).ok()?;
    Some(at.duration_since(now).unwrap_or_default())
}

/// Up to a quarter more or less, so that clients that failed together do not retry together.
pub fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::empty());
    pause.mul_f64(0.75 + f64::from(byte[0]) / 512.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_in_seconds_or_until_a_date() {
        let now = httpdate::parse_http_date("Mon, 30 Nov 2026 10:00:00 GMT").unwrap();
        let of = |value| retry_after(value, now);
        assert_eq!(of(" 3 "), Some(Duration::from_secs(3)));
        for date in ["Mon, 30 Nov 2026 10:00:09 GMT", "Monday, 30-Nov-26 10:00:09 GMT", "Mon Nov 30 10:00:09 2026"] {
            assert_eq!(of(date), Some(Duration::from_secs(9)), "{date}");
        }
        assert_eq!(of("Mon, 30 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(of("soon"), None);
    }
}
