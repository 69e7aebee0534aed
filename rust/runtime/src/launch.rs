//! The launch job: prepares the sandbox directory, lets the driver boot the guest, supervises it to its end.

use microsandbox_contract::{LAUNCH_VERSION, LaunchSpec, Report};
use microsandbox_protocol::frame::Flags;
use microsandbox_protocol::message::Kind;
use rustix::fd::OwnedFd;
use rustix::io::Errno;

use crate::channel::Channel;
use crate::directory::{self, SandboxDir};
use crate::driver::{self, Boot};
use crate::identity;
use crate::logs::{ExecLog, TextLog};
use crate::own_ids::OwnIds;
use crate::report::Reporter;
use crate::steps::{Steps, epoch_ms};
use crate::supervise::{Lines, Parts, Supervisor};
use microsandbox_contract::Step;
use microsandbox_contract::note::{Failure, failed};
use microsandbox_jail::ids;
use microsandbox_sys::inherited;

/// The inherited descriptors of a launch.
pub struct Inherited {
    pub lifeline: Option<OwnedFd>,
    pub owner: Option<OwnedFd>,
    pub payload: Option<OwnedFd>,
    pub vmm: Option<OwnedFd>,
    pub kernel: Option<OwnedFd>,
}

/// Runs the job; the result is the exit code of the process.
pub fn run(spec: Box<LaunchSpec>, inherited: Inherited, reporter: &mut Reporter, mut steps: Steps) -> i32 {
    // A terminal's Ctrl-C is for the creator, who decides what becomes of its sandboxes.
    let _ = rustix::process::setsid();
    steps.set_failpoint(spec.fail_at);
    let logs = match open_logs(&spec) {
        Ok(dir) => dir,
        Err(failure) => {
            reporter.send(&Report::BootError(failure.into_boot_error(epoch_ms(), String::new())));
            return 1;
        }
    };
    match boot(spec, inherited, steps) {
        Ok(supervisor) => supervisor.run(reporter),
        Err(failure) => {
            let error = failure.into_boot_error(epoch_ms(), String::new());
            if let Ok(text) = serde_json::to_vec(&error) {
                let _ = directory::publish(&logs, "boot-error.json", &text);
            }
            reporter.send(&Report::BootError(error));
            1
        }
    }
}

/// Opens `logs/`, so that even the earliest failure leaves its document.
fn open_logs(spec: &LaunchSpec) -> Result<OwnedFd, Failure> {
    let step = Step::ReadSpec;
    if spec.version != LAUNCH_VERSION {
        let text = format!("launch contract version {} instead of {LAUNCH_VERSION}", spec.version);
        return Err(Failure::new(step, text, "runtime and SDK are of different builds: install the package again"));
    }
    directory::open_logs(&spec.sandbox_dir).map_err(failed(
        Step::OpenSandbox,
        format!("open {}", spec.sandbox_dir.display()),
        directory::HINT,
    ))
}

fn boot(mut spec: Box<LaunchSpec>, inherited: Inherited, mut steps: Steps) -> Result<Supervisor, Failure> {
    steps.begin(Step::ReadSpec);
    let refused = |text: String| Failure::new(Step::ReadSpec, text, ids::MAP_HINT);
    ids::lines(&spec.ids).map_err(refused)?;
    let driver = driver::of_kind(spec.driver);
    spec.bootstrap.machine = driver.machine(&spec);
    let agent = inherited.payload.ok_or_else(|| Failure::new(Step::ReadSpec, "no agent was handed over", ""))?;
    inherited::settle_ceilings(spec.bootstrap.rlimits.iter().map(|limit| (limit.resource.as_str(), limit.hard)));
    steps.finish(Step::ReadSpec);

    steps.begin(Step::OpenSandbox);
    let dir = SandboxDir::open(&spec.sandbox_dir, ids::root_ids(&spec.ids)).map_err(failed(
        Step::OpenSandbox,
        format!("prepare {}", spec.sandbox_dir.display()),
        directory::HINT,
    ))?;
    for (place, name) in [(&dir.runtime, "identity.json"), (&dir.runtime, "exit.json"), (&dir.logs, "boot-error.json")]
    {
        directory::remove_file(place, name).map_err(failed(
            Step::OpenSandbox,
            format!("remove the {name} of an earlier run"),
            directory::HINT,
        ))?;
    }
    steps.finish(Step::OpenSandbox);

    let mut parts = prepare(&spec, dir, inherited.lifeline, inherited.owner)?;
    let mut own_ids = OwnIds::take(&mut spec, &parts.dir);
    let boot = Boot {
        spec: &spec,
        dir: &parts.dir,
        own_ids: &mut own_ids,
        agent: Some(agent),
        vmm: inherited.vmm,
        kernel: inherited.kernel,
    };
    let guest = driver.boot(boot, &mut steps)?;
    parts.ids_lock = own_ids.into_lock();
    Ok(Supervisor::new(*spec, guest, parts, steps))
}

/// Everything the supervisor needs, so that nothing of it can fail once the guest exists.
fn prepare(
    spec: &LaunchSpec,
    dir: SandboxDir,
    lifeline: Option<OwnedFd>,
    owner: Option<OwnedFd>,
) -> Result<Parts, Failure> {
    let step = Step::OpenSandbox;
    let mut channel = Channel::unconnected();
    channel.send(Flags::NONE, &Kind::Bootstrap, &spec.bootstrap).map_err(|error| {
        let hint = "make the environment of the sandbox smaller";
        Failure::new(step, format!("the agent's settings do not fit into a message: {error}"), hint)
    })?;
    let lines = Lines::watch(lifeline, owner).map_err(failed(step, "watch for signals", directory::HINT))?;
    let logs = || rustix::io::fcntl_dupfd_cloexec(&dir.logs, 0);
    let open = || -> Result<_, Errno> {
        let log = ExecLog::open(logs()?, spec.logs.max_bytes, spec.logs.rotations)?;
        Ok((log, TextLog::new(logs()?, "kernel.log"), TextLog::new(logs()?, "runtime.log")))
    };
    let (log, kernel_log, runtime_log) = open().map_err(failed(step, "open the logs", directory::HINT))?;
    let own = identity::of(std::process::id() as i32)
        .ok_or_else(|| Failure::new(step, "/proc does not show this process", "mount /proc on the host"))?;
    Ok(Parts { dir, channel, lines, log, kernel_log, runtime_log, own, ids_lock: None })
}
