//! Puts a request, the sandbox's defaults and the account together and starts the process.

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use microsandbox_protocol::message::{Bootstrap, ExecRequest};
use microsandbox_sys::spawn::{self, Limit, Plan, SpawnError, Stage};
use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use crate::files::root::{self, Root};

use super::c_word;
use super::environment::Environment;
use super::failure::{Failure, FailureKind, quote};
use super::limits;
use super::program;
use super::terminal;
use super::user::{self, Account};

/// What a launch needs to know about the agent.
pub struct Context<'a> {
    pub root: &'a Root,
    pub bootstrap: &'a Bootstrap,
    /// Set before the session's own limits: the tag of its tree and the descriptor limit the agent itself raised.
    pub base_limits: &'a [Limit],
    /// The agent's own `/dev/null`.
    pub null: BorrowedFd<'a>,
}

/// A started program and our ends of its streams (non-blocking).
pub struct Launched {
    pub pid: i32,
    pub stdin: Option<OwnedFd>,
    pub stdout: OwnedFd,
    /// Absent on a terminal.
    pub stderr: Option<OwnedFd>,
}

/// The child's ends.
struct Ends {
    stdin: Option<OwnedFd>,
    stdout: OwnedFd,
    stderr: Option<OwnedFd>,
}

/// Starts `request`.
pub fn launch(context: &Context<'_>, request: &ExecRequest) -> Result<Launched, Failure> {
    let bootstrap = context.bootstrap;
    let account = account(context, request)?;
    let env = Environment::compose(&bootstrap.env, &account, &request.env, request.tty)?;
    let candidates = program::candidates(&request.cmd, env.get("PATH").unwrap_or(""))?;
    let argv = arguments(request)?;
    let mut limits = context.base_limits.to_vec();
    limits.extend(limits::parse(&bootstrap.rlimits)?);
    limits.extend(limits::parse(&request.rlimits)?);
    let cwd = open_cwd(context, request)?;
    let (ours, theirs) = streams(context, request, account.uid)?;
    let slave = theirs.stdout.as_fd();
    let plan = Plan {
        argv,
        envp: env.to_c()?,
        candidates,
        stdin: match &theirs.stdin {
            Some(fd) => fd.as_fd(),
            None if request.tty => slave,
            None => context.null,
        },
        stdout: slave,
        stderr: theirs.stderr.as_ref().map_or(slave, |fd| fd.as_fd()),
        tty: request.tty,
        cwd: cwd.as_fd(),
        limits,
        same_ids: account.uid == rustix::process::geteuid().as_raw()
            && account.gid == rustix::process::getegid().as_raw(),
        uid: account.uid,
        gid: account.gid,
        groups: &account.groups,
    };
    let pid = spawn::spawn(&plan).map_err(|error| explain(context, request, &plan, error))?;
    Ok(Launched { pid, ..ours })
}

fn account(context: &Context<'_>, request: &ExecRequest) -> Result<Account, Failure> {
    let wanted = request.user.as_deref().or(context.bootstrap.user.as_deref());
    user::resolve(context.root, wanted.unwrap_or("0"))
}

fn arguments(request: &ExecRequest) -> Result<Vec<CString>, Failure> {
    let words = std::iter::once(&request.cmd).chain(&request.args);
    words
        .enumerate()
        .map(|(index, word)| {
            c_word(word)
                .map_err(|_| Failure::new(FailureKind::BadArgs, "exec", format!("argument {index} holds a NUL byte")))
        })
        .collect()
}

fn open_cwd(context: &Context<'_>, request: &ExecRequest) -> Result<OwnedFd, Failure> {
    let fallback = if context.bootstrap.cwd.is_empty() { "/" } else { &context.bootstrap.cwd };
    let path = request.cwd.as_deref().unwrap_or(fallback);
    let bad = |code: i32, why: &str| {
        Failure::with_errno(FailureKind::BadCwd, "chdir", code, format!("working directory {}{why}", quote(path)))
    };
    if path.is_empty() || path.contains('\0') {
        return Err(bad(libc::EINVAL, " is empty or holds a NUL byte"));
    }
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    context.root.open(path, flags, Mode::empty()).map_err(|error| match error {
        root::MAGIC_LINK => bad(libc::ELOOP, " leads through a magic link of /proc"),
        error => bad(error.raw_os_error(), ""),
    })
}

fn streams(context: &Context<'_>, request: &ExecRequest, uid: u32) -> Result<(Launched, Ends), Failure> {
    if request.tty {
        let pair = terminal::open(context.root, request.rows, request.cols, uid)?;
        let stdin = if request.no_stdin { None } else { Some(duplicate(&pair.master)?) };
        let ours = Launched { pid: 0, stdin, stdout: pair.master, stderr: None };
        return Ok((ours, Ends { stdin: None, stdout: pair.slave, stderr: None }));
    }
    let (their_stdin, stdin) = if request.no_stdin {
        (None, None)
    } else {
        let (read, write) = pipe()?;
        nonblocking(&write)?;
        (Some(read), Some(write))
    };
    let (stdout, their_stdout) = pipe()?;
    let (stderr, their_stderr) = pipe()?;
    nonblocking(&stdout)?;
    nonblocking(&stderr)?;
    for pipe in their_stdin.iter().chain([&their_stdout, &their_stderr]) {
        give(pipe, uid);
    }
    let ours = Launched { pid: 0, stdin, stdout, stderr: Some(stderr) };
    Ok((ours, Ends { stdin: their_stdin, stdout: their_stdout, stderr: Some(their_stderr) }))
}

/// Makes the program's user the owner of a pipe or terminal, as runc and crun do: programs open `/dev/stdout`,
/// `/dev/stderr` and `/dev/stdin` by these names, and the kernel asks who owns what they lead to. Where the user is not
/// mapped this is refused; then the program is not started as that user either.
pub(super) fn give(stream: &OwnedFd, uid: u32) {
    if uid != rustix::process::geteuid().as_raw() {
        let _ = rustix::fs::fchown(stream, Some(Uid::from_raw(uid)), None::<Gid>);
    }
}

fn pipe() -> Result<(OwnedFd, OwnedFd), Failure> {
    pipe_with(PipeFlags::CLOEXEC).map_err(|e| machinery(e, "cannot make a pipe"))
}

/// Only our end: the flag belongs to the open file, and each end of a pipe is one of its own.
fn nonblocking(fd: &OwnedFd) -> Result<(), Failure> {
    rustix::io::ioctl_fionbio(fd, true).map_err(|e| machinery(e, "cannot set up a pipe"))
}

fn duplicate(fd: &OwnedFd) -> Result<OwnedFd, Failure> {
    rustix::io::fcntl_dupfd_cloexec(fd, 3).map_err(|e| machinery(e, "cannot duplicate the terminal"))
}

fn machinery(error: Errno, what: &str) -> Failure {
    Failure::machinery("stdio", error.raw_os_error(), what)
}

fn explain(context: &Context<'_>, request: &ExecRequest, plan: &Plan<'_>, error: SpawnError) -> Failure {
    let code = error.errno;
    match error.stage {
        Stage::Clone => Failure::machinery("fork", code, "cannot start another process"),
        Stage::Stdio => Failure::machinery("stdio", code, "cannot connect the program's streams"),
        Stage::Pty => {
            Failure::with_errno(FailureKind::PtySetupFailed, "pty", code, "cannot make it the controlling terminal")
        }
        Stage::Rlimit => {
            let number = plan.limits.get(error.index).map_or(0, |limit| limit.resource);
            let text = format!(
                "resource limit number {number} cannot be set: a hard limit cannot be raised above the sandbox's own; create \
                 the sandbox with a higher one (rlimits)"
            );
            Failure::with_errno(FailureKind::ResourceLimit, "rlimit", code, text)
        }
        Stage::User => Failure::with_errno(FailureKind::UserSetupFailed, "user", code, user_text(plan, error)),
        Stage::Chdir => {
            let text = match (&request.cwd, code) {
                (_, libc::EXDEV) => "the working directory lies outside the sandbox".to_owned(),
                (Some(cwd), _) => format!("working directory {}", quote(cwd)),
                (None, _) => "the sandbox's working directory".to_owned(),
            };
            Failure::with_errno(FailureKind::BadCwd, "chdir", code, text)
        }
        Stage::Exec => program::explain(context.root, plan.cwd, &request.cmd, &plan.candidates, error),
    }
}

fn user_text(plan: &Plan<'_>, error: SpawnError) -> String {
    let (uid, gid) = (plan.uid, plan.gid);
    match (error.index, error.errno) {
        (0, libc::EPERM) => {
            format!("cannot become {uid}:{gid}: this sandbox has a single user id (no id range is mapped)")
        }
        (0, _) => format!("cannot set the groups of {uid}:{gid}; is one of them not mapped into the sandbox?"),
        (1, libc::EINVAL) => format!("group {gid} is not mapped into this sandbox"),
        (2, libc::EINVAL) => format!("user {uid} is not mapped into this sandbox"),
        _ => format!("cannot become {uid}:{gid}"),
    }
}
