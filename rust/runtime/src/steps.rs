//! The clock of a boot: when each step was finished, and the step at which a test kills the runtime.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use microsandbox_contract::{Step, Timing};

/// Records when each step was finished, and stops at the failpoint of a test.
pub struct Steps {
    start: Instant,
    fail_at: Option<Step>,
    done: Vec<Timing>,
}

impl Steps {
    pub fn new(start: Instant) -> Steps {
        Steps { start, fail_at: None, done: Vec::with_capacity(Step::ALL.len()) }
    }

    pub fn set_failpoint(&mut self, fail_at: Option<Step>) {
        self.fail_at = fail_at;
    }

    /// The step begins: true when a test wants the runtime to be killed here. Never in a release, which lacks the feature.
    pub fn is_failpoint(&self, step: Step) -> bool {
        cfg!(feature = "failpoints") && self.fail_at == Some(step)
    }

    /// The step begins; at the failpoint of a test the runtime exits here as if it were killed.
    pub fn begin(&self, step: Step) {
        if self.is_failpoint(step) {
            kill_self();
        }
    }

    /// The step is finished. Microseconds since the first instruction.
    pub fn finish(&mut self, step: Step) {
        let at_us = self.now_us();
        self.record(step, at_us);
    }

    /// Records a time that another process measured on the same clock.
    pub fn record(&mut self, step: Step, at_us: u64) {
        self.done.push(Timing { step, at_us });
    }

    /// When the first instruction ran, on the monotonic clock.
    pub fn origin_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        now.saturating_sub(self.start.elapsed().as_nanos() as u64)
    }

    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// What was recorded; nothing more is.
    pub fn take(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.done)
    }
}

/// Milliseconds since the epoch; zero for a clock before it.
pub fn epoch_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What a failpoint does: no clean-up of any kind runs.
pub fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    microsandbox_sys::process::exit_now(137)
}
