//! The groups of the supervisor itself: what it does for a guest (decoding its output, writing its log) is host work outside
//! of the sandbox's own groups, and bounded by these.
//!
//! They are made at the boot, because the supervisor may make nothing later, and entered when it has used [`ENTER_AFTER`] of
//! processor time: an ordinary sandbox never gets there, and a burst of output is logged at full speed.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::fd::OwnedFd;

use crate::create::{Cgroups, Leaf};
use crate::limits::{Controller, set_limit_of_supervisor};

/// Processor time after which a supervisor is confined to its groups.
pub const ENTER_AFTER: Duration = Duration::from_secs(1);
const SUFFIX: &str = ".supervisor";

/// Groups beside those of the sandbox, of the same controllers.
#[derive(Debug, Default)]
pub struct SupervisorGroups {
    places: Vec<Place>,
    entered: bool,
}

#[derive(Debug)]
struct Place {
    path: PathBuf,
    v2: bool,
    controllers: Vec<Controller>,
    /// The list of members of the group in which the supervisor is now: it returns there, to be able to remove its own.
    before: OwnedFd,
}

/// `tasks` of version 1 moves a single thread, which spares the machine the lock that moving a process takes.
fn members(v2: bool) -> &'static str {
    if v2 { "cgroup.procs" } else { "tasks" }
}

impl SupervisorGroups {
    /// Makes them for the sandbox with these groups, with the rights of this moment; where that fails there are none, as
    /// where the sandbox has none.
    pub fn beside(groups: &Cgroups) -> SupervisorGroups {
        let place = |leaf: &Leaf| {
            let bounded = leaf.limits.iter().copied().filter(|controller| *controller != Controller::Pids);
            let controllers: Vec<Controller> = bounded.collect();
            if controllers.is_empty() {
                return None;
            }
            let before: OwnedFd = OpenOptions::new().write(true).open(leaf.own.join(members(leaf.v2))).ok()?.into();
            let path = beside(&leaf.path);
            make(&path).is_ok().then_some(Place { path, v2: leaf.v2, controllers, before })
        };
        SupervisorGroups { places: groups.leaves().iter().filter_map(place).collect(), entered: false }
    }

    /// The directories made.
    pub fn paths(&self) -> Vec<PathBuf> {
        self.places.iter().map(|place| place.path.clone()).collect()
    }

    /// Whether there is anything left to enter.
    pub fn is_pending(&self) -> bool {
        !self.entered && !self.places.is_empty()
    }

    /// Sets the limits and moves this process into the groups; what failed, for the log of the runtime.
    pub fn enter(&mut self) -> Vec<String> {
        self.entered = true;
        let mut failures = Vec::new();
        for place in &self.places {
            if let Err(error) = place.enter() {
                failures.push(format!("the supervisor is not bounded by {}: {error}", place.path.display()));
            }
        }
        failures
    }

    /// Leaves and removes them.
    pub fn leave(&mut self) {
        for place in self.places.drain(..) {
            if self.entered {
                let _ = rustix::io::write(&place.before, b"0");
            }
            let _ = fs::remove_dir(&place.path);
        }
    }
}

/// The path of the supervisor's group beside that of its sandbox.
fn beside(leaf: &Path) -> PathBuf {
    let mut path = leaf.as_os_str().to_owned();
    path.push(SUFFIX);
    path.into()
}

/// Groups of sandboxes, each with that of its supervisor behind it.
pub fn with_supervisors(leaves: impl IntoIterator<Item = PathBuf>) -> Vec<PathBuf> {
    let both = |leaf: PathBuf| {
        let supervisor = beside(&leaf);
        [leaf, supervisor]
    };
    leaves.into_iter().flat_map(both).collect()
}

/// A killed run may have left it.
fn make(path: &Path) -> std::io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}

impl Place {
    fn enter(&self) -> std::io::Result<()> {
        for controller in &self.controllers {
            set_limit_of_supervisor(&self.path, self.v2, *controller).map_err(|(_file, error)| error)?;
        }
        let file = OpenOptions::new().write(true).open(self.path.join(members(self.v2)))?;
        rustix::io::write(&file, b"0").map(drop).map_err(Into::into)
    }
}
