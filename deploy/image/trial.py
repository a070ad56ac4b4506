"""Runs the command of an image that was built, out of a folder: no container runtime, no root.

The image of the other architecture runs in an emulator of its processor, called by its path.
Debian's is fetched if none is here; nothing is installed, and the kernel is told nothing.
"""

from __future__ import annotations

import json
import subprocess
import tarfile
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory

from deploy.image.contents import PLATFORMS
from deploy.image.own_python import started, this_architecture
from deploy.image.packages import Missing, newest_file
from deploy.image.recipe import Built

VERSION = ("version", "--client", "-o", "json")


def unpack(layers: Sequence[bytes], folder: Path) -> None:
    """Unpack layers, each a tar, into a folder; owners become whoever runs this."""
    for each in layers:
        with tarfile.open(fileobj=BytesIO(each)) as archive:
            archive.extractall(folder, filter="fully_trusted")  # noqa: S202 - our own


def try_out(built: Built, cache: Path) -> dict[str, str]:
    """Return what `podidentity version` says in an image."""
    architecture = built.image.architecture
    with TemporaryDirectory() as name:
        root = Path(name)
        unpack([each.plain for each in built.image.layers], root)
        command = started(root, architecture)
        if architecture != this_architecture():
            command = [str(emulator(architecture, cache)), *command]
        ran = subprocess.run(
            [
                *command,
                "-I",
                f"{root}/usr/local/bin/podidentity",
                "version",
                "--client",
                "-o",
                "json",
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise Missing(f"The image of {architecture} does not run: {ran.stderr.strip()}")
        said: dict[str, str] = json.loads(ran.stdout)
        return said


def emulator(architecture: str, cache: Path) -> Path:
    """Return the emulator of an architecture's processor."""
    program = f"qemu-{PLATFORMS[architecture]}"
    found = which(f"{program}-static") or which(program)
    if found:
        return Path(found)
    place = cache / "emulator" / program
    if not place.exists():
        try:
            newest_file("qemu-user", f"./usr/bin/{program}", place, this_architecture())
        except Missing as error:
            raise Missing(f"No {program} is here. Install qemu-user. ({error})") from error
    return place
