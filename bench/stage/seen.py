"""What the proof adds to a request, as a pod sees it: `serve`'s listener, the real `net`, a client.

The client opens a connection for each request. Of every second one the kernel is asked, by `net`;
of the others it is taken as proved. It is process 1 of namespaces of its own (`bench.proof`).
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from bench.stage.proofs import REDIRECT, connected_client, make_node
from podidentity.adapters.net import NetClient
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.attestation import Proof, Verdict
from podidentity.core.resources import IdentityType, Pod
from podidentity.nmi.request.decision import DecisionPolicy
from podidentity.nmi.server.listener import Listener
from tests.fakes import FakePermissions, FakeTokenSource, binding, cluster, identity, pod
from tests.kernel.agent import WallClock, uid
from tests.kernel.topology import IMDS, PODS, inside
from tests.nmi.wiring import pipeline_over

_GET = (
    b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net "
    b"HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\nConnection: close\r\n\r\n"
)
_FIRST_PORT = 20_000
_ASLEEP = 0.004
"""Seconds between two requests: all processes sleep meanwhile."""
_WARM = 20


class OddPortsAsked:
    """An attestor that asks `net` about connections from odd ports, and believes the others."""

    def __init__(self, net: NetClient) -> None:
        self._net = net
        self._known = Proof(verdict=Verdict.PROVEN, pod_uid=uid("p1"))

    # Implements `core.ports.Attestor`.

    async def prove(
        self, address: str, port: int, candidates: Sequence[Pod], own: str = ""
    ) -> Proof:
        """Return the proof of a connection to IMDS."""
        if port % 2:
            return await self._net.prove(address, port, candidates, own)
        return self._known

    def ask(
        self,
        address: str,
        port: int,
        candidates: Sequence[Pod],
        judged: Callable[[Proof], None],
        own: str = "",
    ) -> bool:
        """Have `judged` called later with the proof."""
        if port % 2:
            return self._net.ask(address, port, candidates, judged, own)
        asyncio.get_running_loop().call_soon(judged, self._known)
        return True

    async def prove_local(self, address: str, port: int, own: str) -> Proof:
        """Return the proof of a connection of the node itself."""
        return await self._net.prove_local(address, port, own)


def main(network: str, cgroups: Path, requests: int) -> None:
    """Print what was measured, in microseconds by what it is, as JSON."""
    make_node(network, cgroups)
    print(json.dumps(asyncio.run(_measure(requests))))


async def _measure(requests: int) -> dict[str, list[float]]:
    clock = WallClock()
    net, running = await connected_client()
    source = FakeTokenSource()
    source.now = clock.time
    pipeline = pipeline_over(
        cluster(clock, pod(uid=uid("p1"), addresses=(PODS["p1"],)), identity(), binding()),
        clock,
        attestor=OddPortsAsked(net),
        permissions=FakePermissions(),
        tokens=TokenCache(dict.fromkeys(IdentityType, source), clock),
        decider=DecisionPolicy(),
    )
    listener = Listener(pipeline, memo=pipeline)
    listener.accept_from(socket.create_server((REDIRECT.target, REDIRECT.listen_port), backlog=64))
    near, far = os.pipe()
    if not os.fork():
        os.write(far, json.dumps(_ask(requests)).encode())
        os._exit(0)
    os.close(far)
    with os.fdopen(near, "rb") as pipe:
        took: dict[str, list[float]] = json.loads(await asyncio.to_thread(pipe.read))
    running.cancel()
    await listener.close()
    return took


def _ask(requests: int) -> dict[str, list[float]]:
    """Ask so often, each time on a new connection, from odd and from even ports in turn."""
    took: dict[str, list[float]] = {"with the proof": [], "without": []}
    for port in range(_FIRST_PORT, _FIRST_PORT + _WARM + requests):
        with inside("p1", socket.socket) as client:
            client.bind((PODS["p1"], port))
            began = time.perf_counter()
            client.connect(IMDS)
            client.sendall(_GET)
            answer = client.recv(1 << 16)
            spent = (time.perf_counter() - began) * 1e6
            if b"access_token" not in answer:
                sys.exit(f"no token: {answer!r}")
            while client.recv(1 << 16):
                pass
        if port >= _FIRST_PORT + _WARM:
            took["with the proof" if port % 2 else "without"].append(spent)
        time.sleep(_ASLEEP)
    return took


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
