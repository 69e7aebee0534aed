"""Signatures that `registries.policy` demands, as cosign stores them, verified before a layer is asked for."""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from homes import write_config
from microsandbox import ImagePullFailedError, LocalBackend, Sandbox
from registry import Content, FakeRegistry, needed, run

pytestmark = pytest.mark.fresh_home

BUNDLE = "application/vnd.dev.sigstore.bundle.v0.3+json"
STATEMENT = "application/vnd.in-toto+json"
Sign = Callable[[FakeRegistry, str, "Signer"], None]


class Signer:
    """An ECDSA key, as `cosign generate-key-pair` makes one."""

    def __init__(self, directory: Path, name: str) -> None:
        needed("openssl")
        self.private, self.public = directory / f"{name}.key", directory / f"{name}.pub"
        run("openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", self.private)
        run("openssl", "ec", "-in", self.private, "-pubout", "-out", self.public)

    def sign(self, message: bytes) -> str:
        command = ["openssl", "dgst", "-sha256", "-sign", str(self.private)]
        signature = subprocess.run(command, input=message, capture_output=True, check=True).stdout
        return base64.b64encode(signature).decode()


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def add(fake: FakeRegistry, tag: str, media_type: str, blob: bytes, annotations: dict[str, str]) -> bytes:
    """A manifest with one layer, in the repository of the image; its bytes."""
    config = b"{}"
    layer = {"mediaType": media_type, "digest": digest(blob), "size": len(blob), "annotations": annotations}
    described = {"mediaType": "application/vnd.oci.empty.v1+json", "digest": digest(config), "size": len(config)}
    kind = "application/vnd.oci.image.manifest.v1+json"
    manifest = json.dumps({"schemaVersion": 2, "mediaType": kind, "config": described, "layers": [layer]}).encode()
    fake.images[f"app:{tag}"] = Content({digest(x): x for x in (config, blob, manifest)}, digest(manifest))
    return manifest


def simple(fake: FakeRegistry, image: str, signer: Signer) -> None:
    """Simple signing: a tag beside the image."""
    kind = "cosign container image signature"
    critical = {"identity": {"docker-reference": ""}, "image": {"docker-manifest-digest": image}, "type": kind}
    payload = json.dumps({"critical": critical, "optional": None}).encode()
    annotations = {"dev.cosignproject.cosign/signature": signer.sign(payload)}
    served = fake.images["app:1"].manifest.replace(":", "-")
    add(fake, f"{served}.sig", "application/vnd.dev.cosign.simplesigning.v1+json", payload, annotations)


def bundle(fake: FakeRegistry, image: str, signer: Signer) -> None:
    """A bundle 0.3, found by the tag that lists what refers to the image."""
    subject = [{"digest": {"sha256": image.removeprefix("sha256:")}}]
    kinds = {"_type": "https://in-toto.io/Statement/v1", "predicateType": "https://sigstore.dev/cosign/sign/v1"}
    payload = json.dumps({**kinds, "subject": subject, "predicate": {}}).encode()
    signed = f"DSSEv1 {len(STATEMENT)} {STATEMENT} {len(payload)} ".encode() + payload
    envelope = {
        "payload": base64.b64encode(payload).decode(),
        "payloadType": STATEMENT,
        "signatures": [{"sig": signer.sign(signed)}],
    }
    material = {"publicKey": {"hint": ""}}
    text = json.dumps({"mediaType": BUNDLE, "verificationMaterial": material, "dsseEnvelope": envelope}).encode()
    manifest = add(fake, "bundle", BUNDLE, text, {})
    kind = "application/vnd.oci.image.manifest.v1+json"
    listed = [{"mediaType": kind, "digest": digest(manifest), "size": len(manifest)}]
    index = {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": listed}
    body = json.dumps(index).encode()
    served = fake.images["app:1"].manifest.replace(":", "-")
    fake.images[f"app:{served}"] = Content({digest(body): body}, digest(body))


@pytest.fixture
def signer(tmp_path: Path) -> Signer:
    return Signer(tmp_path, "signer")


@pytest.fixture
def reference(fake_registry: FakeRegistry, busybox_archive: Path) -> str:
    return fake_registry.add(busybox_archive, "app", "1")


@pytest.fixture
def create(home: Path, fake_registry: FakeRegistry, signer: Signer, reference: str) -> Callable[[], Awaitable[Any]]:
    """Creates a sandbox from the image, under a policy that demands the signer's signature."""
    policy = [{"match": f"{fake_registry.host}/*", "keys": [str(signer.public)]}]
    write_config(home, registries={"policy": policy})
    return lambda: Sandbox.create("box", image=reference, backend=LocalBackend(home=home, isolation="container"))


@pytest.mark.parametrize("sign", [simple, bundle])
async def test_a_signed_image_is_pulled(
    create: Callable[[], Awaitable[Any]], fake_registry: FakeRegistry, signer: Signer, sign: Sign
) -> None:
    sign(fake_registry, fake_registry.images["app:1"].manifest, signer)
    box = await create()
    assert (await box.exec("cat", ["/etc/top"])).stdout_text == "top\n"
    await box.destroy(force=True)


@pytest.mark.parametrize("sign", [simple, bundle])
@pytest.mark.parametrize("fault", ["another key", "another image", "no signature"])
async def test_an_unsigned_image_is_refused_before_its_layers(
    create: Callable[[], Awaitable[Any]],
    fake_registry: FakeRegistry,
    signer: Signer,
    tmp_path: Path,
    sign: Sign,
    fault: str,
) -> None:
    image = fake_registry.images["app:1"]
    if fault == "another key":
        sign(fake_registry, image.manifest, Signer(tmp_path, "other"))
    elif fault == "another image":
        sign(fake_registry, digest(b"another image"), signer)
    with pytest.raises(ImagePullFailedError, match=r"registries\.policy demands a signature") as caught:
        await create()
    assert caught.value.kind == "Unsigned"
    assert not any(layer in request.path for request in fake_registry.log for layer in image.layers)
