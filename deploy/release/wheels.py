"""The two wheels, stored and not compressed: then no version of zlib changes their bytes."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory

PROJECTS = ("", "sandbox")
"""Their folders in the tree: the product, and its judge."""


def wheels(source: Path, epoch: int) -> dict[str, bytes]:
    """Return the wheels of the tree `source` by their file names; `epoch` is the time in them."""
    made = {}
    for project in PROJECTS:
        with TemporaryDirectory() as folder:
            subprocess.run(
                [*(sys.executable, "-m", "hatchling", "build"), "--target", "wheel", "-d", folder],
                cwd=source / project,
                env={**os.environ, "SOURCE_DATE_EPOCH": str(epoch)},
                check=True,
                capture_output=True,
            )
            (wheel,) = Path(folder).glob("*.whl")
            made[wheel.name] = stored(wheel.read_bytes())
    return made


def stored(archive: bytes) -> bytes:
    """Return a zip archive with the same files, none of them compressed."""
    made = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(archive)) as read,
        zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as written,
    ):
        for each in read.infolist():
            kept = zipfile.ZipInfo(each.filename, each.date_time)
            kept.external_attr = each.external_attr
            written.writestr(kept, read.read(each))
    return made.getvalue()
