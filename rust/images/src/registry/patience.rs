//! How often and how long a pull waits for a registry.

use std::time::{Duration, SystemTime};

use http::header::RETRY_AFTER;
use microsandbox_https::pause;
use reqwest::Response;

/// Attempts of one request, and of a download between two that made progress.
const TRIES: u32 = 6;
/// Attempts where there is no connection at all.
const CONNECT_TRIES: u32 = 3;
const FIRST_PAUSE: Duration = Duration::from_millis(200);
/// Longest pause that a registry may ask for.
const ASKED_MAX: Duration = Duration::from_secs(30);
/// Longest sum of the pauses that it asks for.
const ASKED_TOTAL: Duration = Duration::from_secs(120);

/// What is left of the attempts of one operation.
#[derive(Debug)]
pub struct Patience {
    tries: u32,
    pause: Duration,
    asked: Duration,
}

impl Default for Patience {
    fn default() -> Patience {
        Patience { tries: TRIES, pause: FIRST_PAUSE, asked: Duration::ZERO }
    }
}

impl Patience {
    /// There was no connection: a registry that is not there at all is reported soon.
    pub fn hurry(&mut self) {
        self.tries = self.tries.min(CONNECT_TRIES);
    }

    /// Waits before another attempt, as long as the registry asks for; false: there is none left.
    pub async fn wait(&mut self, asked: Option<Duration>) -> bool {
        let Some(wait) = self.next(asked) else { return false };
        tokio::time::sleep(wait).await;
        true
    }

    fn next(&mut self, asked: Option<Duration>) -> Option<Duration> {
        self.tries = self.tries.checked_sub(1).filter(|left| *left > 0)?;
        match asked {
            Some(asked) => {
                self.asked += asked;
                (asked <= ASKED_MAX && self.asked <= ASKED_TOTAL).then_some(asked)
            }
            None => {
                let wait = pause::jittered(self.pause);
                self.pause *= 2;
                Some(wait)
            }
        }
    }

    /// The last attempt brought something: the next ones count anew.
    pub fn progressed(&mut self) {
        (self.tries, self.pause) = (TRIES, FIRST_PAUSE);
    }
}

/// The pause that a response asks for.
pub fn asked(response: &Response) -> Option<Duration> {
    let value = response.headers().get(RETRY_AFTER)?.to_str().ok()?;
    pause::retry_after(value, SystemTime::now())
}

#[cfg(test)]
mod tests {
    use super::*;

    // hazard: I14
    #[test]
    fn pauses_are_bounded_each_and_in_sum() {
        let mut patience = Patience::default();
        let own: Vec<_> = std::iter::from_fn(|| patience.next(None)).collect();
        assert_eq!(own.len(), TRIES as usize - 1);
        assert!(own.iter().sum::<Duration>() < Duration::from_secs(10), "{own:?}");
        assert_eq!(Patience::default().next(Some(Duration::from_secs(31))), None);
        let mut patience = Patience::default();
        let asked: Vec<_> = std::iter::from_fn(|| patience.next(Some(Duration::from_secs(30)))).collect();
        assert_eq!(asked.len(), 4);
        patience.progressed();
        assert_eq!(patience.next(Some(Duration::from_secs(1))), None, "what was asked for is not forgotten");
    }
}
