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

#: Version of this package.
__version__ = "0.1.0"

# Module of each name: the one table that `__all__`, the stubs, `types` and the sync face are made of.
# `python/tools/generate_faces.py` writes `__init__.pyi`, `types.pyi` and `sync/` after a change.
_HOME = {
    "_agent": "AgentClient AgentStream",
    "_backend": "BackendScope CloudBackend LocalBackend backend_scope default_backend default_backend_info "
    "default_backend_kind set_default_backend swap_default_backend",
    "_compaction": "DiskCompactionDiskResult DiskCompactionResult",
    "_enums": "Action BackendKind ChangeKind CpuPlacement DeploymentProfile DestGroup Direction DiskImageFormat "
    "ExecEventType FlatClone FsEntryKind FsEventKind GuestFlush HostPermissions ImageArchiveFormat ImageSourceKind "
    "Isolation LogLevel LogReadSource LogSource MechanismState ModificationDisposition ModificationPolicy MountKind "
    "NamedVolumeMode NetworkDestinationKind NetworkProfile PatchKind PlannedChangeKind PortProtocol Protocol "
    "PullEventType PullPolicy ResourceConvergenceState ResourceKind RlimitResource RootDiskKind SandboxStatus "
    "SecretChangeKind SecurityProfile SnapshotFormat SnapshotScope SnapshotStateKind StatVirtualization StdinMode "
    "ViolationAction VolumeKind VsockSocketType",
    "_exec": "ExecHandle ExecSink",
    "_exec_request": "ExecOptions ExitStatus Rlimit Stdin",
    "_files": "FsListStream FsReadStream FsWatch FsWriteSink SandboxFsOps",
    "_fork": "BranchOutcome ForkOutcome",
    "_calls": "SandboxPingResult SandboxTouchResult",
    "_handle": "SandboxHandle SandboxPage",
    "_image": "Image ImageDetail ImageHandle",
    "_image_source": "ImageSource RegistryAuth RootDisk RootDiskConfig",
    "_init": "InitConfig InitOptions",
    "_isolation": "doctor",
    "_isolation_report": "BootStep DoctorCheck DoctorReport IsolationReport LibraryRung Mechanism",
    "_jobs": "Job JobAttachment JobLogStream",
    "_logs": "LogStream",
    "_metrics": "all_sandbox_metrics",
    "_metrics_stream": "MetricsStream",
    "_microsandbox": "BackendInfo ExecEvent ExecOutput FsEntry FsEvent FsMetadata ImageConfigDetail ImageLayerDetail "
    "ImagePruneReport LogEntry SandboxMetrics SandboxStopResult version",
    "_modify": "ConfigPlannedChange ModificationConflict ModificationWarning PlannedChange ResourceResizeStatus "
    "SandboxModificationPlan SecretPlannedChange",
    "_mount": "MountConfig",
    "_network": "DnsConfig HttpConfig Network NetworkRateLimiter OutboundProxy RateLimiter ScopedUpstreamCACert "
    "ScopedVerifyUpstream TlsConfig TokenBucket",
    "_network_policy": "Destination NetworkDestination NetworkPolicy Rule",
    "_patch": "Patch PatchConfig",
    "_ports": "PortBinding PortEndpoint VsockRoute",
    "_progress": "Progress",
    "_pull": "PullEvent PullProgressIter PullSession",
    "_restore": "ExternalMountWarning",
    "_sandbox": "Sandbox",
    "_secrets": "Secret SecretEntry SecretInjection SecretModifySpec SecretSource SecretSubstitution ViolationPolicy",
    "_setup": "ensure_runtime install_runtime",
    "_size": "GiB MiB Size",
    "_snapshot": "Snapshot SnapshotArchive SnapshotCopyBuilder SnapshotHandle",
    "_ssh": "SandboxSshOps SftpClient SshClient SshOutput SshServer",
    "_storage": "MemoryCacheEntry MemoryCacheReport Storage StorageCategoryUsage StorageItemUsage StorageUsage",
    "_volume": "Volume VolumeFs VolumeHandle",
    "agent": "FLAG_SESSION_START FLAG_SHUTDOWN FLAG_TERMINAL RawFrame",
    "errors": "AgentLostError AuthError BootStartError CloudHttpError ExecFailedError ExecTimeoutError "
    "FilesystemError GuestStalledError ImageInUseError ImageNotFoundError ImagePullFailedError InvalidConfigError "
    "InvalidStateError IoError IsolationUnavailableError IsolationWarning JobError MetricsDisabledError "
    "MetricsUnavailableError MicrosandboxError NetworkPolicyError NoDefaultCommandError OutputLimitError "
    "PatchFailedError PathNotFoundError ProtocolError PublishedSnapshotArtifact RateLimitedError "
    "ResourceExhaustedError RuntimeIncompleteError RuntimeNotInstalledError SandboxAlreadyExistsError "
    "SandboxNotFoundError SandboxNotRunningError SandboxReplacedError SandboxStillRunningError "
    "SandboxStopTimedOutError SecretViolationError SnapshotAlreadyExistsError SnapshotMigrationError "
    "SnapshotNotFoundError SnapshotSourceRecoveryError StateBusyError StateCorruptError StateError StateLostError "
    "StateReadOnlyError StopTimeoutError TlsError UnsupportedError UnsupportedOperationError "
    "VolumeAlreadyExistsError VolumeInUseError VolumeNotFoundError",
    "jobs": "JobEvent JobExit JobInfo JobLogEntry JobPage JobState",
    "setup": "InstallOptions ResolvedRuntime RuntimeConfig RuntimeOrigin install is_installed is_runtime_installed "
    "resolve_runtime set_libkrunfw_path",
}
_MODULE = {name: module for module, names in _HOME.items() for name in names.split()}
_SUBMODULES = ("agent", "errors", "events", "jobs", "otel", "setup", "sync", "testing", "types")

__all__ = sorted([*_MODULE, "__version__"])


def __getattr__(name: str) -> object:
    module = _MODULE.get(name)
    if module is None:
        if name in _SUBMODULES:
            return __import__(f"{__name__}.{name}", fromlist=["*"])
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(__import__(f"{__name__}.{module}", fromlist=["*"]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
