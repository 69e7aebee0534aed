//! Fetching the wheel that bundles the library, with the user's own pip: whatever package index, proxy, certificates and
//! credentials are configured there are used, and this product handles none of them.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use super::install::Pin;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_home::runtime_process;

/// Bytes that have arrived, and how many there will be.
pub type Progress<'a> = &'a (dyn Fn(u64, u64) + Send + Sync);

/// How often the arriving bytes are counted.
const LOOK: Duration = Duration::from_millis(100);
/// A configured index that never responds must not block the fetch for ever; a slow connection still has time to
/// finish.
const DEADLINE: Duration = Duration::from_secs(1800);
/// What is kept of pip's complaint.
const COMPLAINT_MAX: u64 = 16 << 10;
const OFFLINE_HINT: &str =
    "or get the wheel or the library elsewhere and give it with `msb install libkrunfw --from FILE`";

/// Downloads the wheel of `pin` into `scratch`, an empty directory, and returns its path. The wheel is unchecked.
pub async fn wheel(python: &Path, pin: &Pin, scratch: &Path, progress: Progress<'_>) -> MicrosandboxResult<PathBuf> {
    let target = scratch.join("wheel");
    let temporary = scratch.join("tmp");
    for dir in [&target, &temporary] {
        std::fs::create_dir(dir).map_err(|e| MicrosandboxError::io("create", dir, e))?;
    }
    let child = start(python, pin, scratch).map_err(|error| {
        failed(&format!("{} cannot be started: {error}", python.display()), "check the interpreter,")
    })?;
    let finished = tokio::time::timeout(DEADLINE, watch(child, scratch, pin.wheel_size, progress)).await;
    let (status, complaint) = match finished {
        Ok(finished) => finished.map_err(|error| failed(&format!("pip cannot be watched: {error}"), "try again,"))?,
        Err(_elapsed) => {
            let text = format!("pip did not finish within {} s", DEADLINE.as_secs());
            return Err(failed(&text, "check the package index that pip is configured for,"));
        }
    };
    if !status.success() {
        return Err(complained(python, status, &complaint));
    }
    let wheel = target.join(pin.wheel_name);
    if wheel.is_file() {
        return Ok(wheel);
    }
    let text = format!("pip brought no {}: the package index has another file for this machine", pin.wheel_name);
    Err(failed(&text, "use an index that has it,"))
}

#[allow(clippy::disallowed_methods, reason = "pip is the user's way to the package index; nothing else knows how")]
fn start(python: &Path, pin: &Pin, scratch: &Path) -> std::io::Result<Child> {
    Command::new(python)
        .args(["-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--no-input", "--quiet"])
        .args(["--disable-pip-version-check", "--progress-bar", "off", "-d"])
        .arg(scratch.join("wheel"))
        .arg(format!("{}=={}", pin.package, pin.package_version))
        // `-m` looks for modules in the working directory first: no other user may write to that directory.
        .current_dir(scratch)
        // pip downloads into this directory, so that the bytes can be counted.
        .env("TMPDIR", scratch.join("tmp"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
}

/// Waits for pip to exit and reports progress until then; returns what pip wrote to standard error. Dropped early, it kills pip.
///
/// Not with the process support of tokio: that installs a handler of SIGCHLD in the caller's process, and a pipe of signals
/// that a forked daemon closes.
async fn watch(
    mut child: Child,
    scratch: &Path,
    total: u64,
    progress: Progress<'_>,
) -> std::io::Result<(ExitStatus, String)> {
    let killed = runtime_process::KillOnDrop::child(&child)?;
    let wait = tokio::task::spawn_blocking(move || {
        let mut said = Vec::new();
        if let Some(mut stderr) = child.stderr.take() {
            (&mut stderr).take(COMPLAINT_MAX).read_to_end(&mut said)?;
            // Output beyond the limit is read and discarded, so that pip does not block on a full pipe.
            std::io::copy(&mut stderr, &mut std::io::sink())?;
        }
        Ok((child.wait()?, String::from_utf8_lossy(&said).into_owned()))
    });
    let count = async {
        loop {
            progress(size_beneath(scratch).min(total), total);
            tokio::time::sleep(LOOK).await;
        }
    };
    tokio::select! {
        ended = wait => {
            killed.disarm();
            ended.unwrap_or_else(|gone| Err(std::io::Error::other(gone)))
        }
        () = count => Err(std::io::Error::other("the count ended")),
    }
}

fn size_beneath(dir: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => size_beneath(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

fn complained(python: &Path, status: ExitStatus, complaint: &str) -> MicrosandboxError {
    if complaint.contains("No module named pip") {
        let advice = format!("`{} -m ensurepip` brings it,", python.display());
        return failed(&format!("{} has no pip", python.display()), &advice);
    }
    // The last lines say what went wrong; pip hides the passwords of indexes itself.
    let lines: Vec<&str> = complaint.lines().filter(|line| !line.trim().is_empty()).collect();
    let tail = lines[lines.len().saturating_sub(4)..].join("; ");
    let advice = "check the package index that pip is configured for (`pip config list`),";
    failed(&format!("pip failed ({status}): {tail}"), advice)
}

fn failed(what: &str, advice: &str) -> MicrosandboxError {
    MicrosandboxError::Runtime(format!("libkrunfw was not fetched: {what}; {advice} {OFFLINE_HINT}"))
}
