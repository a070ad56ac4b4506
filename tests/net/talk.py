"""A `net` server with an inspector that a test rules, and raw clients of it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from podidentity.core.attestation import ConnectionFacts, Sighting, SocketState
from podidentity.kernel.rules import Redirect
from podidentity.local_sockets import listen
from podidentity.net.path_probe import PathProber
from podidentity.net.server import NetServer
from podidentity.wire import net as wire

VERSION = "0.2.0"
ME = frozenset({os.getuid()})


def seen(pod: str) -> ConnectionFacts:
    """Return the facts of a connection of this pod."""
    sighting = Sighting(network="cni-1", state=SocketState.OPEN, pod=pod, user=0)
    return ConnectionFacts(accepted=True, sightings=(sighting,))


class FakeInspector:
    """Says of each connection what the test wants."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, int, bool | str]] = []
        self.answer = seen("uid-1")
        self.with_clients = seen("uid-1")
        """The answer to who asks for clients, too."""

    def facts(
        self, address: str, port: int, own: str = "", *, clients: bool = False
    ) -> ConnectionFacts:
        self.asked.append((address, port, "clients" if clients else own or False))
        return self.with_clients if clients else self.answer

    def local_facts(self, address: str, port: int, own: str) -> ConnectionFacts:
        self.asked.append((address, port, own))
        return self.answer


class FakePods:
    """Has one pod at 127.0.0.1, which is in the network of the test."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []
        self.missing = ""
        """Why there is none."""

    def bound_socket(self, address: str, pod: str) -> socket.socket | str:
        self.asked.append((address, pod))
        if self.missing:
            return self.missing
        made = socket.socket()
        made.setblocking(False)
        made.bind((address, 0))
        return made


class Net:
    """A server at `path`; its probes go to `imds`."""

    def __init__(
        self,
        path: Path,
        *,
        uids: frozenset[int] = ME,
        version: str = VERSION,
        imds: tuple[str, int] = ("127.0.0.1", 9),
    ) -> None:
        self.path = path
        self.inspector = FakeInspector()
        self.pods = FakePods()
        self.accepting: list[bool] = []
        redirect = Redirect(metadata_ip=imds[0], metadata_port=imds[1], node_address="10.240.0.7")
        self.server = NetServer(
            self.inspector,
            PathProber(redirect, self.pods.bound_socket, lambda _: "routed"),
            version=version,
            uids=uids,
            accepting=self.accepting.append,
        )
        self.server.start(listen(path))
        self._clients: list[RawClient] = []

    def client(self) -> RawClient:
        """Connect to it."""
        self._clients.append(RawClient(self.path))
        return self._clients[-1]

    def close(self) -> None:
        self.server.close()
        for client in self._clients:
            client.socket.close()


@asynccontextmanager
async def net(
    folder: Path,
    *,
    uids: frozenset[int] = ME,
    version: str = VERSION,
    imds: tuple[str, int] = ("127.0.0.1", 9),
) -> AsyncIterator[Net]:
    """Run a server in `folder`."""
    running = Net(folder / "net.sock", uids=uids, version=version, imds=imds)
    try:
        yield running
    finally:
        running.close()


class RawClient:
    """Packets to a server, whatever is in them."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(str(path))
        self.socket.setblocking(False)

    async def say(self, packet: bytes | wire.FromServe) -> None:
        raw = packet if isinstance(packet, bytes) else wire.encode(packet)
        await asyncio.get_running_loop().sock_sendall(self.socket, raw)

    async def hear(self) -> wire.FromNet | None:
        """Return the next message; None at the end of the connection."""
        loop = asyncio.get_running_loop()
        try:
            packet = await loop.sock_recv(self.socket, wire.LARGEST + 1)
        except ConnectionResetError:
            return None
        return wire.parse_from_net(packet) if packet else None

    async def greet(self) -> None:
        await self.say(wire.Hello(wire.PROTOCOL, VERSION))
        assert isinstance(await self.hear(), wire.Hello)
        assert isinstance(await self.hear(), wire.State)
