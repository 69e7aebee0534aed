//! The named steps of a boot: their names appear in errors, in timings and as failpoints.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use microsandbox_protocol::launch::Timing;
use serde::{Deserialize, Serialize};

macro_rules! steps {
    ($($variant:ident = $name:literal in $stage:literal),+ $(,)?) => {
        /// A step of the boot, in the order in which they happen.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Step { $($variant),+ }
        impl Step {
            /// Every step, in order.
            pub const ALL: &'static [Step] = &[$(Step::$variant),+];
            pub fn name(self) -> &'static str {
                match self { $(Step::$variant => $name),+ }
            }
            /// The stage of `BootError` that the step belongs to.
            pub fn stage(self) -> &'static str {
                match self { $(Step::$variant => $stage),+ }
            }
        }
    };
}

steps! {
    ReadSpec = "read spec" in "config",
    OpenSandbox = "open sandbox directory" in "config",
    BindSocket = "bind agent socket" in "config",
    MakeCgroups = "make cgroups" in "other",
    AttachLayers = "attach layers" in "image",
    CloneInit = "clone init" in "other",
    MapIds = "map ids" in "other",
    JoinCgroups = "join cgroups" in "other",
    OpenLayers = "open layers" in "image",
    EnterIds = "enter ids" in "other",
    MountOverlay = "mount overlay" in "mount",
    MountProc = "mount proc" in "mount",
    MountSys = "mount sys" in "mount",
    MountDev = "mount dev" in "mount",
    MountBinds = "mount binds" in "mount",
    WriteEtc = "write etc files" in "mount",
    StartNetwork = "start network" in "network",
    PivotRoot = "pivot root" in "mount",
    DropPrivileges = "drop privileges" in "other",
    InstallFilter = "install filter" in "other",
    ExecuteAgent = "execute agent" in "agent",
    FurnishMonitor = "furnish monitor" in "build_vm",
    ExecuteMonitor = "execute monitor" in "build_vm",
    BuildMachine = "build machine" in "build_vm",
    BootKernel = "boot kernel" in "build_vm",
    WaitForAgent = "wait for agent" in "agent",
    WriteIdentity = "write identity" in "other",
}

impl Step {
    /// A step that only a virtual machine has.
    pub fn of_machine(self) -> bool {
        matches!(self, Step::FurnishMonitor | Step::ExecuteMonitor | Step::BuildMachine | Step::BootKernel)
    }
}

/// Records when each step was finished, and stops at the failpoint of a test.
pub struct Steps {
    start: Instant,
    fail_at: Option<String>,
    done: Vec<Timing>,
}

impl Steps {
    pub fn new(start: Instant) -> Steps {
        Steps { start, fail_at: None, done: Vec::with_capacity(Step::ALL.len()) }
    }

    pub fn set_failpoint(&mut self, fail_at: Option<String>) {
        self.fail_at = fail_at;
    }

    /// The step begins: true when the test wants the runtime to be killed here.
    pub fn is_failpoint(&self, step: Step) -> bool {
        self.fail_at.as_deref() == Some(step.name())
    }

    /// The step begins; at the failpoint of a test the runtime ends here as if it were killed.
    pub fn begin(&self, step: Step) {
        if self.is_failpoint(step) {
            kill_self();
        }
    }

    /// The step is finished. Microseconds since the first instruction.
    pub fn finish(&mut self, step: Step) {
        let at_us = self.now_us();
        self.record(step, at_us);
    }

    /// Records a time that another process measured on the same clock.
    pub fn record(&mut self, step: Step, at_us: u64) {
        self.done.push(Timing { step: step.name().to_owned(), at_us });
    }

    /// When the first instruction ran, on the monotonic clock.
    pub fn origin_ns(&self) -> u64 {
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
        let now = now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64;
        now.saturating_sub(self.start.elapsed().as_nanos() as u64)
    }

    pub fn now_us(&self) -> u64 {
        self.start.elapsed().as_micros() as u64
    }

    /// What was recorded; nothing more is.
    pub fn take(&mut self) -> Vec<Timing> {
        std::mem::take(&mut self.done)
    }
}

/// Milliseconds since the epoch; zero for a clock before it.
pub fn epoch_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |d| d.as_millis() as u64)
}

/// What a failpoint does: no clean-up of any kind runs.
pub fn kill_self() -> ! {
    let _ = rustix::process::kill_process(rustix::process::getpid(), rustix::process::Signal::KILL);
    microsandbox_sys::process::exit_now(137)
}
