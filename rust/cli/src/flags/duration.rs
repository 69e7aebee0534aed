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

/// `3 minutes ago`; the largest unit that fits.
pub fn ago(moment: DateTime<Utc>, now: DateTime<Utc>) -> String {
    let seconds = (now - moment).num_seconds();
    let (count, unit) = match seconds {
        ..=0 => return "just now".to_owned(),
        1..60 => (seconds, "second"),
        60..3600 => (seconds / 60, "minute"),
        3600..86400 => (seconds / 3600, "hour"),
        _ => (seconds / 86400, "day"),
    };
    format!("{count} {unit}{} ago", if count == 1 { "" } else { "s" })
}

/// `1h 02m`, `3m 20s`, `7s`.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        3600..86400 => format!("{}h {:02}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d {:02}h", seconds / 86400, seconds % 86400 / 3600),
    }
}

/// RFC 3339 with milliseconds, UTC.
pub fn timestamp(moment: DateTime<Utc>) -> String {
    moment.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
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
        assert_eq!(parse_moment("2026-01-31T12:00:00Z").map(timestamp), Ok("2026-01-31T12:00:00.000Z".to_owned()));
        let back = Utc::now() - parse_moment("5m").unwrap();
        assert!((299..302).contains(&back.num_seconds()), "{back}");
        assert!(parse_moment("yesterday").is_err());
        assert!(parse_moment("999999999999d").is_err());
    }

    #[test]
    fn ages_use_the_largest_unit() {
        let now = Utc::now();
        for (seconds, text) in [
            (-5, "just now"),
            (0, "just now"),
            (1, "1 second ago"),
            (119, "1 minute ago"),
            (7200, "2 hours ago"),
            (90000, "1 day ago"),
        ] {
            assert_eq!(ago(now - TimeDelta::seconds(seconds), now), text);
        }
    }
}
