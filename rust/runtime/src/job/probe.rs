//! The probe job: which mechanisms this machine gives, found out by booting an empty sandbox up to the point where the
//! agent would be executed. Nothing of it stays.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use microsandbox_contract::{
    Driver, IsolationDriver, IsolationReport, JobError, JobErrorKind, LAUNCH_VERSION, LaunchSpec, Lifecycle, LogLimits,
    Lower, Mechanism, MechanismName, MechanismState, ProbeSpec, Report, ResourceLimits, RootSpec,
};
use microsandbox_protocol::message::Bootstrap;
use microsandbox_rooted::remove;
use microsandbox_sys::process;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{self, CWD, Mode};
use rustix::io::Errno;
use rustix::process::Signal;

use crate::directory::SandboxDir;
use crate::driver::container::Container;
use crate::driver::{Boot, Driver as _, Guest};
use crate::own_ids::OwnIds;
use crate::report::Reporter;
use crate::steps::Steps;
use microsandbox_contract::Step;
use microsandbox_contract::isolation::replace;
use microsandbox_contract::note::Failure;
use microsandbox_contract::note::Note;
use microsandbox_jail::{ids, landlock};

/// How long the empty sandbox may take.
const DEADLINE: Duration = Duration::from_secs(20);

/// Runs the job; the result is the exit code of the process.
pub fn run(spec: &ProbeSpec, reporter: &mut Reporter) -> i32 {
    match probe(spec) {
        Ok(report) => {
            reporter.send(&Report::Probed(report));
            0
        }
        Err(error) => {
            reporter.send(&Report::Failed(error));
            1
        }
    }
}

fn probe(spec: &ProbeSpec) -> Result<IsolationReport, JobError> {
    if spec.version != LAUNCH_VERSION {
        return Err(refused(&format!("launch contract version {} instead of {LAUNCH_VERSION}", spec.version), None));
    }
    let scratch = spec.scratch.join(format!(".msb-probe-{}", std::process::id()));
    let made = make_scratch(&scratch);
    let mut mechanisms = match made {
        Ok(()) => attempt(spec, &scratch),
        Err(error) => Err(refused(&format!("make {}", scratch.display()), Some(error))),
    };
    // Files in it belong to mapped ids only where the caller may remove those.
    let removed = remove::tree(&scratch);
    if let Ok(lines) = &mut mechanisms {
        removed.map_err(|error| refused(&format!("remove {}", scratch.display()), Some(error)))?;
        lines.push(landlock::confine_supervisor(&spec.scratch, &[]));
    }
    Ok(IsolationReport { driver: IsolationDriver::Container, accelerator: None, mechanisms: mechanisms? })
}

fn make_scratch(scratch: &Path) -> Result<(), Errno> {
    fs::mkdirat(CWD, scratch, Mode::from_raw_mode(0o755))?;
    fs::mkdirat(CWD, scratch.join("lower"), Mode::from_raw_mode(0o755))
}

fn attempt(spec: &ProbeSpec, scratch: &Path) -> Result<Vec<Mechanism>, JobError> {
    let call = |what: &'static str| move |error: Errno| refused(what, Some(error));
    let mut launch = empty_sandbox(spec, scratch);
    if let Err(message) = ids::lines(&launch.ids) {
        return Ok(vec![Mechanism::new(MechanismName::Container, MechanismState::Off, message)]);
    }
    let dir = SandboxDir::open(scratch, ids::root_ids(&launch.ids)).map_err(call("prepare the probe's directory"))?;
    let mut steps = Steps::new(Instant::now());
    let mut own_ids = OwnIds::take(&mut launch, &dir);
    let boot = Boot { spec: &launch, dir: &dir, own_ids: &mut own_ids, agent: None, vmm: None, kernel: None };
    match Container.boot(boot, &mut steps) {
        Ok(guest) => Ok(watch(guest)),
        Err(failure) => Ok(vec![unusable(&failure)]),
    }
}

/// Reads what the child reports until the child ends.
fn watch(mut guest: Guest) -> Vec<Mechanism> {
    let deadline = Instant::now() + DEADLINE;
    let mut text = Vec::new();
    let mut ended = false;
    while let Some(notes) = guest.notes.as_ref().filter(|_| !ended) {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
        if poll(&mut [PollFd::new(notes, PollFlags::IN)], Some(&timeout)) == Ok(0) {
            break;
        }
        let mut room = [0; 4096];
        match rustix::io::read(notes, &mut room) {
            Ok(0) => ended = true,
            Ok(count) => text.extend_from_slice(&room[..count]),
            Err(Errno::AGAIN | Errno::INTR) => {}
            Err(_) => ended = true,
        }
    }
    let _ = rustix::process::pidfd_send_signal(&guest.pidfd, Signal::KILL);
    let _ = poll(&mut [PollFd::new(&guest.pidfd, PollFlags::IN)], None);
    let _ = process::reap(guest.pid);
    let mut lines = std::mem::take(&mut guest.isolation.mechanisms);
    lines.push(guest.cgroups.tree_kill());
    guest.cgroups.remove();
    let verdict = judge(&text, ended, &mut lines);
    lines.insert(0, verdict);
    lines
}

fn judge(notes: &[u8], ended: bool, lines: &mut Vec<Mechanism>) -> Mechanism {
    let mut reached = false;
    for line in notes.split(|&byte| byte == b'\n').filter(|line| !line.is_empty()) {
        match serde_json::from_slice(line) {
            Ok(Note::Done(step, _)) => reached |= step == Step::ExecuteAgent,
            Ok(Note::Mechanism(line)) => replace(lines, line),
            Ok(Note::Failed(failure)) => return unusable(&failure),
            Ok(Note::Failpoint) | Err(_) => {}
        }
    }
    if reached {
        return Mechanism::on(MechanismName::Container);
    }
    let text = if ended { "the empty sandbox was killed" } else { "the empty sandbox did not get ready in time" };
    Mechanism::new(MechanismName::Container, MechanismState::Off, text)
}

/// The driver cannot be used at all: the step that failed, why, and what to do.
fn unusable(failure: &Failure) -> Mechanism {
    let text = format!("{}: {} ({})", failure.step.as_str(), failure.message, failure.hint);
    Mechanism::new(MechanismName::Container, MechanismState::Off, text)
}

fn empty_sandbox(probe: &ProbeSpec, scratch: &Path) -> LaunchSpec {
    LaunchSpec {
        version: LAUNCH_VERSION,
        name: "probe".into(),
        driver: Driver::Container,
        sandbox_dir: PathBuf::from(scratch),
        ids: probe.ids.clone(),
        private_ids: probe.private_ids.clone(),
        root: RootSpec { lowers: vec![Lower { path: scratch.join("lower"), host_ids: false }], ..RootSpec::default() },
        hostname: "probe".into(),
        limits: ResourceLimits { cpus: 1, memory_mib: 64, pids: 16 },
        kernel: None,
        lifecycle: Lifecycle {
            idle_timeout_ms: None,
            max_duration_ms: None,
            ready_timeout_ms: DEADLINE.as_millis() as u64,
            stop_grace_ms: 0,
        },
        logs: LogLimits { max_bytes: 4096, rotations: 0 },
        bootstrap: Bootstrap::default(),
        log_level: None,
        strict_limits: false,
        fail_at: None,
    }
}

fn refused(what: &str, error: Option<Errno>) -> JobError {
    let message = match error {
        Some(error) => format!("{what}: {}", std::io::Error::from_raw_os_error(error.raw_os_error())),
        None => what.to_owned(),
    };
    JobError {
        kind: JobErrorKind::Io,
        message,
        errno: error.map(Errno::raw_os_error),
        hint: "the product home must be a directory that the user who runs this may write to".into(),
    }
}
