"""Enums, dataclasses and their checks."""

from __future__ import annotations

import dataclasses
import inspect
import pickle

import microsandbox
import pytest
from microsandbox import (
    DestGroup,
    FlatClone,
    GiB,
    HostPermissions,
    HttpConfig,
    InitConfig,
    LogReadSource,
    MiB,
    MountConfig,
    MountKind,
    Network,
    NetworkPolicy,
    NetworkProfile,
    OutboundProxy,
    Patch,
    PatchConfig,
    PatchKind,
    PortBinding,
    PullPolicy,
    RegistryAuth,
    Rlimit,
    RlimitResource,
    RootDisk,
    Rule,
    Sandbox,
    Secret,
    SecretInjection,
    SecretSource,
    SecretSubstitution,
    Size,
    StatVirtualization,
    Stdin,
    ViolationAction,
    Volume,
    VolumeKind,
    types,
)
from microsandbox.testing import MemoryBackend, ScriptCall, ScriptResult


def enums() -> list[type]:
    found = [getattr(types, name) for name in types.__all__]
    return [
        kind
        for kind in found
        if inspect.isclass(kind) and issubclass(kind, types.StrEnum) and kind is not types.StrEnum
    ]


def test_there_are_as_many_enums_as_the_surface_has() -> None:
    assert len(enums()) == 48


@pytest.mark.parametrize("kind", enums())
def test_members_equal_their_value_and_print_as_it(kind: type[types.StrEnum]) -> None:
    for member in kind:
        assert member == member.value == str(member) == f"{member}"
        assert pickle.loads(pickle.dumps(member)) is member


def test_values_that_are_not_the_name_in_lower_case() -> None:
    assert PullPolicy.IF_MISSING == "if-missing"
    assert VolumeKind.DIRECTORY == "dir"
    assert DestGroup.LINK_LOCAL == "link-local"
    assert microsandbox.SecretChangeKind.HOSTS_UPDATED == "hosts updated"
    assert microsandbox.ModificationDisposition.REQUIRES_RESTART == "requires restart"
    assert microsandbox.RootDiskKind.DISK_IMAGE == "disk-image"
    assert LogReadSource.ALL == "all"


def test_types_of_the_module_are_those_at_top_level() -> None:
    for name in types.__all__:
        if name not in ("NetworkDestinationLike", "StrEnum"):
            assert getattr(microsandbox, name) is getattr(types, name)


def test_configuration_is_frozen() -> None:
    for value in (Size(1), Rlimit.nofile(3), Network(), Stdin.null(), Patch.remove("/x"), Volume.tmpfs()):
        with pytest.raises(dataclasses.FrozenInstanceError):
            value.kind = 1  # type: ignore[union-attr,misc,assignment]


def test_sizes() -> None:
    assert (MiB, GiB) == (1 << 20, 1 << 30)
    assert Size.gib(2).mib_count == 2048
    assert Size.mib(3).bytes == 3 * MiB


def test_rlimits_and_stdin() -> None:
    assert Rlimit.as_(soft=1, hard=2)._to_dict() == {"resource": "as", "soft": 1, "hard": 2}
    assert Rlimit(RlimitResource.CPU, 1, 1) == Rlimit.cpu(1)
    assert Stdin.bytes(b"x")._data == b"x"
    with pytest.raises(TypeError, match="needs bytes, not str"):
        Stdin.bytes("x")


def test_no_password_or_secret_is_shown() -> None:
    assert "hunter2" not in repr(RegistryAuth.basic("me", "hunter2"))
    assert "hunter2" not in repr(Secret.env("KEY", value="hunter2"))


async def test_no_value_of_a_variable_is_shown() -> None:
    """L7: values of variables, contents of files and input may be secrets."""
    seen: list[ScriptCall] = []
    backend = MemoryBackend()
    backend.script("tool", lambda call: seen.append(call) or ScriptResult())  # type: ignore[func-returns-value]
    box = await Sandbox.create("box", image="host", env={"KEY": "hunter2"}, backend=backend)
    output = await box.exec("tool", env={"OTHER": "hunter2"}, stdin=b"hunter2")
    handle = await Sandbox.get("box", backend=backend)
    shown = [
        InitConfig("/sbin/init", env={"KEY": "hunter2"}),
        Patch.text("/etc/key", "hunter2"),
        Patch.file("/etc/key", b"hunter2"),
        Stdin.bytes(b"hunter2"),
        *seen,
        box,
        handle,
        output,
    ]
    assert len(seen) == 1 and seen[0].env["OTHER"] == "hunter2"
    assert [one for one in shown if "hunter2" in repr(one) + str(one)] == []


def test_root_disks_refuse_fields_of_other_kinds() -> None:
    assert RootDisk.flat(8)._to_dict() == {"kind": "flat", "size_mib": 8, "clone": "auto"}
    bad = dataclasses.replace(RootDisk.tmpfs(8), clone=FlatClone.COPY)
    with pytest.raises(ValueError, match="does not take clone"):
        bad._to_dict()


def test_mounts() -> None:
    assert Volume.bind("/h", readonly=True)._to_dict()["bind"] == "/h"
    with pytest.raises(ValueError, match="only valid for BIND/NAMED"):
        MountConfig(MountKind.TMPFS, stat_virtualization=StatVirtualization.STRICT)
    with pytest.raises(ValueError, match="go together"):
        Volume.bind("/h", uid=1)
    with pytest.raises(ValueError, match="stat virtualization"):
        Volume.bind("/h", uid=1, gid=1, stat_virtualization=StatVirtualization.OFF)
    with pytest.raises(ValueError, match="positive size_mib"):
        Volume.owned(kind=VolumeKind.DISK)
    with pytest.raises(TypeError, match="host_permissions must be HostPermissions"):
        Volume.bind("/h", host_permissions="open")  # type: ignore[arg-type]
    assert Volume.named("v", host_permissions=HostPermissions.MIRROR).host_permissions is HostPermissions.MIRROR


def test_patches_know_what_they_need() -> None:
    assert Patch.text("/a", "b", mode=0o644)._to_dict() == {"kind": "text", "path": "/a", "content": "b", "mode": 0o644}
    with pytest.raises(TypeError, match="requires content to be bytes"):
        PatchConfig(PatchKind.FILE, "/a", "text")._to_dict()


def test_network_policies() -> None:
    policy = NetworkPolicy.from_profiles([NetworkProfile.HOST, NetworkProfile.PUBLIC, NetworkProfile.PUBLIC])
    assert policy.rules[:2] == Rule.allow_dns()
    assert [rule.destination.value for rule in policy.rules[2:]] == ["public", "host"]  # type: ignore[union-attr]
    with pytest.raises(TypeError, match="NetworkProfile"):
        NetworkPolicy.from_profiles([1])  # type: ignore[list-item]
    assert Network.none()._is_none()
    assert not Network()._is_none()
    assert not Network(None, {}, (), (), None, None, False).strict  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="1 to 65535"):
        PortBinding.tcp(1, 0)._to_dict()
    with pytest.raises(ValueError, match="'json' or 'text'"):
        HttpConfig(deny_response_format="xml")
    with pytest.raises(ValueError, match="socks4"):
        OutboundProxy.socks4("a:1").credentials("u", SecretSource.env("V"))


def test_both_spellings_of_a_secret() -> None:
    new = Secret.env("KEY", value="v", allow=["a.com", "*.b.com"])
    with pytest.warns(DeprecationWarning, match="allow="):
        old = Secret.env("KEY", value="v", allow_hosts=["a.com"], allow_host_patterns=["*.b.com"])
    assert old.allow == new.allow == ("a.com", "*.b.com")
    assert new.allow_host_patterns == ("*.b.com",)
    with pytest.warns(DeprecationWarning, match="substitution="):
        entry = Secret.env("KEY", value="v", injection=SecretInjection(query_params=True))
    assert entry.substitution == SecretSubstitution(query=True)
    with pytest.warns(DeprecationWarning, match="violation_action="), pytest.raises(ValueError, match="differ"):
        Secret.env("K", value="v", violation_action=ViolationAction.BLOCK, on_violation=ViolationAction.PASSTHROUGH)
    with pytest.raises(ValueError, match="header_fields"):
        SecretSubstitution(headers=False, header_fields=("x",))
