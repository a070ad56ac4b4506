"""The packages that an image is made of, each by its hash: `amd64.pins` and `arm64.pins`.

A line is one file: of Debian its path in an archive's pool, of Python the wheel's name. No archive
and no index is named: they are the machine's own. Wheels are those of requirements/product.txt,
with the same hashes; a file that has fallen behind it is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name, parse_wheel_filename

from deploy.image.contents import NOT_A_LIBRARY, PLATFORMS, PYTHON

HEADING = (
    "# Written by ./scripts/image --renew-pins: the packages of the image, by their SHA-256.\n"
)


class Stale(Exception):
    """The pins do not fit requirements/product.txt."""


@dataclass(frozen=True, order=True)
class Deb:
    """A Debian package as an archive has it."""

    name: str
    version: str
    architecture: str
    """That of the file: the image's, or `all`."""
    path: str
    """In the archive: pool/…"""
    sha256: str


@dataclass(frozen=True, order=True)
class Wheel:
    """A Python package as an index has it."""

    file: str
    sha256: str

    @property
    def name(self) -> str:
        """The normal form of its name."""
        return str(parse_wheel_filename(self.file)[0])

    @property
    def version(self) -> str:
        """Its version."""
        return str(parse_wheel_filename(self.file)[1])


@dataclass(frozen=True)
class Pins:
    """All packages of the image of one architecture."""

    debs: tuple[Deb, ...]
    wheels: tuple[Wheel, ...]


def read(folder: Path, architecture: str) -> Pins:
    """Return the pins of an architecture."""
    debs, wheels = [], []
    for line in (folder / f"{architecture}.pins").read_text().splitlines():
        if line.startswith("#"):
            continue
        kind, *words = line.split()
        if kind == "deb":
            debs.append(Deb(*words))
        else:
            wheels.append(Wheel(*words))
    return Pins(tuple(debs), tuple(wheels))


def write(folder: Path, architecture: str, pins: Pins) -> Path:
    """Write the pins of an architecture, and return the file."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        f"deb {each.name} {each.version} {each.architecture} {each.path} {each.sha256}\n"
        for each in sorted(pins.debs)
    ]
    lines += [f"wheel {each.file} {each.sha256}\n" for each in sorted(pins.wheels)]
    file = folder / f"{architecture}.pins"
    file.write_text(HEADING + "".join(lines))
    return file


def wanted(requirements: str, architecture: str) -> dict[tuple[str, str], frozenset[str]]:
    """Return the hashes of each library that the image needs, by its name and version.

    `requirements` is requirements/product.txt. Its markers are evaluated for the image, not for the
    machine that builds it.
    """
    environment = {
        "implementation_name": "cpython",
        "os_name": "posix",
        "platform_machine": PLATFORMS[architecture],
        "platform_python_implementation": "CPython",
        "platform_system": "Linux",
        "python_full_version": f"{PYTHON}.0",
        "python_version": PYTHON,
        "sys_platform": "linux",
    }
    found = {}
    for entry in re.split(
        r"\n(?=[a-z0-9])", "\n" + re.sub(r"^ *#.*$", "", requirements, flags=re.MULTILINE)
    ):
        hashes = frozenset(re.findall(r"--hash=sha256:([0-9a-f]{64})", entry))
        pin = entry.split("\\")[0].split("--hash")[0].strip()
        if not pin:
            continue
        requirement = Requirement(pin)
        name = str(canonicalize_name(requirement.name))
        if name in NOT_A_LIBRARY:
            continue
        if requirement.marker is None or requirement.marker.evaluate(environment):
            (version,) = (each.version for each in requirement.specifier)
            found[name, version] = hashes
    return found


def check(pins: Pins, requirements: str, architecture: str) -> None:
    """Raise Stale if the wheels are not those that the product pins."""
    want = wanted(requirements, architecture)
    have = {(each.name, each.version): each.sha256 for each in pins.wheels}
    differing = [
        *_named(want.keys() ^ have.keys()),
        *_named(key for key in want.keys() & have.keys() if have[key] not in want[key]),
    ]
    if differing:
        raise Stale(
            f"{architecture}.pins and requirements/product.txt differ in {', '.join(differing)}. "
            "Run ./scripts/image --renew-pins."
        )


def _named(pairs: Iterable[tuple[str, str]]) -> list[str]:
    return sorted(f"{name} {version}" for name, version in pairs)
