"""Files of the image in memory, taken out of packages: no root, no mount, no folder to clean up."""

from __future__ import annotations

import io
import stat
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass
from fnmatch import translate
from pathlib import Path, PurePosixPath
from re import Pattern
from re import compile as compiled

from deploy.image.contents import KEPT, LIBRARIES, REMOVED


@dataclass(frozen=True)
class File:
    """A file, or with `link` a symbolic link."""

    data: bytes
    mode: int = 0o644
    link: str = ""


Tree = dict[str, File]
"""Files by their path below the root. Folders follow from them."""

_REMOVED = [compiled(translate(each)) for each in REMOVED]
_KEPT = [compiled(translate(each)) for each in KEPT]


def of_deb(path: Path) -> Tree:
    """Return what a Debian package installs, and its record for scanners."""
    with tarfile.open(fileobj=io.BytesIO(_member(path, "--fsys-tarfile"))) as archive:
        tree = _of_tar(archive)
    with tarfile.open(fileobj=io.BytesIO(_member(path, "--ctrl-tarfile"))) as archive:
        found = archive.extractfile("./control")
        assert found is not None  # noqa: S101 - each package has one
        control = found.read()
    name = control.split(b"\n")[0].removeprefix(b"Package: ").decode()
    record = control.replace(b"\n", b"\nStatus: install ok installed\n", 1)
    return tree | {f"var/lib/dpkg/status.d/{name}": File(record)}


def _member(path: Path, which: str) -> bytes:
    return subprocess.run(
        ["dpkg-deb", which, str(path)],
        check=True,
        stdout=subprocess.PIPE,
    ).stdout


def _of_tar(archive: tarfile.TarFile) -> Tree:
    tree: Tree = {}
    for member in archive:
        name = str(PurePosixPath(member.name))
        if member.issym():
            tree[name] = File(b"", 0o777, member.linkname)
        elif member.islnk():
            tree[name] = tree[str(PurePosixPath(member.linkname))]
        elif member.isfile():
            found = archive.extractfile(member)
            assert found is not None  # noqa: S101 - it is a file
            tree[name] = File(found.read(), member.mode & 0o755)
    return tree


def of_wheel(path: Path) -> Tree:
    """Return what a wheel installs."""
    tree: Tree = {}
    with zipfile.ZipFile(path) as archive:
        for info in archive.infolist():
            if not info.is_dir():
                executable = info.external_attr >> 16 & stat.S_IXUSR
                mode = 0o755 if executable else 0o644
                tree[f"{LIBRARIES}/{info.filename}"] = File(archive.read(info), mode)
    return tree


def joined(trees: Iterable[Tree]) -> Tree:
    """Return one tree of several."""
    return {path: file for each in trees for path, file in each.items()}


def without_what_is_not_needed(tree: Tree) -> Tree:
    """Return a tree less what `contents.REMOVED` names."""
    return {path: file for path, file in tree.items() if not is_removed(path)}


def is_removed(path: str) -> bool:
    """Whether the image does without this path."""
    return _matches(path, _REMOVED) and not _matches(path, _KEPT)


def _matches(path: str, patterns: list[Pattern[str]]) -> bool:
    return any(each.match(path) for each in patterns)


def write(tree: Tree, folder: Path) -> None:
    """Write a tree below a folder, with its links as they are."""
    for path, file in tree.items():
        place = folder / path
        place.parent.mkdir(parents=True, exist_ok=True)
        if file.link:
            place.symlink_to(file.link)
        else:
            place.write_bytes(file.data)
            place.chmod(file.mode)
