//! The exception classes of `microsandbox.errors`, looked up once.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;

macro_rules! classes {
    ($($name:ident),+ $(,)?) => {
        /// A class of `microsandbox.errors` by its name.
        #[allow(clippy::enum_variant_names, reason = "the names are those of Python")]
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Class { $($name),+ }

        impl Class {
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];
            const ALL: &'static [Class] = &[$(Class::$name),+];
        }
    };
}

classes! {
    AgentLostError,
    AuthError,
    BootStartError,
    CloudHttpError,
    ExecFailedError,
    ExecTimeoutError,
    FilesystemError,
    GuestStalledError,
    ImageInUseError,
    ImageNotFoundError,
    ImagePullFailedError,
    InvalidConfigError,
    InvalidStateError,
    IoError,
    IsolationUnavailableError,
    JobError,
    MetricsDisabledError,
    MetricsUnavailableError,
    MicrosandboxError,
    NoDefaultCommandError,
    OutputLimitError,
    PatchFailedError,
    PathNotFoundError,
    ProtocolError,
    RateLimitedError,
    ResourceExhaustedError,
    SandboxAlreadyExistsError,
    SandboxNotFoundError,
    SandboxNotRunningError,
    SandboxReplacedError,
    SandboxStillRunningError,
    SandboxStopTimedOutError,
    StateBusyError,
    StateCorruptError,
    StateError,
    StateLostError,
    StateReadOnlyError,
    StopTimeoutError,
    TlsError,
    UnsupportedError,
    UnsupportedOperationError,
    VolumeAlreadyExistsError,
    VolumeInUseError,
    VolumeNotFoundError,
}

static TABLE: PyOnceLock<Vec<Py<PyType>>> = PyOnceLock::new();

/// Looks all classes up, in the order of [`Class`]. The package does so when it is loaded: at the end of the
/// interpreter, where destructors may still call this module, nothing can be imported any more.
pub fn resolve(py: Python<'_>) -> PyResult<&Vec<Py<PyType>>> {
    TABLE.get_or_try_init(py, || {
        let module = py.import("microsandbox.errors")?;
        let class = |name: &&str| Ok(module.getattr(*name)?.cast_into::<PyType>()?.unbind());
        Class::NAMES.iter().map(class).collect()
    })
}

impl Class {
    /// The class of this exception, no subclass of it.
    pub fn of_instance(error: &Bound<'_, PyAny>) -> PyResult<Option<Class>> {
        let py = error.py();
        let kind = error.get_type();
        Ok(resolve(py)?.iter().position(|class| class.is(&kind)).map(|index| Class::ALL[index]))
    }
    pub fn of(self, py: Python<'_>) -> PyResult<&Bound<'_, PyType>> {
        // The table has one entry for each variant.
        Ok(resolve(py)?[self as usize].bind(py))
    }
}
