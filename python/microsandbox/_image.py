"""Images: where a root file system comes from, and the store of those that were loaded."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Union

from . import _backend, _deprecation, _microsandbox, _progress
from ._checks import Path, checked
from ._enums import DiskImageFormat, ImageArchiveFormat, ImageSourceKind
from ._image_source import ImageSource, RootDiskConfig
from ._runtime import on_loop, run

if TYPE_CHECKING:
    from collections.abc import Callable

    from ._microsandbox import ImageConfigDetail, ImageLayerDetail, ImagePruneReport, NativeImage, NativeImageDetail

    _Progress = Callable[[int, int | None], None]


class ImageHandle:
    """A row of the image store.

    Example: `print([(image.reference, image.size_bytes) for image in await Image.list()])`
    """

    def __init__(self, native: NativeImage) -> None:
        self._native = native

    @property
    def reference(self) -> str:
        """The reference it is stored under."""
        return self._native.reference

    @property
    def size_bytes(self) -> int | None:
        """Its layers on disk, bytes."""
        return self._native.size_bytes

    @property
    def manifest_digest(self) -> str | None:
        """`sha256:…` of its manifest."""
        return self._native.manifest_digest

    @property
    def architecture(self) -> str | None:
        """Such as `amd64`."""
        return self._native.architecture

    @property
    def os(self) -> str | None:
        """Such as `linux`."""
        return self._native.os

    @property
    def layer_count(self) -> int:
        """Number of layers."""
        return self._native.layer_count

    @property
    def last_used_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.last_used_at

    @property
    def created_at(self) -> float | None:
        """Milliseconds since the epoch."""
        return self._native.created_at

    async def inspect(self) -> ImageDetail:
        """Configuration and layers.

        Example: `detail = await image.inspect()`
        """
        return _detail(await run(_microsandbox.image_inspect(self.reference, self._native.backend)))

    async def remove(self, *, force: bool = False) -> None:
        """Removes it from the store. Raises `ImageInUseError` unless `force`.

        Example: `await image.remove(force=True)`
        """
        await run(_microsandbox.image_remove(self.reference, force, self._native.backend))

    def __repr__(self) -> str:
        return f"ImageHandle({self.reference!r})"


@dataclass(frozen=True)
class ImageDetail:
    """An image with its configuration and its layers, bottom first.

    Example: `print([layer.diff_id for layer in (await Image.inspect("debian:12")).layers])`
    """

    handle: ImageHandle
    config: Union[ImageConfigDetail, None]
    layers: Sequence[ImageLayerDetail]


def _detail(native: NativeImageDetail) -> ImageDetail:
    return ImageDetail(ImageHandle(native.handle), native.config, native.layers)


class Image:
    """Factories of `ImageSource`, and the image store.

    Example: `sb = await Sandbox.create("box", image=Image.oci("debian:12"))`
    """

    @staticmethod
    def host() -> ImageSource:
        """This machine's system directories and the running interpreter's prefix, read-only, under a private overlay.

        Homes, keys, the machine id and password files are never in it. Nothing is downloaded.

        Example: `sb = await Sandbox.create("box", image=Image.host())`
        """
        return ImageSource(ImageSourceKind.HOST)

    @staticmethod
    def oci(
        reference: str, *, root_disk: RootDiskConfig | int | None = None, upper_size_mib: int | None = None
    ) -> ImageSource:
        """An image of the store or a registry. `root_disk` shapes its writable root; an int is MiB.

        Example: `sb = await Sandbox.create("box", image=Image.oci("debian:12"))`
        """
        if not isinstance(reference, str):
            raise TypeError(f"reference must be str, not {type(reference).__name__}")
        if root_disk is not None and upper_size_mib is not None:
            raise ValueError("root_disk= and upper_size_mib= say the same; give one")
        if isinstance(root_disk, bool) or not isinstance(root_disk, (RootDiskConfig, int, type(None))):
            raise TypeError(f"root_disk must be RootDiskConfig or int (MiB), not {type(root_disk).__name__}")
        if upper_size_mib is not None:
            _deprecation.warn("Image.oci(upper_size_mib=)", "root_disk=")
        if isinstance(root_disk, RootDiskConfig):
            root_disk._to_dict()
        return ImageSource(
            ImageSourceKind.OCI, _reference=reference, _root_disk=root_disk, _upper_size_mib=upper_size_mib
        )

    @staticmethod
    def bind(path: Path) -> ImageSource:
        """A directory of the host, copied on write: it is never changed.

        Example: `sb = await Sandbox.create("box", image=Image.bind("./rootfs"))`
        """
        return ImageSource(ImageSourceKind.BIND, _path=os.fspath(path))

    @staticmethod
    def disk(path: Path, *, fstype: str | None = None) -> ImageSource:
        """A disk image; its format is its extension: qcow2, raw or vmdk.

        Example: `source = Image.disk("disk.qcow2", fstype="ext4")`
        """
        text = os.fspath(path)
        extension = text.rpartition(".")[2].lower()
        try:
            kind = checked(extension, DiskImageFormat, "the extension")
        except TypeError:
            raise ValueError(f"the extension of {text!r} must be qcow2, raw or vmdk") from None
        return ImageSource(ImageSourceKind.DISK, _path=text, _fstype=fstype, _format=kind)

    @staticmethod
    async def get(reference: str, *, backend: _backend.BackendObject | None = None) -> ImageHandle:
        """A stored image. Raises `ImageNotFoundError`.

        Example: `image = await Image.get("debian:12")`
        """
        return ImageHandle(await run(_microsandbox.image_get(reference, _backend.pick(backend))))

    @staticmethod
    async def list(*, backend: _backend.BackendObject | None = None) -> Sequence[ImageHandle]:
        """Every stored image, as a list.

        Example: `print([image.reference for image in await Image.list()])`
        """
        natives = await run(_microsandbox.image_list(_backend.pick(backend)))
        return [ImageHandle(native) for native in natives]

    @staticmethod
    async def inspect(reference: str, *, backend: _backend.BackendObject | None = None) -> ImageDetail:
        """Configuration and layers of a stored image. Raises `ImageNotFoundError`.

        Example: `print((await Image.inspect("debian:12")).layers)`
        """
        return _detail(await run(_microsandbox.image_inspect(reference, _backend.pick(backend))))

    @staticmethod
    async def remove(reference: str, *, force: bool = False, backend: _backend.BackendObject | None = None) -> None:
        """Removes an image. Raises `ImageInUseError` unless `force`, `ImageNotFoundError`.

        Example: `await Image.remove("debian:12", force=True)`
        """
        await run(_microsandbox.image_remove(reference, force, _backend.pick(backend)))

    @staticmethod
    async def prune(
        *,
        dry_run: bool = False,
        older_than_seconds: float | None = None,
        blobs: bool = False,
        dangling: bool = False,
        backend: _backend.BackendObject | None = None,
    ) -> ImagePruneReport:
        """Removes every image that nothing uses, its layers, and what interrupted operations left.

        An image that a sandbox, a snapshot or a running operation uses is kept; `in_use` of the report names it. With
        `dry_run` nothing is removed. `older_than_seconds` keeps images that were used since; `blobs` also removes the
        compressed layers of images that are kept, which `Image.save` needs; `dangling` keeps every image with a name.

        Example: `print((await Image.prune(dry_run=True)).bytes_reclaimed)`
        """
        options = (dry_run, older_than_seconds, blobs, dangling)
        return await run(_microsandbox.image_prune(*options, _backend.pick(backend)))

    @staticmethod
    async def load(
        input_path: Path,
        *,
        tag: str | None = None,
        progress: _Progress | None = None,
        backend: _backend.BackendObject | None = None,
    ) -> Sequence[ImageHandle]:
        """Imports a Docker or OCI archive (`"-"` is standard input); every imported image.

        `tag` is added to the first one. Digests are verified, and nothing is written outside the store.
        `progress(done, total)` is called with bytes of the archive's layers; without one, a bar is shown in a notebook
        or a terminal once it takes longer than a second (`MSB_PROGRESS=0`: never).

        Example: `(await Image.load("python.tar"))[0].reference`
        """
        with _progress.bar(f"loading {input_path}", progress) as callback:
            natives = await run(_microsandbox.image_load(input_path, tag, on_loop(callback), _backend.pick(backend)))
        return [ImageHandle(native) for native in natives]

    @staticmethod
    async def save(
        reference: str | Sequence[str],
        *,
        output_path: Path,
        format: ImageArchiveFormat = ImageArchiveFormat.DOCKER,
        backend: _backend.BackendObject | None = None,
    ) -> None:
        """Writes one or several images to an archive; `"-"` is standard output.

        Digests stay as they are. A file appears complete or not at all, and nothing is written before every image was
        found. Raises `ImageNotFoundError`; `InvalidStateError` where compressed layers were not kept
        (`images.keep_blobs` of the configuration, `Image.prune(blobs=True)`).

        Example: `await Image.save("debian:12", output_path="debian.tar", format=ImageArchiveFormat.OCI)`
        """
        references = [reference] if isinstance(reference, str) else [*reference]
        if not references or "" in references:
            raise ValueError("at least one image reference is needed, and none may be empty")
        form = checked(format, ImageArchiveFormat, "format")
        await run(_microsandbox.image_save(references, output_path, form, _backend.pick(backend)))
