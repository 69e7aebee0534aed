//! Seconds as a number, as callers, files and services give them.

use std::time::Duration;

/// Longer than anything waits, and short enough to be added to any time.
const FOR_EVER: f64 = 3.0e9;

/// As a duration: what is negative or no number is none, and centuries are as good as for ever. `Duration::from_secs_f64` panics
/// on each of these.
pub fn duration(secs: f64) -> Duration {
    // `min` of something that is no number is the other number.
    if secs.is_nan() { Duration::ZERO } else { Duration::try_from_secs_f64(secs.min(FOR_EVER)).unwrap_or_default() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_number_is_a_duration() {
        assert_eq!(duration(1.5), Duration::from_millis(1500));
        for none in [-1.0, f64::NEG_INFINITY, 0.0, f64::NAN] {
            assert_eq!(duration(none), Duration::ZERO);
        }
        for long in [1e300, f64::INFINITY, f64::MAX, 1.8e19] {
            assert!(duration(long) > Duration::from_secs(1_000_000_000), "{long}");
        }
    }
}
