//! What a frame makes the agent do.

pub mod exec;
pub mod files;
pub mod jobs;
pub mod logs;
pub mod shutdown;
pub mod signals;
pub mod stats;
pub mod watch;

use std::time::Instant;

use microsandbox_protocol::frame::{Flags, encode_id_range};
use microsandbox_protocol::message::{Bootstrap, CoreError, Empty, Ready, Settings, Shutdown, Touched};
use microsandbox_protocol::{Kind, Message};

use crate::clients::connection::Target;
use crate::clients::hello::{self, Greeting};
use crate::machine;
use crate::machine::init::monotonic_ns;
use crate::server::Server;

impl Server {
    /// A frame from the runtime.
    pub(crate) fn on_control_message(&mut self, message: &Message) {
        match message.kind {
            Kind::Bootstrap if self.bootstrap.is_none() => match message.parse::<Bootstrap>() {
                Ok(bootstrap) => self.start_serving(bootstrap),
                // Without a bootstrap there is nothing this agent could ever do.
                Err(_) => self.runtime_gone(),
            },
            Kind::Shutdown => {
                let grace = message.parse::<Shutdown>().unwrap_or_default().grace_ms;
                self.begin_shutdown(grace);
            }
            Kind::LogSynced => self.on_log_synced(message),
            // A newer runtime may say more than this agent understands.
            _ => {}
        }
    }

    fn start_serving(&mut self, bootstrap: Bootstrap) {
        let init_time_ns = monotonic_ns();
        if let Err(error) = self.settle_in(&bootstrap) {
            eprintln!("agent: {error}");
            self.exit_code = Some(crate::FAILED);
            return;
        }
        self.bootstrap = Some(bootstrap);
        let ready = self.ready_message(init_time_ns, None);
        self.control.ready(&ready);
    }

    /// The machine as the runtime wants it, then the init, which finds it so.
    fn settle_in(&mut self, bootstrap: &Bootstrap) -> std::io::Result<()> {
        if let Some(settings) = bootstrap.machine.as_ref().filter(|_| self.setup.owns_machine) {
            machine::settle(settings, bootstrap.restricted)?;
        }
        if bootstrap.makes_cwd
            && let Err(error) = crate::files::names::mkdir(&self.setup.root, &bootstrap.cwd, None)
        {
            // Each program that needs it fails with the reason.
            eprintln!("agent: the working directory of the image cannot be made: {}", error.message);
        }
        match self.setup.successor.take() {
            Some(successor) => successor.begin(&bootstrap.init.clone().unwrap_or_default()),
            None => Ok(()),
        }
    }

    fn ready_message(&self, init_time_ns: u64, extension: Option<u32>) -> Ready {
        Ready {
            boot_time_ns: self.setup.started_ns,
            init_time_ns,
            ready_time_ns: monotonic_ns(),
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            extension,
        }
    }

    /// A client's socket is ready.
    pub(crate) fn on_client(&mut self, key: u64, events: i16) {
        let Some(client) = self.clients.get_mut(&key) else { return };
        if events & libc::POLLOUT != 0 && client.flush().is_err() {
            return self.drop_client(key);
        }
        let ended = events & (libc::POLLHUP | libc::POLLERR) != 0;
        if client.wants_read() && (ended || events & libc::POLLIN != 0) {
            if client.fill().is_err() {
                // What it had sent completely is still done.
                self.on_frames(key);
                return self.drop_client(key);
            }
            self.on_frames(key);
        } else if ended {
            self.drop_client(key);
        }
    }

    /// Handles the whole frames that were read, as long as the client is allowed to go on.
    pub(crate) fn on_frames(&mut self, key: u64) {
        while let Some(client) = self.clients.get_mut(&key) {
            if !client.wants_read() {
                return;
            }
            match client.next_message() {
                Ok(Some(message)) if client.is_open() => self.on_message(key, &message),
                Ok(Some(message)) => self.on_hello(key, &message),
                Ok(None) => return,
                // The stream cannot be trusted any further.
                Err(_) => return self.drop_client(key),
            }
        }
    }

    fn on_hello(&mut self, key: u64, message: &Message) {
        let ready = self.ready_message(self.setup.started_ns, None);
        let (Some(client), Some(bootstrap)) = (self.clients.get_mut(&key), &self.bootstrap) else { return };
        let Ok(greeting) = hello::judge(&bootstrap.token, message) else { return self.drop_client(key) };
        let (min, max) = client.range();
        client.out.push(encode_id_range(min, max).to_vec());
        match greeting {
            Greeting::Welcome(extension) => {
                client.greeted();
                let ready = Ready { extension: Some(extension), ..ready };
                // A fixed small structure fits into a frame.
                let _ = client.send(0, Flags::NONE, &Kind::Ready, &ready);
            }
            Greeting::Refused(CoreError { kind, message, .. }) => {
                client.refuse(0, &kind, &message, None);
                client.close();
            }
        }
    }

    fn on_message(&mut self, key: u64, message: &Message) {
        let id = message.id;
        let Some(client) = self.clients.get_mut(&key) else { return };
        if !client.owns_id(id) {
            let (min, max) = client.range();
            let text = format!("id {id} is outside this connection's range {min}..{max}");
            return client.refuse(id, "malformed", &text, Some(&message.kind));
        }
        let target = client.targets.get(&id).copied();
        match (&message.kind, target) {
            (Kind::ExecRequest | Kind::FsRequest | Kind::JobAttach | Kind::JobRequest, Some(_)) => {
                client.refuse(id, "malformed", "this id is in use by another session", Some(&message.kind));
            }
            (Kind::ExecRequest, None) => self.on_exec_request(key, message),
            (Kind::JobAttach, None) => self.on_job_attach(key, message),
            (Kind::JobRequest, None) => self.on_job_request(key, message),
            (Kind::FsRequest, None) => self.on_fs_request(key, message),
            (Kind::ExecStdin, Some(Target::Session(number))) => self.on_stdin_frame(key, number, message),
            (Kind::ExecResize, Some(Target::Session(number))) => self.on_resize(key, number, message),
            (Kind::ExecSignal, Some(Target::Session(number))) => self.on_signal_frame(key, number, message),
            (Kind::FsData, Some(Target::Call(number))) => self.on_fs_data(key, number, message),
            (Kind::Credit, Some(target)) => self.on_credit(key, target, message),
            // The session may have ended while this was on its way.
            (Kind::ExecStdin | Kind::ExecResize | Kind::ExecSignal | Kind::FsData | Kind::Credit, _) => {}
            (Kind::Ping, _) => self.reply(key, id, &Kind::Pong, &Empty {}),
            (Kind::Touch, _) => {
                let activity_seq = self.control.activity(self.running());
                self.reply(key, id, &Kind::Touched, &Touched { activity_seq });
            }
            (Kind::Drain, _) => {
                self.draining = true;
                self.reply(key, id, &Kind::Settled, &Empty {});
            }
            (Kind::LogSync, _) => self.on_log_sync(key, id),
            (Kind::Settings, _) => match message.parse::<Settings>() {
                Ok(settings) => {
                    self.settle(settings);
                    self.reply(key, id, &Kind::Settled, &Empty {});
                }
                Err(_) => self.malformed(key, message),
            },
            (Kind::StatsRequest, _) => {
                let stats = self.stats();
                self.reply(key, id, &Kind::StatsResponse, &stats);
            }
            (Kind::Shutdown, _) => match message.parse::<Shutdown>() {
                Ok(shutdown) => self.begin_shutdown(shutdown.grace_ms),
                Err(_) => self.malformed(key, message),
            },
            (kind, _) => client.refuse(id, "unsupported", "the agent does not take this message", Some(kind)),
        }
    }

    /// What programs that start from now on find.
    fn settle(&mut self, settings: Settings) {
        let Some(bootstrap) = &mut self.bootstrap else { return };
        let name = |pair: &str| pair.split_once('=').map_or_else(|| pair.to_owned(), |(name, _)| name.to_owned());
        let replaced: Vec<String> = settings.set.iter().map(|pair| name(pair)).chain(settings.unset).collect();
        bootstrap.env.retain(|pair| !replaced.contains(&name(pair)));
        bootstrap.env.extend(settings.set);
        if let Some(cwd) = settings.cwd {
            bootstrap.cwd = cwd;
        }
    }

    /// A payload that does not decode ends the session it was for, not the connection.
    pub(crate) fn malformed(&mut self, key: u64, message: &Message) {
        if let Some(client) = self.clients.get_mut(&key) {
            client.refuse(message.id, "malformed", "the payload cannot be decoded", Some(&message.kind));
        }
    }

    /// A terminal answer.
    pub(crate) fn reply<T: serde::Serialize>(&mut self, key: u64, id: u32, kind: &Kind, payload: &T) {
        if let Some(client) = self.clients.get_mut(&key)
            && client.send(id, Flags::TERMINAL, kind, payload).is_err()
        {
            client.refuse(id, "internal", "the answer does not fit into a frame", None);
        }
    }

    /// The client is gone: its programs run on unless it asked otherwise, its file calls stop.
    pub(crate) fn drop_client(&mut self, key: u64) {
        let Some(client) = self.clients.remove(&key) else { return };
        self.jobs.waiters.retain(|waiter| waiter.owner.0 != key);
        self.log_waiters.retain(|waiter| waiter.owner.0 != key);
        for target in client.targets.into_values() {
            match target {
                Target::Call(number) => self.abandon_call(number),
                Target::Watch(number) => drop(self.watches.remove(&number)),
                Target::Session(number) => {
                    let Some(session) = self.sessions.get_mut(&number) else { continue };
                    session.orphan();
                    if session.kill_on_disconnect {
                        self.kill_session(number);
                    }
                }
            }
        }
    }

    pub(crate) fn tick_clients(&mut self, now: Instant) {
        let due = |at: Option<Instant>| at.is_some_and(|at| at <= now);
        let late: Vec<u64> =
            self.clients.iter().filter(|(_, client)| due(client.deadline())).map(|(key, _)| *key).collect();
        for key in late {
            self.drop_client(key);
        }
        let paused: Vec<u64> = self.clients.iter().filter(|(_, c)| c.input_full).map(|(key, _)| *key).collect();
        for key in paused {
            self.update_input_full(key);
            // Frames read before the pause come first; the socket will not say that they are there.
            self.on_frames(key);
        }
    }

    /// Pauses or resumes reading from a client by what its sessions still have to take.
    pub(crate) fn update_input_full(&mut self, key: u64) {
        let Some(client) = self.clients.get(&key) else { return };
        let full = client.targets.values().any(|target| match target {
            Target::Session(number) => self.sessions.get(number).is_some_and(|session| session.stdin.is_full()),
            Target::Call(number) => self.calls.get(number).is_some_and(|call| call.is_full()),
            Target::Watch(_) => false,
        });
        if let Some(client) = self.clients.get_mut(&key) {
            client.input_full = full;
        }
    }
}
