//! Ending the guest: who asks first gives the reason; the grace period; the kill.

use std::time::{Duration, Instant};

use microsandbox_contract::ExitReason;
use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::{Kind, Shutdown};
use rustix::process::Signal;

use super::{Phase, Supervisor};

/// From the end of the grace period to killing the guest: time for the agent to kill, flush and sync.
const AGENT_MARGIN: Duration = Duration::from_secs(2);

/// Why the sandbox is being ended.
#[derive(Debug, Clone)]
pub(super) struct Stop {
    pub(super) reason: ExitReason,
    pub(super) detail: String,
    pub(super) kill_at: Instant,
    pub(super) killed: bool,
    /// Reason and detail should the guest have to be killed, where that makes it another end.
    if_killed: Option<(ExitReason, &'static str)>,
}

impl Supervisor {
    /// The agent has closed its end. An init that ends the sandbox has ended the agent first, and gets the time to finish.
    pub(super) fn agent_gone(&mut self) {
        let booting = matches!(self.phase, Phase::Booting { .. });
        if !self.hands_over || booting {
            return self.begin_stop(
                ExitReason::AgentUnresponsive,
                "the agent closed its channel and did not end".into(),
                true,
            );
        }
        self.note("ending: the agent is gone, as when an init ends its sandbox");
        let if_killed = Some((ExitReason::AgentUnresponsive, "the agent is gone, and the init went on"));
        self.stop = Some(Stop { if_killed, ..self.stop_for(ExitReason::Completed, "its init ended it".into()) });
    }

    /// Asks the guest to end; `at_once` kills it. Only the first reason counts.
    pub(super) fn begin_stop(&mut self, reason: ExitReason, detail: String, at_once: bool) {
        if self.stop.is_some() {
            return;
        }
        self.note(&format!("ending: {reason}: {detail}"));
        let booting = matches!(self.phase, Phase::Booting { .. });
        self.stop = Some(self.stop_for(reason, detail));
        if at_once || booting {
            return self.kill();
        }
        let request = Shutdown { grace_ms: Some(self.lifecycle.stop_grace_ms) };
        if self.channel.send(Flags::SHUTDOWN, &Kind::Shutdown, &request).is_err() {
            self.kill();
        }
    }

    pub(super) fn stop_for(&self, reason: ExitReason, detail: String) -> Stop {
        let kill_at = Instant::now() + Duration::from_millis(self.lifecycle.stop_grace_ms) + AGENT_MARGIN;
        Stop { reason, detail, kill_at, killed: false, if_killed: None }
    }

    /// Kills the init, and with it (it is PID 1 of its namespace) every process of the sandbox.
    pub(super) fn kill(&mut self) {
        if let Some(stop) = &mut self.stop {
            stop.killed = true;
            if let Some((reason, detail)) = stop.if_killed.take() {
                (stop.reason, stop.detail) = (reason, detail.into());
            }
        }
        self.guest.cgroups.kill();
        let _ = rustix::process::pidfd_send_signal(&self.guest.pidfd, Signal::KILL);
    }
}
