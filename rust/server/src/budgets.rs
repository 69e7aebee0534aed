//! Budgets: what the objects of one key, and those of all keys together, may use at a time.
//!
//! The ledger counts what was granted and is an upper bound: a sandbox that ended or was removed counts until the records are
//! read again, which happens when a request would otherwise be refused. What was made on this machine is in no budget.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use microsandbox_core::api::SandboxRecord;
use microsandbox_core::backend::SharedBackend;
use microsandbox_core::config::{Budget, BudgetName};
use microsandbox_core::model::{Owners, SandboxResources, SandboxSpec, VolumeQuery};
use microsandbox_local::LocalBackend;
use microsandbox_local::disk_use::{self, DiskUse};
use serde_json::json;

use crate::error::{ApiError, ApiResult};
use crate::records::{SharedRead, each_record};

/// The use of the disk is measured again after this time at the earliest, and after [`MEASURE_PART`] times what measuring took.
const MEASURE_EVERY: Duration = Duration::from_secs(10);
const MEASURE_PART: u32 = 20;
/// What was granted is compared with the records after this time: sandboxes end, and start, without this server.
const READ_EVERY: Duration = Duration::from_secs(30);

/// All budgets of a server, and what is used of them.
pub struct Budgets {
    of_all: Budget,
    of_key: Budget,
    ledger: Arc<Mutex<Ledger>>,
    reading: SharedRead<()>,
    /// Held while a volume is created: the count and the creation are one step.
    volumes: tokio::sync::Mutex<()>,
    disk: Mutex<HashMap<Whose, Arc<tokio::sync::Mutex<Option<Measured>>>>>,
}

/// Whose budget it is: of one key, or of all.
type Whose = Option<String>;

#[derive(Default)]
struct Ledger {
    /// What the records said, and what began to run since, by the name under which the sandbox is stored.
    known: HashMap<String, Grant>,
    /// Sandboxes that are being created or started, by the number of the reservation.
    reserved: BTreeMap<u64, (String, Grant)>,
    next: u64,
    /// When the last complete read of the records began.
    read_at: Option<Instant>,
}

struct Grant {
    owner: String,
    needs: Needs,
    /// From then on the records show it.
    at: Instant,
}

/// What a sandbox needs while it runs; nothing while it does not.
#[derive(Debug, Clone, Copy, Default)]
struct Needs {
    memory_mib: u64,
    cpus: u64,
}

impl Needs {
    fn of(resources: &SandboxResources) -> Needs {
        Needs { memory_mib: resources.memory_mib.into(), cpus: resources.cpus.into() }
    }

    fn max(self, other: Needs) -> Needs {
        Needs { memory_mib: self.memory_mib.max(other.memory_mib), cpus: self.cpus.max(other.cpus) }
    }
}

#[derive(Clone, Copy)]
struct Measured {
    at: Instant,
    took: Duration,
    used: DiskUse,
}

/// A sandbox that is being created or started. Dropped, it leaves what was known of the sandbox before.
pub struct Reservation {
    ledger: Arc<Mutex<Ledger>>,
    number: u64,
}

impl Reservation {
    /// It runs: from here on its record counts.
    pub fn keep(self) {
        let mut ledger = lock(&self.ledger);
        if let Some((name, grant)) = ledger.reserved.remove(&self.number) {
            ledger.known.insert(name, Grant { at: Instant::now(), ..grant });
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        lock(&self.ledger).reserved.remove(&self.number);
    }
}

fn lock<T>(shared: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Ledger {
    /// What the sandboxes of `owner`, and all sandboxes, need together. A sandbox with several grants (two requests for one name,
    /// of which at most one succeeds) counts once, with the most that any of them gives it.
    fn sums<'a>(&'a self, name: &'a str, owner: &'a str, needs: Needs) -> (Sums, Sums) {
        let grants = self.known.iter().chain(self.reserved.values().map(|(name, grant)| (name, grant)));
        let mut sandboxes = HashMap::from([(name, (owner, needs))]);
        for (name, grant) in grants {
            let (_, needs) = sandboxes.entry(name.as_str()).or_insert((grant.owner.as_str(), grant.needs));
            *needs = needs.max(grant.needs);
        }
        let (mut of_owner, mut of_all) = (Sums::default(), Sums::default());
        for (whose, needs) in sandboxes.into_values() {
            of_all.add(needs);
            if whose == owner {
                of_owner.add(needs);
            }
        }
        (of_owner, of_all)
    }

    /// Takes over what a read that began at `begin` found. What began to run since may be missing in it, or be there as it was
    /// before.
    fn replace(&mut self, mut found: HashMap<String, Grant>, begin: Instant) {
        let known = std::mem::take(&mut self.known);
        found.extend(known.into_iter().filter(|(_, grant)| grant.at >= begin));
        self.known = found;
        self.read_at = Some(begin);
    }
}

impl Budgets {
    pub fn new(of_all: Budget, of_key: Budget) -> Budgets {
        let (ledger, reading, volumes, disk) = Default::default();
        Budgets { of_all, of_key, ledger, reading, volumes, disk }
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
        let asked = Instant::now();
        let counts = |budget: &Budget| budget.sandboxes.or(budget.memory_mib).or(budget.cpus).is_some();
        if (counts(&self.of_all) || counts(&self.of_key)) && self.is_old() {
            self.read_since(backend, asked).await?;
        }
        let needs = Needs::of(resources);
        if let Ok(reservation) = self.grant(name, owner, needs) {
            return Ok(reservation);
        }
        self.read_since(backend, asked).await?;
        self.grant(name, owner, needs)
    }

    fn is_old(&self) -> bool {
        lock(&self.ledger).read_at.is_none_or(|at| at.elapsed() > READ_EVERY)
    }

    fn grant(&self, name: &str, owner: &str, needs: Needs) -> ApiResult<Reservation> {
        let mut ledger = lock(&self.ledger);
        let (of_key, of_all) = ledger.sums(name, owner, needs);
        of_key.check(&self.of_key, true)?;
        of_all.check(&self.of_all, false)?;
        let number = ledger.next;
        ledger.next += 1;
        ledger.reserved.insert(number, (name.into(), Grant { owner: owner.into(), needs, at: Instant::now() }));
        Ok(Reservation { ledger: self.ledger.clone(), number })
    }

    /// Reads what exists and what runs from the records, unless a read that began after `asked` did so.
    async fn read_since(&self, backend: &SharedBackend, asked: Instant) -> ApiResult<()> {
        self.reading.since(asked, |begin| self.read(backend, begin)).await
    }

    async fn read(&self, backend: &SharedBackend, begin: Instant) -> ApiResult<()> {
        let mut found = HashMap::new();
        let take = |record: SandboxRecord| {
            let Some(owner) = record.owner else { return };
            // A record that cannot be read runs nothing that this server could start.
            let spec: SandboxSpec = serde_json::from_str(&record.config_json).unwrap_or_default();
            let runs = !record.status.is_terminal();
            let needs = if runs { Needs::of(&spec.resources) } else { Needs::default() };
            found.insert(record.name, Grant { owner, needs, at: begin });
        };
        each_record(backend, &Owners::All, take).await?;
        lock(&self.ledger).replace(found, begin);
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
        // One measurement of each at a time: that of a large owner delays no other.
        let place = lock(&self.disk).entry(whose.clone()).or_default().clone();
        let mut measured = place.lock().await;
        if let Some(known) = *measured
            && known.at.elapsed() < MEASURE_EVERY.max(known.took * MEASURE_PART)
        {
            return Ok(known.used);
        }
        let owners = whose.map_or(Owners::All, Owners::Only);
        let begun = Instant::now();
        let mut sandboxes = Vec::new();
        let take = |record: SandboxRecord| sandboxes.extend(record.owner.map(|_| record.name));
        each_record(backend, &owners, take).await?;
        let query = VolumeQuery { owners, unmeasured: true, ..VolumeQuery::default() };
        let volumes = backend.volumes().list(query).await?;
        let volumes = volumes.into_iter().filter(|volume| volume.owner.is_some()).map(|volume| volume.name).collect();
        let used = disk_use::measure(local.home(), sandboxes, volumes).await?;
        *measured = Some(Measured { at: Instant::now(), took: begun.elapsed(), used });
        Ok(used)
    }
}

/// What sandboxes need together.
#[derive(Debug, Default)]
struct Sums {
    sandboxes: u64,
    memory_mib: u64,
    cpus: u64,
}

impl Sums {
    fn add(&mut self, needs: Needs) {
        self.sandboxes += 1;
        self.memory_mib = self.memory_mib.saturating_add(needs.memory_mib);
        self.cpus = self.cpus.saturating_add(needs.cpus);
    }

    fn check(&self, budget: &Budget, of_key: bool) -> ApiResult<()> {
        room(budget.sandboxes, self.sandboxes, BudgetName::Sandboxes, of_key)?;
        room(budget.memory_mib, self.memory_mib, BudgetName::Memory, of_key)?;
        room(budget.cpus, self.cpus, BudgetName::Cpus, of_key)
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
mod tests;
