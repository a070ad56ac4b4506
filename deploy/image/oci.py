"""OCI's formats: layers, configuration, manifest, index, and the archive of them all.

See the OCI image specification 1.1: image-layout.md, manifest.md, config.md, layer.md.
"""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from deploy.image.tree import Tree

_TYPE = "application/vnd.oci.image"

FOLDERS = {
    "dev": 0o755,
    "etc": 0o755,
    "proc": 0o555,
    "run": 0o755,
    "sys": 0o555,
    "tmp": 0o1777,
    "usr": 0o755,
    "var": 0o755,
}
"""Folders that are there, empty or not."""


def sha256(data: bytes) -> str:
    """Return a digest as OCI writes it."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Layer:
    """A layer, as it is unpacked and as it travels."""

    name: str
    plain: bytes
    packed: bytes


@dataclass(frozen=True)
class Image:
    """The image of one architecture."""

    architecture: str
    config: bytes
    manifest: bytes
    layers: tuple[Layer, ...]


def layer_tar(tree: Tree, *, base: bool) -> bytes:
    """Return a tree as tar: sorted, owned by root, of no time. `base` adds the fixed folders."""
    folders = {str(each): 0o755 for path in tree for each in PurePosixPath(path).parents}
    folders.pop(".", None)
    if base:
        folders |= FOLDERS
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for path in sorted(folders.keys() | tree.keys()):
            info = tarfile.TarInfo(path)
            if path in folders:
                info.type, info.mode = tarfile.DIRTYPE, folders[path]
                archive.addfile(info)
                continue
            file = tree[path]
            info.mode = file.mode
            if file.link:
                info.type, info.linkname = tarfile.SYMTYPE, file.link
                archive.addfile(info)
            else:
                info.size = len(file.data)
                archive.addfile(info, io.BytesIO(file.data))
    return out.getvalue()


def image(
    architecture: str,
    layers: Sequence[Layer],
    *,
    settings: dict[str, Any],
    created: str,
    labels: dict[str, str],
) -> Image:
    """Return an image of layers. `settings` are those of a container: Entrypoint, User, Env."""
    container: dict[str, Any] = {**settings, "Labels": labels}
    config = _json(
        {
            "architecture": architecture,
            "os": "linux",
            "created": created,
            "config": container,
            "rootfs": {"type": "layers", "diff_ids": [sha256(each.plain) for each in layers]},
            "history": [{"created": created, "comment": each.name} for each in layers],
        }
    )
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": f"{_TYPE}.manifest.v1+json",
            "config": _descriptor(f"{_TYPE}.config.v1+json", config),
            "layers": [_descriptor(f"{_TYPE}.layer.v1.tar+gzip", each.packed) for each in layers],
            "annotations": labels,
        }
    )
    return Image(architecture, config, manifest, tuple(layers))


def write_archive(path: Path, images: Iterable[Image], *, name: str) -> str:
    """Write an archive of one image for several architectures, and return its digest.

    `name` is what containerd and Docker call it once imported: localhost/podidentity:0.2.0.
    """
    blobs: dict[str, bytes] = {}
    manifests = []
    for each in images:
        parts = [each.manifest, each.config, *(layer.packed for layer in each.layers)]
        blobs |= {sha256(part): part for part in parts}
        platform = {"architecture": each.architecture, "os": "linux"}
        manifests.append(
            {**_descriptor(f"{_TYPE}.manifest.v1+json", each.manifest), "platform": platform}
        )
    index = _json(
        {"schemaVersion": 2, "mediaType": f"{_TYPE}.index.v1+json", "manifests": manifests}
    )
    blobs[sha256(index)] = index
    annotations = {
        "io.containerd.image.name": name,
        "org.opencontainers.image.ref.name": name.rpartition(":")[2],
    }
    entry = {**_descriptor(f"{_TYPE}.index.v1+json", index), "annotations": annotations}
    files = {
        "oci-layout": _json({"imageLayoutVersion": "1.0.0"}),
        "index.json": _json({"schemaVersion": 2, "manifests": [entry]}),
        **{f"blobs/{digest.replace(':', '/')}": blob for digest, blob in sorted(blobs.items())},
    }
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT) as archive:
        for file, data in files.items():
            info = tarfile.TarInfo(file)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return sha256(index)


def _descriptor(media_type: str, data: bytes) -> dict[str, Any]:
    return {"mediaType": media_type, "digest": sha256(data), "size": len(data)}


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
