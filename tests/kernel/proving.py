"""Scenarios: what the kernel says of connections in every state, and of namespaces that change."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

from podidentity.core.attestation import AttestationMode, judge
from podidentity.kernel.attestation import SLACK_MS, ConnectionInspector
from podidentity.kernel.interception import Interception
from podidentity.kernel.podnets import PodNetworks
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from tests.kernel.agent import WallClock, pod
from tests.kernel.topology import IMDS, PODS, command, inside, until

NETNS = Path("/run/netns")
_SHARED = "10.244.0.77"
_LISTENER = (Redirect().target, 2579)
_NO_PODS = {"an address of no pod": "10.244.0.99", "IPv6": "fd00::1", "no address": "nowhere"}
_LOOPBACK = ("127.0.0.1", 2579)
_TO_THE_LOOPBACK = f"""
table ip before {{
  chain leading {{
    type nat hook prerouting priority dstnat - 20;
    ip daddr {IMDS[0]} tcp dport {IMDS[1]} dnat to {_LOOPBACK[0]}:{_LOOPBACK[1]}
  }}
}}
"""
_REQUEST = b"GET / HTTP/1.1\r\n\r\n"


async def states() -> dict[str, Any]:
    """A connection of p1, in each state; and connections that there are not."""
    Interception(Redirect(), WallClock()).install()
    found: dict[str, Any] = {}
    with socket.create_server(_LISTENER) as listening, _inspector() as inspector:

        def prove(what: str, address: str, port: int, own: str = "") -> None:
            facts = inspector.facts(address, port, own)
            proof = judge(facts, [pod("p1")], AttestationMode.NAMESPACE)
            found[what] = [proof.verdict, proof.detail]

        for what, family, device in (
            ("ordinary", socket.AF_INET, b""),
            ("IPv6 socket", socket.AF_INET6, b""),
            ("bound to an interface", socket.AF_INET, b"eth0"),
        ):
            with _connected(listening, family, device) as (_, peer):
                prove(what, *peer)
        with _connected(listening) as (client, peer):
            client.shutdown(socket.SHUT_WR)
            prove("half-closed", *peer)
        with _connected(listening) as (client, peer):
            client.close()
            prove("closed", *peer)
        with _connected(listening) as (client, peer):
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            client.close()
            prove("reset", *peer)
        with inside("p1", lambda: socket.create_server(("0.0.0.0", 5000))):  # noqa: S104
            prove("only a listener", PODS["p1"], 5000)
        await command("ip", "addr", "add", f"{_SHARED}/24", "dev", "eth0", netns="p1")
        with _connected(listening, source=_SHARED) as (_, peer):
            prove("its second address", *peer)
            await command("ip", "addr", "add", f"{_SHARED}/32", "dev", "lo", netns="p2")
            prove("which another has taken since", *peer)
        await _honest_clients(listening, prove)
        await _led_to_the_loopback(prove)
        for what, address in _NO_PODS.items():
            prove(what, address, 5000)
    return found


async def _honest_clients(listening: socket.socket, prove: Callable[[str, str, int], None]) -> None:
    """What the two ends count may differ in many ways, and be of one connection."""
    with _pair(listening) as (waiting, _, old), _pair(listening) as (silent, _, silent_at_first):
        waiting.sendall(_REQUEST)
        with _pair(listening) as (client, accepted, peer):
            client.sendall(3 * _REQUEST)
            prove("more sent than we have read", *peer)
            accepted.sendall(1000 * b"x")
            client.sendall(_REQUEST)
            prove("answered without a proof before", *peer)
            accepted.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    accepted.send(bytes(1 << 16))
            prove("it reads nothing", *peer)
            client.shutdown(socket.SHUT_WR)
            prove("half-closed after its requests", *peer)
        with _pair(listening) as (client, accepted, peer):
            with _lost_data():
                client.sendall(_REQUEST)
                await until(lambda: _tcp_info(client, 208) > 0)
                prove("its data lost", *peer)
            await until(lambda: _tcp_info(accepted, 128) > 0)
            prove("its data lost and sent again", *peer)
        await until(lambda: _ago(waiting) > SLACK_MS)
        prove("long in our backlog", *old)
        silent.sendall(_REQUEST)
        prove("a request after a long silence", *silent_at_first)


async def _led_to_the_loopback(prove: Callable[..., None]) -> None:
    """The NMI before ours led a connection to 127.0.0.1, and ended before it was accepted there."""
    await command("sh", "-c", "echo 1 >/proc/sys/net/ipv4/conf/all/route_localnet")
    await command("nft", _TO_THE_LOOPBACK)
    with socket.create_server(_LOOPBACK) as listening, _connected(listening) as (_, peer):
        prove("led to our loopback address", *peer, _LOOPBACK[0])
        prove("at another address than it is", *peer)
        prove("at no address", *peer, "nowhere")
    await command("nft", "delete table ip before")


@contextlib.contextmanager
def _lost_data() -> Iterator[None]:
    """Drop what pods send to IMDS, but for packets without data."""
    rule = f"add rule ip lossy pre ip daddr {IMDS[0]} ip length gt 60 drop"
    chain = "add chain ip lossy pre { type filter hook prerouting priority -400; }"
    subprocess.run(["nft", f"add table ip lossy; {chain}; {rule}"], check=True)
    try:
        yield
    finally:
        subprocess.run(["nft", "delete table ip lossy"], check=True)


def _tcp_info(end: socket.socket, offset: int, size: int = 8) -> int:
    """Return a number in a socket's `struct tcp_info`."""
    info = end.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, offset + size)
    return int.from_bytes(info[offset:], sys.byteorder)


def _ago(end: socket.socket) -> int:
    """Return how many milliseconds ago it sent data."""
    return _tcp_info(end, 44, 4)


async def cost(*, connections: int) -> list[float]:
    """Return the microseconds of each proof of so many new connections, as many pods around."""
    Interception(Redirect(), WallClock()).install()
    await _more_pods(107)
    took = []
    with socket.create_server(_LISTENER) as listening, _inspector() as inspector:
        for _ in range(connections):
            with _connected(listening) as (_, peer):
                began = time.perf_counter()
                judge(inspector.facts(*peer), [pod("p1")], AttestationMode.NAMESPACE)
                took.append((time.perf_counter() - began) * 1e6)
    return took


async def _more_pods(number: int) -> None:
    for index in range(number):
        name, address = f"more-{index}", f"10.244.1.{index + 1}/32"
        await command("ip", "netns", "add", name)
        await command("ip", "-n", name, "addr", "add", address, "dev", "lo")


async def changes() -> dict[str, Any]:
    """Namespaces and their addresses come, change and go, under our eyes."""
    networks = PodNetworks(NETNS)
    found: dict[str, Any] = {}

    def note(what: str, address: str = PODS["p1"]) -> None:
        refreshed = networks.refresh()
        holders = sorted(each.name for each in networks.holders(address))
        found[what] = [refreshed, len(networks), holders]

    note("start")
    note("nothing new")
    await command("ip", "addr", "add", "10.244.0.77/32", "dev", "eth0", netns="p1")
    note("an address more", "10.244.0.77")
    await command("ip", "addr", "del", "10.244.0.77/32", "dev", "eth0", netns="p1")
    note("an address less", "10.244.0.77")
    (NETNS / "late").touch()
    note("a file without a namespace")
    await command("ip", "netns", "attach", "second", str(os.getpid()))
    note("our own namespace, under a name", "10.240.0.4")
    await command("mount", "--bind", str(NETNS / "p2"), str(NETNS / "late"))
    note("a second name", PODS["p2"])
    await command("ip", "netns", "del", "p1")
    note("a namespace less")
    await command("ip", "netns", "add", "p1")
    await command("ip", "-n", "p1", "addr", "add", PODS["p1"], "dev", "lo")
    note("another of the same name")
    many = "".join(f"addr add 10.9.{n // 250}.{n % 250 + 1}/32 dev lo\n" for n in range(300))
    await command("sh", "-c", f"ip -n p3 -batch - <<END\n{many}END")
    note("a crowd of addresses", PODS["p3"])
    networks.close()
    return found


async def unwatched() -> dict[str, Any]:
    """The kernel watches nothing for our user, or none of the folders: others have all of it."""
    found: dict[str, Any] = {}
    for limit in ("instances", "watches"):
        await command("sh", "-c", f"echo 0 >/proc/sys/user/max_inotify_{limit}")
        networks = PodNetworks(NETNS)
        async with _followed(networks):
            await _come_to(networks, len(PODS))
            await command("ip", "netns", "add", "late")
            networks.refresh()  # as a proof does, which waits for no second
            found[limit] = len(networks)
            await command("ip", "netns", "del", "late")
            await _come_to(networks, len(PODS))
        await command("sh", "-c", f"echo 100 >/proc/sys/user/max_inotify_{limit}")
    missing = PodNetworks(Path("/run/nowhere"))
    missing.refresh()
    return found | {"missing": missing.failure}


@contextlib.asynccontextmanager
async def _followed(networks: PodNetworks) -> AsyncIterator[None]:
    """Follow the namespaces; close them when that has ended: the next file has their number."""
    following = asyncio.create_task(networks.follow())
    try:
        yield
    finally:
        following.cancel()
        await asyncio.wait({following})
        networks.close()


async def _come_to(networks: PodNetworks, number: int) -> None:
    await until(lambda: len(networks) == number)


class Followed(PodNetworks):
    """Tells when it has been brought up to date."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.refreshed = asyncio.Event()

    def refresh(self) -> bool:
        changed = super().refresh()
        self.refreshed.set()
        return changed


async def absent() -> dict[str, Any]:
    """The folder is not there at first; and at last a namespace goes while nobody asks."""
    folder = Path("/run/later")
    networks = Followed(folder)
    found: dict[str, Any] = {"before": [networks.refresh(), networks.failure]}
    await command("mkdir", str(folder))
    await command("touch", str(folder / "p3"))
    await command("mount", "--bind", str(NETNS / "p3"), str(folder / "p3"))
    found["after"] = [networks.refresh(), networks.failure, len(networks)]
    async with _followed(networks):
        await command("umount", str(folder / "p3"))
        networks.refreshed.clear()
        await command("rm", str(folder / "p3"))
        await networks.refreshed.wait()
        found["let go"] = len(networks)
    return found


@contextlib.contextmanager
def _inspector() -> Iterator[ConnectionInspector]:
    inspector = ConnectionInspector(netns_dirs=[NETNS], cgroups=None, listener=Endpoint(*_LISTENER))
    try:
        yield inspector
    finally:
        inspector.close()


@contextlib.contextmanager
def _connected(
    listening: socket.socket,
    family: int = socket.AF_INET,
    device: bytes = b"",
    source: str = "",
) -> Iterator[tuple[socket.socket, tuple[str, int]]]:
    """Connect p1 to IMDS; yield its socket, and the address and port that the listener sees."""
    client = inside("p1", lambda: socket.socket(family))
    with client:
        if device:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, device)
        if source:
            client.bind((source, 0))
        prefix = "::ffff:" if family == socket.AF_INET6 else ""
        client.connect((prefix + IMDS[0], IMDS[1]))
        accepted, peer = listening.accept()
        with accepted:
            yield client, peer


@contextlib.contextmanager
def _pair(
    listening: socket.socket,
) -> Iterator[tuple[socket.socket, socket.socket, tuple[str, int]]]:
    """Connect p1 to IMDS; yield both ends, and where the client is."""
    with inside("p1", socket.socket) as client:
        client.connect(IMDS)
        accepted, peer = listening.accept()
        with accepted:
            yield client, accepted, peer
