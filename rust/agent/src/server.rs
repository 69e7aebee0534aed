//! The loop. What may be polled is computed anew each time from the state, so backpressure needs no bookkeeping: a stream
//! whose reader has no room is simply not in the set.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use microsandbox_protocol::message::Bootstrap;
use microsandbox_sys::{heap, poll, signal};

use crate::clients::connection::Connection;
use crate::clients::control::Control;
use crate::handlers::files::Call;
use crate::handlers::logs::LogWaiter;
use crate::handlers::shutdown::Shutdown;
use crate::handlers::watch::Watching;
use crate::machine::init::{self, END_REQUESTS, Setup};
use crate::sessions::jobs::Jobs;
use crate::sessions::oom::OomWatch;
use crate::sessions::session::{CHUNK, Session};
use crate::workers::Workers;

/// Hard upper bound of clients, whatever the bootstrap says.
const MAX_CLIENTS: u32 = 1024;
/// After an accept that failed for lack of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// With nothing to do for this long, buffers and free heap pages are given back.
const IDLE_TRIM: Duration = Duration::from_millis(500);

/// Chunks carried in one turn for an ended leader: more than a pipe holds, but a descendant that never stops writing
/// cannot occupy the loop.
const CARRY_ROUNDS: usize = 16;

/// Asked for on every socket.
const SEND_BUFFER: usize = 1 << 20;

/// What a polled descriptor is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Signals,
    Control,
    Listener,
    Workers,
    Client(u64),
    Stdin(u64),
    Stream(u64, usize),
    Watch(u64),
}

/// The agent's whole state.
pub struct Server {
    pub(crate) setup: Setup,
    pub(crate) control: Control,
    pub(crate) bootstrap: Option<Bootstrap>,
    pub(crate) clients: BTreeMap<u64, Connection>,
    pub(crate) sessions: BTreeMap<u64, Session>,
    pub(crate) calls: BTreeMap<u64, Call>,
    pub(crate) watches: BTreeMap<u64, Watching>,
    pub(crate) jobs: Jobs,
    /// In the order in which they asked.
    pub(crate) log_waiters: Vec<LogWaiter>,
    pub(crate) workers: Workers,
    pub(crate) shutdown: Option<Shutdown>,
    /// New programs are refused; the sandbox ends once the last running program has ended.
    pub(crate) draining: bool,
    /// The init of the machine has sent SIGTERM: it ends the machine.
    pub(crate) dismissed: bool,
    pub(crate) oom: OomWatch,
    pub(crate) childless: bool,
    pub(crate) exit_code: Option<u8>,
    scratch: Vec<u8>,
    next_key: u64,
    accept_after: Option<Instant>,
    trim_at: Option<Instant>,
}

/// The poll set, reused between rounds.
#[derive(Default)]
struct PollSet {
    fds: Vec<libc::pollfd>,
    tokens: Vec<Token>,
}

impl PollSet {
    fn add(&mut self, token: Token, fd: BorrowedFd<'_>, events: i16) {
        self.fds.push(libc::pollfd { fd: fd.as_raw_fd(), events, revents: 0 });
        self.tokens.push(token);
    }
}

/// Lets a socket take whole chunks, so that a busy stream costs one write and no copy each.
fn widen(socket: BorrowedFd<'_>) {
    // The system's own maximum may be lower; then it is just slower.
    let _ = rustix::net::sockopt::set_socket_send_buffer_size(socket, SEND_BUFFER);
}

impl Server {
    pub fn new(setup: Setup, control: OwnedFd) -> std::io::Result<Server> {
        widen(control.as_fd());
        let oom = OomWatch::new(&setup.root, setup.owns_machine);
        Ok(Server {
            setup,
            control: Control::new(control),
            bootstrap: None,
            clients: BTreeMap::new(),
            sessions: BTreeMap::new(),
            calls: BTreeMap::new(),
            watches: BTreeMap::new(),
            jobs: Jobs::new(),
            log_waiters: Vec::new(),
            workers: Workers::new()?,
            shutdown: None,
            draining: false,
            dismissed: false,
            oom,
            childless: false,
            exit_code: None,
            scratch: Vec::new(),
            next_key: 1,
            accept_after: None,
            trim_at: None,
        })
    }

    /// Serves until an exit code is set by a shutdown, or until the runtime is gone.
    pub fn run(mut self) -> u8 {
        let mut set = PollSet::default();
        loop {
            let now = Instant::now();
            self.tick(now);
            self.flush(now);
            if let Some(code) = self.exit_code {
                return code;
            }
            self.gather(&mut set);
            if poll::poll(&mut set.fds, self.timeout()).is_err() {
                // Out of kernel memory; the next round may do better.
                std::thread::sleep(Duration::from_millis(10));
                continue;
            }
            for index in 0..set.fds.len() {
                let events = set.fds[index].revents;
                if events != 0 {
                    self.trim_at = Some(Instant::now() + IDLE_TRIM);
                    self.ready(set.tokens[index], events);
                }
            }
        }
    }

    /// A number never used before in this agent.
    pub(crate) fn fresh_key(&mut self) -> u64 {
        self.next_key += 1;
        self.next_key - 1
    }

    pub(crate) fn max_clients(&self) -> u32 {
        self.bootstrap.as_ref().map_or(0, |b| b.max_clients.clamp(1, MAX_CLIENTS))
    }

    fn gather(&self, set: &mut PollSet) {
        set.fds.clear();
        set.tokens.clear();
        set.add(Token::Signals, self.setup.signals.as_fd(), libc::POLLIN);
        let out = if self.control.wants_write() { libc::POLLOUT } else { 0 };
        set.add(Token::Control, self.control.fd(), libc::POLLIN | out);
        set.add(Token::Workers, self.workers.fd(), libc::POLLIN);
        if (self.clients.len() as u32) < self.max_clients() && self.accept_after.is_none() {
            set.add(Token::Listener, self.setup.listener.as_fd(), libc::POLLIN);
        }
        for (key, client) in &self.clients {
            let read = if client.wants_read() { libc::POLLIN } else { 0 };
            let write = if client.out.is_empty() { 0 } else { libc::POLLOUT };
            set.add(Token::Client(*key), client.fd(), read | write);
        }
        for (number, watching) in &self.watches {
            if self.clients.get(&watching.owner.0).is_some_and(Connection::has_room) {
                set.add(Token::Watch(*number), watching.watch.fd(), libc::POLLIN);
            }
        }
        let log_has_room = self.control.has_room();
        for (number, session) in &self.sessions {
            if let Some(fd) = session.stdin.wants_write() {
                set.add(Token::Stdin(*number), fd, libc::POLLOUT);
            }
            let owner_has_room = self.owner_has_room(session);
            for (index, fd) in session.readable(owner_has_room).filter(|_| log_has_room) {
                set.add(Token::Stream(*number, index), fd, libc::POLLIN);
            }
        }
    }

    fn owner_has_room(&self, session: &Session) -> bool {
        session.owner.is_none_or(|(key, _)| self.clients.get(&key).is_some_and(Connection::has_room))
    }

    fn ready(&mut self, token: Token, events: i16) {
        match token {
            Token::Signals => self.on_signals(),
            Token::Control => self.on_control(events),
            Token::Listener => self.on_listener(),
            Token::Workers => self.on_workers(),
            Token::Client(key) => self.on_client(key, events),
            Token::Stdin(number) => self.on_stdin(number),
            Token::Watch(number) => self.on_watch(number),
            Token::Stream(number, index) => {
                self.carry(number, index);
            }
        }
    }

    fn on_listener(&mut self) {
        use rustix::net::{SocketFlags, accept_with};
        while (self.clients.len() as u32) < self.max_clients() {
            match accept_with(&self.setup.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
                Ok(fd) => self.admit(fd),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::CONNABORTED | rustix::io::Errno::INTR) => return,
                Err(_) => {
                    self.accept_after = Some(Instant::now() + ACCEPT_PAUSE);
                    return;
                }
            }
        }
    }

    fn admit(&mut self, fd: OwnedFd) {
        let slots = self.max_clients();
        let taken: Vec<u32> = self.clients.values().map(|client| client.slot).collect();
        // There is a free slot: fewer clients than slots are connected.
        let Some(slot) = (0..slots).find(|slot| !taken.contains(slot)) else { return };
        widen(fd.as_fd());
        let key = self.fresh_key();
        self.clients.insert(key, Connection::new(fd, slot, slots));
    }

    /// Moves one chunk of output; true if there was one.
    pub(crate) fn carry(&mut self, number: u64, index: usize) -> bool {
        use crate::sessions::session::Broken;
        let Some(session) = self.sessions.get_mut(&number) else { return false };
        if self.scratch.is_empty() {
            self.scratch.resize(CHUNK, 0);
        }
        let key = session.owner.map(|(key, _)| key);
        let owner = key.and_then(|key| self.clients.get_mut(&key));
        match session.carry(index, &mut self.scratch, owner, &mut self.control) {
            Ok(moved) => moved,
            Err(Broken::Client) => {
                self.drop_client(key.unwrap_or_default());
                true
            }
            Err(Broken::Control) => {
                self.runtime_gone();
                false
            }
        }
    }

    /// Carries what is there of all streams of a session that may be read now.
    pub(crate) fn carry_available(&mut self, number: u64) {
        for index in 0..2 {
            for _ in 0..CARRY_ROUNDS {
                let Some(session) = self.sessions.get(&number) else { return };
                let open = self.control.has_room()
                    && session.readable(self.owner_has_room(session)).any(|(readable, _)| readable == index);
                if !open || !self.carry(number, index) {
                    break;
                }
            }
        }
    }

    fn tick(&mut self, now: Instant) {
        if self.accept_after.is_some_and(|at| at <= now) {
            self.accept_after = None;
        }
        self.tick_clients(now);
        self.tick_sessions(now);
        if self.draining && self.shutdown.is_none() && self.running() == 0 {
            self.begin_shutdown(None);
        }
        self.tick_calls();
        self.tick_shutdown(now);
        if self.trim_at.is_some_and(|at| at <= now) {
            self.trim_at = None;
            self.scratch = Vec::new();
            for client in self.clients.values_mut() {
                client.out.shrink();
            }
            heap::trim();
        }
    }

    fn flush(&mut self, now: Instant) {
        let mut broken = Vec::new();
        for (key, client) in &mut self.clients {
            if !client.out.is_empty() && client.flush().is_err() || client.is_closing() && client.out.is_empty() {
                broken.push(*key);
            }
        }
        for key in broken {
            self.drop_client(key);
        }
        if self.control.flush(now).is_err() {
            self.runtime_gone();
        }
    }

    /// Milliseconds until the next deadline, rounded up; -1 for none.
    fn timeout(&self) -> i32 {
        let clients = self.clients.values().filter_map(Connection::deadline);
        let sessions = self.sessions.values().filter_map(|session| self.session_deadline(session));
        let single =
            [self.control.deadline(), self.accept_after, self.trim_at, self.shutdown.as_ref().map(Shutdown::deadline)];
        let next = clients.chain(sessions).chain(single.into_iter().flatten()).min();
        next.map_or(-1, |at| {
            let left = at.saturating_duration_since(Instant::now());
            left.as_micros().div_ceil(1000).min(60_000) as i32
        })
    }

    pub(crate) fn drain(&self) -> Duration {
        Duration::from_millis(self.bootstrap.as_ref().map_or(2000, |b| b.drain_ms))
    }

    pub(crate) fn on_control(&mut self, events: i16) {
        if events & (libc::POLLIN | libc::POLLHUP | libc::POLLERR) == 0 {
            return;
        }
        match self.control.read() {
            Some(messages) => {
                for message in messages {
                    self.on_control_message(&message);
                }
            }
            None => self.runtime_gone(),
        }
    }

    /// No runtime supervises this sandbox any more: the agent kills every process in it and exits.
    pub(crate) fn runtime_gone(&mut self) {
        if self.exit_code.is_none() {
            self.kill_everything();
            self.exit_code = Some(1);
        }
    }

    pub(crate) fn on_signals(&mut self) {
        let mut record = [0u8; 128];
        while let Ok(got) = rustix::io::read(&self.setup.signals, &mut record[..]) {
            if signal::number(&record[..got]).is_some_and(|signal| END_REQUESTS.contains(&signal)) {
                if self.setup.hands_over { self.dismiss() } else { self.begin_shutdown(None) }
            }
        }
        self.sweep();
    }

    /// Reaps, and notes the ends of leaders.
    pub(crate) fn sweep(&mut self) {
        let reaped = init::reap();
        self.childless = reaped.childless;
        for (pid, status) in reaped.ended {
            let leader = self.sessions.values_mut().find(|session| session.pid == pid && session.exit.is_none());
            if let Some(session) = leader {
                session.leader_ended(status);
                let number = session.number;
                self.carry_available(number);
            }
        }
    }
}
