"""The chart as a package: what `helm package` makes of its folder, with bytes that stay the same.

Helm writes the time of day into its packages (https://helm.sh/docs/helm/helm_package/). A package
is a tar archive of one folder, that of the chart's name, with its Chart.yaml first. Helm judges
this one in tests/deploy/test_chart.py.
"""

from __future__ import annotations

import fnmatch
import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import yaml


def package(folder: Path, epoch: int) -> tuple[str, bytes]:
    """Return the name and the bytes of the package of a chart's folder; `epoch` is its time."""
    chart = yaml.safe_load((folder / "Chart.yaml").read_text())
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for path in sorted(files(folder), key=lambda each: (each != folder / "Chart.yaml", each)):
            data = path.read_bytes()
            entry = tarfile.TarInfo(f"{chart['name']}/{path.relative_to(folder).as_posix()}")
            entry.size, entry.mode, entry.mtime = len(data), 0o644, epoch
            archive.addfile(entry, io.BytesIO(data))
    return f"{chart['name']}-{chart['version']}.tgz", gzipped(packed.getvalue())


def files(folder: Path) -> Iterator[Path]:
    """Yield the files of a chart's folder but those that its .helmignore names."""
    ignored = [
        line for line in (folder / ".helmignore").read_text().split() if not line.startswith("#")
    ]
    for path in folder.rglob("*"):
        parts = path.relative_to(folder).parts
        if path.is_file() and not any(
            fnmatch.fnmatchcase(part, pattern) for part in parts for pattern in ignored
        ):
            yield path


_MOST = 0xFFFF
"""Bytes of a block that is stored."""


def gzipped(data: bytes) -> bytes:
    """Return a gzip file of stored blocks (RFC 1951, 3.2.4; RFC 1952): no zlib has a say in it."""
    made = [b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"]
    for start in range(0, max(len(data), 1), _MOST):
        block = data[start : start + _MOST]
        last = start + _MOST >= len(data)
        made += [struct.pack("<BHH", last, len(block), len(block) ^ _MOST), block]
    made.append(struct.pack("<II", zlib.crc32(data), len(data) & 0xFFFFFFFF))
    return b"".join(made)
