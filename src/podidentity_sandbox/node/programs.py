"""What the kubelet asks its launcher to start, as plain values that travel between the two.

A `Room` is what a container runtime makes of a container: its namespaces and its file tree. A
`Program` is what runs there: the container's own command, or one that somebody executes beside it.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class Bind:
    """A file or folder of the node that a container sees."""

    source: str
    target: str
    read_only: bool = True
    follow: bool = False
    """Whether mounts made later under the source appear too (HostToContainer)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Room:
    """Where a container lives."""

    hostname: str
    network: str = ""
    """File of its network namespace; "" for the node's."""
    binds: tuple[Bind, ...] = ()
    hidden: tuple[str, ...] = ()
    """Folders of the machine that it must not see: the sandbox's own, which holds secrets."""
    kept: tuple[str, ...] = ()
    """Folders that it needs wherever they are: the interpreter's and the programs' own."""
    read_only_root: bool = False
    system_writable: bool = False
    """Whether /proc/sys and /sys may be written: `privileged`."""
    rootless: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Program:
    """What runs in a room, and with which rights."""

    argv: tuple[str, ...]
    environment: tuple[tuple[str, str], ...] = ()
    directory: str = "/"
    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()
    capabilities: int = 0
    """Bit n for capability n."""
    no_new_privileges: bool = False
    cgroups: tuple[str, ...] = ()
    """Folders of its cgroups in the node's view, one in each tree that there is."""
    terminal: bool = False
    """Whether its standard input becomes its controlling terminal."""
    reaped: bool = False
    """Whether the kernel reaps its children: for a program that idles in place of an image's."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One request to the launcher: a program in a new room, or in that of process `beside`."""

    program: Program
    room: Room | None = None
    beside: int = 0

    def encode(self) -> bytes:
        """Return the order as JSON."""
        return json.dumps(asdict(self)).encode()

    @classmethod
    def decode(cls, raw: bytes) -> Self:
        """Read what `encode` wrote."""
        data = json.loads(raw)
        program, room = data["program"], data["room"]
        program["environment"] = tuple((name, value) for name, value in program["environment"])
        program["cgroups"] = tuple(program["cgroups"])
        if room is not None:
            room["binds"] = tuple(Bind(**bind) for bind in room["binds"])
        return cls(
            program=Program(**program),
            room=Room(**room) if room is not None else None,
            beside=data["beside"],
        )
