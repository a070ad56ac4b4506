"""Folders whose files change all at once, as a kubelet and a CSI driver write the volumes of pods.

    ..2026_11_25_09_10_17.k3j9x2_a/key    the files
    ..data -> ..2026_11_25_09_10_17.k3j9x2_a
    key -> ..data/key

A reader sees all old files or all new ones: one rename replaces `..data`.
https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

_DATA = "..data"


@dataclass(frozen=True, slots=True)
class VolumeFile:
    """A file of a volume."""

    data: bytes
    mode: int = 0o644
    user: int | None = None
    """Its owner; None for root."""


def write(folder: Path, files: Mapping[str, VolumeFile]) -> None:
    """Let `folder` show these files, by their paths, and no others; what it showed before goes.

    Raises ValueError, before it writes anything, for a path that is not below the folder; OSError.
    """
    for path in files:
        _check_path(path)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    named = datetime.now(UTC).strftime("..%Y_%m_%d_%H_%M_%S.")
    fresh = Path(tempfile.mkdtemp(prefix=named, dir=folder))
    fresh.chmod(0o755)
    for path, file in files.items():
        made = fresh / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(file.data)
        made.chmod(file.mode)
        if file.user is not None:
            change_owner(made, user=file.user)
    data, link = folder / _DATA, folder / "..data_tmp"
    old = data.readlink() if data.is_symlink() else None
    link.unlink(missing_ok=True)
    link.symlink_to(fresh.name)
    link.replace(data)
    names = {path.partition("/")[0] for path in files}
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in list(folder.iterdir()):
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)


def _check_path(path: str) -> None:
    parts = path.split("/")
    if not path:
        raise ValueError("invalid path: must not be empty: ")
    if path.startswith("/"):
        raise ValueError(f"invalid path: must be relative path: {path}")
    if ".." in parts:
        raise ValueError(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise ValueError(f"invalid path: must not start with '..': {path}")


def change_owner(path: Path, *, user: int = -1, group: int = -1) -> bool:
    """Give a file away; False where the namespace of a sandbox without root knows nobody else."""
    try:
        os.chown(path, user, group, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        return False
    return True
