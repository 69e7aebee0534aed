//! The enums that cross the boundary: one table each, a Rust enum on one side and a class of `microsandbox.types` with
//! the same members on the other. A variant without a member does not compile.

use microsandbox_core::BackendKind;
use microsandbox_core::config::{CpuPlacement, DeploymentProfile};
use microsandbox_core::model;
use pyo3::exceptions::PyTypeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyType};

use crate::arguments::type_name;

/// A Rust enum that Python has, too.
pub trait PythonEnum: Copy + PartialEq + 'static {
    /// Name of the class in `microsandbox.types`.
    const CLASS: &'static str;
    /// Every variant with the value of its member, in the order of the class.
    const MEMBERS: &'static [(Self, &'static str)];
    /// The value of the member.
    fn value(self) -> &'static str;
    #[doc(hidden)]
    fn cell() -> &'static PyOnceLock<Members>;
}

/// The class and its members, in the order of [`PythonEnum::MEMBERS`].
pub struct Members {
    class: Py<PyType>,
    members: Vec<Py<PyAny>>,
}

fn members<E: PythonEnum>(py: Python<'_>) -> PyResult<&'static Members> {
    E::cell().get_or_try_init(py, || {
        let class = py.import("microsandbox._enums")?.getattr(E::CLASS)?.cast_into::<PyType>()?;
        let members = E::MEMBERS.iter().map(|(_, value)| class.call1((*value,)).map(Bound::unbind));
        Ok(Members { members: members.collect::<PyResult<_>>()?, class: class.unbind() })
    })
}

/// A member of the Python enum that means `E`. As an argument, also the exact value of one as plain `str`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member<E>(pub E);

impl<'a, 'py, E: PythonEnum> FromPyObject<'a, 'py> for Member<E> {
    type Error = PyErr;
    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        let py = object.py();
        let known = members::<E>(py)?;
        if object.get_type().is(known.class.bind(py)) {
            let index = known.members.iter().position(|member| object.is(member.bind(py)));
            if let Some(index) = index {
                return Ok(Member(E::MEMBERS[index].0));
            }
        }
        if !object.is_exact_instance_of::<PyString>() {
            let text = format!("{{}} must be {}, not {}", E::CLASS, type_name(&object));
            return Err(PyTypeError::new_err(text));
        }
        let text: String = object.extract()?;
        if let Some((variant, _)) = E::MEMBERS.iter().find(|(_, value)| *value == text) {
            return Ok(Member(*variant));
        }
        let allowed: Vec<String> = E::MEMBERS.iter().map(|(_, value)| format!("'{value}'")).collect();
        let given = object.repr()?;
        Err(PyTypeError::new_err(format!("{{}} must be {}, not {given}; allowed: {}", E::CLASS, allowed.join(", "))))
    }
}

impl<'py, E: PythonEnum> IntoPyObject<'py> for Member<E> {
    type Target = PyAny;
    type Output = Bound<'py, PyAny>;
    type Error = PyErr;
    fn into_pyobject(self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let known = members::<E>(py)?;
        let index = E::MEMBERS.iter().position(|(variant, _)| *variant == self.0);
        match index {
            Some(index) => Ok(known.members[index].bind(py).clone()),
            // Both sides of the table come from one list.
            None => unreachable!("{} has no member {}", E::CLASS, self.0.value()),
        }
    }
}

macro_rules! python_enums {
    ($($class:ident: $kind:ty { $($variant:ident = $value:literal),+ $(,)? })+) => { $(
        impl PythonEnum for $kind {
            const CLASS: &'static str = stringify!($class);
            const MEMBERS: &'static [(Self, &'static str)] = &[$((Self::$variant, $value)),+];
            fn value(self) -> &'static str {
                match self { $(Self::$variant => $value),+ }
            }
            fn cell() -> &'static PyOnceLock<Members> {
                static CELL: PyOnceLock<Members> = PyOnceLock::new();
                &CELL
            }
        }
    )+ };
}

/// Declares enums that only the boundary needs.
macro_rules! boundary_enums {
    ($($(#[$meta:meta])* $class:ident { $($variant:ident = $value:literal),+ $(,)? })+) => {
        $(
            $(#[$meta])*
            #[derive(Debug, Clone, Copy, PartialEq, Eq)]
            pub enum $class { $($variant),+ }
        )+
        python_enums! { $($class: $class { $($variant = $value),+ })+ }
    };
}

python_enums! {
    BackendKind: BackendKind { Local = "local", Cloud = "cloud" }
    ChangeKind: model::ChangeKind { Added = "added", Updated = "updated", Removed = "removed" }
    CpuPlacement: CpuPlacement { Inherit = "inherit", Auto = "auto", Spread = "spread", Compact = "compact" }
    DeploymentProfile: DeploymentProfile { SingleTenant = "single-tenant", MultiTenant = "multi-tenant" }
    FsEntryKind: model::FsEntryKind {
        File = "file", Directory = "directory", Symlink = "symlink", Other = "other",
    }
    FsEventKind: model::FsEventKind {
        Created = "created", Modified = "modified", Attributes = "attributes", Deleted = "deleted", Moved = "moved",
        Overflow = "overflow",
    }
    ImageArchiveFormat: model::ImageArchiveFormat { Docker = "docker", Oci = "oci" }
    HostPermissions: model::HostPermissions { Private = "private", Mirror = "mirror" }
    Isolation: model::Isolation { Auto = "auto", Microvm = "microvm", Container = "container" }
    LogLevel: model::LogLevel { Trace = "trace", Debug = "debug", Info = "info", Warn = "warn", Error = "error" }
    LogSource: model::LogSource { Stdout = "stdout", Stderr = "stderr", Output = "output", System = "system" }
    MechanismState: model::MechanismState { On = "on", Off = "off", Degraded = "degraded" }
    ModificationDisposition: model::Disposition {
        Live = "live", NextStart = "next start", RequiresRestart = "requires restart",
    }
    ModificationPolicy: model::ModificationPolicy {
        NoRestart = "no_restart", NextStart = "next_start", Restart = "restart",
    }
    PullPolicy: model::PullPolicy { Always = "always", IfMissing = "if-missing", Never = "never" }
    SandboxStatus: model::SandboxStatus {
        Created = "created", Starting = "starting", Running = "running", Stopped = "stopped", Crashed = "crashed",
        Draining = "draining", Paused = "paused", Unknown = "unknown",
    }
    SecurityProfile: model::SecurityProfile { Default = "default", Restricted = "restricted" }
    StatVirtualization: model::StatVirtualization { Strict = "strict", Relaxed = "relaxed", Off = "off" }
    VolumeKind: model::VolumeKind { Directory = "dir", Disk = "disk" }
}

boundary_enums! {
    DiskImageFormat { Qcow2 = "qcow2", Raw = "raw", Vmdk = "vmdk" }
    /// What happened to a running program.
    ExecEventType {
        Started = "started", Stdout = "stdout", Stderr = "stderr", Exited = "exited", Failed = "failed",
        StdinError = "stdin_error",
    }
    /// Where a root file system comes from.
    ImageSourceKind { Oci = "oci", Bind = "bind", Disk = "disk", Host = "host" }
    /// Which sources of a log are read.
    LogReadSource { Stdout = "stdout", Stderr = "stderr", Output = "output", System = "system", All = "all" }
    MountKind { Bind = "bind", Named = "named", Tmpfs = "tmpfs", Disk = "disk", Owned = "owned" }
    /// What is done about an absent or existing volume.
    NamedVolumeMode { Existing = "existing", Create = "create", EnsureExists = "ensure-exists" }
    PatchKind {
        Text = "text", File = "file", Mkdir = "mkdir", Append = "append", CopyFile = "copy_file", CopyDir = "copy_dir",
        Symlink = "symlink", Remove = "remove",
    }
    RlimitResource {
        Cpu = "cpu", Fsize = "fsize", Data = "data", Stack = "stack", Core = "core", Rss = "rss", Nproc = "nproc",
        Nofile = "nofile", Memlock = "memlock", As = "as", Locks = "locks", Sigpending = "sigpending",
        Msgqueue = "msgqueue", Nice = "nice", Rtprio = "rtprio", Rttime = "rttime",
    }
    StdinMode { Null = "null", Pipe = "pipe", Bytes = "bytes" }
    /// What happens when a secret would leave for a host that may not have it.
    ViolationAction {
        Block = "block", BlockAndLog = "block-and-log", BlockAndTerminate = "block-and-terminate",
        Passthrough = "passthrough",
    }
}
