"""Scenario: a pod speaks from its neighbour's address, and from the port of an old socket there.

The node has forgotten that old connection. So address, port and namespace are right, and the socket
that they name is not at the other end.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, Proof, judge
from podidentity.kernel.attestation import SLACK_MS, ConnectionInspector
from podidentity.kernel.interception import Interception
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint, SockDiag
from tests.kernel.agent import WallClock, pod
from tests.kernel.topology import IMDS, PODS, command, inside, until

_VICTIM, _ATTACKER = "p2", "p1"
_LONG = b"GET /of-the-victim HTTP/1.1\r\nX: " + 400 * b"x" + b"\r\n\r\n"
"""More than the attacker sends: an attacker would see to it."""
_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"
_ABORT = struct.pack("ii", 1, 0)  # SO_LINGER: close by RST, and forget at once
_LONG_AGO = SLACK_MS / 1000 + 0.5


class Node:
    """Listens where intercepted connections end, and judges them."""

    def __init__(self) -> None:
        redirect = Redirect()
        Interception(redirect, WallClock()).install()
        self.here = redirect.listener
        self._listening = socket.create_server(self.here)
        self._listening.setblocking(False)
        self._inspector = ConnectionInspector(
            netns_dirs=[Path("/run/netns")], cgroups=None, listener=self.here
        )
        self._diag = SockDiag()

    async def accept(self) -> tuple[socket.socket, tuple[str, int]]:
        return await asyncio.get_running_loop().sock_accept(self._listening)

    def prove(self, peer: tuple[str, int]) -> Proof:
        facts = self._inspector.facts(*peer)
        return judge(facts, [pod(_VICTIM)], AttestationMode.NAMESPACE)

    async def forgets(self, peer: tuple[str, int]) -> None:
        """Return once the kernel has no socket of the connection any more."""
        await until(lambda: not self._has(Endpoint(*peer)))

    def _has(self, client: Endpoint) -> bool:
        ours = self._diag.find(self.here, client)
        return ours is not None and ours.is_of_connection


@dataclass
class Connection:
    """The victim's connection, while both ends of it exist."""

    node: Node
    client: socket.socket
    accepted: socket.socket
    peer: tuple[str, int]

    def prove(self) -> str:
        return self.node.prove(self.peer).verdict

    def answer(self) -> None:
        self.accepted.recv(4096)
        self.accepted.sendall(_ANSWER)
        self.client.recv(4096)

    async def abort(self) -> None:
        """End it, and let the victim not be told."""
        await _divert()
        self.accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _ABORT)
        self.accepted.close()


async def stale() -> dict[str, Any]:
    """Return, for each kind of old socket, the verdict on it while it lived and on the attacker."""
    # What is left of a connection that we have closed is forgotten after a second, not a minute.
    await command("sysctl", "-qw", "net.ipv4.tcp_fin_timeout=1")
    node = Node()
    found: dict[str, Any] = {}
    for what, end in _WAYS.items():
        await command("ip", "neigh", "flush", "dev", "cbr0")
        async with _connected(node) as connection:
            before = await end(connection)
            await node.forgets(connection.peer)
            await _divert()
            found[what] = [before, await _attack(node, connection.peer)]
        await command("ip", "neigh", "del", PODS[_VICTIM], "dev", "cbr0")
    return found


async def _closed(victim: Connection) -> str:
    """We end the idle connection, and the victim does not look at its socket (CLOSE_WAIT)."""
    victim.client.sendall(_LONG)
    before = victim.prove()
    victim.answer()
    victim.accepted.close()
    return before


async def _diverted(victim: Connection) -> str:
    """We end it, and the victim is never told: the attacker has diverted the packet."""
    victim.client.sendall(_LONG)
    before = victim.prove()
    victim.answer()
    await victim.abort()
    return before


async def _unanswered(victim: Connection) -> str:
    """The victim has sent more than the attacker will, and has received nothing."""
    victim.client.sendall(_LONG)
    before = victim.prove()
    await victim.abort()
    await asyncio.sleep(_LONG_AGO)
    return before


async def _silent(victim: Connection) -> str:
    """The victim has connected and sent nothing yet."""
    before = victim.prove()
    await victim.abort()
    return before


_WAYS: dict[str, Callable[[Connection], Awaitable[str]]] = {
    "closed by us": _closed,
    "our end was diverted": _diverted,
    "diverted before any answer": _unanswered,
    "diverted before any request": _silent,
}


@contextlib.asynccontextmanager
async def _connected(node: Node) -> AsyncIterator[Connection]:
    with inside(_VICTIM, socket.socket) as client:
        client.connect(IMDS)
        accepted, peer = await node.accept()
        with accepted:
            accepted.setblocking(True)
            yield Connection(node, client, accepted, peer)


async def _divert() -> None:
    """Let the node send to the attacker what is meant for the victim, as ARP poisoning does."""
    links = json.loads(await command("ip", "-j", "link", "show", "eth0", netns=_ATTACKER))
    to = ("lladdr", str(links[0]["address"]), "dev", "cbr0", "nud", "permanent")
    await command("ip", "neigh", "replace", PODS[_VICTIM], *to)


async def _attack(node: Node, peer: tuple[str, int]) -> str:
    """Hold a new conversation from the victim's address and port; return the verdict on it."""
    loop = asyncio.get_running_loop()
    forger = (sys.executable, "-m", "podidentity_sandbox.demo.forger", "--path", "/")
    how = ("--trick", "arp", "--claim", peer[0], "--port", str(peer[1]))
    answer = asyncio.create_task(command(*forger, *how, netns=_ATTACKER))
    accepted, seen = await node.accept()
    with accepted:
        assert seen == peer
        await loop.sock_recv(accepted, 4096)
        proof = node.prove(seen)
        await loop.sock_sendall(accepted, _ANSWER)
        assert json.loads(await answer)["status"] == 200
    return f"{proof.verdict}: {proof.detail}"
