//! What separates a sandbox from its host: what was asked, and what it really has.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use microsandbox_contract::{
    Accelerator, IsolationDriver, IsolationReport, Mechanism, MechanismName, MechanismState,
};

/// `auto` is a policy; a running sandbox has one of the other two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Isolation {
    /// The strongest that really works on this host.
    #[default]
    Auto,
    /// A libkrun virtual machine with a kernel of its own; a hard demand.
    Microvm,
    /// Namespaces, seccomp, capabilities and control groups on the host's kernel.
    Container,
}

impl Isolation {
    pub fn as_str(self) -> &'static str {
        match self {
            Isolation::Auto => "auto",
            Isolation::Microvm => "microvm",
            Isolation::Container => "container",
        }
    }

    pub fn parse(text: &str) -> Option<Isolation> {
        [Isolation::Auto, Isolation::Microvm, Isolation::Container].into_iter().find(|i| i.as_str() == text)
    }
}

impl std::fmt::Display for Isolation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What `msb doctor` prints.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DoctorReport {
    /// What `auto` gives on this host.
    pub isolation: Isolation,
    /// Why not more; absent when nothing is missing.
    pub reason: Option<String>,
    pub hint: Option<String>,
    pub checks: Vec<DoctorCheck>,
    /// Where the guest kernel's library was looked for, in order.
    pub libkrunfw: Vec<LibraryRung>,
}

/// One place where libkrunfw is looked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct LibraryRung {
    /// `MSB_LIBKRUNFW_PATH`, `set_libkrunfw_path`, `paths.libkrunfw`, `system` or `home`.
    pub rung: String,
    /// Absent where nothing is named.
    pub path: Option<PathBuf>,
    /// `unset`, `absent`, `unusable`, `taken`, or `passed over` (an earlier place decided).
    pub found: String,
    /// Why it is unusable, or the digest of what is taken.
    pub detail: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DoctorCheck {
    pub name: String,
    pub state: MechanismState,
    pub detail: String,
    /// What to do when it is not `on`.
    pub hint: Option<String>,
}
