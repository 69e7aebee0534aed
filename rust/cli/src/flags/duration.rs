//! Durations and times as people write them.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};

const UNITS: [(&str, f64); 5] = [("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

/// `500ms`, `30s`, `5m`, `1h`, `2d`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let refuse = || format!("{text:?} is no duration; write one like 500ms, 30s, 5m or 1h");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = &text[digits.len()..];
    let scale = match unit {
        "" => 1.0,
        _ => UNITS.iter().find(|(name, _)| *name == unit).ok_or_else(refuse)?.1,
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Err(refuse());
    }
    let number: f64 = digits.parse().map_err(|_| refuse())?;
    Duration::try_from_secs_f64(number * scale).map_err(|_| refuse())
}

/// RFC 3339, or a duration that reaches back from now.
pub fn parse_moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.with_timezone(&Utc));
    }
    let back = parse_duration(text)
        .ok()
        .and_then(|back| TimeDelta::from_std(back).ok())
        .and_then(|back| Utc::now().checked_sub_signed(back));
    back.ok_or_else(|| format!("{text:?} is no time; write one like 2026-01-31T12:00:00Z, or 5m for five minutes ago"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("30s"), Ok(Duration::from_secs(30)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("1h"), Ok(Duration::from_secs(3600)));
        assert_eq!(parse_duration("1.5"), Ok(Duration::from_millis(1500)));
        assert_eq!(parse_duration("0"), Ok(Duration::ZERO));
    }

    #[test]
    fn what_is_no_duration_is_refused() {
        for text in ["", "s", "-1s", "1 s", "5x", "1e3", "inf", "nan", "1.2.3s", "99999999999999999999999999d", "١s"] {
            assert!(parse_duration(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn moments_are_absolute_or_relative() {
        assert_eq!(parse_moment("2026-01-31T12:00:00Z").map(|moment| moment.timestamp()), Ok(1_769_860_800));
        let back = Utc::now() - parse_moment("5m").unwrap();
        assert!((299..302).contains(&back.num_seconds()), "{back}");
        assert!(parse_moment("yesterday").is_err());
        assert!(parse_moment("999999999999d").is_err());
    }
}
