//! `log.burst` and `log.rate`: how much output of programs is written to the log of a sandbox. What a program writes beyond
//! that still reaches its caller; the log has a marker in its place. The agent keeps to the budget, so that a program never
//! waits for a log that nothing is added to; the runtime enforces it, because the agent may be hostile.

use std::time::Instant;

/// `log.burst`: logged at any speed. More than the log keeps with all its rotations.
pub const BURST_BYTES: u64 = 64 << 20;
/// `log.rate`: logged on average.
pub const BYTES_PER_SECOND: u64 = 4 << 20;
/// After something was dropped, logging resumes when this much may be logged: a marker a second, not one a chunk.
const RESUME_BYTES: u64 = BYTES_PER_SECOND;

/// What may still be logged, and what was dropped since the last marker.
#[derive(Debug)]
pub struct LogBudget {
    burst: f64,
    per_second: f64,
    left: f64,
    at: Instant,
    dropping: bool,
    dropped: Vec<(u64, u64)>,
}

impl LogBudget {
    /// What an agent keeps to.
    pub fn new(now: Instant) -> LogBudget {
        LogBudget::of(BURST_BYTES as f64, BYTES_PER_SECOND as f64, now)
    }

    /// What the runtime enforces: a quarter more, so that an agent that keeps to the budget is never cut by differences
    /// of time.
    pub fn enforced(now: Instant) -> LogBudget {
        LogBudget::of(BURST_BYTES as f64 * 1.25, BYTES_PER_SECOND as f64 * 1.25, now)
    }

    fn of(burst: f64, per_second: f64, now: Instant) -> LogBudget {
        LogBudget { burst, per_second, left: burst, at: now, dropping: false, dropped: Vec::new() }
    }

    /// Whether `bytes` of output of `session` are logged; else they are counted as dropped.
    pub fn admit(&mut self, session: u64, bytes: usize, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        (self.left, self.at) = ((self.left + passed * self.per_second).min(self.burst), now);
        let needed = if self.dropping { (bytes as f64).max(RESUME_BYTES as f64) } else { bytes as f64 };
        self.dropping = self.left < needed;
        if !self.dropping {
            self.left -= bytes as f64;
            return true;
        }
        match self.dropped.iter_mut().find(|(known, _)| *known == session) {
            Some((_, count)) => *count += bytes as u64,
            None => self.dropped.push((session, bytes as u64)),
        }
        false
    }

    /// The markers that are due before anything else is logged, with their sessions.
    pub fn markers(&mut self) -> impl Iterator<Item = (u64, String)> + use<> {
        std::mem::take(&mut self.dropped).into_iter().map(|(session, bytes)| (session, marker(session, bytes)))
    }
}

fn marker(session: u64, bytes: u64) -> String {
    format!(
        "--- {bytes} bytes of output (session {session}) were dropped: a sandbox logs {} MiB at any speed and {} MiB/s \
         after that ---",
        BURST_BYTES >> 20,
        BYTES_PER_SECOND >> 20
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn a_burst_is_logged_whole_and_the_next_byte_is_not() {
        let now = Instant::now();
        let mut budget = LogBudget::new(now);
        assert!((0..64).all(|_| budget.admit(1, MIB, now)));
        assert_eq!(budget.markers().count(), 0);
        assert!(!budget.admit(1, 1, now) && !budget.admit(2, 10, now) && !budget.admit(1, 4, now));
        let markers: Vec<_> = budget.markers().collect();
        assert_eq!(markers.len(), 2);
        assert!(markers[0].0 == 1 && markers[0].1.contains("--- 5 bytes of output (session 1) were dropped"));
        assert_eq!(budget.markers().count(), 0);
    }

    #[test]
    fn logging_resumes_a_second_later_and_not_with_each_chunk() {
        let now = Instant::now();
        let mut budget = LogBudget::new(now);
        assert!(budget.admit(1, 64 * MIB, now));
        assert!(!budget.admit(1, 1, now));
        assert!(!budget.admit(1, 1, now + Duration::from_millis(900)));
        assert!(budget.admit(1, 1, now + Duration::from_millis(1100)));
        assert!(budget.admit(1, 4 * MIB, now + Duration::from_millis(1100)));
        assert!(!budget.admit(1, MIB, now + Duration::from_millis(1100)));
        // An idle sandbox has its burst again.
        assert!(budget.admit(1, 64 * MIB, now + Duration::from_secs(60)));
    }

    #[test]
    fn an_agent_that_keeps_to_the_budget_is_never_cut() {
        let now = Instant::now();
        let (mut agent, mut runtime) = (LogBudget::new(now), LogBudget::enforced(now));
        for step in 0..3000_u64 {
            let sent = now + Duration::from_millis(step * 7);
            if agent.admit(1, 300_000, sent) {
                // Whatever waits on the way arrives together.
                let arrives = now + Duration::from_millis((step / 40 + 1) * 280);
                assert!(runtime.admit(1, 300_000, arrives), "step {step}");
            }
        }
    }
}
