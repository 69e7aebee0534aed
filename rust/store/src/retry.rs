//! Retrying a write that contends with another process.

use std::time::{Duration, Instant, SystemTime};

use super::errors::Fault;

const MAX_ATTEMPTS: u32 = 8;
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// At most eight attempts, 10 ms apart doubling to 500 ms, never beyond the busy deadline: SQLite's own wait has then
/// been used up already.
pub(super) struct Retry {
    attempts: u32,
    deadline: Instant,
}

impl Retry {
    pub fn within(limit: Duration) -> Retry {
        Retry { attempts: 1, deadline: Instant::now() + limit }
    }

    /// Waits before the next attempt. False: this fault is final.
    pub async fn again(&mut self, fault: &Fault) -> bool {
        if !fault.is_busy() || self.attempts >= MAX_ATTEMPTS {
            return false;
        }
        let pause = jittered((FIRST_PAUSE * 2u32.pow(self.attempts - 1)).min(LONGEST_PAUSE));
        if Instant::now() + pause > self.deadline {
            return false;
        }
        self.attempts += 1;
        tokio::time::sleep(pause).await;
        true
    }
}

/// Between half and all of it, so that two processes that collided do not collide again in step. The clock's nanoseconds
/// are random enough for that.
fn jittered(pause: Duration) -> Duration {
    let nanos = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.subsec_nanos());
    pause.mul_f64(0.5 + f64::from(nanos % 1000) / 2000.0)
}
