"""Files that appear, change and vanish all at once, by one rename of a link.

As Kubernetes' own volumes: `file -> ..data/file`, `..data -> ..2026_11_25_14_00_00.123456`, so a
reader sees all of the old files or all of the new ones.

https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from podidentity_sandbox.csi.provider import File

_DATA, _NEXT = "..data", "..data_tmp"


def write(folder: Path, files: Sequence[File]) -> None:
    """Make `folder` show these files and no others; raise OSError."""
    fresh = Path(tempfile.mkdtemp(prefix="..", dir=folder))
    fresh.chmod(0o755)
    for file in files:
        path = fresh / file.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(file.content)
        path.chmod(file.mode)
    old = (folder / _DATA).resolve() if (folder / _DATA).is_symlink() else None
    (folder / _NEXT).unlink(missing_ok=True)
    (folder / _NEXT).symlink_to(fresh.name)
    (folder / _NEXT).replace(folder / _DATA)
    _link(folder, {file.path.partition("/")[0] for file in files})
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def clear(folder: Path) -> None:
    """Remove all that `write` made."""
    if not folder.is_dir():
        return
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink():
            shutil.rmtree(entry)
        else:
            entry.unlink()


def _link(folder: Path, names: set[str]) -> None:
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in folder.iterdir():
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
