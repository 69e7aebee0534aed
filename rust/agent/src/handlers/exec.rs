//! Sessions: start, feed, end.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::{Credit, ExecExited, ExecRequest, ExecStarted, Resize, StdinError};
use microsandbox_protocol::{Kind, Message};
use microsandbox_sys::process;

use super::jobs;
use crate::clients::connection::Target;
use crate::errno;
use crate::exec::failure::quote;
use crate::exec::launch::{self, Context};
use crate::exec::terminal;
use crate::machine::init::ExitStatus;
use crate::server::Server;
use crate::sessions::session::{Fed, KillRetry, STDIN_WINDOW, Session};
use crate::sessions::tree::{self, Tag};

/// Programs that run concurrently, detached ones included.
const MAX_SESSIONS: usize = 1024;
/// Between two attempts at a tree that still has members.
const KILL_INTERVAL: Duration = Duration::from_millis(5);
/// Attempts before the agent stops killing a tree (a process may hang in the kernel for good).
const KILL_TRIES: u32 = 2000;

impl Server {
    pub(crate) fn on_exec_request(&mut self, key: u64, message: &Message) {
        let Ok(request) = message.parse::<ExecRequest>() else { return self.malformed(key, message) };
        let refusal = if self.shutdown.is_some() || self.draining {
            Some(("shutting_down", "the sandbox is shutting down"))
        } else if !self.make_room() {
            Some(("too_many", "1024 programs run already (agent.sessions)"))
        } else {
            None
        };
        if let Some((kind, text)) = refusal {
            if let Some(client) = self.clients.get_mut(&key) {
                client.refuse(message.id, kind, text, Some(&message.kind));
            }
            return;
        }
        self.start(key, message.id, &request);
    }

    /// False when no further session fits. Ended ones whose descendants still hold the streams give way, oldest first:
    /// what those write from then on is lost to them with EPIPE, as after any log's end.
    fn make_room(&mut self) -> bool {
        if self.sessions.len() < MAX_SESSIONS {
            return true;
        }
        let lingering = self.sessions.values().find(|session| session.reported && session.retry.is_none());
        let Some(number) = lingering.map(|session| session.number) else { return false };
        self.sessions.remove(&number);
        true
    }

    fn start(&mut self, key: u64, id: u32, request: &ExecRequest) {
        let number = self.fresh_key();
        let tag = Tag::new(number);
        let Some(bootstrap) = &self.bootstrap else { return };
        let base_limits = [tag.limit(), self.setup.nofile];
        let context =
            Context { root: &self.setup.root, bootstrap, base_limits: &base_limits, null: self.setup.null.as_fd() };
        let launched = match launch::launch(&context, request) {
            Ok(launched) => launched,
            Err(failure) => {
                self.control.activity(self.running());
                return self.reply(key, id, &Kind::ExecFailed, &failure.to_wire());
            }
        };
        let started = ExecStarted {
            pid: launched.pid as u32,
            session: Some(number),
            stdin_window: (!request.no_stdin).then_some(STDIN_WINDOW),
            job: request.job.then(|| self.jobs.add(number, launched.pid as u32, request)),
        };
        let note = format!("exec started: {} (pid {}, session {number})", quote(&request.cmd), launched.pid);
        let mut session = Session::new(number, tag, (key, id), launched, request);
        if request.job {
            // A job has no owner until a client attaches.
            session.orphan();
        }
        self.sessions.insert(number, session);
        self.childless = false;
        if let Some(client) = self.clients.get_mut(&key) {
            if !request.job {
                client.targets.insert(id, Target::Session(number));
            }
            // A fixed small structure fits into a frame. The frame is flushed here: the client learns of the start
            // while the program is still being loaded.
            let _ = client.send(id, Flags::NONE, &Kind::ExecStarted, &started);
            let _ = client.flush();
        }
        self.control.activity(self.running());
        self.control.note(number, &note);
    }

    /// Sessions whose leader lives.
    pub(crate) fn running(&self) -> u32 {
        self.sessions.values().filter(|session| session.exit.is_none()).count() as u32
    }

    pub(crate) fn on_stdin_frame(&mut self, key: u64, number: u64, message: &Message) {
        let Ok(data) = message.data() else { return self.malformed(key, message) };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let closes = data.is_empty() && session.replay.is_some() && session.terminal().is_none();
        let fed = session.stdin.push(&data);
        if closes {
            self.jobs.input_closed(number);
        }
        self.after_feeding(number, fed);
        self.update_input_full(key);
    }

    /// The program reads its input again.
    pub(crate) fn on_stdin(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let fed = session.stdin.pump();
        self.after_feeding(number, fed);
    }

    fn after_feeding(&mut self, number: u64, fed: Fed) {
        let owner = self.sessions.get(&number).and_then(|session| session.owner);
        let Some((key, id)) = owner else { return };
        let Some(client) = self.clients.get_mut(&key) else { return };
        if fed.credit > 0 {
            let _ = client.send(id, Flags::NONE, &Kind::Credit, &Credit { bytes: fed.credit });
        }
        if let Some(code) = fed.error {
            let error = StdinError {
                errno: Some(code),
                errno_name: errno::name(code).map(str::to_owned),
                message: format!("the program takes no more input: {}", errno::text(code)),
            };
            let _ = client.send(id, Flags::NONE, &Kind::ExecStdinError, &error);
        }
    }

    pub(crate) fn on_resize(&mut self, key: u64, number: u64, message: &Message) {
        let Ok(size) = message.parse::<Resize>() else { return self.malformed(key, message) };
        if let Some(fd) = self.sessions.get(&number).and_then(Session::terminal) {
            // Only a terminal that is being closed refuses this.
            let _ = terminal::set_size(fd, size.rows, size.cols);
        }
    }

    pub(crate) fn on_credit(&mut self, key: u64, target: Target, message: &Message) {
        let Ok(Credit { bytes }) = message.parse::<Credit>() else { return self.malformed(key, message) };
        match target {
            Target::Session(number) => {
                if let Some(session) = self.sessions.get_mut(&number) {
                    session.add_credit(bytes);
                }
            }
            // Bounded by the room of its connection.
            Target::Watch(_) => {}
            Target::Call(number) => {
                if let Some(call) = self.calls.get_mut(&number) {
                    call.add_credit(bytes);
                }
            }
        }
    }

    /// One attempt at the whole tree; repeated by [`Server::tick_sessions`] until nothing is left.
    pub(crate) fn kill_session(&mut self, number: u64) {
        let Some(session) = self.sessions.get_mut(&number) else { return };
        let leader = session.exit.is_none().then_some(session.pid);
        let found = tree::kill(&self.setup.procfs, session.tag, leader);
        if let Some(leader) = leader {
            // Also without a process file system the leader and its group end.
            let _ = process::kill(-leader, libc::SIGKILL);
            let _ = process::kill(leader, libc::SIGKILL);
        }
        let tries = session.retry.map_or(0, |retry| retry.tries) + 1;
        session.retry =
            (found > 0 && tries < KILL_TRIES).then(|| KillRetry { at: Instant::now() + KILL_INTERVAL, tries });
    }

    pub(crate) fn session_deadline(&self, session: &Session) -> Option<Instant> {
        let exit = session.exit.filter(|_| !session.reported);
        let (drain, quiet) = (exit.map(|exit| exit.at + self.drain()), exit.and_then(|_| session.quiet_at()));
        // Past these a session waits for its client, not for the clock.
        let now = Instant::now();
        let ends = [drain, quiet].map(|at| at.filter(|at| *at > now));
        [session.timeout_at, session.retry.map(|retry| retry.at)].into_iter().chain(ends).flatten().min()
    }

    pub(crate) fn tick_sessions(&mut self, now: Instant) {
        let drain = self.drain();
        let numbers: Vec<u64> = self.sessions.keys().copied().collect();
        for number in numbers {
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            if session.timeout_at.is_some_and(|at| at <= now) {
                session.timeout_at = None;
                session.timed_out = true;
                self.kill_session(number);
            } else if session.retry.is_some_and(|retry| retry.at <= now) {
                self.kill_session(number);
            }
            let Some(session) = self.sessions.get_mut(&number) else { continue };
            if !session.reported && session.is_complete(now, drain) {
                self.report_exit(number);
            }
            let Some(session) = self.sessions.get(&number) else { continue };
            if session.reported && session.is_dry() && session.retry.is_none() {
                self.sessions.remove(&number);
            }
        }
    }

    fn report_exit(&mut self, number: u64) {
        let Some(session) = self.sessions.get(&number) else { return };
        let Some(exit) = session.exit else { return };
        let (code, signal) = match exit.status {
            ExitStatus::Code(code) => (code, None),
            ExitStatus::Signal(signal) => (128 + signal, Some(signal)),
        };
        let exited = ExecExited {
            code,
            signal,
            // Looked at only when it can be the reason: a killed leader, or one that reports a killed child.
            oom_killed: code == 128 + libc::SIGKILL && !session.timed_out && self.oom.killed_since(&self.setup.root),
            timed_out: session.timed_out,
            drained: session.is_dry(),
            descendants: self.descendants(session),
            duration_ns: exit.at.duration_since(session.started).as_nanos().min(u128::from(u64::MAX)) as u64,
        };
        let note = match signal {
            Some(signal) => format!("exec ended: signal {signal} (session {number})"),
            None => format!("exec ended: code {code} (session {number})"),
        };
        let Some(session) = self.sessions.get_mut(&number) else { return };
        session.reported = true;
        let owner = session.owner.take();
        let replay = jobs::replay_of(session);
        session.orphan();
        if self.jobs.info(number).is_some() {
            self.jobs.ended(number, &exited, replay);
            self.tell_waiters(number);
        }
        if let Some((key, id)) = owner
            && let Some(client) = self.clients.get_mut(&key)
        {
            client.targets.remove(&id);
            let _ = client.send(id, Flags::TERMINAL, &Kind::ExecExited, &exited);
            // Before the log: the caller waits for this one.
            let _ = client.flush();
        }
        self.control.note(number, &note);
        self.control.activity(self.running());
        self.control.hurry();
    }

    /// Processes of the session that outlived its leader. They are the agent's children now, or below one of those, so
    /// the whole of `/proc` is searched only if the agent has children that lead no session.
    fn descendants(&self, session: &Session) -> u32 {
        if self.childless {
            return 0;
        }
        let leaders: Vec<i32> =
            self.sessions.values().filter(|other| other.exit.is_none()).map(|other| other.pid).collect();
        match self.setup.procfs.own_children() {
            Some(children) if children.iter().all(|pid| leaders.contains(pid)) => 0,
            _ => tree::count(&self.setup.procfs, session.tag) as u32,
        }
    }
}
