"""Builds images for tests, and runs programs in them without a container runtime."""

from __future__ import annotations

import gzip
import json
import os
import shutil
import subprocess
import sys
import tarfile
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from deploy.image.oci import sha256
from deploy.image.trial import unpack

ROOT = Path(__file__).parents[2]
CACHE = ROOT / ".cache/image"


@dataclass(frozen=True)
class Archive:
    """What ./scripts/image wrote, and what it said."""

    folder: Path
    said: str
    warned: str

    @property
    def path(self) -> Path:
        (found,) = self.folder.glob("*.tar")
        return found

    def files(self) -> dict[str, bytes]:
        return {each.name: each.read_bytes() for each in sorted(self.folder.iterdir())}

    def members(self) -> dict[str, bytes]:
        with tarfile.open(self.path) as archive:
            return {
                each.name: archive.extractfile(each).read()  # type: ignore[union-attr]
                for each in archive
            }

    def bill(self, architecture: str) -> dict[str, Any]:
        (found,) = self.folder.glob(f"*-{architecture}.cdx.json")
        read: dict[str, Any] = json.loads(found.read_text())
        return read


def build(
    folder: Path, *words: str, checkout: Path = ROOT, cache: Path = CACHE, **environment: str
) -> Archive:
    command = [sys.executable, "-m", "deploy.image", "--or-newest", "--output", str(folder)]
    ran = subprocess.run(
        [*command, "--cache", str(cache), *words],
        cwd=checkout,
        env={**os.environ, "PYTHONPATH": str(checkout), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return Archive(folder, ran.stdout, ran.stderr)


def copied_checkout(place: Path) -> Path:
    """Return a copy of this checkout elsewhere, of the same commit and with the same changes."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file() and not name.startswith(("docs/", "tests/", "bench/")):
            (place / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, place / name)
    where = subprocess.run(
        ["git", "rev-parse", "--absolute-git-dir"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    (place / ".git").write_text(f"gitdir: {where}")
    return place


@dataclass(frozen=True)
class Opened:
    """An image of an archive, read as its manifest says."""

    architecture: str
    config: dict[str, Any]
    manifest: dict[str, Any]
    layers: tuple[bytes, ...]
    """As they are unpacked."""
    packed: int
    """Bytes of the layers as they travel."""

    def entries(self) -> dict[str, tarfile.TarInfo]:
        found: dict[str, tarfile.TarInfo] = {}
        for each in self.layers:
            with tarfile.open(fileobj=BytesIO(each)) as archive:
                found |= {entry.name: entry for entry in archive}
        return found

    def unpack(self, folder: Path) -> Path:
        folder.mkdir(mode=0o755)
        unpack(self.layers, folder)
        return folder


def opened(archive: Archive) -> dict[str, Opened]:
    """Return the images of an archive; each blob is what its digest says."""
    members = archive.members()

    def blob(descriptor: dict[str, Any]) -> bytes:
        data = members[f"blobs/{descriptor['digest'].replace(':', '/')}"]
        assert (sha256(data), len(data)) == (descriptor["digest"], descriptor["size"])
        return data

    (entry,) = json.loads(members["index.json"])["manifests"]
    found: dict[str, Opened] = {}
    for each in json.loads(blob(entry))["manifests"]:
        manifest = json.loads(blob(each))
        config = json.loads(blob(manifest["config"]))
        packed = [blob(layer) for layer in manifest["layers"]]
        layers = tuple(map(gzip.decompress, packed))
        assert [sha256(layer) for layer in layers] == config["rootfs"]["diff_ids"]
        assert each["platform"]["architecture"] == config["architecture"]
        found[config["architecture"]] = Opened(
            config["architecture"], config, manifest, layers, sum(map(len, packed))
        )
    return found


def inside(
    root: Path, config: dict[str, Any], *command: str, user: str = ""
) -> subprocess.CompletedProcess[str]:
    """Run a program in an unpacked image as a container would: root read-only, /run in memory.

    It has a network namespace of its own, so that none of it reaches this machine. Its environment
    and, unless `user` is given, its user are the image's.
    """
    settings = config["config"]
    mounts = (
        'mount --bind "$0" "$0" && mount -o remount,bind,ro "$0" && '
        'mount -t tmpfs -o mode=1777 none "$0/run" && exec "$@"'
    )
    unshare, chroot = shutil.which("unshare"), shutil.which("chroot")
    assert unshare
    assert chroot
    return subprocess.run(
        [
            *(unshare, "--mount", "--net", "--propagation", "private"),
            *("sh", "-c", mounts, str(root)),
            *(chroot, f"--userspec={user or settings['User']}", str(root), *command),
        ],
        env=dict(each.split("=", 1) for each in settings["Env"]),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
