//! Starting `msb-runtime`. The only place that creates a process.
//! The child gets exactly the descriptors of [`microsandbox_contract::fd`].

use std::ffi::{CStr, CString};
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use microsandbox_contract::{Job, Report, fd};
use microsandbox_sys::{posix_spawn, readable};
use rustix::fs::MemfdFlags;
use rustix::process::{Pid, PidfdFlags};
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe;

use crate::embedded;
use crate::label::{Label, PROGRAM};
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};

/// Longest line accepted from a runtime: boot errors carry a bounded log tail.
const MAX_REPORT_LINE: u64 = 4 << 20;

/// A runtime process that this process started.
pub struct RuntimeProcess {
    pub pid: i32,
    pub pidfd: OwnedFd,
    pub reports: Reports,
}

/// Descriptors beyond the specification and the report pipe.
#[derive(Default)]
pub struct Handover<'a> {
    pub lifeline: Option<OwnedFd>,
    pub payload: Option<BorrowedFd<'a>>,
    /// Of a microVM: the monitor, and the library with its guest's kernel.
    pub vmm: Option<BorrowedFd<'a>>,
    pub kernel: Option<BorrowedFd<'a>>,
    /// Files of [`fd::SOURCES`].
    pub sources: &'a [BorrowedFd<'a>],
    /// Becomes standard error: where a panic of the runtime is found again.
    pub stderr: Option<OwnedFd>,
    /// Of the runtime of a sandbox: by its arguments it is found where its files are gone.
    pub label: Option<Label>,
}

/// Lines from a runtime.
pub struct Reports {
    lines: BufReader<tokio::io::Take<pipe::Receiver>>,
}

impl Reports {
    /// The next report; `None` when the runtime closed the pipe or died.
    pub async fn next(&mut self) -> MicrosandboxResult<Option<Report>> {
        self.lines.get_mut().set_limit(MAX_REPORT_LINE);
        let mut line = String::new();
        let read = self.lines.read_line(&mut line).await;
        let count = read.map_err(|source| MicrosandboxError::Io { context: "read from msb-runtime".into(), source })?;
        if count == 0 || !line.ends_with('\n') {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).map_err(|e| MicrosandboxError::json("report of msb-runtime", e))
    }
}

/// Starts the runtime with `job`.
pub fn spawn(job: &Job, handover: Handover<'_>) -> MicrosandboxResult<RuntimeProcess> {
    let context = |source: std::io::Error| MicrosandboxError::Io { context: "start msb-runtime".into(), source };
    let text = serde_json::to_vec(job).map_err(|e| MicrosandboxError::json("job for msb-runtime", e))?;
    let spec = embedded::sealed("msb-spec", &text, MemfdFlags::empty())?;
    rustix::fs::seek(&spec, rustix::fs::SeekFrom::Start(0)).map_err(|e| context(e.into()))?;
    let (report_read, report_write) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|e| context(e.into()))?;
    let null = std::fs::File::options().read(true).write(true).open("/dev/null").map_err(context)?;
    let null = OwnedFd::from(null);
    let owner =
        rustix::process::pidfd_open(rustix::process::getpid(), PidfdFlags::empty()).map_err(|e| context(e.into()))?;

    let fixed: [(BorrowedFd<'_>, i32); 10] = [
        (null.as_fd(), 0),
        (null.as_fd(), 1),
        (handover.stderr.as_ref().map_or(null.as_fd(), AsFd::as_fd), 2),
        (spec.as_fd(), fd::SPEC),
        (report_write.as_fd(), fd::REPORT),
        (handover.lifeline.as_ref().map_or(null.as_fd(), AsFd::as_fd), fd::LIFELINE),
        (owner.as_fd(), fd::OWNER),
        (handover.payload.unwrap_or(null.as_fd()), fd::PAYLOAD),
        (handover.vmm.unwrap_or(null.as_fd()), fd::VMM),
        (handover.kernel.unwrap_or(null.as_fd()), fd::KERNEL),
    ];
    let files = handover.sources.iter().copied().zip(fd::SOURCES..);
    let lowest = (fd::SOURCES + handover.sources.len() as i32).max(32);
    // Lifted above every target number, so that no dup2 overwrites a source still needed.
    let mut sources = Vec::with_capacity(fixed.len() + handover.sources.len());
    for (source, target) in fixed.into_iter().chain(files) {
        let lifted = rustix::io::fcntl_dupfd_cloexec(source, lowest).map_err(|e| context(e.into()))?;
        sources.push((lifted, target));
    }
    let label = handover.label.as_ref().map(Label::arguments).transpose()?.unwrap_or_default();
    let arguments: Vec<&CStr> = [PROGRAM].into_iter().chain(label.iter().map(CString::as_c_str)).collect();
    let pid = posix_spawn::detached(embedded::runtime()?, &arguments, &sources).map_err(context)?;
    let raw = Pid::from_raw(pid).ok_or_else(|| MicrosandboxError::Runtime("msb-runtime has no process id".into()))?;
    let pidfd = rustix::process::pidfd_open(raw, PidfdFlags::NONBLOCK).map_err(|e| context(e.into()))?;
    rustix::io::ioctl_fionbio(&report_read, true).map_err(|e| context(e.into()))?;
    let receiver = pipe::Receiver::from_owned_fd(report_read).map_err(context)?;
    let lines = BufReader::new(tokio::io::AsyncReadExt::take(receiver, MAX_REPORT_LINE));
    Ok(RuntimeProcess { pid, pidfd, reports: Reports { lines } })
}

/// Waits until the process behind `pidfd` is gone, and reaps it if it was our child.
pub async fn wait_gone(pidfd: OwnedFd) -> std::io::Result<()> {
    gone(&readable::register(pidfd)?).await
}

async fn gone(fd: &AsyncFd<OwnedFd>) -> std::io::Result<()> {
    fd.readable().await?.retain_ready();
    // A stranger's process cannot be waited for; that is fine, it is gone.
    let _ = rustix::process::waitid(
        rustix::process::WaitId::PidFd(fd.get_ref().as_fd()),
        rustix::process::WaitIdOptions::EXITED,
    );
    Ok(())
}

/// SIGKILL through the pidfd: never a stranger.
pub fn kill(pidfd: BorrowedFd<'_>) {
    // Already gone is what was wanted.
    let _ = rustix::process::pidfd_send_signal(pidfd, rustix::process::Signal::KILL);
}

/// How long a killed runtime may take to vanish.
const GONE: Duration = Duration::from_secs(5);

/// Ends a runtime of ours, by SIGKILL after `grace`, and waits until it is gone: what it was doing at that moment is done
/// then.
pub async fn end(pidfd: OwnedFd, grace: Duration) {
    let Ok(fd) = readable::register(pidfd) else { return };
    if tokio::time::timeout(grace, fd.readable()).await.is_err() {
        kill(fd.get_ref().as_fd());
    }
    let _ = tokio::time::timeout(GONE, gone(&fd)).await;
}

/// Ends a process if the caller stops waiting for it.
pub struct KillOnDrop(Option<OwnedFd>);

impl KillOnDrop {
    /// Of a child that nothing has waited for yet.
    pub fn child(child: &std::process::Child) -> std::io::Result<KillOnDrop> {
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| std::io::Error::from(std::io::ErrorKind::InvalidInput))?;
        Ok(KillOnDrop(Some(rustix::process::pidfd_open(pid, PidfdFlags::NONBLOCK)?)))
    }

    /// It has ended.
    pub fn disarm(mut self) {
        self.0.take();
    }
}

impl Drop for KillOnDrop {
    fn drop(&mut self) {
        if let Some(pidfd) = self.0.take() {
            kill(pidfd.as_fd());
            reap_in_background(pidfd);
        }
    }
}

/// Reaps an exited child in a background task.
pub fn reap_in_background(pidfd: OwnedFd) {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        runtime.spawn(wait_gone(pidfd));
    }
}

/// Runs a job that exits when its work is done (unpack, remove, probe), handing every report to `on_report`.
/// Dropping the future kills the process.
pub async fn run_job(
    job: &Job,
    files: &[BorrowedFd<'_>],
    on_report: &mut (dyn FnMut(Report) + Send),
) -> MicrosandboxResult<()> {
    let (stderr_read, stderr_write) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)
        .map_err(|e| MicrosandboxError::Io { context: "start msb-runtime".into(), source: e.into() })?;
    let mut process = spawn(job, Handover { sources: files, stderr: Some(stderr_write), ..Handover::default() })?;
    let mut guard = KillOnDrop(Some(process.pidfd));
    let mut finished = false;
    while let Some(report) = process.reports.next().await? {
        finished |= matches!(report, Report::Done | Report::Failed(_) | Report::Probed(_));
        on_report(report);
    }
    if let Some(pidfd) = guard.0.take() {
        wait_gone(pidfd)
            .await
            .map_err(|source| MicrosandboxError::Io { context: "wait for msb-runtime".into(), source })?;
    }
    if finished {
        return Ok(());
    }
    let mut said = String::new();
    // The writing end died with the process; what it said fits into the pipe.
    let _ = std::fs::File::from(stderr_read).take(64 << 10).read_to_string(&mut said);
    Err(MicrosandboxError::Runtime(format!("msb-runtime ended without a result: {}", said.trim())))
}
