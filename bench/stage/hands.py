"""Which connections a process has in its hands when it is killed: read, not told by the clock."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import struct
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter


@dataclass(frozen=True, slots=True)
class Hands:
    """What some processes had accepted at one moment, after which they accepted nothing."""

    moment: float
    """In `perf_counter` seconds."""
    clients: frozenset[tuple[str, int]]
    """Address and port of the other end of each connection."""

    def held(self, client: tuple[str, int], begun: float) -> bool:
        """Whether a connection was among them that its client began at `begun`."""
        return begun <= self.moment and client in self.clients


async def seize(pids: Iterable[int]) -> Hands:
    """Stop processes, and return what they have in their hands.

    To be killed by the caller before it waits for anything, or left as they are.
    """
    stopped = list(pids)
    while any(state(pid) not in {"T", "Z", "X", ""} for pid in stopped):
        for pid in stopped:
            send(pid, signal.SIGSTOP)
        await asyncio.sleep(0.0005)
    clients = frozenset(client for pid in stopped for client in _clients(pid))
    return Hands(perf_counter(), clients)


def state(pid: int) -> str:
    """Return the letter of a process's state as ps(1) has it; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def send(pid: int, number: signal.Signals) -> None:
    """Send a signal; to nobody where the process has gone."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def _clients(pid: int) -> set[tuple[str, int]]:
    """Return the other end of each IPv4 connection of a process."""
    sockets, found = set(), set()
    with suppress(OSError):
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            with suppress(OSError):
                sockets.add(str(descriptor.readlink()))
        for line in Path(f"/proc/{pid}/net/tcp").read_text().splitlines()[1:]:
            fields = line.split()
            if f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[2].partition(":")
                packed = struct.pack("=I", int(address, 16))
                found.add((socket.inet_ntoa(packed), int(port, 16)))
    return found
