//! This terminal (or these pipes) bound to a program in a sandbox, until it ends or the user lets go.

use bytes::Bytes;
use microsandbox_core::model::{ExecEvent, ExecExit, ExecHandle, ExecSink};
use microsandbox_core::{MicrosandboxError, MicrosandboxResult};
use std::time::{Duration, Instant};

use crate::output::failure::{Failure, Outcome};
use crate::output::output_pump::{OutputPump, Stream};
use crate::terminal::console::Console;
use crate::terminal::detach_keys::DetachKeys;
use crate::terminal::input::InputStream;
use crate::terminal::raw_mode::{self, RawMode};
use crate::terminal::signals::Signals;

/// A program that ignores Ctrl-C is ended when it comes this often …
const IMPATIENT: usize = 3;
/// … within this time.
const IMPATIENCE: Duration = Duration::from_secs(2);

/// How to bind.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// The program has a terminal of its own.
    pub tty: bool,
    /// Forward standard input.
    pub stdin: bool,
    pub detach_keys: DetachKeys,
}

/// How it ended.
#[derive(Debug)]
pub enum AttachEnd {
    Exited(ExecExit),
    /// The user let go; the program goes on.
    Detached,
}

/// This process's own terminal, or what its standard streams are instead, bound to a program, for callers that are no
/// command: its end, or `None` when the user let go. The terminal's mode and the handlers of signals are as before when
/// this is over, however it ends. `tty`: the program has a terminal.
pub async fn bind_terminal(
    program: &ExecHandle,
    tty: bool,
    detach_keys: DetachKeys,
) -> MicrosandboxResult<Option<ExecExit>> {
    let failed = |error| MicrosandboxError::Io { context: "listen to signals".into(), source: error };
    let (console, signals) = (Console::host(), Signals::listen().map_err(failed)?);
    match attach(&console, &signals, program, AttachOptions { tty, stdin: true, detach_keys }).await {
        Ok(AttachEnd::Exited(exit)) => Ok(Some(exit)),
        Ok(AttachEnd::Detached) => Ok(None),
        Err(Failure::Core(error)) => Err(error),
        Err(failure) => {
            let text = failure.report().unwrap_or_else(|| "the terminal went away".into());
            Err(MicrosandboxError::Runtime(text.trim_start_matches("error: ").into()))
        }
    }
}

/// Forwards input, output, signals and the window's size.
pub async fn attach(
    console: &Console,
    signals: &Signals,
    program: &ExecHandle,
    options: AttachOptions,
) -> Outcome<AttachEnd> {
    let _raw = (options.tty && options.stdin && console.in_is_terminal && raw_mode::is_foreground())
        .then(RawMode::enter)
        .transpose()
        .map_err(|error| Failure::message(format!("cannot set up the terminal: {error}")))?;
    let pump = OutputPump::open(console).map_err(thread_failure)?;
    tokio::select! {
        end = deliver(program, pump) => end.map(AttachEnd::Exited),
        () = feed(console, program, options) => Ok(AttachEnd::Detached),
        signal = forward(signals, program) => Err(Failure::Signalled(signal)),
    }
}

fn thread_failure(error: std::io::Error) -> Failure {
    Failure::message(format!("cannot start a thread: {error}"))
}

/// Events in order, each written before the next; ends with the verdict, everything before it delivered.
async fn deliver(program: &ExecHandle, pump: OutputPump) -> Outcome<ExecExit> {
    while let Some(event) = program.recv().await? {
        let reading = match event {
            ExecEvent::Stdout(data) => pump.send(Stream::Out, data).await,
            ExecEvent::Stderr(data) => pump.send(Stream::Err, data).await,
            // The program closed its input early; its status tells whether it minded.
            ExecEvent::Started { .. } | ExecEvent::StdinError { .. } => true,
            ExecEvent::Exited(exit) => {
                pump.finish().await?;
                return Ok(exit);
            }
            ExecEvent::Failed(failure) => {
                pump.finish().await?;
                return Err(MicrosandboxError::ExecFailed(Box::new(failure)).into());
            }
        };
        if !reading {
            // Dropping the program's handle, as our caller does on an error, ends it: as SIGPIPE would.
            pump.finish().await?;
            return Err(Failure::BrokenPipe);
        }
    }
    Err(Failure::message("the program's end was not reported"))
}

/// Input to the program. Returns when the user typed the keys that let go, else never.
async fn feed(console: &Console, program: &ExecHandle, mut options: AttachOptions) {
    let Some(sink) = program.take_stdin() else { return std::future::pending().await };
    let readable = !console.in_is_terminal || raw_mode::is_foreground();
    let input = (options.stdin && readable).then(|| InputStream::open(&console.input));
    if let Some(Ok(mut input)) = input {
        let keys = (options.tty && console.in_is_terminal).then_some(&mut options.detach_keys);
        if pump(&mut input, &sink, keys, options.tty).await {
            return;
        }
    }
    // A closed pipe on the other side is the program's choice, not our failure.
    let _ = sink.close().await;
    std::future::pending().await
}

/// True: the detach keys. False: end of input, or nobody takes it any more.
async fn pump(input: &mut InputStream, sink: &ExecSink, mut keys: Option<&mut DetachKeys>, tty: bool) -> bool {
    let mut at_line_start = true;
    while let Some(chunk) = input.next().await {
        let (chunk, detached) = match &mut keys {
            Some(keys) => {
                let (passed, detached) = keys.filter(&chunk);
                (Bytes::from(passed), detached)
            }
            None => (chunk, false),
        };
        if let Some(&last) = chunk.last() {
            at_line_start = last == b'\n';
            if sink.write(chunk).await.is_err() {
                return false;
            }
        }
        if detached {
            return true;
        }
    }
    if tty {
        // A terminal has no end of file but Ctrl-D: once at the start of a line, twice within one.
        let end: &'static [u8] = if at_line_start { b"\x04" } else { b"\x04\x04" };
        let _ = sink.write(Bytes::from_static(end)).await;
    }
    false
}

/// Signals to the program. Returns only when the user lost patience with one that ignores Ctrl-C; the signal.
async fn forward(signals: &Signals, program: &ExecHandle) -> i32 {
    let mut interrupts: Vec<Instant> = Vec::new();
    loop {
        let signal = signals.next().await;
        if signal == libc::SIGWINCH {
            if let Some((rows, cols)) = raw_mode::size() {
                let _ = program.resize(rows, cols).await;
            }
            continue;
        }
        if signal == libc::SIGINT {
            interrupts.retain(|at| at.elapsed() < IMPATIENCE);
            interrupts.push(Instant::now());
        }
        // It may just have ended: `deliver` sees that.
        if interrupts.len() >= IMPATIENT {
            let _ = program.kill().await;
            return signal;
        }
        let _ = program.signal(signal).await;
    }
}
