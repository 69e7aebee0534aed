//! This terminal, or the pipes in its place, attached to a program in a sandbox until the program exits or the user
//! detaches.

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

/// A program that ignores Ctrl-C is killed after this many interrupts …
const KILLING_INTERRUPTS: usize = 3;
/// … within this time.
const INTERRUPT_WINDOW: Duration = Duration::from_secs(2);

/// How to attach.
#[derive(Debug, Clone, Default)]
pub struct AttachOptions {
    /// The program runs on a pseudo-terminal.
    pub tty: bool,
    /// Forward standard input.
    pub stdin: bool,
    pub detach_keys: DetachKeys,
}

/// How the attachment ended.
#[derive(Debug)]
pub enum AttachEnd {
    Exited(ExecExit),
    /// The user detached; the program keeps running.
    Detached,
}

/// Attaches the standard streams of this process to a program, for callers other than the command line. Returns the
/// program's exit, or `None` if the user detached. The terminal's mode and the signal handlers are restored on every
/// path. `tty`: the program runs on a pseudo-terminal.
pub async fn bind_terminal(
    program: &ExecHandle,
    tty: bool,
    detach_keys: DetachKeys,
) -> MicrosandboxResult<Option<ExecExit>> {
    let failed = |error| MicrosandboxError::Io { context: "install the signal handlers".into(), source: error };
    let (console, signals) = (Console::host(), Signals::listen().map_err(failed)?);
    match attach(&console, &signals, program, AttachOptions { tty, stdin: true, detach_keys }).await {
        Ok(AttachEnd::Exited(exit)) => Ok(Some(exit)),
        Ok(AttachEnd::Detached) => Ok(None),
        Err(Failure::Core(error)) => Err(error),
        Err(failure) => {
            let text = failure.report().unwrap_or_else(|| "the terminal was closed".into());
            Err(MicrosandboxError::Runtime(text.trim_start_matches("error: ").into()))
        }
    }
}

/// Forwards input, output, signals and the window size.
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

/// Writes the output events in order; returns the exit after all output is written.
async fn deliver(program: &ExecHandle, pump: OutputPump) -> Outcome<ExecExit> {
    while let Some(event) = program.recv().await? {
        let reading = match event {
            ExecEvent::Stdout(data) => pump.send(Stream::Out, data).await,
            ExecEvent::Stderr(data) => pump.send(Stream::Err, data).await,
            // A program that closes its input early has not failed: the exit status of the program decides.
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
            // On an error the caller drops the program's handle, which kills the program, as SIGPIPE would.
            pump.finish().await?;
            return Err(Failure::BrokenPipe);
        }
    }
    Err(Failure::message("the connection to the sandbox closed before the exit of the program was reported"))
}

/// Forwards input to the program. Returns when the user types the detach keys, else never.
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
    // The program may have closed its input already: not a failure.
    let _ = sink.close().await;
    std::future::pending().await
}

/// True: the detach keys were typed. False: end of input, or the program accepts no more.
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
        // End of file on a terminal is Ctrl-D: once at the start of a line, twice within a line.
        let end: &'static [u8] = if at_line_start { b"\x04" } else { b"\x04\x04" };
        let _ = sink.write(Bytes::from_static(end)).await;
    }
    false
}

/// Forwards signals to the program. Returns only after repeated Ctrl-C, which kills the program; the signal.
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
            interrupts.retain(|at| at.elapsed() < INTERRUPT_WINDOW);
            interrupts.push(Instant::now());
        }
        // Failures are ignored: the program may just have exited, which `deliver` reports.
        if interrupts.len() >= KILLING_INTERRUPTS {
            let _ = program.kill().await;
            return signal;
        }
        let _ = program.signal(signal).await;
    }
}
