"""A later container runtime than the machine's Debian has: containerd 2 of Debian forky, pinned.

python -m tests.acceptance.runtime.later FOLDER         fetches its packages, by their hashes
python -m tests.acceptance.runtime.later --renew-pins   pins today's
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import astuple
from pathlib import Path

from deploy.image.packages import Missing, archives, fetch_debs, newest_of
from deploy.image.pins import Deb

ROOT = Path(__file__).parents[3]
PINS = Path(__file__).with_suffix(".pins")
SUITE = "forky"
PACKAGES = (
    "containerd",
    "runc",
    "crun",
    "libblake3-0",
    "containernetworking-plugins",
    "busybox-static",
    "golang-github-kubernetes-cri-api-dev",
)
"""The libraries that these need beside are the machine's."""
_COMMAND = "python -m tests.acceptance.runtime.later"


def renew() -> None:
    """Pin today's versions."""
    places = tuple(each for each in archives() if not each.startswith("file:"))
    places = tuple(each for each in places if not each.rstrip("/").endswith("-security"))
    found = {each.name: each for each in newest_of(PACKAGES, "amd64", places, suite=SUITE)}
    heading = f"# Written by {_COMMAND} --renew-pins: Debian's packages, by their SHA-256."
    lines = [" ".join(astuple(found[name])) for name in PACKAGES]
    PINS.write_text("\n".join([heading, *lines, ""]))


def pinned() -> list[Deb]:
    """Return the pins."""
    lines = PINS.read_text().splitlines()
    return [Deb(*line.split(" ")) for line in lines if not line.startswith("#")]


def fetch(folder: Path) -> None:
    """Put the packages into a folder; raise Missing."""
    for each in fetch_debs(pinned(), ROOT / ".cache/runtime", (), by=_COMMAND):
        shutil.copy(each, folder)


if __name__ == "__main__":
    try:
        if sys.argv[1:] == ["--renew-pins"]:
            renew()
        else:
            fetch(Path(sys.argv[1]))
    except Missing as error:
        sys.exit(str(error))
