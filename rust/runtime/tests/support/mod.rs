//! Starts the runtime as the SDK would: job and reports on agreed descriptors, nothing else inherited.
#![allow(unsafe_code, reason = "system calls that no safe wrapper makes")]
#![allow(dead_code)]

use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use microsandbox_contract::*;
use microsandbox_protocol::message::Bootstrap;

pub const BASE: u32 = 1_500_000;
pub const DEADLINE: Duration = Duration::from_secs(30);

/// Whether the tests that need host root can run; says so if not.
pub fn is_root() -> bool {
    let root = rustix::process::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

pub fn runtime_binary() -> PathBuf {
    PathBuf::from(env!("CARGO_BIN_EXE_msb-runtime"))
}

pub fn standin() -> File {
    let path = runtime_binary().parent().unwrap().join("examples/standin");
    File::open(&path).unwrap_or_else(|_| panic!("{} is missing: cargo build --example standin", path.display()))
}

/// A directory for one test, removed at its end (with the rights of this process).
pub struct Scratch(pub PathBuf);

impl Scratch {
    pub fn new(name: &str) -> Scratch {
        let path = std::env::temp_dir().join(format!("msb-rt-{name}-{}", std::process::id()));
        let _ = microsandbox_rooted::remove::tree(&path);
        std::fs::create_dir_all(path.join("lower")).unwrap();
        open_up(&path);
        Scratch(path)
    }

    pub fn sandbox(&self, name: &str) -> PathBuf {
        let path = self.0.join(name);
        std::fs::create_dir_all(&path).unwrap();
        path
    }
}

/// Mapped ids must be able to get here, whatever the umask of the test is.
pub fn open_up(path: &Path) {
    std::fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let removed = microsandbox_rooted::remove::tree(&self.0);
        if !std::thread::panicking() {
            removed.unwrap();
        }
    }
}

/// A sandbox whose root is made of the host's programs.
pub fn spec(sandbox: &Path, standin: &str) -> LaunchSpec {
    let lower = sandbox.parent().unwrap().join("lower");
    let binds = ["/usr", "/bin", "/lib", "/lib64"].map(|path| BindSpec {
        source: path.into(),
        target: path.into(),
        readonly: true,
        view: true,
        noexec: false,
        host_ids: false,
        home_ids: false,
        optional: true,
        shown_as: None,
        set_ids: false,
    });
    LaunchSpec {
        version: LAUNCH_VERSION,
        name: "test".into(),
        driver: Driver::Container,
        sandbox_dir: sandbox.to_path_buf(),
        ids: IdMap::Range { base: BASE, count: 65_536 },
        private_ids: Vec::new(),
        root: RootSpec {
            lowers: vec![Lower { path: lower, host_ids: false }],
            binds: binds.to_vec(),
            tmpfs: vec![TmpfsSpec {
                target: "/tmp".into(),
                size_bytes: 1 << 24,
                mode: 0o1777,
                readonly: false,
                noexec: false,
            }],
            pinned: Vec::new(),
        },
        hostname: "boxy".into(),
        limits: ResourceLimits { cpus: 1, memory_mib: 64, pids: 64 },
        kernel: None,
        lifecycle: Lifecycle {
            idle_timeout_ms: None,
            max_duration_ms: None,
            ready_timeout_ms: 20_000,
            stop_grace_ms: 200,
        },
        logs: LogLimits { max_bytes: 64 << 20, rotations: 2 },
        bootstrap: Bootstrap {
            token: vec![7; 32],
            env: vec![format!("STANDIN={standin}")],
            cwd: "/".into(),
            ..Bootstrap::default()
        },
        log_level: None,
        strict_limits: false,
        fail_at: None,
    }
}

/// A running `msb-runtime`.
pub struct Runtime {
    pub child: Child,
    reports: Receiver<Report>,
    pub lifeline: Option<File>,
}

/// As whom the runtime runs.
#[derive(Clone, Copy)]
pub struct User {
    pub uid: u32,
    /// Mount a private `/etc/subuid` and `/etc/subgid` that give the user this range.
    pub sub_ids: Option<(u32, u32)>,
}

pub fn start(job: &Job, payload: Option<OwnedFd>) -> Runtime {
    start_as(job, payload, None)
}

pub fn start_as(job: &Job, payload: Option<OwnedFd>, user: Option<User>) -> Runtime {
    begin(job, payload, Vec::new(), user)
}

/// With the files of an unpacking job.
pub fn start_with(job: &Job, sources: Vec<OwnedFd>) -> Runtime {
    begin(job, None, sources, None)
}

fn begin(job: &Job, payload: Option<OwnedFd>, sources: Vec<OwnedFd>, user: Option<User>) -> Runtime {
    let text = serde_json::to_vec(job).unwrap();
    let memory = rustix::fs::memfd_create("job", rustix::fs::MemfdFlags::CLOEXEC).unwrap();
    let mut spec = File::from(memory);
    spec.write_all(&text).unwrap();
    std::io::Seek::rewind(&mut spec).unwrap();
    let cloexec = rustix::pipe::PipeFlags::CLOEXEC;
    let (report_read, report_write) = rustix::pipe::pipe_with(cloexec).unwrap();
    let (life_read, life_write) = rustix::pipe::pipe_with(cloexec).unwrap();
    let owner = rustix::process::pidfd_open(rustix::process::getpid(), rustix::process::PidfdFlags::empty()).unwrap();
    let payload = payload.unwrap_or_else(|| File::open("/dev/null").unwrap().into());
    let mut handed: Vec<OwnedFd> = vec![spec.into(), report_write, life_read, owner, payload];
    if !sources.is_empty() {
        // In the places of what only a launch has.
        handed.extend([(); 2].map(|()| OwnedFd::from(File::open("/dev/null").unwrap())));
        handed.extend(sources);
    }
    let numbers: Vec<i32> = handed.iter().map(AsRawFd::as_raw_fd).collect();
    #[allow(clippy::disallowed_methods, reason = "the test stands in for the spawner")]
    let mut command = Command::new(runtime_binary());
    command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::inherit());
    // SAFETY: only system calls and no allocation that another thread's lock could block: the formatted strings of
    // `become_user` are the exception, and glibc's allocator is safe after fork.
    unsafe {
        command.pre_exec(move || {
            hand_over(&numbers)?;
            if let Some(user) = user {
                become_user(user)?;
            }
            Ok(())
        })
    };
    let child = command.spawn().unwrap();
    drop(handed);
    let (send, reports) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(File::from(report_read)).lines() {
            let Ok(line) = line else { break };
            if send.send(serde_json::from_str(&line).unwrap()).is_err() {
                break;
            }
        }
    });
    Runtime { child, reports, lifeline: Some(File::from(life_write)) }
}

fn check(result: i32) -> std::io::Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(()) }
}

fn hand_over(numbers: &[i32]) -> std::io::Result<()> {
    // SAFETY: plain descriptor calls in the child, before exec.
    unsafe {
        let mut high = [0; 16];
        for (index, &number) in numbers.iter().enumerate() {
            high[index] = libc::fcntl(number, libc::F_DUPFD, 100);
            check(high[index])?;
        }
        for (number, &source) in (fd::SPEC..).zip(&high[..numbers.len()]) {
            check(libc::dup2(source, number))?;
            libc::close(source);
        }
    }
    Ok(())
}

fn become_user(user: User) -> std::io::Result<()> {
    if let Some((first, count)) = user.sub_ids {
        // SAFETY: gives this child a mount namespace of its own.
        check(unsafe { libc::unshare(libc::CLONE_NEWNS) })?;
        let private = rustix::mount::MountPropagationFlags::PRIVATE | rustix::mount::MountPropagationFlags::REC;
        rustix::mount::mount_change("/", private)?;
        let range = format!("{}:{first}:{count}\n", user.uid);
        let people = std::fs::read_to_string("/etc/passwd")? + &format!("msbtest:x:{0}:{0}::/:/bin/sh\n", user.uid);
        for (name, text) in [("subuid", &range), ("subgid", &range), ("passwd", &people)] {
            let mine = format!("/tmp/msb-rt-{name}-{}", std::process::id());
            std::fs::write(&mine, text)?;
            let target = format!("/etc/{name}");
            rustix::mount::mount_bind(&mine, &target)?;
            std::fs::remove_file(&mine)?;
        }
    }
    // SAFETY: plain id changes in the child, before exec.
    unsafe {
        check(libc::setgroups(0, std::ptr::null()))?;
        check(libc::setresgid(user.uid, user.uid, user.uid))?;
        check(libc::setresuid(user.uid, user.uid, user.uid))?;
    }
    Ok(())
}

impl Runtime {
    pub fn launch(spec: &LaunchSpec) -> Runtime {
        start(&Job::Launch(Box::new(spec.clone())), Some(standin().into()))
    }

    pub fn launch_as(spec: &LaunchSpec, user: User) -> Runtime {
        start_as(&Job::Launch(Box::new(spec.clone())), Some(standin().into()), Some(user))
    }

    pub fn report(&self) -> Report {
        self.reports.recv_timeout(DEADLINE).expect("no report in time")
    }

    /// Every report there is, up to the end.
    pub fn reports(&self) -> Vec<Report> {
        let mut all = Vec::new();
        while let Ok(report) = self.reports.recv_timeout(DEADLINE) {
            all.push(report);
        }
        all
    }

    pub fn ready(&self) -> LaunchReady {
        match self.report() {
            Report::Ready(ready) => *ready,
            other => panic!("not ready: {other:?}"),
        }
    }

    pub fn boot_error(&self) -> BootError {
        match self.report() {
            Report::BootError(error) => error,
            other => panic!("no boot error: {other:?}"),
        }
    }

    /// Waits for the end; the exit code, or minus the signal.
    pub fn wait(&mut self) -> i32 {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code().unwrap_or_else(|| -status.signal().unwrap());
            }
            assert!(Instant::now() < deadline, "the runtime does not end");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Closes the lifeline of the sandbox and waits for its end.
    pub fn end(mut self) -> i32 {
        self.lifeline = None;
        self.wait()
    }

    pub fn signal(&self, signal: i32) {
        // SAFETY: the child is ours and not yet waited for.
        unsafe { libc::kill(self.child.id() as i32, signal) };
    }
}

impl Drop for Runtime {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

pub fn read(path: impl AsRef<Path>) -> String {
    let path = path.as_ref();
    let mut text = String::new();
    File::open(path)
        .and_then(|mut f| f.read_to_string(&mut text))
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text
}

pub fn exit_record(sandbox: &Path) -> ExitRecord {
    serde_json::from_str(&read(sandbox.join("runtime/exit.json"))).unwrap()
}

/// What the stand-in said as `session` on `source`.
pub fn logged(sandbox: &Path, session: u64, source: &str) -> String {
    let mut text = String::new();
    for line in read(sandbox.join("logs/exec.log")).lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        // What no session said has no id.
        if line["id"].as_u64().unwrap_or(0) == session && line["s"] == source {
            text.push_str(line["d"].as_str().unwrap());
        }
    }
    text
}

/// Runs a shell command in a fresh sandbox and returns what it wrote to both streams.
pub fn run_inside(spec: &LaunchSpec) -> (String, String) {
    let mut runtime = Runtime::launch(spec);
    runtime.ready();
    assert_eq!(runtime.wait(), 0);
    (logged(&spec.sandbox_dir, 7, "stdout"), logged(&spec.sandbox_dir, 7, "stderr"))
}

pub fn is_alive(who: &ProcessIdentity) -> bool {
    microsandbox_runtime::identity::of(who.pid).is_some_and(|now| now == *who)
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(5);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Control groups of this sandbox that exist, in any hierarchy.
pub fn cgroups_of(sandbox: &Path) -> Vec<PathBuf> {
    let Ok(text) = std::fs::read_to_string(sandbox.join("runtime/cgroups.json")) else { return Vec::new() };
    let all: Vec<PathBuf> = serde_json::from_str(&text).unwrap();
    all.into_iter().filter(|path| path.exists()).collect()
}

pub fn state_of(report: &IsolationReport, name: MechanismName) -> &Mechanism {
    report.mechanisms.iter().find(|m| m.name == name).unwrap_or_else(|| panic!("{name} is not reported"))
}
