//! The named steps of a boot: their names appear in errors and timings, and tests kill processes at them.

use crate::text::text_enum;

text_enum! {
    /// The part of a boot that a step belongs to.
    pub enum Stage {
        Config = "config",
        Image = "image",
        Mount = "mount",
        Network = "network",
        BuildVm = "build_vm",
        Agent = "agent";
        /// Everything else, and a stage of another version.
        Other = "other",
    }
}

macro_rules! steps {
    ($($(#[$doc:meta])* $variant:ident = $name:literal in $stage:ident),+ $(,)?) => {
        text_enum! {
            /// A step of the boot, in the order in which they happen.
            pub enum Step {
                $($(#[$doc])* $variant = $name,)+
                /// The runtime process as a whole, as the SDK sees it.
                Runtime = "runtime";
                /// A step of another version.
                Unknown = "unknown",
            }
        }

        impl Step {
            /// Every step that a runtime goes through, in order.
            pub const ALL: &'static [Step] = &[$(Step::$variant),+];

            /// The stage that the step belongs to.
            pub const fn stage(self) -> Stage {
                match self {
                    $(Step::$variant => Stage::$stage,)+
                    Step::Runtime | Step::Unknown => Stage::Other,
                }
            }
        }
    };
}

steps! {
    ReadSpec = "read spec" in Config,
    OpenSandbox = "open sandbox directory" in Config,
    BindSocket = "bind agent socket" in Config,
    MakeCgroups = "make cgroups" in Other,
    AttachLayers = "attach layers" in Image,
    CloneInit = "clone init" in Other,
    MapIds = "map ids" in Other,
    JoinCgroups = "join cgroups" in Other,
    OpenLayers = "open layers" in Image,
    EnterIds = "enter ids" in Other,
    MountOverlay = "mount overlay" in Mount,
    MountProc = "mount proc" in Mount,
    MountSys = "mount sys" in Mount,
    MountDev = "mount dev" in Mount,
    MountBinds = "mount binds" in Mount,
    WriteEtc = "write etc files" in Mount,
    StartNetwork = "start network" in Network,
    PivotRoot = "pivot root" in Mount,
    DropPrivileges = "drop privileges" in Other,
    InstallFilter = "install filter" in Other,
    ExecuteAgent = "execute agent" in Agent,
    FurnishMonitor = "furnish monitor" in BuildVm,
    ExecuteMonitor = "execute monitor" in BuildVm,
    BuildMachine = "build machine" in BuildVm,
    BootKernel = "boot kernel" in BuildVm,
    WaitForAgent = "wait for agent" in Agent,
    WriteIdentity = "write identity" in Other,
}

impl Step {
    /// Whether only a virtual machine has the step.
    pub fn is_of_machine(self) -> bool {
        self.stage() == Stage::BuildVm
    }
}
