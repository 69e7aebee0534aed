//! One program in a sandbox for `run` and `exec`: selection of the program, its attachment to this terminal, and the
//! exit status.

use std::time::Duration;

use clap::Args;
use microsandbox_core::model::{EnvVar, ExecEvent, ExecExit, ExecOptions, Rlimit, StdinSource};
use microsandbox_core::{MicrosandboxError, Sandbox};

use crate::flags::duration::parse_duration;
use crate::invocation::Invocation;
use crate::output::failure::{FAILED, Failure, Outcome};
use crate::terminal::attach::{AttachEnd, AttachOptions, attach};
use crate::terminal::detach_keys::DetachKeys;
use crate::terminal::raw_mode;

/// Flags of a program that is attached to this terminal.
#[derive(Debug, Args)]
#[command(next_help_heading = "Program")]
pub struct SessionFlags {
    /// Run the program in the background and exit when it has started; its output goes to `msb logs`.
    #[arg(short, long, conflicts_with_all = ["tty", "timeout", "detach_keys"])]
    pub detach: bool,
    /// Run the program on a pseudo-terminal [default: if standard input and output are terminals].
    #[arg(short, long, conflicts_with = "no_tty")]
    tty: bool,
    /// Run the program without a pseudo-terminal.
    #[arg(long)]
    no_tty: bool,
    /// Give the program no input: it reads end of file.
    #[arg(long)]
    no_stdin: bool,
    /// Kill the program with all its children after this time; the exit status is then 1.
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    timeout: Option<Duration>,
    /// Keys that detach this terminal and leave the program running [default: ctrl-]].
    #[arg(long, value_name = "KEYS", value_parser = DetachKeys::parse)]
    detach_keys: Option<DetachKeys>,
}

/// The program to run.
#[derive(Debug, Default)]
pub struct Program {
    pub command: Vec<String>,
    pub env: Vec<EnvVar>,
    pub workdir: Option<String>,
    pub user: Option<String>,
    pub rlimits: Vec<Rlimit>,
}

/// The result of a session.
pub enum SessionEnd {
    /// The program exited; the status of `msb`.
    Status(i32),
    /// The user detached; the program keeps running in the sandbox.
    Running,
    /// The program runs in the sandbox as a job of this id.
    Job(String),
}

impl SessionFlags {
    fn wants_tty(&self, call: &Invocation) -> bool {
        let both = call.console.in_is_terminal && call.console.out_is_terminal;
        !self.detach && !self.no_tty && (self.tty || (both && !self.no_stdin))
    }

    /// Runs `program`, or the default command of the sandbox.
    pub async fn run(&self, call: &Invocation, sandbox: &Sandbox, program: Program) -> Outcome<SessionEnd> {
        let tty = self.wants_tty(call);
        let (command, arguments) = resolve(sandbox, &program.command, tty)?;
        let options = self.options(program, arguments, tty);
        if self.detach {
            let job = sandbox.exec_detached(command.clone(), options.clone());
            match call.interruptible(async { Ok(job.await) }).await? {
                // A backend without jobs: the program runs as an ordinary session that outlives this process.
                Err(MicrosandboxError::Unsupported { .. }) => {}
                job => return Ok(SessionEnd::Job(job?.id)),
            }
        }
        let running = call.interruptible(async { Ok(sandbox.exec_stream(command, options).await?) }).await?;
        if self.detach {
            return call.interruptible(started(&running)).await.map(|()| SessionEnd::Running);
        }
        let binding =
            AttachOptions { tty, stdin: !self.no_stdin, detach_keys: self.detach_keys.clone().unwrap_or_default() };
        match attach(&call.console, &call.signals, &running, binding).await? {
            AttachEnd::Exited(exit) => Ok(SessionEnd::Status(self.status(call, &exit))),
            AttachEnd::Detached => Ok(SessionEnd::Running),
        }
    }

    fn options(&self, program: Program, args: Vec<String>, tty: bool) -> ExecOptions {
        let (rows, cols) = raw_mode::size().unwrap_or(raw_mode::DEFAULT_SIZE);
        let mut env: Vec<(String, String)> = Vec::new();
        if tty && let Ok(term) = std::env::var("TERM") {
            env.push(("TERM".into(), term));
        }
        env.extend(program.env.into_iter().map(|variable| (variable.key, variable.value)));
        let no_input = self.detach || (self.no_stdin && !tty);
        ExecOptions {
            args,
            cwd: program.workdir,
            user: program.user,
            env,
            timeout: self.timeout,
            stdin: if no_input { StdinSource::Null } else { StdinSource::Pipe },
            tty,
            rows,
            cols,
            rlimits: program.rlimits,
            // Without a terminal there are no detach keys: the program is then killed with this process, whatever ends
            // it.
            detachable: self.detach || tty,
            ..ExecOptions::default()
        }
    }

    fn status(&self, call: &Invocation, exit: &ExecExit) -> i32 {
        if exit.timed_out {
            let secs = self.timeout.unwrap_or(exit.duration).as_secs_f64();
            let error = MicrosandboxError::ExecTimeout { secs, output: None };
            call.console.note(&Failure::Core(error).report().unwrap_or_default());
            return FAILED;
        }
        if exit.oom_killed {
            call.console.note(
                "note: the program was killed because the sandbox ran out of memory; raise the limit with --memory",
            );
        }
        exit.code
    }
}

/// The given command; else the default command of the sandbox; else, on a terminal, its shell.
fn resolve(sandbox: &Sandbox, command: &[String], tty: bool) -> Outcome<(String, Vec<String>)> {
    if let Some((program, arguments)) = command.split_first() {
        let entrypoint = &sandbox.spec().runtime.entrypoint;
        return match entrypoint.as_deref().and_then(<[String]>::split_first) {
            // As in every container tool: with an explicit entrypoint, the words after `--` are its arguments.
            Some((own, first)) => Ok((own.clone(), [first, command].concat())),
            None => Ok((program.clone(), arguments.to_vec())),
        };
    }
    match sandbox.default_command() {
        Err(MicrosandboxError::NoDefaultCommand { .. }) if tty => {
            let shell = sandbox.spec().runtime.shell.clone();
            Ok((shell.unwrap_or_else(|| microsandbox_core::model::DEFAULT_SHELL.to_owned()), Vec::new()))
        }
        other => Ok(other?),
    }
}

/// Waits for the first event of a program in the background: it started, or why it did not.
async fn started(running: &microsandbox_core::model::ExecHandle) -> Outcome<()> {
    while let Some(event) = running.recv().await? {
        match event {
            ExecEvent::Started { .. } | ExecEvent::Exited(_) => return Ok(()),
            ExecEvent::Failed(failure) => return Err(MicrosandboxError::ExecFailed(Box::new(failure)).into()),
            ExecEvent::Stdout(_) | ExecEvent::Stderr(_) | ExecEvent::StdinError { .. } => {}
        }
    }
    Err(Failure::message("the connection to the sandbox closed before the start of the program was reported"))
}
