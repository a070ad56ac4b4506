"""Folders whose files change all at once, as a kubelet writes the volumes of pods.

    ..2026_11_25_09_10_17.123456/key    the files
    ..data -> ..2026_11_25_09_10_17.123456
    key -> ..data/key

Who reads sees all old files or all new ones: one rename replaces `..data`.
https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from podidentity_sandbox.node.contents import File
from podidentity_sandbox.node.refusals import VolumeRefused

_DATA = "..data"


def write_all(folder: Path, files: Mapping[str, File], now: datetime, group: int | None) -> None:
    """Make the folder hold these files and no others; `group`, if one is given, may read them.

    Raises VolumeRefused, before it writes anything, for a path that is not below the folder.
    """
    for path in files:
        _check(path)
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o755)
    old = Path(folder, _DATA).readlink() if Path(folder, _DATA).is_symlink() else None
    fresh = now.strftime("..%Y_%m_%d_%H_%M_%S.%f")
    for path, file in files.items():
        _write(folder / fresh / path, file)
    (folder / fresh).mkdir(exist_ok=True)
    link = folder / "..data_tmp"
    link.unlink(missing_ok=True)
    link.symlink_to(fresh)
    link.replace(folder / _DATA)
    _link_visible(folder, {path.split("/")[0] for path in files})
    if group is not None:
        give(folder, group, read_only=True)
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)


def _check(path: str) -> None:
    """Refuse what the API server should have refused, in the words of atomic_writer.go."""
    parts = path.split("/")
    if not path:
        raise VolumeRefused("invalid path: must not be empty: ")
    if path.startswith("/"):
        raise VolumeRefused(f"invalid path: must be relative path: {path}")
    if ".." in parts:
        raise VolumeRefused(f"invalid path: must not contain '..': {path}")
    if parts[0].startswith(".."):
        raise VolumeRefused(f"invalid path: must not start with '..': {path}")


def _write(path: Path, file: File) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(file.data)
    path.chmod(file.mode)
    if file.user is not None:
        _change_owner(path, user=file.user)


def give(folder: Path, group: int, *, read_only: bool) -> None:
    """Let a group read all of a volume, or write it too; what is made there is the group's.

    SetVolumeOwnership of pkg/volume/volume_linux.go. Without root there is no other group to give
    anything to.
    """
    mask = 0o440 if read_only else 0o660
    for path in (folder, *folder.rglob("*")):
        if _change_owner(path, group=group) and not path.is_symlink():
            path.chmod(stat.S_IMODE(path.stat().st_mode) | mask | (0o2110 if path.is_dir() else 0))


def _change_owner(path: Path, *, user: int = -1, group: int = -1) -> bool:
    """Give a file away; False where the namespace of a sandbox without root knows nobody else."""
    try:
        os.chown(path, user, group, follow_symlinks=False)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL):
            raise
        return False
    return True


def _link_visible(folder: Path, names: set[str]) -> None:
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in list(folder.iterdir()):
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
