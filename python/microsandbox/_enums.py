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
    """When an image is fetched.

    Example: `sb = await Sandbox.create("box", image="debian:12", pull_policy=PullPolicy.NEVER)`
    """

    ALWAYS = "always"
    IF_MISSING = "if-missing"
    NEVER = "never"


class LogLevel(StrEnum):
    """Verbosity of the host process of a sandbox.

    Example: `sb = await Sandbox.create("box", image="host", log_level=LogLevel.DEBUG)`
    """

    TRACE = "trace"
    DEBUG = "debug"
    INFO = "info"
    WARN = "warn"
    ERROR = "error"


class SandboxStatus(StrEnum):
    """Where a sandbox is in its life.

    Example: `assert (await Sandbox.get("box")).status is SandboxStatus.RUNNING`
    """

    CREATED = "created"
    STARTING = "starting"
    RUNNING = "running"
    STOPPED = "stopped"
    CRASHED = "crashed"
    DRAINING = "draining"
    PAUSED = "paused"
    # Of a service of another version; `last_error` of the handle names it.
    UNKNOWN = "unknown"


class BackendKind(StrEnum):
    """Where sandboxes live.

    Example: `assert default_backend_kind() is BackendKind.LOCAL`
    """

    LOCAL = "local"
    CLOUD = "cloud"


class StdinMode(StrEnum):
    """What a program reads as standard input.

    Example: `assert StdinMode("pipe") is StdinMode.PIPE`
    """

    NULL = "null"
    PIPE = "pipe"
    BYTES = "bytes"


class ExecEventType(StrEnum):
    """What happened to a running program.

    Example: `assert event.event_type is ExecEventType.STDOUT`
    """

    STARTED = "started"
    STDOUT = "stdout"
    STDERR = "stderr"
    EXITED = "exited"
    FAILED = "failed"
    STDIN_ERROR = "stdin_error"


class FsEntryKind(StrEnum):
    """Kind of a guest file.

    Example: `print([e.path for e in await sb.fs.list("/etc") if e.kind is FsEntryKind.DIRECTORY])`
    """

    FILE = "file"
    DIRECTORY = "directory"
    SYMLINK = "symlink"
    OTHER = "other"


class FsEventKind(StrEnum):
    """What happened to a watched guest file.

    Example: `print([change.path async for change in watch if change.kind is FsEventKind.DELETED])`
    """

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
    """Where a log entry came from.

    Example: `print([e.text() for e in await sb.logs() if e.source is LogSource.STDERR])`
    """

    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    SYSTEM = "system"


class LogReadSource(StrEnum):
    """Which log entries to read.

    Example: `entries = await sb.logs(sources=[LogReadSource.ALL])`
    """

    STDOUT = "stdout"
    STDERR = "stderr"
    OUTPUT = "output"
    SYSTEM = "system"
    ALL = "all"


class MountKind(StrEnum):
    """Kind of a mount.

    Example: `assert Volume.tmpfs(size_mib=64).kind is MountKind.TMPFS`
    """

    BIND = "bind"
    NAMED = "named"
    TMPFS = "tmpfs"
    DISK = "disk"
    OWNED = "owned"


class VolumeKind(StrEnum):
    """Kind of a volume.

    Example: `assert volume.kind is VolumeKind.DIRECTORY`
    """

    DIRECTORY = "dir"
    DISK = "disk"


class NamedVolumeMode(StrEnum):
    """What a named mount does about an absent or existing volume.

    Example: `Volume.named("data", mode=NamedVolumeMode.EXISTING)`
    """

    EXISTING = "existing"
    CREATE = "create"
    ENSURE_EXISTS = "ensure-exists"


class Action(StrEnum):
    """What a network rule does.

    Example: `Rule(Action.DENY, destination=Destination.cidr("10.0.0.0/8"))`
    """

    ALLOW = "allow"
    DENY = "deny"


class Direction(StrEnum):
    """Which way a network rule looks.

    Example: `Rule(Action.DENY, direction=Direction.INGRESS)`
    """

    EGRESS = "egress"
    INGRESS = "ingress"
    ANY = "any"


class Protocol(StrEnum):
    """Protocol of a network rule.

    Example: `Rule.allow(protocol=Protocol.TCP, port=443)`
    """

    TCP = "tcp"
    UDP = "udp"
    ICMPV4 = "icmpv4"
    ICMPV6 = "icmpv6"


class PortProtocol(StrEnum):
    """Protocol of a published port.

    Example: `PortBinding(5353, 53, protocol=PortProtocol.UDP)`
    """

    TCP = "tcp"
    UDP = "udp"


class DestGroup(StrEnum):
    """A named group of addresses.

    Example: `Rule.deny(destination=Destination.group(DestGroup.METADATA))`
    """

    PUBLIC = "public"
    LOOPBACK = "loopback"
    PRIVATE = "private"
    LINK_LOCAL = "link-local"
    METADATA = "metadata"
    MULTICAST = "multicast"
    HOST = "host"


class NetworkProfile(StrEnum):
    """A ready-made set of network rules.

    Example: `Network.from_profiles(NetworkProfile.PUBLIC, NetworkProfile.PRIVATE)`
    """

    PUBLIC = "public"
    PRIVATE = "private"
    HOST = "host"


class NetworkDestinationKind(StrEnum):
    """Kind of a rule's destination.

    Example: `assert Destination.any().kind is NetworkDestinationKind.ANY`
    """

    ANY = "any"
    IP = "ip"
    CIDR = "cidr"
    DOMAIN = "domain"
    DOMAIN_SUFFIX = "domain_suffix"
    GROUP = "group"


class ImageSourceKind(StrEnum):
    """Kind of a root file system's source.

    Example: `assert Image.host() == ImageSource(ImageSourceKind.HOST)`
    """

    OCI = "oci"
    BIND = "bind"
    DISK = "disk"
    HOST = "host"


class DiskImageFormat(StrEnum):
    """Format of a disk image.

    Example: `Volume.disk("data.img", format=DiskImageFormat.RAW)`
    """

    QCOW2 = "qcow2"
    RAW = "raw"
    VMDK = "vmdk"


class Isolation(StrEnum):
    """What separates a sandbox from its host.

    Example: `sb = await Sandbox.create("box", image="host", isolation=Isolation.MICROVM)`
    """

    AUTO = "auto"
    MICROVM = "microvm"
    CONTAINER = "container"


class MechanismState(StrEnum):
    """Whether a mechanism of isolation is in force.

    Example: `print([m for m in (await sb.isolation_report()).mechanisms if m.state is MechanismState.OFF])`
    """

    ON = "on"
    OFF = "off"
    DEGRADED = "degraded"


class CpuPlacement(StrEnum):
    """Where the CPUs of a sandbox run.

    Example: `sb = await Sandbox.create("box", image="host", cpu_placement=CpuPlacement.INHERIT)`
    """

    INHERIT = "inherit"
    AUTO = "auto"
    SPREAD = "spread"
    COMPACT = "compact"


class SecurityProfile(StrEnum):
    """How much a guest program may do inside its sandbox.

    Example: `sb = await Sandbox.create("box", image="host", security=SecurityProfile.RESTRICTED)`
    """

    DEFAULT = "default"
    RESTRICTED = "restricted"


class DeploymentProfile(StrEnum):
    """Whether guests of different owners share the host.

    Example: `profile = DeploymentProfile("multi-tenant")`
    """

    SINGLE_TENANT = "single-tenant"
    MULTI_TENANT = "multi-tenant"


class ModificationPolicy(StrEnum):
    """When a modification may take effect.

    Example: `await sb.modify(max_memory=2048, policy=ModificationPolicy.NEXT_START)`
    """

    NO_RESTART = "no_restart"
    NEXT_START = "next_start"
    RESTART = "restart"


class PlannedChangeKind(StrEnum):
    """Kind of a planned change.

    Example: `print([c for c in plan["changes"] if c["kind"] is PlannedChangeKind.CONFIG])`
    """

    CONFIG = "config"
    SECRET = "secret"


class ChangeKind(StrEnum):
    """What happens to a setting.

    Example: `print([change for change in plan["changes"] if change["change"] is ChangeKind.ADDED])`
    """

    ADDED = "added"
    UPDATED = "updated"
    REMOVED = "removed"


class SecretChangeKind(StrEnum):
    """What happens to a secret.

    Example: `assert SecretChangeKind("rotated") is SecretChangeKind.ROTATED`
    """

    ADDED = "added"
    ROTATED = "rotated"
    REMOVED = "removed"
    RENAMED = "renamed"
    HOSTS_UPDATED = "hosts updated"
    PLACEHOLDER_UPDATED = "placeholder updated"


class ModificationDisposition(StrEnum):
    """When a change takes effect.

    Example: `print([c for c in plan["changes"] if c["disposition"] is ModificationDisposition.LIVE])`
    """

    LIVE = "live"
    NEXT_START = "next start"
    REQUIRES_RESTART = "requires restart"
    UNSUPPORTED = "unsupported"


class ResourceKind(StrEnum):
    """A resource that can be resized.

    Example: `assert ResourceKind("cpus") is ResourceKind.CPUS`
    """

    CPUS = "cpus"
    MEMORY = "memory"


class ResourceConvergenceState(StrEnum):
    """How far a resize is.

    Example: `print(ResourceConvergenceState.APPLIED)`
    """

    ACCEPTED = "accepted"
    CONVERGING = "converging"
    APPLIED = "applied"
    GUEST_REFUSED = "guest-refused"
    FAILED = "failed"


class VsockSocketType(StrEnum):
    """Type of a vsock route.

    Example: `VsockRoute("/run/app.sock", 5000, VsockSocketType.DGRAM)`
    """

    STREAM = "stream"
    DGRAM = "dgram"


class ViolationAction(StrEnum):
    """What happens when a secret is about to leave for a host that may not have it.

    Example: `Network(secret_violation_action=ViolationAction.BLOCK_AND_TERMINATE)`
    """

    BLOCK = "block"
    BLOCK_AND_LOG = "block-and-log"
    BLOCK_AND_TERMINATE = "block-and-terminate"
    PASSTHROUGH = "passthrough"


class StatVirtualization(StrEnum):
    """How owners of mounted files appear in the guest.

    On this machine the kernel maps them: root inside is who runs the sandbox, so STRICT (the default) and RELAXED are
    the same, and OFF is `UnsupportedError`.

    Example: `Volume.bind("/srv/data", stat_virtualization=StatVirtualization.STRICT)`
    """

    STRICT = "strict"
    RELAXED = "relaxed"
    OFF = "off"


class HostPermissions(StrEnum):
    """Which modes the guest may give to files of this machine.

    PRIVATE, the default: none with a set-id bit, which would make what a guest wrote a program of the files' owner.
    No program in the guest may then set such a bit on any file (EPERM), because the refusal does not know which file
    is meant.
    MIRROR: any.

    Example: `Volume.bind("/srv/data", host_permissions=HostPermissions.PRIVATE)`
    """

    PRIVATE = "private"
    MIRROR = "mirror"


class ImageArchiveFormat(StrEnum):
    """Format of a saved image.

    Example: `await Image.save("debian:12", output_path="debian.tar", format=ImageArchiveFormat.OCI)`
    """

    DOCKER = "docker"
    OCI = "oci"


class RootDiskKind(StrEnum):
    """Kind of the writable root.

    Example: `assert RootDisk.tmpfs().kind is RootDiskKind.TMPFS`
    """

    MANAGED = "managed"
    TMPFS = "tmpfs"
    DISK_IMAGE = "disk-image"
    FLAT = "flat"


class FlatClone(StrEnum):
    """How a flat root is copied.

    Example: `Image.oci("debian:12", root_disk=RootDisk.flat(clone=FlatClone.COPY))`
    """

    AUTO = "auto"
    COPY = "copy"
    REFLINK = "reflink"


class PatchKind(StrEnum):
    """Kind of a change before boot.

    Example: `assert Patch.mkdir("/opt").kind is PatchKind.MKDIR`
    """

    TEXT = "text"
    FILE = "file"
    MKDIR = "mkdir"
    APPEND = "append"
    COPY_FILE = "copy_file"
    COPY_DIR = "copy_dir"
    SYMLINK = "symlink"
    REMOVE = "remove"


class SnapshotStateKind(StrEnum):
    """What a snapshot holds.

    Example: `assert SnapshotStateKind("file") is SnapshotStateKind.FILE`
    """

    FILE = "file"
    CHECKPOINT = "checkpoint"


class SnapshotFormat(StrEnum):
    """Format of a snapshot's disk.

    Example: `assert SnapshotFormat("qcow2") is SnapshotFormat.QCOW2`
    """

    RAW = "raw"
    QCOW2 = "qcow2"


class SnapshotScope(StrEnum):
    """Whether memory is part of a snapshot.

    Example: `assert SnapshotScope("disk") is SnapshotScope.DISK`
    """

    DISK = "disk"
    RESUMABLE = "resumable"
    FULL = "full"


class RlimitResource(StrEnum):
    """A resource of setrlimit(2).

    Example: `Rlimit(RlimitResource.NOFILE, 1024, 4096)`
    """

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
    """A step of an image pull.

    Example: `print([e async for e in session.progress if e.event_type is PullEventType.RESOLVED])`
    """

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
    """Whether the guest writes its caches back first.

    Example: `await sb.pause(guest_flush=GuestFlush.REQUIRED)`
    """

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
