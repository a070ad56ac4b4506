"""A place for sandboxes of stand-ins, and the proof that nothing of one remains."""

from __future__ import annotations

import os
import select
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.cgroups import roots_of
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import Status, status
from podidentity_sandbox.world.lifecycle import Outcome, bring_down, bring_up, names

STANDIN = str(Path(__file__).with_name("standin.py"))
PARTS: Mapping[str, Sequence[str]] = {
    part: (STANDIN, part) for part in ("cluster", "azure", "node")
}
COMMAND = """
import socket, sys
from pathlib import Path
from podidentity_sandbox.world import folder
base = Path(sys.argv.pop(1))
folder.base_folder = lambda: base
held = [socket.create_server(("127.0.0.1", int(port))) for port in sys.argv.pop(1).split()]
from podidentity_sandbox.cli import sandbox
sandbox()
"""
"""`podidentity sandbox`, given a folder for its sandboxes, and ports that somebody else holds."""


@dataclass
class Place:
    """Where a test's sandboxes are; all of them are taken down at its end."""

    base: Path
    mode: str = "rootless"

    def folder(self, name: str = "one") -> Folder:
        return Folder.of(name, self.base)

    def up(
        self,
        name: str = "one",
        *,
        parts: Mapping[str, Sequence[str]] | None = None,
        kubernetes: str = "",
    ) -> Plan:
        shape = Shape(rootless=self.mode == "rootless", kubernetes=kubernetes)
        return bring_up(name, shape, base=self.base, parts={**PARTS, **(parts or {})})

    def down(self, name: str = "one") -> Outcome:
        return bring_down(name, self.base)


@contextmanager
def placed() -> Iterator[Place]:
    """A place; at the end all its sandboxes are down."""
    # pytest's own folders are too deep for a Unix socket's address.
    base = Path(tempfile.mkdtemp(prefix="podidentity-test-"))
    found = Place(base)
    yield found
    for name in names(base):
        found.down(name)
    shutil.rmtree(base, ignore_errors=True)


@dataclass(frozen=True)
class Traces:
    """By what a sandbox would be seen on the machine if something of it remained."""

    folder: Path
    namespaces: frozenset[str]
    cgroups: list[Path]
    held: list[int]
    """The namespaces, open until they were looked for: so nobody else's get their numbers."""

    @classmethod
    def of(cls, found: Status) -> Traces:
        pids = [found.supervisor, *(part["pid"] for part in found.parts)]
        ours = _namespaces(Path("/proc/self"))
        links = [link for pid in pids if pid for link in Path(f"/proc/{pid}/ns").iterdir()]
        inside = {str(link.readlink()): link for link in links if str(link.readlink()) not in ours}
        return cls(
            found.plan.path,
            frozenset(inside),
            roots_of(found.plan.path),
            [os.open(link, os.O_RDONLY | os.O_CLOEXEC) for link in inside.values()],
        )

    def seen(self) -> list[str]:
        """Return a line for each thing that is still there; to be asked once, at the end.

        Afterwards other sandboxes may have namespaces of the same numbers.
        """
        assert self.held, "asked before"
        try:
            return self.look()
        finally:
            while self.held:
                os.close(self.held.pop())

    def look(self) -> list[str]:
        """Return a line for each thing that is there now."""
        there = [str(path) for path in (self.folder, *self.cgroups) if path.exists()]
        mounts = Path("/proc/self/mountinfo").read_text().splitlines()
        there += [line for line in mounts if str(self.folder) in line]
        for process in Path("/proc").iterdir():
            if not process.name.isdigit():
                continue
            with suppress(OSError):
                command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if str(self.folder) in command or self.namespaces & _namespaces(process):
                    there.append(f"process {process.name}: {command}")
        return there


def _namespaces(process: Path) -> frozenset[str]:
    return frozenset(str(link.readlink()) for link in (process / "ns").iterdir())


def traces(place: Place, name: str = "one") -> Traces:
    return Traces.of(status(place.folder(name)))


def pid_of(place: Place, part: str, name: str = "one") -> int:
    parts = status(place.folder(name)).parts
    return next(int(each["pid"]) for each in parts if each["name"] == part)


@contextmanager
def gone(pid: int | None) -> Iterator[None]:
    """Wait at the end until the process is gone, and what the kernel ends with it."""
    assert pid is not None
    ended = os.pidfd_open(pid)
    try:
        yield
        waiting = select.poll()
        waiting.register(ended, select.POLLIN)
        assert waiting.poll(60_000), f"process {pid} lives on"
    finally:
        os.close(ended)
