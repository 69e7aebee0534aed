//! Where the time of a boot went.

use std::time::{Duration, Instant};

use serde::Serialize;

/// One step of a boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct BootStep {
    /// Who did it.
    pub side: BootSide,
    pub step: String,
    /// When it was finished, in microseconds since the request. What it took is the distance from the step before.
    pub at_us: u64,
}

/// The two processes of a boot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum BootSide {
    /// The caller's: rows, image, spawn.
    Sdk,
    /// `msb-runtime`: root file system, jail, guest, agent.
    Runtime,
}

/// Records the steps of a boot, each with its time since the boot began.
#[derive(Debug, Clone)]
pub struct BootTrace {
    begun: Instant,
    steps: Vec<BootStep>,
}

impl BootTrace {
    pub fn begin() -> Self {
        BootTrace { begun: Instant::now(), steps: Vec::with_capacity(32) }
    }

    /// Records that `step` of this process is finished now.
    pub fn finish(&mut self, step: &str) {
        let at_us = micros(self.begun.elapsed());
        self.steps.push(BootStep { side: BootSide::Sdk, step: step.to_owned(), at_us });
    }

    /// Adds the steps of the runtime. Their times count from the runtime's own start, which is about the last step of
    /// this process: the spawn.
    pub fn runtime(&mut self, steps: impl IntoIterator<Item = (String, u64)>) {
        let begun = self.steps.last().map_or(0, |step| step.at_us);
        let mut theirs: Vec<BootStep> = steps
            .into_iter()
            .map(|(step, at)| BootStep { side: BootSide::Runtime, step, at_us: begun.saturating_add(at) })
            .collect();
        theirs.sort_by_key(|step| step.at_us);
        self.steps.extend(theirs);
    }

    pub fn into_steps(self) -> Vec<BootStep> {
        self.steps
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_of_the_runtime_follow_the_spawn_in_their_order() {
        let mut trace = BootTrace::begin();
        trace.finish("spawn");
        trace.runtime([("agent".to_owned(), 900), ("mount".to_owned(), 100)]);
        let steps = trace.into_steps();
        let spawned = steps[0].at_us;
        let expected = [
            (BootSide::Sdk, "spawn", spawned),
            (BootSide::Runtime, "mount", spawned + 100),
            (BootSide::Runtime, "agent", spawned + 900),
        ];
        assert_eq!(steps.iter().map(|step| (step.side, step.step.as_str(), step.at_us)).collect::<Vec<_>>(), expected);
    }
}
