//! Budgets: what the objects of one key, and those of all keys together, may use at a time.
//!
//! The ledger counts what was granted and is an upper bound: a sandbox that ended or was removed counts until the records are
//! read again, which happens when a request would otherwise be refused. What was made on this machine is in no budget.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use microsandbox_core::backend::{ListQuery, SharedBackend};
use microsandbox_core::config::{Budget, BudgetName};
use microsandbox_core::model::{Owners, SandboxResources, SandboxSpec, VolumeQuery};
use microsandbox_local::LocalBackend;
use microsandbox_local::disk_use::{self, DiskUse};
use serde_json::json;

use crate::error::{ApiError, ApiResult};

/// Records read per call.
const PAGE: u32 = 100;
/// The use of the disk is measured again after this time at the earliest, and after [`MEASURE_PART`] times what measuring took.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
const MEASURE_PART: u32 = 20;

/// All budgets of a server, and what is used of them.
pub struct Budgets {
    of_all: Budget,
    of_key: Budget,
    ledger: Arc<Mutex<Ledger>>,
    /// Held while a volume is created: the count and the creation are one step.
    volumes: tokio::sync::Mutex<()>,
    disk: tokio::sync::Mutex<HashMap<Whose, Measured>>,
}

/// Whose budget it is: of one key, or of all.
type Whose = Option<String>;

#[derive(Default)]
struct Ledger {
    /// By the name under which the sandbox is stored.
    grants: HashMap<String, Grant>,
    next: u64,
    /// When the records were read.
    read_at: Option<Instant>,
}

/// What was granted is compared with the records after this time: sandboxes end, and start, without this server.
const READ_EVERY: Duration = Duration::from_secs(30);

#[derive(Clone)]
struct Grant {
    number: u64,
    owner: String,
    memory_mib: u64,
    cpus: u64,
    /// Its memory and processors count.
    live: bool,
    /// No record says yet what became of it.
    in_flight: bool,
}

#[derive(Clone, Copy)]
struct Measured {
    at: Instant,
    took: Duration,
    used: DiskUse,
}

/// A sandbox that is being created or started.
pub struct Reservation {
    ledger: Arc<Mutex<Ledger>>,
    name: String,
    number: u64,
    /// What was granted to the sandbox before: a failed start leaves it as it was.
    before: Option<Grant>,
    kept: bool,
}

impl Reservation {
    /// It runs: from here on its record counts.
    pub fn keep(mut self) {
        self.kept = true;
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut ledger = lock(&self.ledger);
        let Some(grant) = ledger.grants.get_mut(&self.name).filter(|grant| grant.number == self.number) else { return };
        grant.in_flight = false;
        if !self.kept {
            match self.before.take() {
                Some(before) => drop(ledger.grants.insert(self.name.clone(), before)),
                None => drop(ledger.grants.remove(&self.name)),
            }
        }
    }
}

fn lock(ledger: &Mutex<Ledger>) -> std::sync::MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Budgets {
    pub fn new(of_all: Budget, of_key: Budget) -> Budgets {
        let (ledger, volumes, disk) = Default::default();
        Budgets { of_all, of_key, ledger, volumes, disk }
    }

    /// Reserves what the sandbox `name` of `owner` needs to run; 429 where a budget has no room for it.
    pub async fn reserve(
        &self,
        backend: &SharedBackend,
        owner: &str,
        name: &str,
        resources: &SandboxResources,
    ) -> ApiResult<Reservation> {
        self.disk_is_left(backend, owner).await?;
        let counts = |budget: &Budget| budget.sandboxes.or(budget.memory_mib).or(budget.cpus).is_some();
        if (counts(&self.of_all) || counts(&self.of_key)) && self.is_old() {
            self.read_records(backend).await?;
        }
        let (memory_mib, cpus) = (u64::from(resources.memory_mib), u64::from(resources.cpus));
        let grant = Grant { number: 0, owner: owner.to_owned(), memory_mib, cpus, live: true, in_flight: true };
        if let Ok(reservation) = self.grant(name, grant.clone()) {
            return Ok(reservation);
        }
        self.read_records(backend).await?;
        self.grant(name, grant)
    }

    fn is_old(&self) -> bool {
        lock(&self.ledger).read_at.is_none_or(|at| at.elapsed() > READ_EVERY)
    }

    fn grant(&self, name: &str, mut grant: Grant) -> ApiResult<Reservation> {
        let mut ledger = lock(&self.ledger);
        let others = ledger.grants.iter().filter(|(known, _)| *known != name).map(|(_, grant)| grant);
        let (mut of_key, mut of_all) = (Sums::of(&grant), Sums::of(&grant));
        for other in others {
            of_all.add(other);
            if other.owner == grant.owner {
                of_key.add(other);
            }
        }
        self.of_key.check(true, &of_key)?;
        self.of_all.check(false, &of_all)?;
        ledger.next += 1;
        grant.number = ledger.next;
        let number = grant.number;
        let before = ledger.grants.insert(name.to_owned(), grant);
        Ok(Reservation { ledger: self.ledger.clone(), name: name.to_owned(), number, before, kept: false })
    }

    /// What exists and what runs, from the records.
    async fn read_records(&self, backend: &SharedBackend) -> ApiResult<()> {
        let mut found = HashMap::new();
        let mut cursor = None;
        loop {
            let query = ListQuery { cursor, limit: Some(PAGE), ..ListQuery::default() };
            let page = backend.sandboxes().list(query).await?;
            for record in page.records {
                let Some(owner) = record.owner else { continue };
                // A record that cannot be read runs nothing that this server could start.
                let spec: SandboxSpec = serde_json::from_str(&record.config_json).unwrap_or_default();
                let live = !record.status.is_terminal();
                let SandboxResources { memory_mib, cpus, .. } = spec.resources;
                let (memory_mib, cpus) = (u64::from(memory_mib), u64::from(cpus));
                found.insert(record.name, Grant { number: 0, owner, memory_mib, cpus, live, in_flight: false });
            }
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let mut ledger = lock(&self.ledger);
        let in_flight = std::mem::take(&mut ledger.grants).into_iter().filter(|(_, grant)| grant.in_flight);
        found.extend(in_flight);
        ledger.grants = found;
        ledger.read_at = Some(Instant::now());
        Ok(())
    }

    /// Held while a volume of `owner` is created; 429 where a budget has no room for it.
    pub async fn volume(&self, backend: &SharedBackend, owner: &str) -> ApiResult<tokio::sync::MutexGuard<'_, ()>> {
        self.disk_is_left(backend, owner).await?;
        let guard = self.volumes.lock().await;
        if self.of_key.volumes.is_some() || self.of_all.volumes.is_some() {
            let query = VolumeQuery { unmeasured: true, ..VolumeQuery::default() };
            let all = backend.volumes().list(query).await?;
            let owned = all.iter().filter_map(|volume| volume.owner.as_deref());
            let of_key = owned.clone().filter(|other| *other == owner).count() as u64;
            room(self.of_key.volumes, of_key + 1, BudgetName::Volumes, true)?;
            room(self.of_all.volumes, owned.count() as u64 + 1, BudgetName::Volumes, false)?;
        }
        Ok(guard)
    }

    /// 429 where the sandboxes and volumes of `owner`, or those of all keys, use as much of the disk as they may. Measured now and
    /// then: the answer can be as old as [`MEASURE_EVERY`].
    pub async fn disk_is_left(&self, backend: &SharedBackend, owner: &str) -> ApiResult<()> {
        for (budget, whose) in [(&self.of_key, Some(owner.to_owned())), (&self.of_all, None)] {
            if budget.disk_mib.is_none() && budget.inodes.is_none() {
                continue;
            }
            let is_key = whose.is_some();
            let used = self.measure(backend, whose).await?;
            // What is used up to the last byte has no room for another.
            room(budget.disk_mib, (used.bytes >> 20) + 1, BudgetName::Disk, is_key)?;
            room(budget.inodes, used.inodes + 1, BudgetName::Inodes, is_key)?;
        }
        Ok(())
    }

    async fn measure(&self, backend: &SharedBackend, whose: Whose) -> ApiResult<DiskUse> {
        let Some(local) = LocalBackend::of(backend) else { return Ok(DiskUse::default()) };
        let mut disk = self.disk.lock().await;
        if let Some(known) = disk.get(&whose)
            && known.at.elapsed() < MEASURE_EVERY.max(known.took * MEASURE_PART)
        {
            return Ok(known.used);
        }
        let owners = whose.clone().map_or(Owners::All, Owners::Only);
        let begun = Instant::now();
        let (mut sandboxes, mut cursor) = (Vec::new(), None);
        loop {
            let query = ListQuery { cursor, limit: Some(PAGE), owners: owners.clone(), ..ListQuery::default() };
            let page = backend.sandboxes().list(query).await?;
            sandboxes
                .extend(page.records.into_iter().filter(|record| record.owner.is_some()).map(|record| record.name));
            match page.next_cursor {
                Some(next) => cursor = Some(next),
                None => break,
            }
        }
        let query = VolumeQuery { owners, unmeasured: true, ..VolumeQuery::default() };
        let volumes = backend.volumes().list(query).await?;
        let volumes = volumes.into_iter().filter(|volume| volume.owner.is_some()).map(|volume| volume.name).collect();
        let used = disk_use::measure(local.home(), sandboxes, volumes).await?;
        disk.insert(whose, Measured { at: Instant::now(), took: begun.elapsed(), used });
        Ok(used)
    }
}

/// What grants need together.
struct Sums {
    sandboxes: u64,
    memory_mib: u64,
    cpus: u64,
}

impl Sums {
    fn of(grant: &Grant) -> Sums {
        let mut sums = Sums { sandboxes: 0, memory_mib: 0, cpus: 0 };
        sums.add(grant);
        sums
    }

    fn add(&mut self, grant: &Grant) {
        self.sandboxes += 1;
        if grant.live {
            self.memory_mib = self.memory_mib.saturating_add(grant.memory_mib);
            self.cpus = self.cpus.saturating_add(grant.cpus);
        }
    }
}

trait Check {
    fn check(&self, of_key: bool, sums: &Sums) -> ApiResult<()>;
}

impl Check for Budget {
    fn check(&self, of_key: bool, sums: &Sums) -> ApiResult<()> {
        room(self.sandboxes, sums.sandboxes, BudgetName::Sandboxes, of_key)?;
        room(self.memory_mib, sums.memory_mib, BudgetName::Memory, of_key)?;
        room(self.cpus, sums.cpus, BudgetName::Cpus, of_key)
    }
}

/// Refuses `needed` where it is more than the budget.
fn room(budget: Option<u64>, needed: u64, name: BudgetName, of_key: bool) -> ApiResult<()> {
    let Some(budget) = budget.filter(|budget| needed > *budget) else { return Ok(()) };
    let (whose, option) = if of_key { ("this key", "--key-budget") } else { ("this server", "--budget") };
    let (name, unit) = (name.as_str(), name.unit());
    let text = format!(
        "the budget of {whose} for {name} is {budget}{unit}, and this needs {needed}{unit} in all: stop or remove something, or \
         ask the owner of the server for more ({option} {name}=…)"
    );
    let scope = if of_key { "key" } else { "server" };
    Err(ApiError::exhausted(text).details(json!({ "resource": name, "scope": scope, "limit": budget })))
}

#[cfg(test)]
mod tests {
    use microsandbox_wire::error::code;

    use super::*;

    fn grant(owner: &str, memory_mib: u64) -> Grant {
        Grant { number: 0, owner: owner.into(), memory_mib, cpus: 2, live: true, in_flight: true }
    }

    fn refused(budgets: &Budgets, name: &str, owner: &str, memory_mib: u64) -> Option<(String, String)> {
        let error = budgets.grant(name, grant(owner, memory_mib)).err()?;
        assert_eq!((error.status.as_u16(), error.code), (429, code::RESOURCE_EXHAUSTED));
        let details = error.details.unwrap();
        Some((details["resource"].as_str().unwrap().into(), details["scope"].as_str().unwrap().into()))
    }

    fn pair(resource: &str, scope: &str) -> Option<(String, String)> {
        Some((resource.into(), scope.into()))
    }

    #[test]
    fn each_budget_is_named_at_its_limit_and_not_before() {
        let of_key = Budget { memory_mib: Some(1000), sandboxes: Some(3), ..Budget::default() };
        let of_all = Budget { cpus: Some(8), ..Budget::default() };
        let budgets = Budgets::new(of_all, of_key);
        let first = budgets.grant("a-1", grant("a", 600)).unwrap();
        assert_eq!(refused(&budgets, "a-2", "a", 401), pair("memory", "key"));
        budgets.grant("a-2", grant("a", 400)).unwrap().keep();
        budgets.grant("b-1", grant("b", 1000)).unwrap().keep();
        // The same sandbox again counts once.
        budgets.grant("b-1", grant("b", 900)).unwrap().keep();
        budgets.grant("c-1", grant("c", 1)).unwrap().keep();
        assert_eq!(refused(&budgets, "c-2", "c", 1), pair("cpus", "server"));
        drop(first);
        budgets.grant("c-2", grant("c", 1)).unwrap().keep();
    }

    #[test]
    fn a_stopped_sandbox_counts_as_one_and_needs_no_memory() {
        let of_key = Budget { memory_mib: Some(1000), sandboxes: Some(2), ..Budget::default() };
        let budgets = Budgets::new(Budget::default(), of_key);
        let stopped = Grant { live: false, in_flight: false, ..grant("a", 1000) };
        lock(&budgets.ledger).grants.insert("a-1".into(), stopped);
        budgets.grant("a-2", grant("a", 1000)).unwrap().keep();
        assert_eq!(refused(&budgets, "a-3", "a", 0), pair("sandboxes", "key"));
    }
}
