"""OCI archives made in memory, honest or not."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import tarfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Entry:
    """One member of a layer."""

    name: str
    data: bytes = b""
    kind: bytes = tarfile.REGTYPE
    link: str = ""
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    pax: dict[str, str] = field(default_factory=dict)


def file(name: str, data: bytes = b"x", **options: Any) -> Entry:
    return Entry(name, data, **options)


def directory(name: str, mode: int = 0o755) -> Entry:
    return Entry(name, kind=tarfile.DIRTYPE, mode=mode)


def symlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.SYMTYPE, link=target, mode=0o777)


def hardlink(name: str, target: str) -> Entry:
    return Entry(name, kind=tarfile.LNKTYPE, link=target)


def layer(entries: Iterable[Entry]) -> bytes:
    """An uncompressed tar; names go in as they are."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for entry in entries:
            info = tarfile.TarInfo(entry.name)
            info.type, info.linkname, info.mode = entry.kind, entry.link, entry.mode
            info.uid, info.gid, info.size, info.pax_headers = entry.uid, entry.gid, len(entry.data), entry.pax
            tar.addfile(info, io.BytesIO(entry.data))
    return buffer.getvalue()


def raw(name: bytes, data: bytes = b"", kind: bytes = b"0", size: int | bytes | None = None) -> bytes:
    """One member as bytes, whose header may say another size than the content has."""
    stated = b"%011o" % (len(data) if size is None else size) + b"\0" if not isinstance(size, bytes) else size
    fields = [
        name.ljust(100, b"\0"),
        b"0000755\0",
        b"0000000\0",
        b"0000000\0",
        stated,
        b"00000000000\0",
        b" " * 8,
        kind,
    ]
    header = (b"".join(fields).ljust(257, b"\0") + b"ustar\x0000").ljust(512, b"\0")
    header = header[:148] + b"%06o\0 " % sum(header) + header[156:]
    return header + data + bytes(-len(data) % 512)


def pax(**records: bytes) -> bytes:
    """An extended header for the next member (POSIX.1-2001, pax)."""
    text = b""
    for key, value in records.items():
        record = b" %s=%s\n" % (key.encode(), value)
        length = len(record) + len(str(len(record) + 2))
        text += b"%d" % length + record
    return raw(b"pax", text, kind=b"x")


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass
class Archive:
    """Builds an OCI layout with one image. `tamper` may change any document or blob before it is stored."""

    layers: list[bytes]
    compress: bool = True
    config: dict[str, Any] = field(default_factory=dict)
    tamper: Callable[[str, Any], Any] = lambda what, value: value

    def write(self, path: Path) -> Path:
        blobs: dict[str, bytes] = {}
        descriptors, diff_ids = [], []
        for number, tar in enumerate(self.layers):
            blob = gzip.compress(tar, 6) if self.compress else tar
            descriptor = {
                "mediaType": "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if self.compress else ""),
                "digest": digest(blob),
                "size": len(blob),
            }
            descriptors.append(self.tamper(f"layer {number}", descriptor))
            diff_ids.append(self.tamper(f"diff {number}", digest(tar)))
            blobs[digest(blob)] = self.tamper(f"blob {number}", blob)
        config = {"architecture": "amd64", "os": "linux", "config": self.config}
        config["rootfs"] = {"type": "layers", "diff_ids": diff_ids}
        text = json.dumps(self.tamper("config", config)).encode()
        blobs[digest(text)] = text
        manifest = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(text),
                "size": len(text),
            },
            "layers": descriptors,
        }
        raw = self.tamper("manifest", manifest)
        body = raw if isinstance(raw, bytes) else json.dumps(raw).encode()
        blobs[digest(body)] = body
        index = {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [
                {
                    "mediaType": "application/vnd.oci.image.manifest.v1+json",
                    "digest": digest(body),
                    "size": len(body),
                    "annotations": {"org.opencontainers.image.ref.name": "latest"},
                }
            ],
        }
        with tarfile.open(path, "w") as tar:
            members = {
                "oci-layout": b'{"imageLayoutVersion":"1.0.0"}',
                "index.json": json.dumps(self.tamper("index", index)).encode(),
            }
            members |= {f"blobs/sha256/{name.split(':')[1]}": data for name, data in blobs.items()}
            for name, data in members.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
        return path
