"""Every enum of the package. Members are strings equal to their wire value; results are always real members."""

from __future__ import annotations

import sys

if sys.version_info >= (3, 11):
    from enum import StrEnum
else:
    from enum import Enum

    class StrEnum(str, Enum):
        """`enum.StrEnum` for Python 3.10: `str()` and `format()` give the value."""

        __str__ = str.__str__
        __format__ = str.__format__


class PullPolicy(StrEnum):
    """When an image is fetched."""

    ALWAYS = "always"
    IF_MISSING = "if-missing"
    NEVER = "never"


class LogLevel(StrEnum):
    """Verbosity of the host process of a sandbox."""

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class SandboxStatus(StrEnum):
    """Where a sandbox is in its life."""

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"
    DRAINING = "draining"
    PAUSED = "paused"


class BackendKind(StrEnum):
    """Where sandboxes live."""

    LOCAL = "local"
    CLOUD = "cloud"


class StdinMode(StrEnum):
    """What a program reads as standard input."""

    NULL = "null"
    PIPE = "pipe"
    BYTES = "bytes"


class ExecEventType(StrEnum):
    """What happened to a running program."""

    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    EXITED = "exited"
    FAILED = "failed"
    STDIN_ERROR = "stdin_error"


class FsEntryKind(StrEnum):
    """Kind of a guest file."""

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class FsEventKind(StrEnum):
    """What happened to a watched guest file."""

    CREATED = "created"
    MODIFIED = "modified"
    #: Mode, owner or times.
    ATTRIBUTES = "attributes"
    DELETED = "deleted"
    #: Renamed within what is watched.
    MOVED = "moved"
    #: More happened than was kept: look again.
    OVERFLOW = "overflow"


class LogSource(StrEnum):
    """Where a log entry came from."""

    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    SYSTEM = "system"


class LogReadSource(StrEnum):
    """Which log entries to read."""

    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    SYSTEM = "system"
    ALL = "all"


class MountKind(StrEnum):
    """Kind of a mount."""

    BIND = "bind"
    NAMED = "named"
    TMPFS = "tmpfs"
    DISK = "disk"
    OWNED = "owned"


class VolumeKind(StrEnum):
    """Kind of a volume."""

    DIRECTORY = "dir"
    DISK = "disk"


class NamedVolumeMode(StrEnum):
    """What a named mount does about an absent or existing volume."""

    EXISTING = "existing"
    CREATE = "create"
    ENSURE_EXISTS = "ensure-exists"


class Action(StrEnum):
    """What a network rule does."""

    ALLOW = "allow"
    DENY = "deny"


class Direction(StrEnum):
    """Which way a network rule looks."""

    EGRESS = "egress"
    INGRESS = "ingress"
    ANY = "any"


class Protocol(StrEnum):
    """Protocol of a network rule."""

    TCP = "tcp"
    UDP = "udp"
    ICMPV4 = "icmpv4"
    ICMPV6 = "icmpv6"


class PortProtocol(StrEnum):
    """Protocol of a published port."""

    TCP = "tcp"
    UDP = "udp"


class DestGroup(StrEnum):
    """A named group of addresses."""

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    HOST = "host"


class NetworkProfile(StrEnum):
    """A ready-made set of network rules."""

    PUBLIC = "public"
    PRIVATE = "private"
    HOST = "host"


class NetworkDestinationKind(StrEnum):
    """Kind of a rule's destination."""

    ANY = "any"
    IP = "ip"
    CIDR = "cidr"
    DOMAIN = "domain"
    DOMAIN_SUFFIX = "domain_suffix"
    GROUP = "group"


class ImageSourceKind(StrEnum):
    """Kind of a root file system's source."""

    OCI = "oci"
    BIND = "bind"
    DISK = "disk"
    HOST = "host"


class DiskImageFormat(StrEnum):
    """Format of a disk image."""

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"


class Isolation(StrEnum):
    """What separates a sandbox from its host."""

    AUTO = "auto"
    MICROVM = "microvm"
    CONTAINER = "container"


class MechanismState(StrEnum):
    """Whether a mechanism of isolation is in force."""

    ON = "on"
    OFF = "off"
    DEGRADED = "degraded"


class CpuPlacement(StrEnum):
    """Where the CPUs of a sandbox run."""

    INHERIT = "inherit"
    AUTO = "auto"
    SPREAD = "spread"
    COMPACT = "compact"


class SecurityProfile(StrEnum):
    """How much a guest program may do inside its sandbox."""

    DEFAULT = "default"
    RESTRICTED = "restricted"


class DeploymentProfile(StrEnum):
    """Whether guests of different owners share the host."""

    SINGLE_TENANT = "single-tenant"
    MULTI_TENANT = "multi-tenant"


class ModificationPolicy(StrEnum):
    """When a modification may take effect."""

    NO_RESTART = "no_restart"
    NEXT_START = "next_start"
    RESTART = "restart"


class PlannedChangeKind(StrEnum):
    """Kind of a planned change."""

    CONFIG = "config"
    SECRET = "secret"


class ChangeKind(StrEnum):
    """What happens to a setting."""

    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"


class SecretChangeKind(StrEnum):
    """What happens to a secret."""

    ADDED = "added"
    ROTATED = "rotated"
    REMOVED = "removed"
    RENAMED = "renamed"
    HOSTS_UPDATED = "hosts updated"
    PLACEHOLDER_UPDATED = "placeholder updated"


class ModificationDisposition(StrEnum):
    """When a change takes effect."""

    LIVE = "live"
    NEXT_START = "next start"
    REQUIRES_RESTART = "requires restart"
    UNSUPPORTED = "unsupported"


class ResourceKind(StrEnum):
    """A resource that can be resized."""

    CPUS = "cpus"
    MEMORY = "memory"


class ResourceConvergenceState(StrEnum):
    """How far a resize is."""

    ACCEPTED = "accepted"
    CONVERGING = "converging"
    APPLIED = "applied"
    GUEST_REFUSED = "guest-refused"
    FAILED = "failed"


class VsockSocketType(StrEnum):
    """Type of a vsock route."""

    STREAM = "stream"
    DGRAM = "dgram"


class ViolationAction(StrEnum):
    """What happens when a secret is about to leave for a host that may not have it."""

    BLOCK = "block"
    BLOCK_AND_LOG = "block-and-log"
    BLOCK_AND_TERMINATE = "block-and-terminate"
    PASSTHROUGH = "passthrough"


class StatVirtualization(StrEnum):
    """How owners of mounted files appear in the guest."""

    STRICT = "strict"
    RELAXED = "relaxed"
    OFF = "off"


class HostPermissions(StrEnum):
    """Mode of files that the guest makes in a mount."""

    PRIVATE = "private"
    MIRROR = "mirror"


class ImageArchiveFormat(StrEnum):
    """Format of a saved image."""

    DOCKER = "docker"
    OCI = "oci"


class RootDiskKind(StrEnum):
    """Kind of the writable root."""

    MANAGED = "managed"
    TMPFS = "tmpfs"
    DISK_IMAGE = "disk-image"
    FLAT = "flat"


class FlatClone(StrEnum):
    """How a flat root is copied."""

    AUTO = "auto"
    COPY = "copy"
    REFLINK = "reflink"


class PatchKind(StrEnum):
    """Kind of a change before boot."""

    TEXT = "text"
    FILE = "file"
    MKDIR = "mkdir"
    APPEND = "append"
    COPY_FILE = "copy_file"
    COPY_DIR = "copy_dir"
    SYMLINK = "symlink"
    REMOVE = "remove"


class SnapshotStateKind(StrEnum):
    """What a snapshot holds."""

    FILE = "file"
    CHECKPOINT = "checkpoint"


class SnapshotFormat(StrEnum):
    """Format of a snapshot's disk."""

    RAW = "raw"
    QCOW2 = "qcow2"


class SnapshotScope(StrEnum):
    """Whether memory is part of a snapshot."""

    DISK = "disk"
    RESUMABLE = "resumable"
    FULL = "full"


class RlimitResource(StrEnum):
    """A resource of setrlimit(2)."""

    CPU = "cpu"
    FSIZE = "fsize"
    DATA = "data"
    STACK = "stack"
    CORE = "core"
    RSS = "rss"
    NPROC = "nproc"
    NOFILE = "nofile"
    MEMLOCK = "memlock"
    AS = "as"
    LOCKS = "locks"
    SIGPENDING = "sigpending"
    MSGQUEUE = "msgqueue"
    NICE = "nice"
    RTPRIO = "rtprio"
    RTTIME = "rttime"


class PullEventType(StrEnum):
    """A step of an image pull."""

    RESOLVING = "resolving"
    RESOLVED = "resolved"
    LAYER_DOWNLOAD_PROGRESS = "layer_download_progress"
    LAYER_DOWNLOAD_COMPLETE = "layer_download_complete"
    LAYER_DOWNLOAD_VERIFYING = "layer_download_verifying"
    LAYER_MATERIALIZE_STARTED = "layer_materialize_started"
    LAYER_MATERIALIZE_PROGRESS = "layer_materialize_progress"
    LAYER_MATERIALIZE_WRITING = "layer_materialize_writing"
    LAYER_MATERIALIZE_COMPLETE = "layer_materialize_complete"
    STITCH_MERGING_TREES = "stitch_merging_trees"
    STITCH_WRITING_FSMETA = "stitch_writing_fsmeta"
    STITCH_WRITING_VMDK = "stitch_writing_vmdk"
    STITCH_COMPLETE = "stitch_complete"
    COMPLETE = "complete"
    STARTUP = "startup"


class GuestFlush(StrEnum):
    """Whether the guest writes its caches back first."""

    AUTO = "auto"
    REQUIRED = "required"
    SKIP = "skip"


__all__ = [
    "Action",
    "BackendKind",
    "ChangeKind",
    "CpuPlacement",
    "DeploymentProfile",
    "DestGroup",
    "Direction",
    "DiskImageFormat",
    "ExecEventType",
    "FlatClone",
    "FsEntryKind",
    "FsEventKind",
    "GuestFlush",
    "HostPermissions",
    "ImageArchiveFormat",
    "ImageSourceKind",
    "Isolation",
    "LogLevel",
    "LogReadSource",
    "LogSource",
    "MechanismState",
    "ModificationDisposition",
    "ModificationPolicy",
    "MountKind",
    "NamedVolumeMode",
    "NetworkDestinationKind",
    "NetworkProfile",
    "PatchKind",
    "PlannedChangeKind",
    "PortProtocol",
    "Protocol",
    "PullEventType",
    "PullPolicy",
    "ResourceConvergenceState",
    "ResourceKind",
    "RlimitResource",
    "RootDiskKind",
    "SandboxStatus",
    "SecretChangeKind",
    "SecurityProfile",
    "SnapshotFormat",
    "SnapshotScope",
    "SnapshotStateKind",
    "StatVirtualization",
    "StdinMode",
    "StrEnum",
    "ViolationAction",
    "VolumeKind",
    "VsockSocketType",
]
