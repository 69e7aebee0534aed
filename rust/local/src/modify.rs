//! Changing a sandbox that exists: a plan first, then all of it or nothing.
//!
//! Live are labels, the environment and directory of later programs, and, in a container, processors and memory up to
//! their ceilings. The rest waits for a start.

use std::path::PathBuf;

use microsandbox_cgroups::limits;
use microsandbox_contract::{Identity, IsolationDriver};
use microsandbox_protocol::message::Settings;

use super::reconcile;
use microsandbox_core::agent::AgentClient;
use microsandbox_core::api::DEFAULT_CONNECT_TIMEOUT;
use microsandbox_core::error::{MicrosandboxError, MicrosandboxResult};
use microsandbox_core::model::{
    ChangeKind, Disposition, EnvVar, Isolation, Modification, ModificationConflict, ModificationPlan,
    ModificationPolicy, PlannedChange, ResizeStatus, SandboxSpec, SandboxStatus, validate_stored_name,
};
use microsandbox_core::validate;
use microsandbox_home::{Home, blocking};

/// A plan that was carried out, up to a restart.
pub struct Modified {
    pub plan: ModificationPlan,
    /// The sandbox has to be restarted, detached or not.
    pub restart: Option<bool>,
}

/// Plans and stores the change, and applies what is live. A restart is left to the caller.
pub async fn modify(home: &Home, name: &str, asked: Modification) -> MicrosandboxResult<Modified> {
    validate_stored_name("sandbox", name)?;
    let (lock, now) = reconcile::hold(home, name, None).await?;
    let store = home.store().await?;
    let identity = now.last_identity(home).await.filter(|_| !now.row.status.is_terminal());
    let row = now.row;
    let old: SandboxSpec = serde_json::from_str(&row.config_json)
        .map_err(|error| MicrosandboxError::json(format!("stored configuration of sandbox {name}"), error))?;
    let new = changed(&old, &asked)?;
    validate::spec(&new, home.config())?;
    if old.isolation_actual == Some(Isolation::Microvm) {
        validate::microvm(&new)?;
    }
    let mut plan = Planner::new(&old, &new, row.status, asked.policy).plan(name);
    if let Some(conflict) = memory_in_use(&plan, &new, identity.as_ref()) {
        plan.conflicts.push(conflict);
    }
    if asked.dry_run {
        return Ok(Modified { plan, restart: None });
    }
    if let Some(conflict) = plan.conflicts.first() {
        let text = format!("cannot apply modification: {}: {}", conflict.field, conflict.message);
        return Err(MicrosandboxError::InvalidConfig(text));
    }
    let restart = plan.changes.iter().any(|change| change.disposition == Disposition::RequiresRestart);
    if !row.status.is_terminal() && !restart {
        let live = Live { home, name, old: &old, new: &new, identity: identity.as_ref() };
        plan.resized = live.apply(&plan).await?;
    }
    store.update_spec(row.id, &new).await?;
    drop(lock);
    plan.applied = !restart;
    Ok(Modified { plan, restart: restart.then_some(new.detached) })
}

/// The specification afterwards.
fn changed(old: &SandboxSpec, asked: &Modification) -> MicrosandboxResult<SandboxSpec> {
    let mut new = old.clone();
    let resources = &mut new.resources;
    resources.cpus = asked.cpus.unwrap_or(resources.cpus);
    resources.memory_mib = asked.memory_mib.unwrap_or(resources.memory_mib);
    resources.max_cpus = asked.max_cpus.unwrap_or(resources.max_cpus);
    resources.max_memory_mib = asked.max_memory_mib.unwrap_or(resources.max_memory_mib);
    let clash = asked.env_rm.iter().find(|key| asked.env.contains_key(*key));
    if let Some(key) = clash.or_else(|| asked.labels_rm.iter().find(|key| asked.labels.contains_key(*key))) {
        return Err(MicrosandboxError::InvalidConfig(format!("{key} is both set and removed")));
    }
    new.env.retain(|var| !asked.env_rm.contains(&var.key));
    for (key, value) in &asked.env {
        new.env.retain(|var| var.key != *key);
        new.env.push(EnvVar { key: key.clone(), value: value.clone() });
    }
    new.labels.retain(|key, _| !asked.labels_rm.contains(key));
    new.labels.extend(asked.labels.clone());
    if let Some(workdir) = &asked.workdir {
        new.runtime.workdir = Some(workdir.clone());
    }
    Ok(new)
}

struct Planner<'a> {
    old: &'a SandboxSpec,
    new: &'a SandboxSpec,
    status: SandboxStatus,
    policy: ModificationPolicy,
    changes: Vec<PlannedChange>,
    conflicts: Vec<ModificationConflict>,
}

impl<'a> Planner<'a> {
    fn new(old: &'a SandboxSpec, new: &'a SandboxSpec, status: SandboxStatus, policy: ModificationPolicy) -> Self {
        Planner { old, new, status, policy, changes: Vec::new(), conflicts: Vec::new() }
    }

    fn plan(mut self, name: &str) -> ModificationPlan {
        let (old, new) = (&self.old.resources, &self.new.resources);
        let is_machine = self.old.isolation_actual == Some(Isolation::Microvm);
        let machine = is_machine.then_some("a virtual machine gets its processors and memory at its start");
        let ceiling = Some("a ceiling is set at a start");
        let above_cpus = machine.or((new.cpus > old.max_cpus).then_some("it is above max_cpus of this run"));
        let above = machine.or((new.memory_mib > old.max_memory_mib).then_some("it is above max_memory of this run"));
        self.number("cpus", old.cpus.into(), new.cpus.into(), above_cpus);
        self.number("max_cpus", old.max_cpus.into(), new.max_cpus.into(), ceiling);
        self.number("memory", old.memory_mib.into(), new.memory_mib.into(), above);
        self.number("max_memory", old.max_memory_mib.into(), new.max_memory_mib.into(), ceiling);
        self.environment();
        self.labels();
        let (before, after) = (self.old.runtime.workdir.clone(), self.new.runtime.workdir.clone());
        if before != after {
            self.change("workdir", None, before, after, None);
        }
        ModificationPlan {
            sandbox: name.to_owned(),
            status: self.status,
            applied: false,
            policy: self.policy,
            changes: self.changes,
            conflicts: self.conflicts,
            warnings: Vec::new(),
            resized: Vec::new(),
        }
    }

    fn number(&mut self, field: &'static str, before: u64, after: u64, not_live: Option<&str>) {
        if before != after {
            self.change(field, None, Some(before.to_string()), Some(after.to_string()), not_live);
        }
    }

    fn environment(&mut self) {
        let find =
            |spec: &SandboxSpec, key: &str| spec.env.iter().find(|var| var.key == key).map(|var| var.value.clone());
        let mut keys: Vec<&String> = self.old.env.iter().chain(&self.new.env).map(|var| &var.key).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (before, after) = (find(self.old, key), find(self.new, key));
            if before != after {
                // Only whether there is a value: it may be secret.
                let hide = |value: Option<String>| value.map(|_| "…".to_owned());
                self.change("env", Some(key.clone()), hide(before), hide(after), None);
            }
        }
    }

    fn labels(&mut self) {
        let mut keys: Vec<&String> = self.old.labels.keys().chain(self.new.labels.keys()).collect();
        keys.sort();
        keys.dedup();
        for key in keys {
            let (before, after) = (self.old.labels.get(key).cloned(), self.new.labels.get(key).cloned());
            if before != after {
                self.change("label", Some(key.clone()), before, after, None);
            }
        }
    }

    fn change(
        &mut self,
        field: &'static str,
        name: Option<String>,
        before: Option<String>,
        after: Option<String>,
        not_live: Option<&str>,
    ) {
        let stopped = self.status.is_terminal() || self.status == SandboxStatus::Created;
        let disposition = match (stopped, not_live, self.policy) {
            (true, _, _) => Disposition::NextStart,
            (false, None, _) => Disposition::Live,
            (false, Some(_), ModificationPolicy::NextStart) => Disposition::NextStart,
            (false, Some(why), ModificationPolicy::NoRestart) => {
                let message = format!("{why}; allow it with the policy next_start or restart");
                self.conflicts.push(ModificationConflict { field, message });
                Disposition::RequiresRestart
            }
            (false, Some(_), ModificationPolicy::Restart) => Disposition::RequiresRestart,
        };
        let change = match (&before, &after) {
            (None, _) => ChangeKind::Added,
            (_, None) => ChangeKind::Removed,
            _ => ChangeKind::Updated,
        };
        let reason = not_live.filter(|_| !stopped).map(str::to_owned);
        self.changes.push(PlannedChange { field, name, change, disposition, before, after, reason });
    }
}

fn is_live(plan: &ModificationPlan, field: &str) -> bool {
    plan.changes.iter().any(|change| change.field == field && change.disposition == Disposition::Live)
}

/// A limit below what is in use would have the kernel kill programs.
fn memory_in_use(
    plan: &ModificationPlan,
    new: &SandboxSpec,
    identity: Option<&Identity>,
) -> Option<ModificationConflict> {
    if !is_live(plan, "memory") {
        return None;
    }
    let used = limits::memory_in_use(&groups(identity))?;
    let wanted = u64::from(new.resources.memory_mib) << 20;
    (used > wanted).then(|| ModificationConflict {
        field: "memory",
        message: format!("{} MiB are in use now", used.div_ceil(1 << 20)),
    })
}

fn groups(identity: Option<&Identity>) -> Vec<PathBuf> {
    identity
        .filter(|identity| identity.driver == IsolationDriver::Container)
        .map(|i| i.cgroups.clone())
        .unwrap_or_default()
}

/// A change that is applied to a running sandbox without a restart.
struct Live<'a> {
    home: &'a Home,
    name: &'a str,
    old: &'a SandboxSpec,
    new: &'a SandboxSpec,
    identity: Option<&'a Identity>,
}

impl Live<'_> {
    /// Limits first, because they can be refused; a later failure restores the old limits.
    async fn apply(&self, plan: &ModificationPlan) -> MicrosandboxResult<Vec<ResizeStatus>> {
        let resized = self.resize(plan, self.new).await?;
        if is_live(plan, "env") || is_live(plan, "workdir") {
            let settled = self.settle_agent().await;
            if settled.is_err() {
                // The error at hand is the one to report.
                let _ = self.resize(plan, self.old).await;
            }
            settled?;
        }
        Ok(resized)
    }

    async fn resize(&self, plan: &ModificationPlan, to: &SandboxSpec) -> MicrosandboxResult<Vec<ResizeStatus>> {
        let groups = groups(self.identity);
        let cpus = is_live(plan, "cpus").then_some(to.resources.cpus);
        let memory_mib = is_live(plan, "memory").then_some(to.resources.memory_mib);
        // A write may wait until the kernel has reclaimed what is over the new limit.
        blocking(move || {
            let mut resized = Vec::new();
            if let Some(cpus) = cpus {
                let file = written(limits::resize_cpus(&groups, u32::from(cpus)))?;
                resized.push(status("cpus", cpus.to_string(), file));
            }
            if let Some(memory_mib) = memory_mib {
                let file = written(limits::resize_memory(&groups, u64::from(memory_mib)))?;
                resized.push(status("memory", memory_mib.to_string(), file));
            }
            Ok(resized)
        })
        .await
    }

    /// The environment and directory of programs that start from now on.
    async fn settle_agent(&self) -> MicrosandboxResult<()> {
        let image = &self.new.image_defaults;
        let gone = self.old.env.iter().filter(|var| !self.new.env.iter().any(|kept| kept.key == var.key));
        let (mut unset, mut set) = (Vec::new(), Vec::new());
        for var in gone {
            // What the image says counts again.
            match image.env.iter().find(|own| own.key == var.key) {
                Some(own) => set.push(format!("{}={}", own.key, own.value)),
                None => unset.push(var.key.clone()),
            }
        }
        set.extend(self.new.env.iter().map(|var| format!("{}={}", var.key, var.value)));
        let cwd = self.new.runtime.workdir.clone().or_else(|| image.workdir.clone()).unwrap_or_else(|| "/".into());
        let mut agent =
            AgentClient::connect(&self.home.agent_address(self.name).await?, DEFAULT_CONNECT_TIMEOUT).await?;
        agent.settle(Settings { set, unset, cwd: Some(cwd) }).await
    }
}

/// The file that holds the new limit.
fn written(outcome: Option<Result<PathBuf, (PathBuf, std::io::Error)>>) -> MicrosandboxResult<PathBuf> {
    let outcome = outcome.ok_or_else(|| {
        MicrosandboxError::unsupported(
            "modify(cpus=, memory=) of a running sandbox",
            "where its limits are those of a control group; use the policy next_start",
        )
    })?;
    outcome.map_err(|(path, error)| MicrosandboxError::io("write", &path, error))
}

fn status(resource: &'static str, requested: String, file: PathBuf) -> ResizeStatus {
    let actual = std::fs::read_to_string(&file).map(|text| text.trim().to_owned()).unwrap_or_default();
    ResizeStatus {
        resource,
        requested,
        actual,
        enforced: file.file_name().unwrap_or_default().to_string_lossy().into(),
    }
}
