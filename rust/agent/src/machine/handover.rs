//! Hand-off: a sandbox whose first process is an init system of its own (systemd, OpenRC, s6, a program of the user's).
//!
//! The agent is started as the first process, as always, and forks before it sets anything up: the child becomes the
//! agent; the parent keeps process id 1, waits for the agent's order and executes the init. What the agent prepares
//! (mounts, host name) is there by then, because both processes share their namespaces. A pipe that closes at a
//! successful exec reports to the agent whether the init runs; only then is the sandbox ready.
//!
//! The end: the agent asks the init to end the machine, by the request that this init understands ([`request`]), and an
//! init that ends the machine sends SIGTERM to every process, the agent among them. Then the agent delivers its pending
//! output and, on a kernel of its own, ends the machine itself: libkrun's machine has no ACPI, and a power-off by the
//! init would halt that machine for good.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::unix::ffi::OsStringExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::BytesMut;
use microsandbox_protocol::frame::{self, Flags, FrameDecoder};
use microsandbox_protocol::machine::HANDOVER_ARGUMENT;
use microsandbox_protocol::message::InitProgram;
use microsandbox_protocol::{Kind, ProtocolError};
use microsandbox_sys::{descriptor, process};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::exec::c_word;
use crate::machine;

/// Longest order: arguments and environment fit into a frame.
const MAX_ORDER: u64 = frame::MAX_FRAME as u64 + 4;
/// How often a process that could not become the init looks whether the agent has ended.
const LOOK: Duration = Duration::from_millis(100);
/// Longest reason why there is no init.
const MAX_REASON: u64 = 64 << 10;
/// `SIGRTMIN+4` of systemd(1), which counts from the C library's first real-time signal: start `poweroff.target`.
const SYSTEMD_POWER_OFF: i32 = 34 + 4;

/// The child's way to the process that will be the init.
pub struct Successor {
    order: File,
    answer: File,
}

/// Whether the runtime wants a hand-off.
pub fn is_wanted() -> bool {
    std::env::args_os().any(|argument| argument.as_encoded_bytes() == HANDOVER_ARGUMENT.to_bytes())
}

/// Splits this process, which must have one thread only. The parent becomes the init; it comes back, with nothing, only if it could not
/// and the agent has ended.
pub fn split() -> io::Result<Option<Successor>> {
    let (order_read, order) = pipe_with(PipeFlags::CLOEXEC)?;
    let (answer, answer_write) = pipe_with(PipeFlags::CLOEXEC)?;
    if process::fork()? {
        return Ok(Some(Successor { order: order.into(), answer: answer.into() }));
    }
    drop((order, answer));
    // The agent's sockets are not the init's.
    descriptor::close_inherited();
    let reason = match read_order(order_read.into()) {
        Ok(program) => execute(&program),
        Err(error) => error.to_string(),
    };
    let _ = File::from(answer_write).write_all(reason.as_bytes());
    // The agent says what was wrong.
    while !process::is_childless() {
        std::thread::sleep(LOOK);
    }
    Ok(None)
}

impl Successor {
    /// Lets the init begin. The error is why it could not.
    pub fn begin(mut self, program: &InitProgram) -> io::Result<()> {
        let order = frame::encode(0, Flags::NONE, &Kind::Bootstrap, program);
        self.order.write_all(&order.map_err(|error| io::Error::other(error.to_string()))?)?;
        drop(self.order);
        let mut reason = String::new();
        self.answer.take(MAX_REASON).read_to_string(&mut reason)?;
        if reason.is_empty() { Ok(()) } else { Err(io::Error::other(reason)) }
    }
}

fn read_order(pipe: File) -> io::Result<InitProgram> {
    let mut text = Vec::new();
    pipe.take(MAX_ORDER).read_to_end(&mut text)?;
    let parse = || {
        FrameDecoder::default().decode(&mut BytesMut::from(&text[..]))?.ok_or(ProtocolError::Truncated)?.open()?.parse()
    };
    parse().map_err(|error| io::Error::other(format!("the agent gave no order: {error}")))
}

/// Returns only if no candidate could be executed: why not.
fn execute(program: &InitProgram) -> String {
    let owns_machine = machine::is_ours();
    rustix::process::umask(Mode::from_raw_mode(0o022));
    if owns_machine {
        let console = rustix::fs::open("/dev/console", OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())
            .or_else(|_| rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty()));
        if let Ok(console) = console {
            let _ = rustix::stdio::dup2_stdin(&console);
            let _ = rustix::stdio::dup2_stdout(&console);
            let _ = rustix::stdio::dup2_stderr(&console);
        }
    } else {
        let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
    }
    let _ = rustix::process::chdir("/");
    let mut tried = Vec::new();
    for candidate in &program.candidates {
        if !owns_machine && systemd(candidate).is_some() {
            return format!(
                "{candidate} is systemd, which mounts file systems and manages control groups: a container may do neither; ask for \
                 isolation=\"microvm\""
            );
        }
        match execute_one(candidate, program) {
            Errno::NOENT if program.candidates.len() > 1 => tried.push(format!("{candidate}: absent")),
            error => tried.push(format!("{candidate}: {}", io::Error::from(error))),
        }
    }
    format!("no init could be executed; tried {}", tried.join(", "))
}

fn execute_one(candidate: &str, program: &InitProgram) -> Errno {
    let words = std::iter::once(candidate).chain(program.args.iter().map(String::as_str));
    // By its own name, under which programs look for it in `/proc/1/comm`: it takes that name itself, but seconds later.
    let path = systemd(candidate).map_or_else(|| candidate.into(), |real| real.into_os_string().into_vec());
    let (Ok(path), Ok(argv), Ok(envp)) = (
        CString::new(path),
        words.map(c_word).collect::<Result<Vec<_>, _>>(),
        program.env.iter().map(|pair| c_word(pair)).collect::<Result<Vec<_>, _>>(),
    ) else {
        return Errno::INVAL;
    };
    process::exec_path(&path, &argv, &envp)
}

/// Where systemd is, if it is what the path leads to.
fn systemd(path: &str) -> Option<PathBuf> {
    std::fs::canonicalize(path).ok().filter(|real| real.file_name().is_some_and(|name| name == "systemd"))
}

/// What asks the running init to end the machine.
///
/// | init | signal | source |
/// |---|---|---|
/// | systemd | `SIGRTMIN+4` | systemd(1), "Signals" |
/// | busybox | `SIGUSR2` | busybox `init/init.c`: `poweroff` |
/// | any other | `SIGTERM` | what a process is asked with |
pub fn request() -> i32 {
    let name = std::fs::read_to_string("/proc/1/comm").unwrap_or_default();
    let program = std::fs::read_link("/proc/1/exe").unwrap_or_default();
    if name.trim_end() == "systemd" || program.file_name() == Path::new("systemd").file_name() {
        return SYSTEMD_POWER_OFF;
    }
    let is_busybox = name.trim_end() == "init" && program.file_name() == Path::new("busybox").file_name();
    if is_busybox { libc::SIGUSR2 } else { libc::SIGTERM }
}
