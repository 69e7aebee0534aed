//! File calls: which worker step comes next, and which messages the client gets.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use microsandbox_protocol::message::{FsData, FsOp, FsRequest, FsResponse};
use microsandbox_protocol::{Kind, Message};

use crate::clients::connection::{Connection, Target};
use crate::files::error::FsError;
use crate::files::pack::Pack;
use crate::files::reader::Reader;
use crate::files::task::{Answer, Done, Job, Task};
use crate::files::unpack::Unpack;
use crate::files::writer::Writer;
use crate::server::Server;

/// In-flight file calls of one connection.
const MAX_CALLS: usize = 64;
/// Bytes of a write that may wait for the disk.
const MAX_INPUT: usize = 8 << 20;
/// `fs.stream_chunk`.
const CHUNK: usize = 1 << 20;

/// A file call under way.
pub struct Call {
    owner: (u64, u32),
    /// Absent while a worker runs the task.
    task: Option<Task>,
    input: Vec<Bytes>,
    input_bytes: usize,
    ended: bool,
    credit: Option<u64>,
    cancel: Arc<AtomicBool>,
}

impl Call {
    pub fn add_credit(&mut self, bytes: u64) {
        if let Some(credit) = &mut self.credit {
            *credit = credit.saturating_add(bytes);
        }
    }

    pub fn is_full(&self) -> bool {
        self.input_bytes >= MAX_INPUT
    }

    /// Can a step be made, given whether the client has room for a chunk?
    fn is_due(&self, room: bool) -> bool {
        match &self.task {
            None => false,
            Some(Task::Read(_) | Task::ReadTar(_)) => room && self.credit != Some(0),
            Some(Task::Write(_) | Task::WriteTar(_)) => self.ended || !self.input.is_empty(),
            Some(_) => true,
        }
    }

    fn budget(&self) -> usize {
        self.credit.unwrap_or(u64::MAX).min(CHUNK as u64) as usize
    }
}

impl Server {
    pub(crate) fn on_fs_request(&mut self, key: u64, message: &Message) {
        let Ok(request) = message.parse::<FsRequest>() else { return self.malformed(key, message) };
        let id = message.id;
        let Some(client) = self.clients.get_mut(&key) else { return };
        let calls = client.targets.values().filter(|target| !matches!(target, Target::Session(_))).count();
        let refusal = match () {
            () if self.shutdown.is_some() => Some(("shutting_down", "the sandbox is shutting down")),
            () if calls >= MAX_CALLS => Some(("too_many", "64 file calls run on this connection (fs.calls)")),
            () => None,
        };
        if let Some((kind, text)) = refusal {
            return client.refuse(id, kind, text, Some(&message.kind));
        }
        let task = plan(client, request.op);
        self.control.activity(self.running());
        match task {
            Ok(Some(task)) => self.begin_call(key, id, task, request.window),
            Ok(None) => self.reply(key, id, &Kind::FsResponse, &success(None)),
            Err(error) => self.reply(key, id, &Kind::FsResponse, &error.to_response()),
        }
    }

    fn begin_call(&mut self, key: u64, id: u32, task: Task, credit: Option<u64>) {
        let number = self.fresh_key();
        let starts_at_once = matches!(task, Task::Write(_));
        let call = Call {
            owner: (key, id),
            task: Some(task),
            input: Vec::new(),
            input_bytes: 0,
            ended: false,
            credit,
            cancel: Arc::default(),
        };
        self.calls.insert(number, call);
        if let Some(client) = self.clients.get_mut(&key) {
            client.targets.insert(id, Target::Call(number));
        }
        if starts_at_once {
            // Opening the target needs no data: a refusal is known before the client sends it all.
            self.submit(number);
        }
        self.advance(number);
    }

    pub(crate) fn on_fs_data(&mut self, key: u64, number: u64, message: &Message) {
        let Ok(data) = message.data() else { return self.malformed(key, message) };
        let Some(call) = self.calls.get_mut(&number) else { return };
        if call.ended {
            return;
        }
        if data.is_empty() {
            call.ended = true;
        } else {
            call.input_bytes += data.len();
            call.input.push(data);
        }
        self.advance(number);
        self.update_input_full(key);
    }

    /// Hands the call to a worker if there is something to do.
    fn advance(&mut self, number: u64) {
        let Some(call) = self.calls.get(&number) else { return };
        let room = self.clients.get(&call.owner.0).is_some_and(Connection::has_room);
        if call.is_due(room) {
            self.submit(number);
        }
    }

    fn submit(&mut self, number: u64) {
        let Some(call) = self.calls.get_mut(&number) else { return };
        let budget = call.budget();
        let Some(task) = call.task.take() else { return };
        call.input_bytes = 0;
        self.workers.submit(Job {
            call: number,
            task,
            root: Arc::clone(&self.setup.root),
            cancel: Arc::clone(&call.cancel),
            input: std::mem::take(&mut call.input),
            ended: call.ended,
            budget,
        });
    }

    /// Reads wait for room or credit; both may have come.
    pub(crate) fn tick_calls(&mut self) {
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            self.advance(number);
        }
    }

    pub(crate) fn on_workers(&mut self) {
        for done in self.workers.collect() {
            self.on_done(done);
        }
    }

    fn on_done(&mut self, done: Done) {
        let number = done.call;
        let Some(call) = self.calls.get_mut(&number) else {
            // The client left while the task ran; what the task holds is freed where blocking is allowed.
            return if let Some(task) = done.task {
                self.discard(task)
            };
        };
        let (key, id) = call.owner;
        call.task = done.task;
        if let Some(credit) = &mut call.credit {
            *credit = credit.saturating_sub(done.chunk.len() as u64);
        }
        // The next chunk is read while this one is written.
        self.advance(number);
        if !done.chunk.is_empty() {
            let Some(client) = self.clients.get_mut(&key) else { return };
            if client.send_data(id, &Kind::FsData, &done.chunk).is_err() {
                return self.drop_client(key);
            }
        }
        if let Some(outcome) = done.outcome {
            self.finish_call(number, outcome);
        }
        self.update_input_full(key);
    }

    fn finish_call(&mut self, number: u64, outcome: Result<Answer, FsError>) {
        let Some(call) = self.calls.remove(&number) else { return };
        let (key, id) = call.owner;
        let Some(client) = self.clients.get_mut(&key) else { return };
        client.targets.remove(&id);
        let response = match outcome {
            Ok(Answer::Watching(watch)) => return self.begin_watch(key, id, *watch),
            Ok(Answer::Nothing) => success(None),
            Ok(Answer::Moved(bytes)) => FsResponse { bytes: Some(bytes), ..success(None) },
            Ok(Answer::Data(data)) => success(Some(data)),
            Ok(Answer::Opened(handle)) => match client.handles.insert(*handle) {
                Ok(handle) => success(Some(FsData::Handle(handle))),
                Err(error) => error.to_response(),
            },
            Err(error) => error.to_response(),
        };
        self.reply(key, id, &Kind::FsResponse, &response);
    }

    /// The client is gone: nothing more is read or written for it. An atomic write leaves no trace.
    pub(crate) fn abandon_call(&mut self, number: u64) {
        let Some(call) = self.calls.remove(&number) else { return };
        call.cancel.store(true, Ordering::Relaxed);
        if let Some(task) = call.task {
            self.discard(task);
        }
    }

    fn discard(&mut self, task: Task) {
        self.workers.submit(Job {
            call: 0,
            task: Task::Discard(Box::new(task)),
            root: Arc::clone(&self.setup.root),
            cancel: Arc::default(),
            input: Vec::new(),
            ended: false,
            budget: 0,
        });
    }

    /// The sandbox ends: long work stops, unfinished transfers fail.
    pub(crate) fn abandon_all_calls(&mut self) {
        let numbers: Vec<u64> = self.calls.keys().copied().collect();
        for number in numbers {
            let Some(call) = self.calls.get_mut(&number) else { continue };
            call.cancel.store(true, Ordering::Relaxed);
            let idle = call.task.take();
            if let Some(task) = idle {
                self.discard(task);
                self.finish_call(number, Err(FsError::cancelled()));
            }
        }
    }
}

/// What an operation means here; `None` when it is done already.
fn plan(client: &mut Connection, op: FsOp) -> Result<Option<Task>, FsError> {
    let handles = &mut client.handles;
    Ok(Some(match op {
        FsOp::CloseHandle { handle } => return handles.remove(handle).map(|()| None),
        FsOp::Read { handle, offset, len } => Task::Read(Reader::of_handle(handles.get(handle)?, offset, len)),
        FsOp::Write { handle, offset, len } => Task::Write(Writer::of_handle(handles.get(handle)?, offset, len)),
        FsOp::ReadDir { handle, limit } => Task::ReadDir(handles.get(handle)?, limit),
        FsOp::FStat { handle } => Task::FStat(handles.get(handle)?),
        FsOp::FSetStat { handle, attrs } => Task::FSetStat(handles.get(handle)?, attrs),
        FsOp::ReadFile { path } => Task::Read(Reader::of_path(path)),
        FsOp::WriteFile { path, mode, atomic, mtime } => Task::Write(Writer::of_path(path, mode, atomic, mtime)),
        FsOp::ReadTar { path, top } => Task::ReadTar(Pack::new(path, top)),
        FsOp::WriteTar { path } => Task::WriteTar(Unpack::new(path)),
        by_path => Task::Path(by_path),
    }))
}

pub(super) fn success(data: Option<FsData>) -> FsResponse {
    FsResponse { ok: true, data, ..FsResponse::default() }
}
