"""A pod calls a server of its neighbour in the name of IMDS, to be proved by the server's socket.

That socket has both ends of a connection of the neighbour to IMDS, and the neighbour's cgroup. A
server that speaks first (SSH, SMTP, many a database) has even sent some bytes on it. So whoever
holds both conversations, as IMDS with the server and as the server with NMI, has a socket for his
proof.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from podidentity_sandbox.demo.frames import ACK, SYN, SYN_ACK, Gateway
from tests.kernel.agent import uid
from tests.kernel.sources import Attacker, attacker, mac_of, put_right
from tests.kernel.topology import ANSWERED, GATEWAY, IMDS, PODS, inside

_PORT = 2222
_GREETING = b"220 of the victim, and longer than the request of the attacker\r\n"
_REQUEST = b"GET /welcomed HTTP/1.1\r\n\r\n"
_TRIES = 60
_ARP_REQUEST = 1


async def welcomed(*, cgroups: str) -> Any:
    """Return what the agent answers p1 in the name of p2, whose server has welcomed p1."""
    await put_right()
    gateway, victim = await mac_of(""), await mac_of("p2")
    with _as_pod("p2", cgroups):
        server = inside("p2", lambda: socket.create_server(("0.0.0.0", _PORT)))  # noqa: S104
    with server:
        accepted = await asyncio.to_thread(_call, attacker("p1", IMDS[0]), victim, server)
        with accepted:
            wire, via = attacker("p1", PODS["p2"]), Gateway(GATEWAY, gateway)
            answer = await asyncio.to_thread(
                wire.converse, IMDS, via, _REQUEST, ANSWERED, port=_PORT
            )
    await put_right()
    return json.loads(answer.partition(b"\r\n\r\n")[2])


@contextlib.contextmanager
def _as_pod(pod: str, cgroups: str) -> Iterator[None]:
    """Make sockets as a process of this pod, if pods have cgroups."""
    if not cgroups:
        yield
        return
    root = Path(cgroups)
    root.joinpath(f"kubepods/burstable/pod{uid(pod)}/main/cgroup.procs").write_text("0")
    try:
        yield
    finally:
        root.joinpath("cgroup.procs").write_text("0")


def _call(wire: Attacker, victim: bytes, server: socket.socket) -> socket.socket:
    """Be greeted, as IMDS; return the server's socket. The greeting does not go to the gateway."""
    to = (PODS["p2"], _PORT)
    for attempt in range(1, _TRIES):
        wire.arp(_ARP_REQUEST, wire.own_mac, GATEWAY, PODS["p2"], source=wire.own_mac)
        wire.send_tcp(victim, to, IMDS[1], (attempt << 16, 0), SYN)
        for segment in wire.segments(PODS["p2"], 0.5, port=IMDS[1]):
            if segment.flags & SYN_ACK == SYN_ACK:
                numbers = (segment.acknowledged, segment.sequence + 1)
                wire.send_tcp(victim, to, IMDS[1], numbers, ACK)
                accepted, _ = server.accept()
                accepted.sendall(_GREETING)
            elif segment.data:
                numbers = (segment.acknowledged, segment.sequence + len(segment.data))
                wire.send_tcp(victim, to, IMDS[1], numbers, ACK)
                return accepted
    raise TimeoutError("the server answers the gateway")
