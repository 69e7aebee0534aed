//! The agent is ready: the socket and the identity are published, the supervisor confines itself, the SDK gets its report.

use std::time::{Duration, Instant};

use microsandbox_cgroups::SupervisorGroups;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_contract::{Identity, IsolationReport, LaunchReady, LaunchSpec, Report, Step};
use microsandbox_jail::{landlock, seccomp};
use microsandbox_protocol::message::Ready;
use microsandbox_sys::heap;

use super::{Phase, Supervisor};
use crate::report::Reporter;
use crate::steps::epoch_ms;
use crate::{directory, identity};

impl Supervisor {
    pub(super) fn became_ready(&mut self, ready: Ready, reporter: &mut Reporter) {
        // A second `ready` of a hostile guest changes nothing.
        let Some(spec) = self.spec.take() else { return };
        // The child has executed the agent, so all its notes are in the pipe.
        while self.guest.notes.is_some() {
            self.read_notes();
        }
        self.steps.finish(Step::WaitForAgent);
        self.phase = Phase::Running;
        self.last_activity = Instant::now();
        self.ends_at = self.lifecycle.max_duration_ms.map(|ms| self.last_activity + Duration::from_millis(ms));
        self.steps.begin(Step::WriteIdentity);
        if let Err(failure) = self.publish_socket() {
            self.phase = Phase::Booting { failed: Some(failure) };
            self.kill();
            return;
        }
        self.own_groups = SupervisorGroups::beside(&self.guest.cgroups);
        let groups = [self.guest.cgroups.paths(), self.own_groups.paths()].concat();
        let confined = landlock::confine_supervisor(&spec.sandbox_dir, &groups);
        self.guest.isolation.mechanisms.push(confined);
        self.guest.isolation.mechanisms.push(self.guest.cgroups.tree_kill());
        let identity = match self.publish_identity(&spec) {
            Ok(identity) => identity,
            Err(failure) => {
                self.phase = Phase::Booting { failed: Some(failure) };
                self.kill();
                return;
            }
        };
        self.steps.finish(Step::WriteIdentity);
        let agent_version = ready.agent_version.map(|version| version.chars().take(64).collect());
        let timings = self.steps.take();
        reporter.send(&Report::Ready(Box::new(LaunchReady { identity, timings, agent_version })));
        reporter.close();
        // Nothing of the guest has been read since. The report need not wait for it: the sandbox ends if it cannot be had.
        if let Err(error) = seccomp::confine_supervisor() {
            self.note(&format!("the supervisor cannot filter its system calls: {error}"));
            self.kill();
        }
        self.guest.isolation = IsolationReport::default();
        self.kernel_log.forget_tail();
        drop(spec);
        heap::trim();
    }

    /// A monitor has bound the agent's socket in a directory of its own; clients look for it in the runtime's.
    pub(super) fn publish_socket(&mut self) -> Result<(), Failure> {
        let Some(sockets) = self.guest.sockets.take() else { return Ok(()) };
        directory::take_socket(&sockets, &self.dir.runtime, "agent.sock").map_err(failed(
            Step::WaitForAgent,
            "move agent.sock of the virtual machine into place",
            "see logs/kernel.log in the sandbox's directory",
        ))
    }

    pub(super) fn publish_identity(&self, spec: &LaunchSpec) -> Result<Identity, Failure> {
        let step = Step::WriteIdentity;
        let init = identity::of(self.guest.pid)
            .ok_or_else(|| Failure::new(step, "the sandbox ended while it was booting", "see logs/kernel.log"))?;
        let identity = Identity {
            runtime: self.own.clone(),
            init,
            driver: spec.driver.into(),
            cgroups: self.guest.cgroups.paths(),
            started_at_ms: epoch_ms(),
            isolation: self.guest.isolation.clone(),
        };
        let text = serde_json::to_vec(&identity).map_err(|error| Failure::new(step, error.to_string(), ""))?;
        directory::publish(&self.dir.runtime, "identity.json", &text).map_err(failed(
            step,
            "write runtime/identity.json",
            "check the free space of the product home",
        ))?;
        Ok(identity)
    }
}
