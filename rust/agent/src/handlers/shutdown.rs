//! The orderly end: TERM, grace, KILL, drain, sync.

use std::time::{Duration, Instant};

use microsandbox_sys::{file, process};

use crate::machine::handover;
use crate::machine::init;
use crate::server::Server;
use crate::sessions::tree;

/// After KILL: how long to wait for processes that are stuck in the kernel.
const KILL_WAIT: Duration = Duration::from_secs(2);
/// How long the runtime and clients may take for the last bytes.
const FLUSH_WAIT: Duration = Duration::from_secs(5);
/// An init that ends its machine gives programs this long, and then kills them and this process (systemd: ten seconds).
const DISMISSED_GRACE_MS: u64 = 3000;
/// How often the state is looked at while nothing else happens.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// TERM was sent.
    Asked,
    /// KILL was sent.
    Killed,
    /// No process is left; output is on its way.
    Flushing,
}

/// A shutdown under way.
pub struct Shutdown {
    phase: Phase,
    until: Instant,
    look_at: Instant,
    /// False for a stop without a grace period: no client waits for such a stop, so nothing is synced.
    sync: bool,
}

impl Shutdown {
    pub fn deadline(&self) -> Instant {
        self.until.min(self.look_at)
    }
}

impl Server {
    /// Refuses new sessions from now on and asks every process to end. Asked again, only a shorter grace counts.
    pub(crate) fn begin_shutdown(&mut self, grace_ms: Option<u64>) {
        let own = self.bootstrap.as_ref().map_or(0, |b| b.shutdown_grace_ms);
        let grace = Duration::from_millis(grace_ms.unwrap_or(own));
        let now = Instant::now();
        let until = now.checked_add(grace).unwrap_or(now + Duration::from_secs(86_400));
        if let Some(running) = &mut self.shutdown {
            if running.phase == Phase::Asked {
                running.until = running.until.min(until);
            }
            return;
        }
        self.shutdown = Some(Shutdown { phase: Phase::Asked, until, look_at: now, sync: grace_ms != Some(0) });
        self.abandon_all_calls();
        self.end_all_watches();
        self.sweep();
        if self.setup.hands_over {
            // The machine may end at any moment from here on, and that is what was asked for.
            if self.setup.owns_machine {
                file::set_machine_status(0);
            }
            if !self.dismissed {
                let _ = process::kill(1, handover::request());
            }
        }
        if !self.childless {
            self.signal_everything(libc::SIGTERM);
            // A stopped process takes its TERM only when it runs again.
            self.signal_everything(libc::SIGCONT);
        }
    }

    pub(crate) fn tick_shutdown(&mut self, now: Instant) {
        while let Some(phase) = self.shutdown.as_ref().map(|s| s.phase) {
            self.sweep();
            let late = self.shutdown.as_ref().is_some_and(|s| s.until <= now);
            let next = match phase {
                Phase::Asked if self.no_process_left(phase) => Some((Phase::Flushing, FLUSH_WAIT)),
                Phase::Asked if late => {
                    self.kill_everything();
                    Some((Phase::Killed, KILL_WAIT))
                }
                Phase::Killed if self.no_process_left(phase) || late => Some((Phase::Flushing, FLUSH_WAIT)),
                Phase::Flushing if self.all_delivered() || late => {
                    let sync = self.shutdown.as_ref().is_some_and(|s| s.sync);
                    init::finish(&self.setup.root, sync);
                    self.exit_code = Some(0);
                    return;
                }
                _ => None,
            };
            let Some(shutdown) = &mut self.shutdown else { return };
            shutdown.look_at = now + LOOK;
            match next {
                Some((phase, wait)) => {
                    shutdown.phase = phase;
                    shutdown.until = now + wait;
                    self.control.hurry();
                }
                None => return,
            }
            self.tick_sessions(now);
        }
    }

    /// The init ends the machine, and has sent SIGTERM to this process.
    pub(crate) fn dismiss(&mut self) {
        self.dismissed = true;
        self.begin_shutdown(Some(DISMISSED_GRACE_MS));
    }

    fn no_process_left(&self, phase: Phase) -> bool {
        if self.setup.hands_over && !self.dismissed && phase == Phase::Asked {
            // The init was asked to end the machine and is still running: its processes are left.
            return false;
        }
        self.childless || (!self.setup.is_init && self.sessions.values().all(|session| session.reported))
    }

    /// Every exit was reported and every byte taken.
    fn all_delivered(&mut self) -> bool {
        let sessions = self.sessions.values().all(|session| session.reported);
        let clients = self.clients.values_mut().all(|client| client.flush().is_err() || client.out.is_empty());
        self.control.hurry();
        let log = self.control.flush(Instant::now()).is_err() || self.control.is_flushed();
        sessions && clients && log && !self.workers.is_busy()
    }

    fn signal_everything(&self, signal: i32) {
        if self.setup.hands_over && signal == libc::SIGKILL {
            // All but this process and the init, which is not to be killed from inside.
            let _ = process::kill(-1, signal);
            return;
        }
        if self.setup.is_init {
            // Everything in the pid namespace but the agent itself.
            let _ = process::kill(-1, signal);
            return;
        }
        for session in self.sessions.values().filter(|session| session.exit.is_none()) {
            let _ = process::kill(-session.pid, signal);
        }
    }

    /// KILL for every process of the sandbox.
    pub(crate) fn kill_everything(&mut self) {
        self.signal_everything(libc::SIGKILL);
        if self.setup.is_init || self.setup.hands_over {
            return;
        }
        for session in self.sessions.values() {
            let leader = session.exit.is_none().then_some(session.pid);
            tree::kill(&self.setup.procfs, session.tag, leader);
        }
    }
}
