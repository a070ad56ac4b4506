"""The image that holds a pod's namespaces, and a shell for tests: busybox, and nothing else.

`python -m podidentity_sandbox.node.cri.pause BUSYBOX ARCHIVE` writes it as an OCI archive.
https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import hashlib
import io
import json
import platform
import sys
import tarfile
from pathlib import Path

from podidentity_sandbox.node.cri.containerd import PAUSE

SHELL = "localhost/shell:1"
"""The same without a program: `sh`, `wget`, `ip` and the like are there."""
_NAMES = "sh cat ip wget sleep id ls kill head grep touch dd env"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_CONFIG = "application/vnd.oci.image.config.v1+json"
_LAYER = "application/vnd.oci.image.layer.v1.tar"


def _add(
    tar: tarfile.TarFile, name: str, data: bytes = b"", *, mode: int = 0o644, link: str = ""
) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(data), mode
    if link:
        entry.type, entry.linkname = tarfile.SYMTYPE, link
    elif name.endswith("/"):
        entry.type = tarfile.DIRTYPE
    tar.addfile(entry, io.BytesIO(data))


def layer(busybox: bytes) -> bytes:
    """Return the files of the image."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for folder in ("bin/", "dev/", "etc/", "proc/", "run/", "sys/", "tmp/"):
            _add(tar, folder, mode=0o755)
        _add(tar, "bin/busybox", busybox, mode=0o755)
        for name in _NAMES.split():
            _add(tar, f"bin/{name}", link="busybox")
    return raw.getvalue()


def archive(busybox: bytes) -> bytes:
    """Return an OCI archive with both images."""
    files = layer(busybox)
    blobs: dict[str, bytes] = {}

    def blob(data: bytes, kind: str) -> dict[str, object]:
        digest = hashlib.sha256(data).hexdigest()
        blobs[digest] = data
        return {"mediaType": kind, "digest": f"sha256:{digest}", "size": len(data)}

    def image(name: str, entrypoint: list[str]) -> dict[str, object]:
        run = {"Env": ["PATH=/bin"], "Entrypoint": entrypoint}
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), "amd64")
        diff = [f"sha256:{hashlib.sha256(files).hexdigest()}"]
        config = {
            "architecture": machine,
            "os": "linux",
            "config": run,
            "rootfs": {"type": "layers", "diff_ids": diff},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": blob(json.dumps(config).encode(), _CONFIG),
            "layers": [blob(files, _LAYER)],
        }
        named = {"annotations": {"io.containerd.image.name": name}}
        return {**blob(json.dumps(manifest).encode(), _MANIFEST), **named}

    manifests = [image(PAUSE, ["/bin/sleep", "infinity"]), image(SHELL, ["/bin/sh"])]
    index = {"schemaVersion": 2, "manifests": manifests}
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        _add(tar, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(tar, "index.json", json.dumps(index).encode())
        for digest, data in blobs.items():
            _add(tar, f"blobs/sha256/{digest}", data)
    return raw.getvalue()


if __name__ == "__main__":
    Path(sys.argv[2]).write_bytes(archive(Path(sys.argv[1]).read_bytes()))
