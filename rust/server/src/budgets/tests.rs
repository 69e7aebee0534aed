use std::sync::atomic::Ordering;

use futures::future::join_all;
use microsandbox_core::config::LocalConfig;
use microsandbox_wire::error::code;

use super::*;
use crate::records::tests::Full;

const CPUS: u64 = 2;

impl Budgets {
    fn granted(&self, name: &str, owner: &str, memory_mib: u64) -> Reservation {
        self.grant(name, owner, Needs { memory_mib, cpus: CPUS }).ok().unwrap()
    }
}

/// Resource and scope of the refusal.
fn of(error: ApiError) -> (String, String) {
    assert_eq!((error.status.as_u16(), error.code), (429, code::RESOURCE_EXHAUSTED));
    let details = error.details.unwrap();
    (details["resource"].as_str().unwrap().into(), details["scope"].as_str().unwrap().into())
}

fn refused(budgets: &Budgets, name: &str, owner: &str, memory_mib: u64) -> Option<(String, String)> {
    budgets.grant(name, owner, Needs { memory_mib, cpus: CPUS }).err().map(of)
}

fn pair(resource: &str, scope: &str) -> Option<(String, String)> {
    Some((resource.into(), scope.into()))
}

fn memory(mib: u64) -> Budgets {
    Budgets::new(Budget::default(), Budget { memory_mib: Some(mib), ..Budget::default() })
}

async fn read(budgets: &Budgets, backend: &Arc<Full>) {
    let backend: SharedBackend = backend.clone();
    budgets.read_since(&backend, Instant::now()).await.unwrap();
}

#[test]
fn each_budget_is_named_at_its_limit_and_not_before() {
    let of_key = Budget { memory_mib: Some(1000), sandboxes: Some(3), ..Budget::default() };
    let of_all = Budget { cpus: Some(8), ..Budget::default() };
    let budgets = Budgets::new(of_all, of_key);
    let first = budgets.granted("a-1", "a", 600);
    assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
    budgets.granted("a-2", "a", 400).keep();
    budgets.granted("b-1", "b", 1000).keep();
    // The same sandbox again counts once.
    budgets.granted("b-1", "b", 900).keep();
    budgets.granted("c-1", "c", 1).keep();
    assert_eq!(refused(&budgets, "c-2", "c", 1), pair("cpus", "server"));
    drop(first);
    budgets.granted("c-2", "c", 1).keep();
}

#[test]
fn a_stopped_sandbox_counts_as_one_and_needs_no_memory() {
    let of_key = Budget { memory_mib: Some(1000), sandboxes: Some(2), ..Budget::default() };
    let budgets = Budgets::new(Budget::default(), of_key);
    let stopped = Grant { owner: "a".into(), needs: Needs::default(), at: Instant::now() };
    lock(&budgets.ledger).known.insert("a-1".into(), stopped);
    budgets.granted("a-2", "a", 1000).keep();
    assert_eq!(refused(&budgets, "a-3", "a", 0), pair("sandboxes", "key"));
}

#[tokio::test]
async fn two_requests_for_one_name_leave_no_grant_behind() {
    for first_succeeds in [true, false] {
        let budgets = memory(1000);
        let requests = (budgets.granted("a-1", "a", 600), budgets.granted("a-1", "a", 600));
        let (kept, failed) = if first_succeeds { requests } else { (requests.1, requests.0) };
        kept.keep();
        drop(failed);
        assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
        // Its record is gone.
        read(&budgets, &Arc::default()).await;
        budgets.granted("a-2", "a", 1000).keep();
    }
}

#[test]
fn a_small_request_for_the_same_name_hides_no_large_one() {
    let budgets = memory(1000);
    let large = budgets.granted("a-1", "a", 600);
    let small = budgets.granted("a-1", "a", 1);
    assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
    large.keep();
    let again = budgets.granted("a-1", "a", 1);
    assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
    drop((small, again));
    assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
}

#[tokio::test]
async fn a_read_keeps_what_began_to_run_in_the_meantime() {
    let (budgets, backend) = (Arc::new(memory(1000)), Arc::new(Full::default()));
    budgets.granted("a-0", "a", 1000).keep();
    let during = budgets.clone();
    // Of another key, so that the first does not stand in its way.
    let grant = move || during.granted("b-1", "b", 600).keep();
    backend.during.set(Box::new(grant)).ok().unwrap();
    read(&budgets, &backend).await;
    budgets.granted("a-1", "a", 1000).keep();
    assert_eq!(refused(&budgets, "b-2", "b", 401), pair("memory", "key"));
    read(&budgets, &backend).await;
    budgets.granted("b-2", "b", 1000).keep();
}

#[tokio::test]
async fn refused_requests_share_a_read_of_the_records() {
    let (budgets, empty) = (memory(1000), Arc::new(Full::default()));
    let backend: SharedBackend = empty.clone();
    let resources = SandboxResources { memory_mib: 1001, ..SandboxResources::default() };
    let ask = || budgets.reserve(&backend, "a", "a-1", &resources);
    assert_eq!(ask().await.err().map(of), pair("memory", "key"));
    assert_eq!(empty.lists.swap(0, Ordering::Relaxed), 1);
    for answer in join_all((0..8).map(|_| ask())).await {
        assert_eq!(answer.err().map(of), pair("memory", "key"));
    }
    // The first reads, and then one more for all that came after its begin.
    assert_eq!(empty.lists.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_measurement_delays_no_other_owner() {
    let home = tempfile::tempdir().unwrap();
    let config = LocalConfig::default_for_home(home.path());
    let backend: SharedBackend = Arc::new(LocalBackend::from_config(config));
    let budgets = Budgets::new(Budget::default(), Budget { inodes: Some(1), ..Budget::default() });
    let of_a = lock(&budgets.disk).entry(Some("a".into())).or_default().clone();
    let _in_progress = of_a.lock().await;
    let of_b = budgets.disk_is_left(&backend, "b");
    assert!(tokio::time::timeout(Duration::from_secs(20), of_b).await.unwrap().is_ok());
}
