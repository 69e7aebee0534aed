//! One program of a sandbox in memory: a task, its events, its input, and what can end it.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::future::BoxFuture;
use microsandbox_protocol::message::BASE_PATH;
use tokio::sync::{mpsc, watch};

use super::files::FileTree;
use super::journal::Journal;
use super::programs::{Process, Program, Streams, find};
use super::{Shared, lock};
use microsandbox_core::agent::{Captures, check_exec};
use microsandbox_core::error::{ExecFailure, MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    ExecControl, ExecEvent, ExecExit, ExecHandle, ExecOptions, ExecOutput, LogSource, SandboxSpec, StdinSource,
};

/// Chunks of input a program may be behind.
const INPUT_CHUNKS: usize = 16;
/// Linux's bound of one argument or variable (`MAX_ARG_STRLEN`), and a usual one of all together.
const ARG_MAX: usize = 128 << 10;
const ARGS_MAX: usize = 2 << 20;

pub type Input = mpsc::Receiver<Bytes>;
/// The signal that ends a program.
pub type Kill = watch::Sender<Option<i32>>;

/// Where a program's output goes: the log first, then the holder of the exec handle.
#[derive(Clone)]
pub struct Output {
    events: mpsc::UnboundedSender<MicrosandboxResult<ExecEvent>>,
    journal: Arc<Mutex<Journal>>,
    changes: watch::Sender<u64>,
    session: u64,
    tty: bool,
}

impl Output {
    pub fn write(&self, error: bool, data: Bytes) {
        if data.is_empty() {
            return;
        }
        let source = match (self.tty, error) {
            (true, _) => LogSource::Output,
            (false, false) => LogSource::Stdout,
            (false, true) => LogSource::Stderr,
        };
        lock(&self.journal).add(source, Some(self.session), data.clone());
        self.changes.send_modify(|count| *count += 1);
        let event = if error && !self.tty { ExecEvent::Stderr(data) } else { ExecEvent::Stdout(data) };
        // A dropped handle misses the event; the log has the output.
        let _ = self.events.send(Ok(event));
    }
}

/// What a run needs of its sandbox.
pub struct Place {
    pub shared: Arc<Shared>,
    pub name: String,
    pub spec: SandboxSpec,
    pub files: Arc<Mutex<FileTree>>,
    pub journal: Arc<Mutex<Journal>>,
    pub session: u64,
    pub kill: Kill,
}

fn failure(kind: &str, errno: i32, errno_name: &str, message: String) -> MicrosandboxError {
    MicrosandboxError::ExecFailed(Box::new(ExecFailure {
        kind: kind.into(),
        message,
        errno: Some(errno),
        errno_name: Some(errno_name.into()),
        stage: Some("exec".into()),
    }))
}

impl Place {
    /// Starts a program. A program that cannot be started is an error of this call, not a later event.
    pub fn start(self, cmd: String, options: ExecOptions) -> MicrosandboxResult<ExecHandle> {
        let (shared, name, session) = (self.shared.clone(), self.name.clone(), self.session);
        let started = self.launch(cmd, options);
        if started.is_err() {
            super::records::forget_run(&shared, &name, session);
        }
        started
    }

    fn launch(self, cmd: String, options: ExecOptions) -> MicrosandboxResult<ExecHandle> {
        check_exec(&cmd, &options)?;
        let environment = self.environment(&options);
        check_size(&cmd, &options.args, &environment)?;
        let workdir = || self.spec.runtime.workdir.clone().unwrap_or_else(|| "/".into());
        let cwd = options.cwd.clone().unwrap_or_else(workdir);
        if !lock(&self.files).is_directory(&cwd) {
            return Err(failure(
                "bad_cwd",
                libc::ENOENT,
                "ENOENT",
                format!("working directory {cwd}: no such directory"),
            ));
        }
        let user = options.user.clone().or_else(|| self.spec.runtime.user.clone());
        check_user(user.as_deref())?;
        let program = find(&self.shared, &cmd).ok_or_else(|| {
            failure("not_found", libc::ENOENT, "ENOENT", format!("program {cmd}: no such file or directory"))
        })?;
        let (input, stdin) = mpsc::channel(INPUT_CHUNKS);
        let piped = options.stdin == StdinSource::Pipe;
        let mut stdin_bytes = Bytes::new();
        if let StdinSource::Bytes(data) = &options.stdin {
            stdin_bytes = data.clone();
            // The channel is new and has room.
            let _ = input.try_send(data.clone());
        }
        let (events, event_queue) = mpsc::unbounded_channel();
        let output = Output {
            events: events.clone(),
            journal: self.journal.clone(),
            changes: self.shared.changes.clone(),
            session: self.session,
            tty: options.tty,
        };
        let control =
            Control { name: self.name.clone(), kill: self.kill.clone(), input: Mutex::new(piped.then_some(input)) };
        let process = Process {
            shared: self.shared.clone(),
            files: self.files.clone(),
            env: environment,
            cwd,
            user,
            stdin,
            stdin_bytes,
            output,
        };
        let id = format!("exec-{}", self.session);
        let task = Task { place: self, process, events, timeout: options.timeout, detachable: options.detachable };
        tokio::spawn(task.run(program, cmd, options.args));
        Ok(ExecHandle::new(id, event_queue, Arc::new(control), piped))
    }

    /// The sandbox's variables, then the call's.
    fn environment(&self, options: &ExecOptions) -> Vec<(String, String)> {
        let base = [("PATH", BASE_PATH), ("HOME", "/root")].map(|(key, value)| (key.to_string(), value.to_string()));
        let own = self.spec.env.iter().map(|var| (var.key.clone(), var.value.clone()));
        let mut merged: Vec<(String, String)> = Vec::new();
        for (key, value) in base.into_iter().chain(own).chain(options.env.iter().cloned()) {
            match merged.iter_mut().find(|(known, _)| *known == key) {
                Some((_, old)) => *old = value,
                None => merged.push((key, value)),
            }
        }
        merged
    }
}

fn check_size(cmd: &str, args: &[String], env: &[(String, String)]) -> MicrosandboxResult<()> {
    let sizes = args.iter().map(|arg| arg.len() + 1).chain(env.iter().map(|(key, value)| key.len() + value.len() + 2));
    let (longest, total) = sizes.fold((0, cmd.len() + 1), |(longest, total), size| (longest.max(size), total + size));
    if longest > ARG_MAX || total > ARGS_MAX {
        return Err(failure("bad_args", libc::E2BIG, "E2BIG", format!("program {cmd}: argument list too long")));
    }
    Ok(())
}

fn check_user(user: Option<&str>) -> MicrosandboxResult<()> {
    let Some(user) = user else { return Ok(()) };
    let known = |name: &str| name == "root" || name == "nobody" || name.parse::<u32>().is_ok_and(|id| id != u32::MAX);
    if user.split(':').all(known) {
        return Ok(());
    }
    Err(MicrosandboxError::ExecFailed(Box::new(ExecFailure {
        kind: "user_setup_failed".into(),
        message: format!("user {user}: not known in this sandbox"),
        errno: None,
        errno_name: None,
        stage: Some("user".into()),
    })))
}

struct Task {
    place: Place,
    process: Process,
    events: mpsc::UnboundedSender<MicrosandboxResult<ExecEvent>>,
    timeout: Option<Duration>,
    detachable: bool,
}

impl Task {
    async fn run(mut self, program: Program, cmd: String, args: Vec<String>) {
        let began = Instant::now();
        let _ = self.events.send(Ok(ExecEvent::Started { pid: self.place.session as u32 + 1 }));
        let mut kill = self.place.kill.subscribe();
        let streams = Streams::default();
        let timeout = self.timeout;
        let events = self.events.clone();
        let detachable = self.detachable;
        let killed = |signal: i32| ExecExit { code: 128 + signal, signal: Some(signal), ..ExecExit::default() };
        let exit = tokio::select! {
            biased;
            signal = async { kill.wait_for(Option::is_some).await.ok().and_then(|signal| *signal) } => {
                killed(signal.unwrap_or(libc::SIGKILL))
            }
            () = async { events.closed().await }, if !detachable => killed(libc::SIGKILL),
            () = tokio::time::sleep(timeout.unwrap_or_default()), if timeout.is_some() => {
                ExecExit { timed_out: true, ..killed(libc::SIGKILL) }
            }
            code = self.process.run(program, &cmd, &args, &streams) => ExecExit { code, ..ExecExit::default() },
        };
        // The program's input is closed before its exit is reported, so a writer never waits for an exited program.
        drop(self.process);
        super::records::forget_run(&self.place.shared, &self.place.name, self.place.session);
        let exit = ExecExit { drained: true, duration: began.elapsed(), ..exit };
        let _ = self.events.send(Ok(ExecEvent::Exited(exit)));
    }
}

struct Control {
    name: String,
    kill: Kill,
    input: Mutex<Option<mpsc::Sender<Bytes>>>,
}

/// Signals that a program without handlers survives.
const HARMLESS: [i32; 8] = [
    libc::SIGCHLD,
    libc::SIGCONT,
    libc::SIGURG,
    libc::SIGWINCH,
    libc::SIGSTOP,
    libc::SIGTSTP,
    libc::SIGTTIN,
    libc::SIGTTOU,
];

impl ExecControl for Control {
    fn signal(&self, signal: i32) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            if !(1..=64).contains(&signal) {
                return Err(MicrosandboxError::InvalidConfig(format!("signal {signal} is not in 1 to 64")));
            }
            if !HARMLESS.contains(&signal) {
                self.kill.send_replace(Some(signal));
            }
            Ok(())
        })
    }

    fn resize(&self, rows: u16, cols: u16) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            if rows == 0 || cols == 0 {
                return Err(MicrosandboxError::InvalidConfig("a terminal has at least one row and one column".into()));
            }
            Ok(())
        })
    }

    fn write_stdin(&self, data: Bytes) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            if data.is_empty() {
                return Ok(());
            }
            let input = lock(&self.input).clone();
            let sent = match input {
                Some(input) => input.send(data).await.is_ok(),
                None => false,
            };
            if sent {
                return Ok(());
            }
            Err(MicrosandboxError::Io {
                context: format!("write to standard input of a program in sandbox {}", self.name),
                source: std::io::ErrorKind::BrokenPipe.into(),
            })
        })
    }

    fn close_stdin(&self) -> BoxFuture<'_, MicrosandboxResult<()>> {
        Box::pin(async move {
            lock(&self.input).take();
            Ok(())
        })
    }

    fn consumed(&self, _bytes: u64) {}
}

/// Runs to the end and collects, within the same bounds as any backend.
pub async fn collect(place: Place, cmd: String, mut options: ExecOptions) -> MicrosandboxResult<ExecOutput> {
    let (timeout, max) = (options.timeout, options.max_output_bytes);
    if options.stdin == StdinSource::Pipe {
        // Nothing can write to it here.
        options.stdin = StdinSource::Null;
    }
    let handle = place.start(cmd, options)?;
    let mut output = Captures::new(max);
    while let Some(event) = handle.recv().await? {
        match event {
            ExecEvent::Stdout(data) => output.stdout(&data),
            ExecEvent::Stderr(data) => output.stderr(&data),
            ExecEvent::Exited(exit) => return output.finish_in_time(exit, timeout),
            ExecEvent::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure))),
            ExecEvent::Started { .. } | ExecEvent::StdinError { .. } => {}
        }
        if output.overflow().is_some() {
            handle.kill().await?;
        }
    }
    Err(MicrosandboxError::Runtime("a program in memory ended without an exit".into()))
}
