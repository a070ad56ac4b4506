"""A node with the real `net` on it, and a client that has it prove new connections, one by one.

It is process 1 of namespaces of its own (`bench.proof`).
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from itertools import cycle
from pathlib import Path

from podidentity import __version__
from podidentity.adapters.net import NetClient
from podidentity.core.attestation import AttestationMode, Proof, Verdict, judge
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.cgroups import PodCgroups
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.net.main import run
from podidentity.net.plan import NetPlan
from tests.kernel.agent import WallClock, pod, uid
from tests.kernel.topology import IMDS, build, inside

FOLDER = Path("/run/net")
_NETNS = Path("/run/netns")
_PODS = 110
_ROUNDS, _TOGETHER = 8, 200
"""Rounds of connections that are all there before the first one is proved."""
_QUESTION = 100
"""Bytes of a question with its envelope, roughly."""
REDIRECT = Redirect()

Peer = tuple[str, int]
"""The pod's end of a connection."""
Ask = Callable[[Peer], Awaitable[None]]


def main(network: str, cgroups: Path, connections: int) -> None:
    """Print what was measured, in microseconds by what it is, as JSON."""
    net = make_node(network, cgroups)
    hops = Hops()
    print(json.dumps(asyncio.run(_measure(cgroups, connections, net, hops))))


def make_node(network: str, cgroups: Path) -> int:
    """Make a node with many pods, start `net`, return its process id, and become a process of p1.

    All ends with this process, which is the first of its namespace.
    """
    build(network)
    _more_pods()
    FOLDER.mkdir()
    net = os.fork()
    if not net:
        _net(cgroups)
        os._exit(0)
    # A socket belongs to the cgroup of the process that made it.
    (cgroups / "kubepods" / "burstable" / f"pod{uid('p1')}" / "main" / "cgroup.procs").write_text(
        "0"
    )
    return net


async def connected_client() -> tuple[NetClient, asyncio.Task[None]]:
    """Return a client that `net` answers, and the task that runs it."""
    client = NetClient(
        FOLDER / "net.sock", WallClock(), version=__version__, mode=AttestationMode.KERNEL
    )
    running = asyncio.create_task(client.run())
    while client.problems() or client.interception_problems() or not client.sources_guarded:
        await client.changed()
    return client, running


def _more_pods() -> None:
    words = "".join(
        f"ip netns add more-{n}\nip -n more-{n} addr add 10.244.1.{n + 1}/32 dev lo\n"
        for n in range(_PODS - 3)
    )
    subprocess.run(["sh", "-ec", words], check=True)


def _net(cgroups: Path) -> None:
    plan = NetPlan(
        node="node",
        redirect=REDIRECT,
        attestation=AttestationMode.KERNEL,
        guards_bridges=True,
        netns_dirs=(_NETNS,),
        cgroup_root=cgroups,
        socket=FOLDER / "net.sock",
        serve_user=0,
        lock_folder=None,
        handover_folder=None,
        removes=False,
    )
    asyncio.run(run(plan))


async def _measure(cgroups: Path, connections: int, net: int, hops: Hops) -> dict[str, list[float]]:
    inspector = ConnectionInspector(
        netns_dirs=[_NETNS],
        cgroups=PodCgroups(cgroups),
        listener=Endpoint(REDIRECT.target, REDIRECT.listen_port),
    )
    client, running = await connected_client()
    candidates = [pod("p1")]

    async def through_net(peer: Peer) -> None:
        _must_prove(await client.prove(*peer, candidates))

    async def in_one_process(peer: Peer) -> None:
        _must_prove(judge(inspector.facts(*peer), candidates, AttestationMode.KERNEL))

    hops.begin()
    asked: dict[str, Ask] = {
        "through net": through_net,
        "in one process": in_one_process,
        "hop of loops": hops.between_loops,
        "bare hop": hops.between_processes,
    }
    took = await _alone(asked, connections)
    took |= await _in_a_row(asked)
    took |= await _at_once(through_net, in_one_process, net)
    running.cancel()
    inspector.close()
    return took


async def _alone(asked: Mapping[str, Ask], connections: int) -> dict[str, list[float]]:
    """Return what each took right after a pod had connected: both processes had been asleep."""
    took: dict[str, list[float]] = {f"alone, {name}": [] for name in asked}
    for _, (name, ask) in zip(range(connections), cycle(asked.items()), strict=False):
        with _connected(1) as [peer]:
            took[f"alone, {name}"].append(await _timed(ask, peer))
    return took


async def _in_a_row(asked: Mapping[str, Ask]) -> dict[str, list[float]]:
    """Return what each took on connections that were there already, one after the other."""
    took: dict[str, list[float]] = {f"in a row, {name}": [] for name in asked}
    for _ in range(_ROUNDS):
        for name, ask in asked.items():
            with _connected(_TOGETHER) as peers:
                took[f"in a row, {name}"] += [await _timed(ask, peer) for peer in peers]
    return took


async def _at_once(through_net: Ask, in_one_process: Ask, net: int) -> dict[str, list[float]]:
    """Return the processor time of a proof, in both processes, of many asked for at once."""
    took: dict[str, list[float]] = {}
    for _ in range(_ROUNDS):
        for name, ask in (("through net", through_net), ("in one process", in_one_process)):
            with _connected(_TOGETHER) as peers:
                began = time.process_time() + _processor_time(net)
                await asyncio.gather(*map(ask, peers))
                spent = time.process_time() + _processor_time(net) - began
            took.setdefault(f"at once, {name}", []).append(spent / _TOGETHER * 1e6)
    return took


async def _timed(ask: Ask, peer: Peer) -> float:
    began = time.perf_counter()
    await ask(peer)
    return (time.perf_counter() - began) * 1e6


@contextmanager
def _connected(count: int) -> Iterator[list[Peer]]:
    """Have so many connections of a pod accepted; yield the pod's end of each."""
    with ExitStack() as stack:
        at = (REDIRECT.target, REDIRECT.listen_port)
        listening = stack.enter_context(socket.create_server(at, backlog=count))
        peers: list[Peer] = []
        for _ in range(count):
            asking = stack.enter_context(inside("p1", socket.socket))
            asking.connect(IMDS)
            accepted, peer = listening.accept()
            stack.enter_context(accepted)
            peers.append(peer)
        yield peers


def _processor_time(process: int) -> float:
    """Return the seconds of processor time that a process has had (clock_getcpuclockid(3))."""
    clock = ctypes.c_int()
    if ctypes.CDLL(None).clock_getcpuclockid(process, ctypes.byref(clock)):
        sys.exit("the processor time of net cannot be read")
    return time.clock_gettime(clock.value)


class Hops:
    """A packet of a question's size to another process and back: the control.

    Nothing that asks another process is faster on this machine. Between event loops, as `net` and
    `serve` are, and between processes that do nothing but wait for the packet.
    """

    def __init__(self) -> None:
        self._of_loops, self._bare = _echo(_echo_in_loop), _echo(_echo_barely)
        self._of_loops.setblocking(False)
        self._back: asyncio.Future[bytes]

    def begin(self) -> None:
        """Listen in the event loop that runs."""
        asyncio.get_running_loop().add_reader(self._of_loops, self._read)

    async def between_loops(self, _: Peer) -> None:
        """Wait in the event loop for what the other one sends back."""
        self._back = asyncio.get_running_loop().create_future()
        self._of_loops.send(bytes(_QUESTION))
        await self._back

    async def between_processes(self, _: Peer) -> None:
        """Wait for it without an event loop on either side."""
        self._bare.send(bytes(_QUESTION))
        self._bare.recv(_QUESTION)

    def _read(self) -> None:
        self._back.set_result(self._of_loops.recv(_QUESTION))


def _echo(answer: Callable[[socket.socket], None]) -> socket.socket:
    near, far = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if not os.fork():
        answer(far)
        os._exit(0)
    far.close()
    return near


def _echo_in_loop(far: socket.socket) -> None:
    async def echo() -> None:
        loop = asyncio.get_running_loop()
        loop.add_reader(far, lambda: far.send(far.recv(_QUESTION)))
        await loop.create_future()

    asyncio.run(echo())


def _echo_barely(far: socket.socket) -> None:
    while True:
        far.send(far.recv(_QUESTION))


def _must_prove(proof: Proof) -> None:
    if proof.verdict is not Verdict.PROVEN:
        sys.exit(f"a connection was not proved: {proof.verdict}: {proof.detail}")


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
