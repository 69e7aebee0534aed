//! Jobs: asked about, fed, signalled, attached to.

use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::{ExecStarted, JobAttach, JobInfo, JobOp, JobRequest, JobResponse};
use microsandbox_protocol::{Kind, Message};

use crate::clients::connection::Target;
use crate::server::Server;
use crate::sessions::jobs::Waiter;
use crate::sessions::session::{STDIN_WINDOW, Session};

/// Pending waits of one connection.
const MAX_WAITS: usize = 64;

type Answer = Result<Vec<JobInfo>, &'static str>;

impl Server {
    pub(crate) fn on_job_request(&mut self, key: u64, message: &Message) {
        let Ok(request) = message.parse::<JobRequest>() else { return self.malformed(key, message) };
        let id = message.id;
        if let JobOp::Wait { job } = &request.op {
            return self.on_job_wait(key, id, job);
        }
        let answer = match request.op {
            JobOp::List => Ok(self.jobs.list()),
            JobOp::Inspect { job } => self.job(&job).map(|info| vec![info]),
            JobOp::Signal { job, signal } => self.signal_job(&job, signal),
            JobOp::Input { job, data } => self.feed_job(&job, &data),
            JobOp::CloseInput { job } => self.feed_job(&job, &[]),
            // Answered above.
            JobOp::Wait { .. } => Err("unknown_job"),
        };
        self.answer_job(key, id, answer);
    }

    fn answer_job(&mut self, key: u64, id: u32, answer: Answer) {
        let response = match answer {
            Ok(jobs) => JobResponse { refused: None, jobs },
            Err(refused) => JobResponse { refused: Some(refused.to_owned()), jobs: Vec::new() },
        };
        self.reply(key, id, &Kind::JobResponse, &response);
    }

    fn job(&self, id: &str) -> Result<JobInfo, &'static str> {
        self.jobs.find(id).map(|job| job.info.clone()).ok_or("unknown_job")
    }

    fn on_job_wait(&mut self, key: u64, id: u32, job: &str) {
        match self.job(job) {
            Ok(info) if info.exit.is_none() => {
                let waits = self.jobs.waiters.iter().filter(|waiter| waiter.owner.0 == key).count();
                if waits >= MAX_WAITS {
                    if let Some(client) = self.clients.get_mut(&key) {
                        client.refuse(id, "too_many", "64 waits on this connection", Some(&Kind::JobRequest));
                    }
                    return;
                }
                self.jobs.waiters.push(Waiter { owner: (key, id), number: info.session });
            }
            other => self.answer_job(key, id, other.map(|info| vec![info])),
        }
    }

    /// The job of this session has ended: each client that waits for its end gets the response.
    pub(crate) fn tell_waiters(&mut self, number: u64) {
        let (due, rest) = std::mem::take(&mut self.jobs.waiters).into_iter().partition(|w: &Waiter| w.number == number);
        self.jobs.waiters = rest;
        let due: Vec<Waiter> = due;
        for Waiter { owner: (key, id), .. } in due {
            let answer = self.jobs.info(number).cloned().map(|info| vec![info]).ok_or("unknown_job");
            self.answer_job(key, id, answer);
        }
    }

    fn signal_job(&mut self, job: &str, signal: i32) -> Answer {
        let info = self.job(job)?;
        if info.exit.is_some() {
            return Err("ended");
        }
        if !(1..=libc::SIGRTMAX()).contains(&signal) {
            return Err("bad_signal");
        }
        self.signal_session(info.session, signal);
        Ok(vec![info])
    }

    fn feed_job(&mut self, job: &str, data: &[u8]) -> Answer {
        let info = self.job(job)?;
        if info.exit.is_some() {
            return Err("ended");
        }
        if info.stdin_closed {
            return Err("input_closed");
        }
        let Some(session) = self.sessions.get_mut(&info.session) else { return Err("ended") };
        // The end takes no room.
        if !data.is_empty() && session.stdin.is_full() {
            return Err("input_full");
        }
        let fed = session.stdin.push(data);
        if fed.error.is_some() || (data.is_empty() && !info.tty) {
            self.jobs.input_closed(info.session);
        }
        if fed.error.is_some() {
            return Err("input_closed");
        }
        Ok(vec![info])
    }

    pub(crate) fn on_job_attach(&mut self, key: u64, message: &Message) {
        let Ok(request) = message.parse::<JobAttach>() else { return self.malformed(key, message) };
        let id = message.id;
        let refuse = |server: &mut Server, kind: &str, text: &str| {
            if let Some(client) = server.clients.get_mut(&key) {
                client.refuse(id, kind, text, Some(&Kind::JobAttach));
            }
        };
        let Some(job) = self.jobs.find(&request.job) else {
            return refuse(self, "unknown_job", "no job of this run has this id");
        };
        let info = job.info.clone();
        let wanted = request.replay.unwrap_or(u64::MAX);
        let live = self.sessions.get(&info.session).filter(|session| !session.reported);
        if live.is_some_and(|session| session.owner.is_some()) {
            return refuse(self, "job_attached", "another client is attached to this job");
        }
        let kept = match live.and_then(|session| session.replay.as_ref()) {
            Some(replay) => replay.newest(wanted),
            None => job.replay.newest(wanted),
        };
        let is_live = live.is_some();
        let Some(client) = self.clients.get_mut(&key) else { return };
        let started = ExecStarted {
            pid: info.pid,
            session: Some(info.session),
            stdin_window: (!info.stdin_closed).then_some(STDIN_WINDOW),
            job: Some(info.id.clone()),
        };
        let _ = client.send(id, Flags::NONE, &Kind::ExecStarted, &started);
        let mut sent = 0;
        for (kind, piece) in &kept {
            sent += piece.len() as u64;
            if client.send_data(id, kind, piece).is_err() {
                return self.drop_client(key);
            }
        }
        if let (false, Some(exit)) = (is_live, &info.exit) {
            let _ = client.send(id, Flags::TERMINAL, &Kind::ExecExited, exit);
            return;
        }
        client.targets.insert(id, Target::Session(info.session));
        if let Some(session) = self.sessions.get_mut(&info.session) {
            session.adopt((key, id), request.window.map(|window| window.saturating_sub(sent)));
        }
    }
}

/// What a session gives up when it has ended.
pub(super) fn replay_of(session: &mut Session) -> crate::sessions::jobs::Replay {
    session.replay.take().unwrap_or_default()
}
