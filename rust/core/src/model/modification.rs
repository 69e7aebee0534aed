//! Changing a sandbox that exists: what is asked for, and what came or would come of it.

use std::collections::BTreeMap;

use super::SandboxStatus;

/// When a change that a running sandbox cannot take is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ModificationPolicy {
    /// It is refused.
    #[default]
    NoRestart,
    /// It waits for the next start.
    NextStart,
    /// The sandbox is restarted.
    Restart,
}

impl ModificationPolicy {
    pub const ALL: [ModificationPolicy; 3] =
        [ModificationPolicy::NoRestart, ModificationPolicy::NextStart, ModificationPolicy::Restart];

    pub fn as_str(self) -> &'static str {
        match self {
            ModificationPolicy::NoRestart => "no_restart",
            ModificationPolicy::NextStart => "next_start",
            ModificationPolicy::Restart => "restart",
        }
    }
}

/// What is to change; what is absent stays.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Modification {
    pub cpus: Option<u8>,
    pub max_cpus: Option<u8>,
    pub memory_mib: Option<u32>,
    pub max_memory_mib: Option<u32>,
    pub env: BTreeMap<String, String>,
    pub env_rm: Vec<String>,
    pub labels: BTreeMap<String, String>,
    pub labels_rm: Vec<String>,
    pub workdir: Option<String>,
    pub policy: ModificationPolicy,
    /// Only report the changes, without applying them.
    pub dry_run: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    Added,
    Updated,
    Removed,
}

impl ChangeKind {
    pub fn as_str(self) -> &'static str {
        match self {
            ChangeKind::Added => "added",
            ChangeKind::Updated => "updated",
            ChangeKind::Removed => "removed",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Disposition {
    Live,
    NextStart,
    RequiresRestart,
}

impl Disposition {
    pub fn as_str(self) -> &'static str {
        match self {
            Disposition::Live => "live",
            Disposition::NextStart => "next start",
            Disposition::RequiresRestart => "requires restart",
        }
    }
}

/// One setting that changes. Values of environment variables are left out: they may be secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedChange {
    /// `cpus max_cpus memory max_memory env label workdir`; a name follows for `env` and `label`.
    pub field: &'static str,
    pub name: Option<String>,
    pub change: ChangeKind,
    pub disposition: Disposition,
    pub before: Option<String>,
    pub after: Option<String>,
    pub reason: Option<String>,
}

/// Why a change cannot be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModificationConflict {
    pub field: &'static str,
    pub message: String,
}

/// A limit that a running sandbox has by now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResizeStatus {
    /// `cpus` or `memory`.
    pub resource: &'static str,
    pub requested: String,
    pub actual: String,
    pub enforced: String,
}

/// What came of it, or would.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModificationPlan {
    pub sandbox: String,
    pub status: SandboxStatus,
    pub applied: bool,
    pub policy: ModificationPolicy,
    pub changes: Vec<PlannedChange>,
    pub conflicts: Vec<ModificationConflict>,
    pub warnings: Vec<ModificationConflict>,
    pub resized: Vec<ResizeStatus>,
}
