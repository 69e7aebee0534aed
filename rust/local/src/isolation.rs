//! Which driver a sandbox gets: the policy.
//!
//! | asked | given |
//! |---|---|
//! | `container` | a container; nothing is probed |
//! | `auto` | a microVM if one really booted on this host (the canary), else a container, and the reason is kept for the warning |
//! | `microvm` | a microVM, or `IsolationUnavailable` before anything exists |
//!
//! Checks that need no guest come first, in this order: `/dev/kvm` opens and answers; there is a guest kernel; a
//! machine can be made. Only then a canary boots: `/dev/kvm` that opens is no proof that a guest runs. The canary's
//! verdict is remembered ([`verdict`]); processes that ask at the same time wait for one canary.
//!
//! A demand for a microVM is refused by a remembered "no" and runs no canary of its own: without a verdict, its own
//! boot is the proof. If an explicitly named kernel library cannot be used, `auto` gives a container, and that reason
//! is reported like every other reason.

pub mod canary;
pub mod kvm;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures::future::BoxFuture;

use crate::guest_kernel;
use microsandbox_core::error::{Lack, MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::Isolation;
use microsandbox_home::Home;
use microsandbox_home::lock::NameLock;
use verdict::{Subject, Verdict};

/// What the lock of the canary is called; no sandbox can have this name.
const LOCK: &str = "/canary";
/// What others wait for a canary beyond its deadline: it also has to be cleared away.
const LOCK_GRACE: Duration = Duration::from_secs(15);
/// From spawn to the agent's ready (`boot.ready_timeout`), when nothing else is configured.
const READY_TIMEOUT: Duration = Duration::from_secs(60);
/// The same for a machine that may be emulated in software.
const READY_TIMEOUT_SLOW: Duration = Duration::from_secs(180);
/// A canary that was up by then has hardware beneath it.
const HARDWARE: Duration = Duration::from_secs(2);

/// What the policy stands on: this host, or a test's idea of one.
pub trait Host: Send + Sync + 'static {
    /// What a verdict would be about, or what is missing before any machine could boot. Cheap.
    fn subject(&self) -> BoxFuture<'_, Result<Subject, Lack>>;
    /// A machine can be made; whether a guest runs in it is another question.
    fn machine(&self) -> BoxFuture<'_, Result<(), Lack>>;
    /// Boots a machine, ends it, leaves nothing. Called by one process of a home at a time.
    fn canary(&self) -> BoxFuture<'_, Trial>;
    fn home(&self) -> &Path;
    fn cache(&self) -> PathBuf;
    /// How long a canary may take.
    fn deadline(&self) -> Duration;
}

/// How a canary ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Trial {
    /// Its agent answered after this time.
    Booted(Duration),
    /// Machines do not work here.
    Refused(Lack),
    /// It failed for a reason that says nothing about machines; not remembered.
    Undecided(Lack),
}

/// What is known about microVMs on this host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Finding {
    /// A canary said so, now or earlier.
    Judged(Verdict),
    /// Something is missing that no canary need try.
    Missing(Lack),
    /// No canary could be had.
    Undecided(Lack),
}

impl Finding {
    /// Why there are no microVMs; `None` when there are.
    pub fn lack(&self) -> Option<&Lack> {
        match self {
            Finding::Judged(verdict) => verdict.lack.as_ref(),
            Finding::Missing(lack) | Finding::Undecided(lack) => Some(lack),
        }
    }
}

/// Why the last sandbox that could have been a microVM became a container.
#[derive(Default)]
pub struct Fallback(Mutex<Option<Lack>>);

impl Fallback {
    pub fn get(&self) -> Option<Lack> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
    fn note(&self, lack: Lack) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(lack);
    }
}

/// The driver for what was `asked`.
pub async fn decide(home: &Home, asked: Isolation, fallback: &Fallback) -> MicrosandboxResult<Isolation> {
    match asked {
        Isolation::Container => Ok(Isolation::Container),
        Isolation::Microvm => require(home).await.map(|()| Isolation::Microvm),
        Isolation::Auto => match judge(host(home), false).await?.lack() {
            None => Ok(Isolation::Microvm),
            Some(lack) => {
                fallback.note(lack.clone());
                Ok(Isolation::Container)
            }
        },
    }
}

/// For a demand: nothing is missing, and no canary has failed.
pub async fn require(home: &Home) -> MicrosandboxResult<()> {
    demand(&*host(home)).await.map_err(Lack::no_microvm)
}

async fn demand(host: &dyn Host) -> Result<(), Lack> {
    let subject = host.subject().await?;
    match verdict::read(&host.cache(), &subject, host.deadline()) {
        Some(Verdict { lack: Some(lack), .. }) => Err(lack),
        Some(_) => Ok(()),
        None => host.machine().await,
    }
}

/// What is known, by a canary if need be. `recheck` believes nothing that was found before this call.
pub async fn judge(host: Arc<dyn Host>, recheck: bool) -> MicrosandboxResult<Finding> {
    let since = if recheck { verdict::now_ms() } else { 0 };
    let subject = match host.subject().await {
        Ok(subject) => subject,
        Err(lack) => return Ok(Finding::Missing(lack)),
    };
    let known = |host: &dyn Host| {
        verdict::read(&host.cache(), &subject, host.deadline()).filter(|verdict| verdict.is_since(since))
    };
    if let Some(verdict) = known(&*host) {
        return Ok(Finding::Judged(verdict));
    }
    let wait = host.deadline() + LOCK_GRACE;
    let lock = match NameLock::acquire(host.home(), LOCK, wait).await {
        Ok(lock) => lock,
        Err(MicrosandboxError::InvalidState(_)) => {
            let reason = format!("another process has been trying a microVM for over {} s", wait.as_secs());
            return Ok(Finding::Undecided(Lack::new(reason, "wait for it, or end it")));
        }
        Err(error) => return Err(error),
    };
    // Whoever held the lock may have found it out.
    if let Some(verdict) = known(&*host) {
        return Ok(Finding::Judged(verdict));
    }
    // A task of its own: a caller who stops waiting does not cut it off in the middle.
    let trial = tokio::spawn(async move {
        let finding = try_out(&*host, subject).await;
        drop(lock);
        finding
    });
    trial.await.map_err(|error| MicrosandboxError::Runtime(format!("the canary did not finish: {error}")))
}

async fn try_out(host: &dyn Host, subject: Subject) -> Finding {
    if let Err(lack) = host.machine().await {
        return Finding::Missing(lack);
    }
    let found = match host.canary().await {
        Trial::Booted(took) => Ok(took),
        Trial::Refused(lack) => Err(lack),
        Trial::Undecided(lack) => return Finding::Undecided(lack),
    };
    let verdict = Verdict::now(subject, host.deadline(), found);
    if let Err(error) = verdict::write(&host.cache(), &verdict) {
        tracing::warn!(%error, "the canary's verdict could not be remembered; the next process tries again");
    }
    Finding::Judged(verdict)
}

/// How long this boot may take: `boot.ready_timeout_secs`, else a minute; three for a machine that is not known to run on
/// hardware.
pub async fn ready_timeout(home: &Home, driver: Option<Isolation>) -> Duration {
    if let Some(configured) = home.config().boot.ready_timeout() {
        return configured;
    }
    if driver != Some(Isolation::Microvm) {
        return READY_TIMEOUT;
    }
    let host = host(home);
    let took = match host.subject().await {
        Ok(subject) => verdict::read(&host.cache(), &subject, host.deadline()).and_then(|verdict| verdict.took_ms),
        Err(_) => None,
    };
    match took {
        Some(took) if Duration::from_millis(took) <= HARDWARE => READY_TIMEOUT,
        _ => READY_TIMEOUT_SLOW,
    }
}

/// This machine, for this home.
pub fn host(home: &Home) -> Arc<dyn Host> {
    // A clone: a canary outlives the call that asked for it.
    Arc::new(ThisHost { home: home.clone() })
}

struct ThisHost {
    home: Home,
}

impl Host for ThisHost {
    fn subject(&self) -> BoxFuture<'_, Result<Subject, Lack>> {
        Box::pin(async {
            let config = self.home.config().clone();
            // Opening a device and reading a library may take their time.
            let looked = microsandbox_home::blocking(move || {
                Ok(kvm::answers(Path::new(kvm::DEVICE)).and_then(|_| guest_kernel::find(&config)))
            });
            let kernel = looked.await.unwrap_or_else(|error| Err(Lack::new(error.to_string(), "try again")))?;
            Ok(Subject::here(&kernel.digest))
        })
    }
    fn machine(&self) -> BoxFuture<'_, Result<(), Lack>> {
        Box::pin(async {
            let made = microsandbox_home::blocking(|| Ok(kvm::makes_machines(Path::new(kvm::DEVICE))));
            made.await.unwrap_or_else(|error| Err(Lack::new(error.to_string(), "try again")))
        })
    }
    fn canary(&self) -> BoxFuture<'_, Trial> {
        Box::pin(canary::run(&self.home))
    }
    fn home(&self) -> &Path {
        self.home.path()
    }
    fn cache(&self) -> PathBuf {
        self.home.cache_dir()
    }
    fn deadline(&self) -> Duration {
        self.home.config().boot.canary_deadline()
    }
}
