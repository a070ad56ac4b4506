"""Sends the probes of the data path, from pods' network namespaces (`core.data_path`).

`net` enters the namespace of a pod for the time that a socket is made, and speaks itself. So the
probe pod runs nothing that could be told to do anything, and needs no token, no socket and no
folder that it shares with NMI. What decides where a packet goes (a program at the link, routes,
rules) is of the namespace and not of the process, so it is the same for the pod's own requests.

`serve` asks for it, and may be in a stranger's hands. It can have this one request sent, which asks
for nothing secret and lacks the header of a real one, a few times a second.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from contextlib import suppress

from podidentity.core.data_path import Answerer, Arrival, Backend, Hop, ProbeResult, hop_of
from podidentity.core.rate_limits import TokenBucket
from podidentity.kernel.rules import Redirect
from podidentity.wire.path_probe import LONGEST_REPLY, answerer_of, render_request

SECONDS = 2.0
"""Longest time of a probe until its answer has come."""
ARRIVAL_SECONDS = 0.5
"""Longest time between the answer, and the word of `serve` about what arrived."""
RATE, BURST = 2, 10
"""Probes in a second, of all clients together."""


class PathProber:
    """Sends probes, of which each client has one under way at most."""

    def __init__(
        self,
        redirect: Redirect,
        bound_socket: Callable[[str, str], socket.socket | str],
        plane_of: Callable[[str], str],
    ) -> None:
        """`bound_socket` makes a socket at a pod's address, or says why there is none.

        `plane_of` says how the pod of an address is connected.
        """
        self._imds = redirect.imds
        self._own = redirect.target
        self._by_own = {redirect.node_address: Backend.LRP, redirect.target: Backend.NFTABLES}
        """What leads requests to each address of ours; an address that is none is not asked for."""
        self._bound_socket = bound_socket
        self._plane_of = plane_of
        self._budget = TokenBucket(RATE, BURST, asyncio.get_running_loop().time())

    async def run(
        self, address: str, pod: str, probing: Callable[[int], None], word: ServeWord
    ) -> ProbeResult:
        """Send one probe and judge it.

        `probing` tells `serve` the port from which it will come, and `word` is what `serve` says.
        """
        if self._budget.take(asyncio.get_running_loop().time()):
            return ProbeResult(hop=Hop.NOT_SENT, detail=f"more than {RATE} probes a second")
        made = self._bound_socket(address, pod)
        if isinstance(made, str):
            return ProbeResult(hop=Hop.NOT_SENT, detail=made)
        with made:
            sent = Arrival(os.urandom(16).hex(), address, made.getsockname()[1], self._own)
            probing(sent.port)
            if not await word.expected():
                return ProbeResult(hop=Hop.NOT_SENT, detail="serve does not expect it")
            answerer, detail = await self._ask(made, sent.nonce)
        arrived = await word.arrived(ARRIVAL_SECONDS if answerer is Answerer.OURS else 0.0)
        if answerer is Answerer.NONE and arrived == sent:
            detail = f"{detail}, though it has arrived at NMI"
        backend = self._by_own.get(arrived.own) if arrived and arrived.own else None
        if backend and arrived:
            sent = sent._replace(own=arrived.own)
        hop = hop_of(answerer, sent, arrived)
        return ProbeResult(
            hop=hop,
            detail=detail,
            plane=self._plane_of(address),
            backend=backend if hop is Hop.PROVED else None,
        )

    async def _ask(self, asking: socket.socket, nonce: str) -> tuple[Answerer, str]:
        loop = asyncio.get_running_loop()
        received = b""
        detail = "the connection ended without one"
        try:
            async with asyncio.timeout(SECONDS):
                await loop.sock_connect(asking, tuple(self._imds))
                await loop.sock_sendall(asking, render_request(nonce))
                while len(received) < LONGEST_REPLY:
                    piece = await loop.sock_recv(asking, LONGEST_REPLY - len(received))
                    if not piece:
                        break
                    received += piece
        except TimeoutError:
            detail = f"none within {SECONDS:g} s"
        except OSError as error:
            detail = os.strerror(error.errno or 0).lower()
        return answerer_of(received), "" if received else detail


class ServeWord:
    """What `serve` says of the probe that is under way."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._expected: asyncio.Future[None] = loop.create_future()
        self._arrived: asyncio.Future[Arrival] = loop.create_future()

    def expecting(self) -> None:
        if not self._expected.done():
            self._expected.set_result(None)

    def note(self, arrival: Arrival) -> None:
        if not self._arrived.done():
            self._arrived.set_result(arrival)

    async def expected(self) -> bool:
        """Return whether `serve` expects it within the time of a probe."""
        with suppress(TimeoutError):
            async with asyncio.timeout(SECONDS):
                await asyncio.shield(self._expected)
        return self._expected.done()

    async def arrived(self, seconds: float) -> Arrival | None:
        """Return what arrived, within so many seconds from now; None if nothing did."""
        if seconds:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await asyncio.shield(self._arrived)
        return self._arrived.result() if self._arrived.done() else None
