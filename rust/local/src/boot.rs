//! From a stored specification to a running agent.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::time::Duration;

use microsandbox_contract::{
    self as contract, BootError, Driver, HostIds, IdMap, Job, KernelSpec, LAUNCH_VERSION, LaunchSpec, Lifecycle,
    LogLimits, Report, ResourceLimits, RootSpec, Step,
};
use microsandbox_protocol::message::{BASE_PATH, Bootstrap, InitProgram, Rlimit};

use super::{isolation, reconcile, root};
use crate::guest_kernel::{self, GuestKernel};
use microsandbox_core::config::Limits;
use microsandbox_core::error::{BootFailure, MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{BootTrace, EnvVar, InitConfig, Isolation, LogLevel, SandboxSpec, SecurityProfile};
use microsandbox_core::undo::Cut;
use microsandbox_home::label::Label;
use microsandbox_home::{Home, blocking, embedded, failpoint, process, runtime_process};

/// What a runtime gets beyond its own deadline before it counts as hung.
const REPORT_GRACE: Duration = Duration::from_secs(10);
/// What a runtime whose boot failed, or is not wanted any more, gets to clean up and exit.
const CLEAN_UP: Duration = Duration::from_secs(5);
/// From TERM to KILL inside.
const STOP_GRACE: Duration = Duration::from_secs(5);
/// `exec.drain_deadline`.
const DRAIN: Duration = Duration::from_secs(2);
/// `agent.clients`.
const MAX_CLIENTS: u32 = 512;
/// 10 MiB and three older files.
const LOG_LIMITS: LogLimits = LogLimits { max_bytes: 10 << 20, rotations: 4 };

/// A runtime process that was started for a sandbox and has not reported yet. Dropping it kills the process.
pub struct Booting {
    process: Option<runtime_process::RuntimeProcess>,
    lifeline: Option<OwnedFd>,
    name: String,
    ready_timeout: Duration,
}

/// A sandbox whose agent answers.
pub struct Booted {
    pub pidfd: OwnedFd,
    /// The writing end that keeps an attached sandbox alive.
    pub lifeline: OwnedFd,
}

/// Where a guest lives and what it starts from.
pub struct Ground<'a> {
    pub dir: &'a Path,
    pub root: RootSpec,
    /// Of the image.
    pub env: Vec<EnvVar>,
    /// From spawn to the agent's ready.
    pub ready_timeout: Duration,
}

/// Prepares the directory and starts the runtime.
pub async fn begin(home: &Home, spec: &SandboxSpec, trace: &mut BootTrace, cut: &Cut) -> MicrosandboxResult<Booting> {
    let dir = home.sandbox_dir(&spec.name);
    let (owned, place, scripts) = (home.clone(), dir.clone(), spec.clone());
    blocking(move || {
        prepare_directory(&place, &owned.id_map()?)?;
        write_scripts(&place, &scripts)
    })
    .await?;
    trace.finish("directory");
    // What it makes is in the cache, complete or not there, and belongs to no sandbox.
    let (root, env) = cut.or(root::assemble(home, spec)).await?;
    step("rootfs", cut).await;
    cut.check()?;
    trace.finish("image");
    let ready_timeout = isolation::ready_timeout(home, spec.isolation_actual).await;
    launch(home, spec, Ground { dir: &dir, root, env, ready_timeout }, trace).await
}

/// Starts the runtime for a guest in a prepared directory. The canary comes this way, too.
pub async fn launch(
    home: &Home,
    spec: &SandboxSpec,
    ground: Ground<'_>,
    trace: &mut BootTrace,
) -> MicrosandboxResult<Booting> {
    let Ground { dir, ready_timeout, .. } = ground;
    let (owned, place, id) = (home.clone(), dir.to_owned(), spec.id.clone());
    let prepare = move || {
        // A canary has no id: no record ever names it.
        let label = (!id.is_empty()).then(|| Label::new(owned.path(), &id));
        Ok((new_token(&place)?, open_runtime_log(&place)?, (owned.id_map()?, owned.run_ids()?), label))
    };
    let (token, runtime_log, ids, label) = blocking(prepare).await?;
    let kernel = match driver(spec) {
        Driver::Container => None,
        Driver::Microvm => Some(guest_kernel(home).await?),
    };
    let strict = home.config().limits == Limits::Strict;
    let launch = LaunchSpec {
        strict_limits: strict,
        ..launch_spec(spec, ground, ids, kernel.as_ref().map(|kernel| kernel.spec), token)
    };
    let (lifeline_read, lifeline_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| MicrosandboxError::Io { context: "create the lifeline".into(), source: e.into() })?;
    let handover = runtime_process::Handover {
        lifeline: Some(lifeline_read),
        payload: Some(embedded::agent()?),
        sources: &[],
        stderr: Some(runtime_log.into()),
        vmm: kernel.as_ref().map(|_| embedded::vmm()).transpose()?,
        kernel: kernel.as_ref().map(|kernel| kernel.file.as_fd()),
        label,
    };
    let process = runtime_process::spawn(&Job::Launch(Box::new(launch)), handover)?;
    trace.finish("spawn");
    Ok(Booting { process: Some(process), lifeline: Some(lifeline_write), name: spec.name.clone(), ready_timeout })
}

/// Rows of earlier versions have no isolation: they were containers.
fn driver(spec: &SandboxSpec) -> Driver {
    match spec.isolation_actual {
        Some(Isolation::Microvm) => Driver::Microvm,
        Some(Isolation::Container | Isolation::Auto) | None => Driver::Container,
    }
}

async fn guest_kernel(home: &Home) -> MicrosandboxResult<GuestKernel> {
    let config = home.config().clone();
    blocking(move || guest_kernel::locate(&config)).await
}

impl Booting {
    pub fn pid(&self) -> i32 {
        self.process.as_ref().map_or(0, |process| process.pid)
    }

    /// Waits for the agent, or for the reason why there will be none. May be dropped anywhere; [`Booting::end`] then ends it.
    pub async fn ready(&mut self, trace: &mut BootTrace) -> MicrosandboxResult<Booted> {
        let name = self.name.clone();
        let report = match &mut self.process {
            // The runtime has its own deadline; this one only guards against a runtime that hangs.
            Some(process) => tokio::time::timeout(self.ready_timeout + REPORT_GRACE, process.reports.next()).await,
            None => return Err(MicrosandboxError::InvalidState(format!("sandbox {name} is not booting"))),
        };
        match report {
            Ok(Ok(Some(Report::Ready(ready)))) => match (self.process.take(), self.lifeline.take()) {
                (Some(process), Some(lifeline)) => {
                    trace.runtime(
                        ready.timings.into_iter().map(|timing| (timing.step.as_str().to_owned(), timing.at_us)),
                    );
                    trace.finish("reported");
                    Ok(Booted { pidfd: process.pidfd, lifeline })
                }
                _ => Err(MicrosandboxError::InvalidState(format!("sandbox {name} is not booting"))),
            },
            Ok(Ok(Some(Report::BootError(error)))) => {
                // After this report the runtime process cleans up and exits.
                Err(boot_failure(&name, error))
            }
            Ok(Ok(Some(other))) => Err(MicrosandboxError::Runtime(format!("msb-runtime of {name} sent {other:?}"))),
            Ok(Ok(None)) => Err(boot_failure(&name, died())),
            Ok(Err(error)) => Err(error),
            Err(_elapsed) => Err(boot_failure(&name, silent())),
        }
    }

    /// Ends it. Until its runtime is gone, that may still be making what is to be removed; the end of its lifeline makes it exit,
    /// and it reaps the first process of the sandbox.
    pub async fn end(mut self) {
        drop(self.lifeline.take());
        if let Some(process) = self.process.take() {
            runtime_process::end(process.pidfd, CLEAN_UP).await;
        }
    }
}

impl Booted {
    /// Ends it by force, as [`reconcile::kill`] does.
    pub async fn end(self, dir: &Path) {
        drop(self.lifeline);
        if let Some(identity) = reconcile::identity(dir).await
            && let Some(init) = process::open(&identity.init)
        {
            runtime_process::kill(init.as_fd());
        }
        runtime_process::end(self.pidfd, CLEAN_UP).await;
    }
}

impl Drop for Booting {
    fn drop(&mut self) {
        if let Some(process) = self.process.take() {
            runtime_process::kill(process.pidfd.as_fd());
            runtime_process::reap_in_background(process.pidfd);
        }
    }
}

fn died() -> BootError {
    plain_error("msb-runtime exited before reporting ready", "read logs/runtime.log in the sandbox's directory")
}

fn silent() -> BootError {
    plain_error("msb-runtime did not report ready in time", "read logs/runtime.log in the sandbox's directory")
}

fn plain_error(message: &str, hint: &str) -> BootError {
    BootError {
        t: 0,
        stage: Step::Runtime.stage(),
        step: Step::Runtime,
        message: message.into(),
        errno: None,
        hint: hint.into(),
        log_tail: String::new(),
    }
}

fn boot_failure(name: &str, error: BootError) -> MicrosandboxError {
    MicrosandboxError::BootStart(Box::new(BootFailure {
        name: name.into(),
        stage: error.stage,
        step: error.step.as_str().to_owned(),
        errno: error.errno,
        message: error.message,
        hint: error.hint,
        log_tail: error.log_tail,
    }))
}

/// `<dir>/{logs,runtime,upper,work}`; the last two belong to the inside root.
pub fn prepare_directory(dir: &Path, ids: &IdMap) -> MicrosandboxResult<()> {
    for part in ["logs", "runtime"] {
        microsandbox_home::make_private_directory(&dir.join(part))?;
    }
    for stale in ["runtime/identity.json", "runtime/exit.json", "runtime/agent.sock", "logs/boot-error.json"] {
        match std::fs::remove_file(dir.join(stale)) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => {
                return Err(MicrosandboxError::io("remove", &dir.join(stale), e));
            }
            _ => {}
        }
    }
    for part in ["upper", "work"] {
        let path = dir.join(part);
        match std::fs::DirBuilder::new().mode(0o755).create(&path) {
            Ok(()) => {}
            Err(e) if e.kind() == std::io::ErrorKind::AlreadyExists => continue,
            Err(e) => return Err(MicrosandboxError::io("create", &path, e)),
        }
        // The caller's umask must not decide who may traverse the guest's root.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| MicrosandboxError::io("set the mode of", &path, e))?;
        if let Some((uid, gid)) = microsandbox_home::ids::inside_root(ids) {
            std::os::unix::fs::chown(&path, Some(uid), Some(gid))
                .map_err(|e| MicrosandboxError::io("change the owner of", &path, e))?;
        }
    }
    Ok(())
}

/// Files for `/.msb/scripts`; a body without a shebang runs under the sandbox's shell.
fn write_scripts(dir: &Path, spec: &SandboxSpec) -> MicrosandboxResult<()> {
    if spec.runtime.scripts.is_empty() {
        return Ok(());
    }
    let scripts = dir.join("scripts");
    std::fs::create_dir_all(&scripts).map_err(|e| MicrosandboxError::io("create", &scripts, e))?;
    let shell = spec.runtime.shell.as_deref().unwrap_or(microsandbox_core::model::DEFAULT_SHELL);
    for (name, body) in &spec.runtime.scripts {
        let text = if body.starts_with("#!") { body.clone() } else { format!("#!{shell}\n{body}") };
        let path = scripts.join(name);
        std::fs::write(&path, text).map_err(|e| MicrosandboxError::io("write", &path, e))?;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))
            .map_err(|e| MicrosandboxError::io("set the mode of", &path, e))?;
    }
    std::fs::set_permissions(&scripts, std::fs::Permissions::from_mode(0o755))
        .map_err(|e| MicrosandboxError::io("set the mode of", &scripts, e))
}

fn open_runtime_log(dir: &Path) -> MicrosandboxResult<std::fs::File> {
    let path = dir.join("logs/runtime.log");
    let opened = std::fs::File::options().append(true).create(true).mode(0o600).open(&path);
    opened.map_err(|error| MicrosandboxError::io("open", &path, error))
}

/// A new session token for this run, readable by the owner of the home only.
fn new_token(dir: &Path) -> MicrosandboxResult<Vec<u8>> {
    let mut token = vec![0u8; 32];
    let path = dir.join("runtime/token");
    let mut filled = 0;
    while filled < token.len() {
        filled += rustix::rand::getrandom(&mut token[filled..], rustix::rand::GetRandomFlags::empty())
            .map_err(|e| MicrosandboxError::Io { context: "read random bytes".into(), source: e.into() })?;
    }
    let write = || -> std::io::Result<()> {
        let mut file = std::fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(&path)?;
        std::io::Write::write_all(&mut file, &token)
    };
    write().map_err(|e| MicrosandboxError::io("write", &path, e))?;
    Ok(token)
}

fn launch_spec(
    spec: &SandboxSpec,
    ground: Ground<'_>,
    (ids, private_ids): (IdMap, Vec<HostIds>),
    kernel: Option<KernelSpec>,
    token: Vec<u8>,
) -> LaunchSpec {
    let ms = |secs: Option<f64>| secs.map(|secs| (secs * 1000.0).ceil() as u64);
    let millis = |duration: Duration| duration.as_millis() as u64;
    let image = &spec.image_defaults;
    let Ground { dir, root, env, ready_timeout } = ground;
    LaunchSpec {
        version: LAUNCH_VERSION,
        name: spec.name.clone(),
        driver: driver(spec),
        sandbox_dir: dir.to_owned(),
        ids,
        private_ids,
        root,
        hostname: spec.runtime.hostname.clone().unwrap_or_else(|| derived_hostname(&spec.name)),
        limits: ResourceLimits {
            cpus: u32::from(spec.resources.cpus),
            memory_mib: u64::from(spec.resources.memory_mib),
            pids: spec.resources.pids,
        },
        kernel,
        lifecycle: Lifecycle {
            idle_timeout_ms: ms(spec.lifecycle.idle_timeout_secs),
            max_duration_ms: ms(spec.lifecycle.max_duration_secs),
            ready_timeout_ms: millis(ready_timeout),
            stop_grace_ms: millis(STOP_GRACE),
        },
        logs: LOG_LIMITS,
        bootstrap: Bootstrap {
            token,
            env: env.iter().chain(&spec.env).map(|var| format!("{}={}", var.key, var.value)).collect(),
            makes_cwd: spec.runtime.workdir.is_none() && image.workdir.is_some(),
            cwd: spec.runtime.workdir.clone().or_else(|| image.workdir.clone()).unwrap_or_else(|| "/".into()),
            user: spec.runtime.user.clone().or_else(|| image.user.clone()),
            rlimits: spec
                .rlimits
                .iter()
                .map(|limit| Rlimit { resource: limit.resource.clone(), soft: limit.soft, hard: limit.hard })
                .collect(),
            shutdown_grace_ms: millis(STOP_GRACE),
            drain_ms: millis(DRAIN),
            max_clients: MAX_CLIENTS,
            machine: None,
            init: spec.init.as_ref().map(|init| init_program(init, &env, spec)),
            restricted: spec.security_profile == SecurityProfile::Restricted,
        },
        log_level: spec.runtime.log_level.map(log_level),
        strict_limits: false,
        fail_at: runtime_failpoint(),
    }
}

fn log_level(level: LogLevel) -> contract::LogLevel {
    match level {
        LogLevel::Error => contract::LogLevel::Error,
        LogLevel::Warn => contract::LogLevel::Warn,
        LogLevel::Info => contract::LogLevel::Info,
        LogLevel::Debug => contract::LogLevel::Debug,
        LogLevel::Trace => contract::LogLevel::Trace,
    }
}

/// Paths at which an image has its init; the last three are looked for where nothing is said (systemd(1), Filesystem
/// Hierarchy Standard 3.0 section 3.16.2).
const INITS: [&str; 4] = ["/init", "/sbin/init", "/lib/systemd/systemd", "/usr/lib/systemd/systemd"];

fn init_program(init: &InitConfig, image_env: &[EnvVar], spec: &SandboxSpec) -> InitProgram {
    let entrypoint = spec.runtime.entrypoint.as_ref().or(spec.image_defaults.entrypoint.as_ref());
    let entrypoint = entrypoint.and_then(|words| words.first()).filter(|first| INITS.contains(&first.as_str()));
    let candidates = match (init.cmd.as_str(), entrypoint) {
        ("auto", Some(entrypoint)) => vec![entrypoint.clone()],
        ("auto", None) => INITS[1..].iter().map(|path| (*path).to_owned()).collect(),
        (cmd, _) => vec![cmd.to_owned()],
    };
    // Later ones win, as for programs; the kernel gives an init the first three.
    let mut env = BTreeMap::from([("HOME", "/"), ("TERM", "linux"), ("PATH", BASE_PATH)]);
    env.extend(image_env.iter().chain(&spec.env).map(|var| (var.key.as_str(), var.value.as_str())));
    env.extend(init.env.iter().map(|(key, value)| (key.as_str(), value.as_str())));
    let env = env.into_iter().map(|(key, value)| format!("{key}={value}")).collect();
    InitProgram { candidates, args: init.args.clone(), env }
}

/// The hostname of a sandbox that was given none. A name over 64 bytes becomes its first 55, a dash and 8 hex digits of its
/// SHA-256. Names are ASCII.
pub fn derived_hostname(name: &str) -> String {
    match name.get(..55) {
        Some(begin) if name.len() > 64 => {
            use sha2::Digest as _;
            format!("{begin}-{}", &hex::encode(sha2::Sha256::digest(name.as_bytes()))[..8])
        }
        _ => name.to_owned(),
    }
}

/// A named step of a creation or a start: [`failpoint::pause`], and with `MSB_FAILPOINT=hold.<step>` the place where it makes
/// the file that `MSB_FAILPOINT_MARK` names and waits for the end of its caller, so that tests can cancel it right there.
pub async fn step(name: &str, cut: &Cut) {
    failpoint::pause(name).await;
    #[cfg(not(feature = "failpoints"))]
    let _ = cut;
    #[cfg(feature = "failpoints")]
    if failpoint::wanted("hold.").as_deref() == Some(name) {
        if let Some(mark) = std::env::var_os("MSB_FAILPOINT_MARK") {
            let _ = std::fs::write(mark, name);
        }
        cut.happens().await;
    }
}

/// `MSB_FAILPOINT=runtime.<step>` kills the runtime there.
#[cfg(feature = "failpoints")]
fn runtime_failpoint() -> Option<Step> {
    failpoint::wanted("runtime.").as_deref().map(Step::parse)
}

#[cfg(not(feature = "failpoints"))]
fn runtime_failpoint() -> Option<Step> {
    None
}
