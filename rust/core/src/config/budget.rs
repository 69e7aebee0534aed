//! `serve.budget` and `serve.key_budget`: what the clients of a server may use.

use serde::{Deserialize, Serialize};

use super::sections::or_default;

/// `serve.*`. Keys of this implementation; the options of `msb serve` beat them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ServeConfig {
    /// Of all keys together.
    #[serde(deserialize_with = "or_default")]
    pub budget: Budget,
    /// Of each key.
    #[serde(deserialize_with = "or_default")]
    pub key_budget: Budget,
}

/// Most of each that there may be at a time; absent: no limit of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Budget {
    /// That exist.
    pub sandboxes: Option<u64>,
    /// That exist.
    pub volumes: Option<u64>,
    /// Of sandboxes that run, by their limits.
    pub memory_mib: Option<u64>,
    /// Of sandboxes that run, by their limits.
    pub cpus: Option<u64>,
    /// Of sandboxes and volumes that exist, as last measured.
    pub disk_mib: Option<u64>,
    /// Files of every kind, of sandboxes and volumes that exist, as last measured.
    pub inodes: Option<u64>,
}

/// What a budget is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetName {
    Sandboxes,
    Volumes,
    Memory,
    Cpus,
    Disk,
    Inodes,
}

impl BudgetName {
    pub const ALL: [BudgetName; 6] = [
        BudgetName::Sandboxes,
        BudgetName::Volumes,
        BudgetName::Memory,
        BudgetName::Cpus,
        BudgetName::Disk,
        BudgetName::Inodes,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            BudgetName::Sandboxes => "sandboxes",
            BudgetName::Volumes => "volumes",
            BudgetName::Memory => "memory",
            BudgetName::Cpus => "cpus",
            BudgetName::Disk => "disk",
            BudgetName::Inodes => "inodes",
        }
    }

    pub fn parse(text: &str) -> Option<BudgetName> {
        BudgetName::ALL.into_iter().find(|name| name.as_str() == text)
    }

    /// After a number: ` MiB` for sizes.
    pub fn unit(self) -> &'static str {
        match self {
            BudgetName::Memory | BudgetName::Disk => " MiB",
            BudgetName::Sandboxes | BudgetName::Volumes | BudgetName::Cpus | BudgetName::Inodes => "",
        }
    }
}

impl Budget {
    pub fn set(&mut self, name: BudgetName, limit: u64) {
        let field = match name {
            BudgetName::Sandboxes => &mut self.sandboxes,
            BudgetName::Volumes => &mut self.volumes,
            BudgetName::Memory => &mut self.memory_mib,
            BudgetName::Cpus => &mut self.cpus,
            BudgetName::Disk => &mut self.disk_mib,
            BudgetName::Inodes => &mut self.inodes,
        };
        *field = Some(limit);
    }
}
