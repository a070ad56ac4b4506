"""Folders whose files change all at once, as a kubelet and a CSI driver write the volumes of pods.

    ..2026_11_25_09_10_17.123456/key    the files
    ..data -> ..2026_11_25_09_10_17.123456
    key -> ..data/key

A reader sees all old files or all new ones: one rename replaces `..data`.
https://github.com/kubernetes/kubernetes/blob/master/pkg/volume/util/atomic_writer.go
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

_DATA = "..data"


def show(folder: Path, fresh: str, paths: Iterable[str]) -> None:
    """Let `folder` show the files of `fresh`, a folder in it, at `paths`, and no others.

    What it showed before is removed. Raises OSError.
    """
    data, link = folder / _DATA, folder / "..data_tmp"
    old = data.readlink() if data.is_symlink() else None
    link.unlink(missing_ok=True)
    link.symlink_to(fresh)
    link.replace(data)
    names = {path.partition("/")[0] for path in paths}
    for name in names:
        if not (folder / name).is_symlink():
            (folder / name).symlink_to(f"{_DATA}/{name}")
    for entry in list(folder.iterdir()):
        if not entry.name.startswith("..") and entry.name not in names:
            entry.unlink()
    if old is not None:
        shutil.rmtree(folder / old, ignore_errors=True)
