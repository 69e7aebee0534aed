"""Sandboxes for code that you do not trust: files, programs and limits, from Python.

    import asyncio
    from microsandbox import Sandbox

    async def main():
        async with await Sandbox.create("demo", image="host") as sb:
            print((await sb.exec("python3", ["-c", "print(6 * 7)"])).stdout_text)

    asyncio.run(main())

Everything is importable from here; `microsandbox.sync` has the same names without `await`. Importing this package loads
nothing: each name is fetched when it is first used.
"""

from __future__ import annotations

# What type checkers take for `typing.TYPE_CHECKING`, without the cost of that import.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from ._backend import (
        BackendScope as BackendScope,
        CloudBackend as CloudBackend,
        LocalBackend as LocalBackend,
        backend_scope as backend_scope,
        default_backend_info as default_backend_info,
        default_backend_kind as default_backend_kind,
        set_default_backend as set_default_backend,
    )
    from ._config import (
        BootStep as BootStep,
        DoctorCheck as DoctorCheck,
        DoctorReport as DoctorReport,
        ExecOptions as ExecOptions,
        ExitStatus as ExitStatus,
        GiB as GiB,
        ImageSource as ImageSource,
        InitConfig as InitConfig,
        InitOptions as InitOptions,
        IsolationReport as IsolationReport,
        LibraryRung as LibraryRung,
        Mechanism as Mechanism,
        MiB as MiB,
        MountConfig as MountConfig,
        RegistryAuth as RegistryAuth,
        Rlimit as Rlimit,
        RootDisk as RootDisk,
        RootDiskConfig as RootDiskConfig,
        Size as Size,
        Stdin as Stdin,
    )
    from ._enums import (
        Action as Action,
        BackendKind as BackendKind,
        ChangeKind as ChangeKind,
        CpuPlacement as CpuPlacement,
        DeploymentProfile as DeploymentProfile,
        DestGroup as DestGroup,
        Direction as Direction,
        DiskImageFormat as DiskImageFormat,
        ExecEventType as ExecEventType,
        FlatClone as FlatClone,
        FsEntryKind as FsEntryKind,
        FsEventKind as FsEventKind,
        GuestFlush as GuestFlush,
        HostPermissions as HostPermissions,
        ImageArchiveFormat as ImageArchiveFormat,
        ImageSourceKind as ImageSourceKind,
        Isolation as Isolation,
        LogLevel as LogLevel,
        LogReadSource as LogReadSource,
        LogSource as LogSource,
        MechanismState as MechanismState,
        ModificationDisposition as ModificationDisposition,
        ModificationPolicy as ModificationPolicy,
        MountKind as MountKind,
        NamedVolumeMode as NamedVolumeMode,
        NetworkDestinationKind as NetworkDestinationKind,
        NetworkProfile as NetworkProfile,
        PatchKind as PatchKind,
        PlannedChangeKind as PlannedChangeKind,
        PortProtocol as PortProtocol,
        Protocol as Protocol,
        PullEventType as PullEventType,
        PullPolicy as PullPolicy,
        ResourceConvergenceState as ResourceConvergenceState,
        ResourceKind as ResourceKind,
        RlimitResource as RlimitResource,
        RootDiskKind as RootDiskKind,
        SandboxStatus as SandboxStatus,
        SecretChangeKind as SecretChangeKind,
        SecurityProfile as SecurityProfile,
        SnapshotFormat as SnapshotFormat,
        SnapshotScope as SnapshotScope,
        SnapshotStateKind as SnapshotStateKind,
        StatVirtualization as StatVirtualization,
        StdinMode as StdinMode,
        ViolationAction as ViolationAction,
        VolumeKind as VolumeKind,
        VsockSocketType as VsockSocketType,
    )
    from ._exec import (
        ExecHandle as ExecHandle,
        ExecSink as ExecSink,
    )
    from ._files import (
        FsReadStream as FsReadStream,
        FsWatch as FsWatch,
        FsWriteSink as FsWriteSink,
        SandboxFsOps as SandboxFsOps,
    )
    from ._handle import (
        SandboxHandle as SandboxHandle,
        SandboxPage as SandboxPage,
        SandboxPingResult as SandboxPingResult,
        SandboxTouchResult as SandboxTouchResult,
    )
    from ._image import (
        Image as Image,
        ImageDetail as ImageDetail,
        ImageHandle as ImageHandle,
    )
    from ._isolation import (
        doctor as doctor,
    )
    from ._logs import (
        LogStream as LogStream,
    )
    from ._metrics import (
        all_sandbox_metrics as all_sandbox_metrics,
    )
    from ._metrics_stream import (
        MetricsStream as MetricsStream,
    )
    from ._microsandbox import (
        BackendInfo as BackendInfo,
        ExecEvent as ExecEvent,
        ExecOutput as ExecOutput,
        FsEntry as FsEntry,
        FsEvent as FsEvent,
        FsMetadata as FsMetadata,
        ImageConfigDetail as ImageConfigDetail,
        ImageLayerDetail as ImageLayerDetail,
        ImagePruneReport as ImagePruneReport,
        LogEntry as LogEntry,
        SandboxMetrics as SandboxMetrics,
        SandboxStopResult as SandboxStopResult,
        version as version,
    )
    from ._modify import (
        BranchOutcome as BranchOutcome,
        ConfigPlannedChange as ConfigPlannedChange,
        DiskCompactionDiskResult as DiskCompactionDiskResult,
        DiskCompactionResult as DiskCompactionResult,
        ExternalMountWarning as ExternalMountWarning,
        ForkOutcome as ForkOutcome,
        ModificationConflict as ModificationConflict,
        ModificationWarning as ModificationWarning,
        PlannedChange as PlannedChange,
        ResourceResizeStatus as ResourceResizeStatus,
        SandboxModificationPlan as SandboxModificationPlan,
        SecretPlannedChange as SecretPlannedChange,
    )
    from ._network import (
        Destination as Destination,
        DnsConfig as DnsConfig,
        HttpConfig as HttpConfig,
        Network as Network,
        NetworkDestination as NetworkDestination,
        NetworkPolicy as NetworkPolicy,
        NetworkRateLimiter as NetworkRateLimiter,
        OutboundProxy as OutboundProxy,
        PortBinding as PortBinding,
        PortEndpoint as PortEndpoint,
        RateLimiter as RateLimiter,
        Rule as Rule,
        ScopedUpstreamCACert as ScopedUpstreamCACert,
        ScopedVerifyUpstream as ScopedVerifyUpstream,
        TlsConfig as TlsConfig,
        TokenBucket as TokenBucket,
        VsockRoute as VsockRoute,
    )
    from ._patch import (
        Patch as Patch,
        PatchConfig as PatchConfig,
    )
    from ._progress import Progress as Progress
    from ._pull import (
        PullEvent as PullEvent,
        PullProgressIter as PullProgressIter,
        PullSession as PullSession,
    )
    from ._sandbox import (
        Sandbox as Sandbox,
    )
    from ._secrets import (
        Secret as Secret,
        SecretEntry as SecretEntry,
        SecretInjection as SecretInjection,
        SecretModifySpec as SecretModifySpec,
        SecretSource as SecretSource,
        SecretSubstitution as SecretSubstitution,
        ViolationPolicy as ViolationPolicy,
    )
    from ._snapshot import (
        Snapshot as Snapshot,
        SnapshotArchive as SnapshotArchive,
        SnapshotHandle as SnapshotHandle,
    )
    from ._ssh import (
        SandboxSshOps as SandboxSshOps,
        SftpClient as SftpClient,
        SshClient as SshClient,
        SshOutput as SshOutput,
        SshServer as SshServer,
    )
    from ._storage import (
        MemoryCacheEntry as MemoryCacheEntry,
        MemoryCacheReport as MemoryCacheReport,
        Storage as Storage,
        StorageCategoryUsage as StorageCategoryUsage,
        StorageItemUsage as StorageItemUsage,
        StorageUsage as StorageUsage,
    )
    from ._volume import (
        Volume as Volume,
        VolumeFs as VolumeFs,
        VolumeHandle as VolumeHandle,
    )
    from ._agent import (
        AgentClient as AgentClient,
        AgentStream as AgentStream,
    )
    from .agent import (
        FLAG_SESSION_START as FLAG_SESSION_START,
        FLAG_SHUTDOWN as FLAG_SHUTDOWN,
        FLAG_TERMINAL as FLAG_TERMINAL,
        RawFrame as RawFrame,
    )
    from .errors import (
        AgentLostError as AgentLostError,
        AuthError as AuthError,
        BootStartError as BootStartError,
        CloudHttpError as CloudHttpError,
        ExecFailedError as ExecFailedError,
        ExecTimeoutError as ExecTimeoutError,
        FilesystemError as FilesystemError,
        GuestStalledError as GuestStalledError,
        ImageInUseError as ImageInUseError,
        ImageNotFoundError as ImageNotFoundError,
        ImagePullFailedError as ImagePullFailedError,
        InvalidConfigError as InvalidConfigError,
        InvalidStateError as InvalidStateError,
        IoError as IoError,
        IsolationUnavailableError as IsolationUnavailableError,
        IsolationWarning as IsolationWarning,
        JobError as JobError,
        MetricsDisabledError as MetricsDisabledError,
        MetricsUnavailableError as MetricsUnavailableError,
        MicrosandboxError as MicrosandboxError,
        NetworkPolicyError as NetworkPolicyError,
        NoDefaultCommandError as NoDefaultCommandError,
        OutputLimitError as OutputLimitError,
        PatchFailedError as PatchFailedError,
        PathNotFoundError as PathNotFoundError,
        ProtocolError as ProtocolError,
        PublishedSnapshotArtifact as PublishedSnapshotArtifact,
        RateLimitedError as RateLimitedError,
        ResourceExhaustedError as ResourceExhaustedError,
        RuntimeIncompleteError as RuntimeIncompleteError,
        RuntimeNotInstalledError as RuntimeNotInstalledError,
        SandboxAlreadyExistsError as SandboxAlreadyExistsError,
        SandboxNotFoundError as SandboxNotFoundError,
        SandboxNotRunningError as SandboxNotRunningError,
        SandboxReplacedError as SandboxReplacedError,
        SandboxStillRunningError as SandboxStillRunningError,
        SandboxStopTimedOutError as SandboxStopTimedOutError,
        SecretViolationError as SecretViolationError,
        SnapshotAlreadyExistsError as SnapshotAlreadyExistsError,
        SnapshotMigrationError as SnapshotMigrationError,
        SnapshotNotFoundError as SnapshotNotFoundError,
        SnapshotSourceRecoveryError as SnapshotSourceRecoveryError,
        StateBusyError as StateBusyError,
        StateCorruptError as StateCorruptError,
        StateError as StateError,
        StateLostError as StateLostError,
        StateReadOnlyError as StateReadOnlyError,
        StopTimeoutError as StopTimeoutError,
        TlsError as TlsError,
        UnsupportedError as UnsupportedError,
        UnsupportedOperationError as UnsupportedOperationError,
        VolumeAlreadyExistsError as VolumeAlreadyExistsError,
        VolumeInUseError as VolumeInUseError,
        VolumeNotFoundError as VolumeNotFoundError,
    )
    from ._jobs import (
        Job as Job,
        JobAttachment as JobAttachment,
        JobLogStream as JobLogStream,
    )
    from .jobs import (
        JobEvent as JobEvent,
        JobExit as JobExit,
        JobInfo as JobInfo,
        JobLogEntry as JobLogEntry,
        JobPage as JobPage,
        JobState as JobState,
    )
    from ._setup import (
        ensure_runtime as ensure_runtime,
        install_runtime as install_runtime,
    )
    from .setup import (
        InstallOptions as InstallOptions,
        ResolvedRuntime as ResolvedRuntime,
        RuntimeConfig as RuntimeConfig,
        RuntimeOrigin as RuntimeOrigin,
        install as install,
        is_installed as is_installed,
        is_runtime_installed as is_runtime_installed,
        resolve_runtime as resolve_runtime,
        set_libkrunfw_path as set_libkrunfw_path,
    )

#: Version of this package.
__version__ = "0.1.0"

# Module of each name, written as in an import.
_HOME = {
    "_backend": "BackendScope CloudBackend LocalBackend backend_scope default_backend_info default_backend_kind "
    "set_default_backend",
    "_config": "BootStep DoctorCheck DoctorReport ExecOptions ExitStatus GiB ImageSource InitConfig InitOptions "
    "IsolationReport LibraryRung Mechanism MiB MountConfig RegistryAuth Rlimit RootDisk RootDiskConfig Size Stdin",
    "_enums": "Action BackendKind ChangeKind CpuPlacement DeploymentProfile DestGroup Direction DiskImageFormat "
    "ExecEventType FlatClone FsEntryKind FsEventKind GuestFlush HostPermissions ImageArchiveFormat ImageSourceKind "
    "Isolation LogLevel LogReadSource LogSource MechanismState ModificationDisposition ModificationPolicy "
    "MountKind NamedVolumeMode NetworkDestinationKind NetworkProfile PatchKind PlannedChangeKind "
    "PortProtocol Protocol PullEventType PullPolicy ResourceConvergenceState ResourceKind RlimitResource "
    "RootDiskKind SandboxStatus SecretChangeKind SecurityProfile SnapshotFormat SnapshotScope "
    "SnapshotStateKind StatVirtualization StdinMode ViolationAction VolumeKind VsockSocketType",
    "_exec": "ExecHandle ExecSink",
    "_files": "FsReadStream FsWatch FsWriteSink SandboxFsOps",
    "_handle": "SandboxHandle SandboxPage SandboxPingResult SandboxTouchResult",
    "_image": "Image ImageDetail ImageHandle",
    "_isolation": "doctor",
    "_logs": "LogStream",
    "_metrics": "all_sandbox_metrics",
    "_metrics_stream": "MetricsStream",
    "_microsandbox": "BackendInfo ExecEvent ExecOutput FsEntry FsEvent FsMetadata ImageConfigDetail ImageLayerDetail "
    "ImagePruneReport LogEntry SandboxMetrics SandboxStopResult version",
    "_modify": "BranchOutcome ConfigPlannedChange DiskCompactionDiskResult DiskCompactionResult ExternalMountWarning "
    "ForkOutcome ModificationConflict ModificationWarning PlannedChange ResourceResizeStatus "
    "SandboxModificationPlan SecretPlannedChange",
    "_network": "Destination DnsConfig HttpConfig Network NetworkDestination NetworkPolicy NetworkRateLimiter "
    "OutboundProxy PortBinding PortEndpoint RateLimiter Rule ScopedUpstreamCACert ScopedVerifyUpstream "
    "TlsConfig TokenBucket VsockRoute",
    "_patch": "Patch PatchConfig",
    "_progress": "Progress",
    "_pull": "PullEvent PullProgressIter PullSession",
    "_sandbox": "Sandbox",
    "_secrets": "Secret SecretEntry SecretInjection SecretModifySpec SecretSource SecretSubstitution ViolationPolicy",
    "_snapshot": "Snapshot SnapshotArchive SnapshotHandle",
    "_ssh": "SandboxSshOps SftpClient SshClient SshOutput SshServer",
    "_storage": "MemoryCacheEntry MemoryCacheReport Storage StorageCategoryUsage StorageItemUsage StorageUsage",
    "_volume": "Volume VolumeFs VolumeHandle",
    "_agent": "AgentClient AgentStream",
    "agent": "FLAG_SESSION_START FLAG_SHUTDOWN FLAG_TERMINAL RawFrame",
    "errors": "AgentLostError AuthError BootStartError CloudHttpError ExecFailedError ExecTimeoutError "
    "FilesystemError GuestStalledError ImageInUseError ImageNotFoundError ImagePullFailedError "
    "InvalidConfigError InvalidStateError IoError IsolationUnavailableError IsolationWarning JobError "
    "MetricsDisabledError MetricsUnavailableError MicrosandboxError NetworkPolicyError "
    "NoDefaultCommandError OutputLimitError PatchFailedError PathNotFoundError ProtocolError "
    "PublishedSnapshotArtifact RateLimitedError ResourceExhaustedError RuntimeIncompleteError "
    "RuntimeNotInstalledError SandboxAlreadyExistsError SandboxNotFoundError SandboxNotRunningError "
    "SandboxReplacedError SandboxStillRunningError SandboxStopTimedOutError SecretViolationError "
    "SnapshotAlreadyExistsError SnapshotMigrationError SnapshotNotFoundError SnapshotSourceRecoveryError "
    "StateBusyError StateCorruptError StateError StateLostError StateReadOnlyError StopTimeoutError "
    "TlsError UnsupportedError UnsupportedOperationError VolumeAlreadyExistsError VolumeInUseError "
    "VolumeNotFoundError",
    "_jobs": "Job JobAttachment JobLogStream",
    "jobs": "JobEvent JobExit JobInfo JobLogEntry JobPage JobState",
    "_setup": "ensure_runtime install_runtime",
    "setup": "InstallOptions ResolvedRuntime RuntimeConfig RuntimeOrigin install is_installed is_runtime_installed "
    "resolve_runtime set_libkrunfw_path",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        if name in ("agent", "errors", "events", "jobs", "otel", "setup", "sync", "testing", "types"):
            return __import__(f"{__name__}.{name}", fromlist=["*"])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"{__name__}.{module}", fromlist=["*"]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Action",
    "AgentClient",
    "AgentLostError",
    "AgentStream",
    "AuthError",
    "BackendInfo",
    "BackendKind",
    "BackendScope",
    "BootStartError",
    "BootStep",
    "BranchOutcome",
    "ChangeKind",
    "CloudBackend",
    "CloudHttpError",
    "ConfigPlannedChange",
    "CpuPlacement",
    "DeploymentProfile",
    "DestGroup",
    "Destination",
    "Direction",
    "DiskCompactionDiskResult",
    "DiskCompactionResult",
    "DiskImageFormat",
    "DnsConfig",
    "DoctorCheck",
    "DoctorReport",
    "ExecEvent",
    "ExecEventType",
    "ExecFailedError",
    "ExecHandle",
    "ExecOptions",
    "ExecOutput",
    "ExecSink",
    "ExecTimeoutError",
    "ExitStatus",
    "ExternalMountWarning",
    "FLAG_SESSION_START",
    "FLAG_SHUTDOWN",
    "FLAG_TERMINAL",
    "FilesystemError",
    "FlatClone",
    "ForkOutcome",
    "FsEntry",
    "FsEntryKind",
    "FsEvent",
    "FsEventKind",
    "FsMetadata",
    "FsReadStream",
    "FsWatch",
    "FsWriteSink",
    "GiB",
    "GuestFlush",
    "GuestStalledError",
    "HostPermissions",
    "HttpConfig",
    "Image",
    "ImageArchiveFormat",
    "ImageConfigDetail",
    "ImageDetail",
    "ImageHandle",
    "ImageInUseError",
    "ImageLayerDetail",
    "ImageNotFoundError",
    "ImagePruneReport",
    "ImagePullFailedError",
    "ImageSource",
    "ImageSourceKind",
    "InitConfig",
    "InitOptions",
    "InstallOptions",
    "InvalidConfigError",
    "InvalidStateError",
    "IoError",
    "Isolation",
    "IsolationReport",
    "IsolationUnavailableError",
    "IsolationWarning",
    "Job",
    "JobAttachment",
    "JobError",
    "JobEvent",
    "JobExit",
    "JobInfo",
    "JobLogEntry",
    "JobLogStream",
    "JobPage",
    "JobState",
    "LibraryRung",
    "LocalBackend",
    "LogEntry",
    "LogLevel",
    "LogReadSource",
    "LogSource",
    "LogStream",
    "Mechanism",
    "MechanismState",
    "MemoryCacheEntry",
    "MemoryCacheReport",
    "MetricsDisabledError",
    "MetricsStream",
    "MetricsUnavailableError",
    "MiB",
    "MicrosandboxError",
    "ModificationConflict",
    "ModificationDisposition",
    "ModificationPolicy",
    "ModificationWarning",
    "MountConfig",
    "MountKind",
    "NamedVolumeMode",
    "Network",
    "NetworkDestination",
    "NetworkDestinationKind",
    "NetworkPolicy",
    "NetworkPolicyError",
    "NetworkProfile",
    "NetworkRateLimiter",
    "NoDefaultCommandError",
    "OutboundProxy",
    "OutputLimitError",
    "Patch",
    "PatchConfig",
    "PatchFailedError",
    "PatchKind",
    "PathNotFoundError",
    "PlannedChange",
    "PlannedChangeKind",
    "PortBinding",
    "PortEndpoint",
    "PortProtocol",
    "Progress",
    "Protocol",
    "ProtocolError",
    "PublishedSnapshotArtifact",
    "PullEvent",
    "PullEventType",
    "PullPolicy",
    "PullProgressIter",
    "PullSession",
    "RateLimitedError",
    "RateLimiter",
    "RawFrame",
    "RegistryAuth",
    "ResolvedRuntime",
    "ResourceConvergenceState",
    "ResourceExhaustedError",
    "ResourceKind",
    "ResourceResizeStatus",
    "Rlimit",
    "RlimitResource",
    "RootDisk",
    "RootDiskConfig",
    "RootDiskKind",
    "Rule",
    "RuntimeConfig",
    "RuntimeIncompleteError",
    "RuntimeNotInstalledError",
    "RuntimeOrigin",
    "Sandbox",
    "SandboxAlreadyExistsError",
    "SandboxFsOps",
    "SandboxHandle",
    "SandboxMetrics",
    "SandboxModificationPlan",
    "SandboxNotFoundError",
    "SandboxNotRunningError",
    "SandboxPage",
    "SandboxPingResult",
    "SandboxReplacedError",
    "SandboxSshOps",
    "SandboxStatus",
    "SandboxStillRunningError",
    "SandboxStopResult",
    "SandboxStopTimedOutError",
    "SandboxTouchResult",
    "ScopedUpstreamCACert",
    "ScopedVerifyUpstream",
    "Secret",
    "SecretChangeKind",
    "SecretEntry",
    "SecretInjection",
    "SecretModifySpec",
    "SecretPlannedChange",
    "SecretSource",
    "SecretSubstitution",
    "SecretViolationError",
    "SecurityProfile",
    "SftpClient",
    "Size",
    "Snapshot",
    "SnapshotAlreadyExistsError",
    "SnapshotArchive",
    "SnapshotFormat",
    "SnapshotHandle",
    "SnapshotMigrationError",
    "SnapshotNotFoundError",
    "SnapshotScope",
    "SnapshotSourceRecoveryError",
    "SnapshotStateKind",
    "SshClient",
    "SshOutput",
    "SshServer",
    "StatVirtualization",
    "StateBusyError",
    "StateCorruptError",
    "StateError",
    "StateLostError",
    "StateReadOnlyError",
    "Stdin",
    "StdinMode",
    "StopTimeoutError",
    "Storage",
    "StorageCategoryUsage",
    "StorageItemUsage",
    "StorageUsage",
    "TlsConfig",
    "TlsError",
    "TokenBucket",
    "UnsupportedError",
    "UnsupportedOperationError",
    "ViolationAction",
    "ViolationPolicy",
    "Volume",
    "VolumeAlreadyExistsError",
    "VolumeFs",
    "VolumeHandle",
    "VolumeInUseError",
    "VolumeKind",
    "VolumeNotFoundError",
    "VsockRoute",
    "VsockSocketType",
    "__version__",
    "all_sandbox_metrics",
    "backend_scope",
    "default_backend_info",
    "default_backend_kind",
    "doctor",
    "ensure_runtime",
    "install",
    "install_runtime",
    "is_installed",
    "is_runtime_installed",
    "resolve_runtime",
    "set_default_backend",
    "set_libkrunfw_path",
    "version",
]
