//! The policy against hosts that tests make up.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

struct Made {
    dir: tempfile::TempDir,
    missing: Option<Lack>,
    machine: Result<(), Lack>,
    trial: Trial,
    takes: Duration,
    canaries: AtomicUsize,
    at_once: AtomicUsize,
}

fn made(missing: Option<Lack>, trial: Trial) -> Arc<Made> {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("cache")).unwrap();
    Arc::new(Made {
        dir,
        missing,
        machine: Ok(()),
        trial,
        takes: Duration::from_millis(50),
        canaries: AtomicUsize::new(0),
        at_once: AtomicUsize::new(0),
    })
}

impl Host for Made {
    fn subject(&self) -> BoxFuture<'_, Result<Subject, Lack>> {
        Box::pin(async {
            match &self.missing {
                Some(lack) => Err(lack.clone()),
                None => Ok(Subject::here("sha256:aa")),
            }
        })
    }
    fn machine(&self) -> BoxFuture<'_, Result<(), Lack>> {
        Box::pin(async { self.machine.clone() })
    }
    fn canary(&self) -> BoxFuture<'_, Trial> {
        Box::pin(async {
            assert_eq!(self.at_once.fetch_add(1, Ordering::SeqCst), 0, "two canaries run concurrently");
            tokio::time::sleep(self.takes).await;
            self.canaries.fetch_add(1, Ordering::SeqCst);
            self.at_once.fetch_sub(1, Ordering::SeqCst);
            self.trial.clone()
        })
    }
    fn home(&self) -> &Path {
        self.dir.path()
    }
    fn cache(&self) -> PathBuf {
        self.dir.path().join("cache")
    }
    fn deadline(&self) -> Duration {
        Duration::from_secs(5)
    }
}

impl Made {
    fn count(&self) -> usize {
        self.canaries.load(Ordering::SeqCst)
    }
}

fn lack() -> Lack {
    Lack::new("it hung", "nothing helps")
}

async fn soon<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(30), work).await.expect("the policy takes too long")
}

#[tokio::test]
async fn a_missing_piece_needs_no_canary() {
    let host = made(Some(lack()), Trial::Booted(Duration::ZERO));
    assert_eq!(soon(judge(host.clone(), true)).await.unwrap(), Finding::Missing(lack()));
    assert_eq!(soon(demand(&*host)).await, Err(lack()));
    assert_eq!(host.count(), 0);
}

#[tokio::test]
async fn a_kvm_that_makes_no_machine_needs_no_canary() {
    let mut host = made(None, Trial::Booted(Duration::ZERO));
    Arc::get_mut(&mut host).unwrap().machine = Err(lack());
    assert_eq!(soon(judge(host.clone(), false)).await.unwrap(), Finding::Missing(lack()));
    assert_eq!(soon(demand(&*host)).await, Err(lack()));
    assert_eq!(host.count(), 0);
}

#[tokio::test]
async fn one_canary_serves_concurrent_and_later_callers() {
    let host = made(None, Trial::Booted(Duration::from_millis(300)));
    let asked = (0..8).map(|_| judge(host.clone(), false));
    for finding in soon(futures::future::join_all(asked)).await {
        assert_eq!(finding.unwrap().lack(), None);
    }
    assert_eq!(host.count(), 1);
    let Finding::Judged(verdict) = soon(judge(host.clone(), false)).await.unwrap() else { panic!("forgotten") };
    assert_eq!((verdict.took_ms, host.count()), (Some(300), 1));
    assert_eq!(soon(demand(&*host)).await, Ok(()));
}

#[tokio::test]
async fn a_cached_refusal_refuses_demands_until_rechecked() {
    let host = made(None, Trial::Refused(lack()));
    assert_eq!(soon(demand(&*host)).await, Ok(()), "without a verdict the boot itself is the proof");
    assert_eq!(host.count(), 0);
    for _ in 0..2 {
        assert_eq!(soon(judge(host.clone(), false)).await.unwrap().lack(), Some(&lack()));
    }
    assert_eq!(host.count(), 1);
    assert_eq!(soon(demand(&*host)).await, Err(lack()));
    soon(judge(host.clone(), true)).await.unwrap();
    assert_eq!(host.count(), 2);
}

#[tokio::test]
async fn a_canary_that_says_nothing_about_machines_is_not_remembered() {
    let host = made(None, Trial::Undecided(lack()));
    for round in 1..=2 {
        assert_eq!(soon(judge(host.clone(), false)).await.unwrap(), Finding::Undecided(lack()));
        assert_eq!(host.count(), round);
    }
    assert_eq!(soon(demand(&*host)).await, Ok(()));
}

#[tokio::test]
async fn a_caller_who_gives_up_does_not_cut_the_canary_off() {
    let host = made(None, Trial::Booted(Duration::from_millis(1)));
    let asked = tokio::time::timeout(Duration::from_millis(10), judge(host.clone(), false)).await;
    assert!(asked.is_err(), "it takes longer than that");
    let again = soon(judge(host.clone(), false)).await.unwrap();
    assert_eq!((again.lack(), host.count()), (None, 1));
}
