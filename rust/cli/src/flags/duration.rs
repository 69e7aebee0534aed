//! Notation of durations and times on the command line.

use std::time::Duration;

use chrono::{DateTime, TimeDelta, Utc};
use fundu::DurationParser;
use fundu::TimeUnit::{Day, Hour, MilliSecond, Minute, Second};

/// No other units: in the library's notation `M` is a month and `Ms` a microsecond, one keystroke away from `m` and
/// `ms`.
const NOTATION: DurationParser<'static> = DurationParser::builder()
    .time_units(&[MilliSecond, Second, Minute, Hour, Day])
    .disable_exponent()
    .disable_infinity()
    .build();

/// `500ms`, `30s`, `5m`, `1h`, `2d`, `1.5h`; a number without a unit is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let parsed = NOTATION.parse(text).ok().and_then(|duration| Duration::try_from(duration).ok());
    // The library returns the maximum for what is larger.
    parsed
        .filter(|duration| *duration < Duration::MAX)
        .ok_or_else(|| format!("{text:?} is not a duration; examples: 500ms, 30s, 5m, 1h"))
}

/// RFC 3339, or a duration that is subtracted from the current time.
pub fn parse_moment(text: &str) -> Result<DateTime<Utc>, String> {
    if let Ok(moment) = DateTime::parse_from_rfc3339(text) {
        return Ok(moment.with_timezone(&Utc));
    }
    let back = parse_duration(text)
        .ok()
        .and_then(|back| TimeDelta::from_std(back).ok())
        .and_then(|back| Utc::now().checked_sub_signed(back));
    back.ok_or_else(|| format!("{text:?} is not a time; examples: 2026-01-31T12:00:00Z, or 5m for five minutes ago"))
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
        assert_eq!(parse_duration("2d"), Ok(Duration::from_secs(2 * 86_400)));
        assert_eq!(parse_duration("0.5d"), Ok(Duration::from_secs(43_200)));
        assert_eq!(parse_duration(".5h"), Ok(Duration::from_secs(1800)));
        assert_eq!(parse_duration("5.m"), Ok(Duration::from_secs(300)));
        assert_eq!(parse_duration("0.0001ms"), Ok(Duration::from_nanos(100)));
    }

    #[test]
    fn other_text_is_not_a_duration() {
        for text in [
            "",
            "s",
            ".",
            "-1s",
            "1 s",
            "5x",
            "5M",
            "5Ms",
            "1w",
            "1e3",
            "inf",
            "nan",
            "1.2.3s",
            "99999999999999999999999999d",
            "18446744073709551616",
            "١s",
        ] {
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
