//! The end of a run: what is left to read, the record of how it ended, the error of a boot that came to nothing.

use std::time::{Duration, Instant};

use microsandbox_contract::{ExitReason, ExitRecord, Report};
use microsandbox_protocol::machine::ENDED_WITHOUT_AGENT;

use super::events::take_frame;
use super::stop::Stop;
use super::{Phase, Supervisor};
use crate::channel::Turn;
use crate::directory;
use crate::logs::json_line::now_ns;
use crate::report::Reporter;
use crate::steps::epoch_ms;
use microsandbox_contract::Step;
use microsandbox_contract::note::Failure;

/// How long reading the rest of the channel may take once the guest is gone.
const DRAIN_LIMIT: Duration = Duration::from_secs(5);
/// What a machine's end without its agent's doing is called.
const KERNEL_ENDED: &str =
    "the guest's kernel ended without a report of its agent: it panicked (see logs/kernel.log), or the agent exited";

impl Supervisor {
    /// The guest is gone: reads what it left, writes how it ended, removes what was made for it.
    pub(super) fn finish(&mut self, reporter: &mut Reporter) -> i32 {
        self.drain();
        self.log.marker(now_ns(), "--- sandbox stopped ---");
        self.log.finish();
        let oom_kills = self.guest.cgroups.oom_kills().unwrap_or(0);
        // Anything that survived its PID 1 would be a fault of the kernel; the groups are emptied all the same.
        self.guest.cgroups.kill();
        self.own_groups.leave();
        for path in self.guest.cgroups.remove() {
            self.note(&format!("the control group {} could not be removed", path.display()));
        }
        let _ = directory::remove_file(&self.dir.runtime, "cgroups.json");
        let _ = directory::remove_file(&self.dir.runtime, "agent.sock");
        let record = self.exit_record(oom_kills);
        if let Phase::Booting { failed } = &mut self.phase {
            let waiting = if self.awaited.is_some() { Step::BootKernel } else { Step::WaitForAgent };
            let said = last_words(&self.kernel_log.tail());
            let failure =
                failed.take().unwrap_or_else(|| ended_while_booting(waiting, &record, self.stop.as_ref(), said));
            let error = failure.into_boot_error(epoch_ms(), self.kernel_log.tail() + &self.runtime_log.tail());
            if let Ok(text) = serde_json::to_vec(&error) {
                let _ = directory::publish(&self.dir.logs, "boot-error.json", &text);
            }
            reporter.send(&Report::BootError(error));
            return 1;
        }
        if let Ok(text) = serde_json::to_vec(&record)
            && let Err(error) = directory::publish(&self.dir.runtime, "exit.json", &text)
        {
            self.note(&format!("exit.json could not be written: {error}"));
        }
        0
    }

    /// Reads the channel and the console to their ends: with the guest gone no other process holds them open.
    fn drain(&mut self) {
        let deadline = Instant::now() + DRAIN_LIMIT;
        let mut ignored = Vec::new();
        while self.channel_ended.is_none() && Instant::now() < deadline {
            let log = &mut self.log;
            match self.channel.receive(|frame| take_frame(log, frame, &mut ignored)) {
                Ok(Turn::More) => self.log.flush(),
                // The channel is empty and no sender is left.
                Ok(Turn::Drained | Turn::Ended) => break,
                Err(error) => {
                    self.note(&format!("the agent's last message was cut short: {error}"));
                    break;
                }
            }
            ignored.clear();
        }
        while self.guest.notes.is_some() && Instant::now() < deadline {
            self.read_notes();
        }
        for _ in 0..256 {
            if self.guest.console.is_none() {
                break;
            }
            self.read_console();
        }
    }

    fn exit_record(&self, oom_kills: u64) -> ExitRecord {
        let (exit_code, signal) = self.exit.unwrap_or((None, None));
        let (reason, detail) = match &self.stop {
            Some(stop) => (stop.reason, Some(stop.detail.clone())),
            None if self.hands_over => init_ended(exit_code, signal),
            None => match (exit_code, signal) {
                (Some(0), _) => (ExitReason::Completed, None),
                (Some(code), _) if code == i32::from(ENDED_WITHOUT_AGENT) => {
                    (ExitReason::Failed, Some(KERNEL_ENDED.to_owned()))
                }
                (Some(code), _) => (ExitReason::Failed, Some(format!("the agent ended with status {code}"))),
                (_, Some(number)) => (ExitReason::Signal, Some(format!("the agent was killed by signal {number}"))),
                _ => (ExitReason::InternalError, None),
            },
        };
        let oom_killed = self.stop.is_none() && signal == Some(libc::SIGKILL) && oom_kills > 0;
        let oom = (oom_kills > 0).then(|| format!("the kernel killed {oom_kills} of its processes for lack of memory"));
        let lost = (self.log.lost_total > 0)
            .then(|| format!("{} bytes of its output could not be logged", self.log.lost_total));
        let parts: Vec<String> = [detail, oom, lost].into_iter().flatten().collect();
        let detail = (!parts.is_empty()).then(|| parts.join("; "));
        ExitRecord {
            reason: if oom_killed { ExitReason::Failed } else { reason },
            detail,
            exit_code,
            signal,
            oom_killed,
            at_ms: epoch_ms(),
            runtime: self.own.clone(),
        }
    }
}

/// How an init that was handed the sandbox ended it. A namespace whose init calls `reboot(2)` ends by a signal (reboot(2), "Behavior inside
/// PID namespaces"): INT for a halt or power-off, HUP for a restart.
fn init_ended(exit_code: Option<i32>, signal: Option<i32>) -> (ExitReason, Option<String>) {
    match (exit_code, signal) {
        (Some(0), _) | (_, Some(libc::SIGINT | libc::SIGHUP)) => {
            (ExitReason::Completed, Some("its init ended it".into()))
        }
        (Some(code), _) if code == i32::from(ENDED_WITHOUT_AGENT) => {
            (ExitReason::Failed, Some(KERNEL_ENDED.to_owned()))
        }
        (Some(code), _) => (ExitReason::Failed, Some(format!("its init ended with status {code}"))),
        (_, Some(number)) => (ExitReason::Signal, Some(format!("its init was killed by signal {number}"))),
        _ => (ExitReason::InternalError, None),
    }
}

/// The last report of the agent before its exit.
fn last_words(log: &str) -> Option<String> {
    log.lines().rev().find_map(|line| Some(line.split_once("agent: ")?.1.to_owned()))
}

fn ended_while_booting(waiting: Step, record: &ExitRecord, stop: Option<&Stop>, said: Option<String>) -> Failure {
    let who = if waiting == Step::BootKernel { "the virtual machine" } else { "the agent" };
    let text = match stop {
        Some(stop) if waiting == Step::BootKernel => format!("{}: its kernel has not started it", stop.detail),
        Some(stop) => stop.detail.clone(),
        None if said.is_some() && waiting != Step::BootKernel => said.unwrap_or_default(),
        None if record.oom_killed => format!("{who} was killed for lack of memory: give the sandbox more"),
        None => {
            format!("{who} ended before the agent was ready ({})", record.detail.as_deref().unwrap_or("with status 0"))
        }
    };
    let hint = match waiting {
        Step::BootKernel => {
            "see the log tail for what the guest kernel said; `msb doctor --recheck` tries whether this machine can run virtual machines at all"
        }
        _ => "see the log tail; the agent must be ready within boot.ready_timeout",
    };
    Failure::new(waiting, text, hint)
}
