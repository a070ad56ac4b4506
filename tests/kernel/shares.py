"""Scenarios: one pod opens all the connections that it can, and others want one."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import resource
import select
import socket
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import Any

from podidentity.kernel import interception as module
from podidentity.kernel.interception import Interception
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.rules import LINK_LOCAL, Redirect
from podidentity_sandbox.demo.frames import ACK, RST, SYN
from tests.kernel.agent import WallClock
from tests.kernel.drifting import Stream
from tests.kernel.sources import ROUTED, attacker, mac_of
from tests.kernel.topology import (
    ANSWERED,
    IMDS,
    PODS,
    Agent,
    Client,
    ask,
    command,
    connected,
    inside,
)

BACKLOG = 4096
"""As that of NMI's listener."""
_SETTLED = 0.3
"""Seconds after which all is answered that will be; the next SYN of what is not comes after 1 s."""


@dataclass
class Crowd:
    """Connections of one pod, all opened at once and none used."""

    outcomes: dict[str, float]
    """How many came to what, and `seconds` from the first to the last look at them."""
    sockets: list[socket.socket] = field(default_factory=list)

    @classmethod
    @contextlib.asynccontextmanager
    async def of(cls, pod: str, count: int, addresses: tuple[str, ...] = ()) -> Any:
        """Open so many, in turn from each of the addresses if any are given."""
        crowd, begun = cls(dict.fromkeys(("connected", "refused", "waiting"), 0)), time.monotonic()
        for number in range(count):
            opened = inside(pod, socket.socket)
            opened.setblocking(False)
            if addresses:
                opened.bind((addresses[number % len(addresses)], 0))
            with contextlib.suppress(BlockingIOError):
                opened.connect(IMDS)
            crowd.sockets.append(opened)
        await asyncio.sleep(_SETTLED)
        try:
            for outcome in crowd._look():
                crowd.outcomes[outcome] += 1
            crowd.outcomes["seconds"] = time.monotonic() - begun
            yield crowd
        finally:
            for each in crowd.sockets:
                each.close()

    def _look(self) -> Iterator[str]:
        for each in self.sockets:
            poll = select.poll()
            poll.register(each, select.POLLOUT)
            if not poll.poll(0):
                yield "waiting"
            elif each.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
                yield "refused"
            else:
                yield "connected"


async def backlog(*, connections: int, shared: bool) -> dict[str, Any]:
    """Nobody accepts. Pods open many connections, one after the other; a neighbour wants one."""
    _let_open(connections)
    found: dict[str, Any] = {}
    extra = tuple(f"10.244.1.{number}" for number in range(1, 16))
    for address in extra:
        await command("ip", "addr", "add", f"{address}/16", "dev", "eth0", netns="p3")
    await command("ip", "route", "replace", "10.244.1.0/24", "dev", "cbr0")
    for number, pod in enumerate(("r1", "r2"), 1):
        await command("sh", "-e", "-c", ROUTED.format(pod=pod, number=number))
    async with Agent.running(listen=False, guard=False, copy=shared):
        if not shared:
            await _drop_shares()
        attacks = {"one address": ("p1", ()), "many": ("p3", extra), "routed": ("r1", ())}
        for what, (pod, addresses) in attacks.items():
            with socket.create_server((LINK_LOCAL, 2579), backlog=BACKLOG):
                async with Crowd.of(pod, connections, addresses) as crowd:
                    neighbours = [await _connects(each) for each in ("p2", "r2")]
                    found[what] = [crowd.outcomes, *neighbours]
    return found


async def forgotten(*, connections: int) -> dict[str, Any]:
    """Nobody accepts. Pod p1 has the kernel take each connection for reset that is not.

    An ACK whose number is ahead is answered by nobody, and an RST of the same number is no end to
    TCP (RFC 5961, 3.2), which asks whether it was meant. To who tracks the connection it is one.
    Then p3 begins many, and completes none.
    """
    _let_open(connections)
    opened: list[socket.socket] = []
    begun = time.monotonic()
    async with Agent.running(listen=False, guard=False):
        with socket.create_server((LINK_LOCAL, 2579), backlog=BACKLOG):
            wire, gateway = attacker("p1", PODS["p1"]), await mac_of("")
            for _ in range(connections):
                opened.append(inside("p1", socket.socket))
                opened[-1].settimeout(ANSWERED)
                if opened[-1].connect_ex(IMDS):
                    opened.pop().close()
                    break
                port = opened[-1].getsockname()[1]
                answer = next(wire.segments(IMDS[0], ANSWERED, port=port))
                ahead = (answer.acknowledged + 100, answer.sequence + 1)
                wire.send_tcp(gateway, IMDS, port, ahead, ACK)
                wire.send_tcp(gateway, IMDS, port, ahead, RST)
            held = [each for each in opened if not each.getsockopt(*_ERROR)]
            found = {
                "held": len(held),
                "seconds": time.monotonic() - begun,
                "neighbour": await _connects("p2", ANSWERED),
            }
            half_open = attacker("p3", PODS["p3"])
            for port in range(20_000, 20_000 + connections):
                half_open.send_tcp(gateway, IMDS, port, (1, 0), SYN)
            found["neighbour of half-open ones"] = await _connects("p2", ANSWERED)
            for each in opened:
                each.close()
    return found


_ERROR = (socket.SOL_SOCKET, socket.SO_ERROR)


async def resets(*, count: int) -> dict[str, Any]:
    """Pod p1 resets so many connections, and again so many behind a repair of the rules."""
    found: dict[str, Any] = {}
    wire, gateway = attacker("p1", PODS["p1"]), await mac_of("")
    with closing(Interception(Redirect(), WallClock())) as interception:
        interception.install()
        begun = time.monotonic()
        for what in ("at first", "repaired"):
            for port in range(20_000, 20_000 + count):
                wire.send_tcp(gateway, IMDS, port, (1, 0), RST)
            found[f"{what}: seconds"] = time.monotonic() - begun
            for look in ("looked", "looked again"):
                await interception.check()
                found[f"{what}, {look}"] = interception.dropped_resets
            await command("nft", "delete", "table", "ip", "podid")
            await interception.check()
            found[f"{what}, then taken away"] = interception.dropped_resets
    return found


async def honest() -> dict[str, Any]:
    """Pods use what they may: many connections kept, many more one after the other."""
    _let_open(1000)
    async with Agent.running(guard=False) as agent:
        kept = [Client("p1") for _ in range(256)]
        answers = await asyncio.gather(*(each.get("/kept") for each in kept))
        again = await asyncio.gather(*(each.get("/again") for each in kept))
        stream = Stream()
        async with stream.flowing():
            await stream.more(2000)
        await agent.tell("install")
        return {
            "kept": len([each for each in (*answers, *again) if each["who"] == "agent"]),
            "one after the other": stream.answered,
        }


async def listening_on_the_node(*, connections: int) -> dict[str, Any]:
    """NMI listens on all addresses, and a pod does not take the way through IMDS."""
    _let_open(connections)
    found: dict[str, Any] = {}
    for what in ("0.0.0.0", "10.240.0.4"):  # noqa: S104 - an old setting
        async with Agent.running(listen=False, guard=False, redirect={"listen_address": what}):
            opened = [inside("p1", socket.socket) for _ in range(connections)]
            with socket.create_server((what, 2579), backlog=BACKLOG):
                for each in opened:
                    each.setblocking(False)
                    each.connect_ex(("10.240.0.4", 2579))
                await asyncio.sleep(_SETTLED)
                found[what] = await _connects("p2")
            for each in opened:
                each.close()
    return found


async def unshared() -> dict[str, Any]:
    """Kernel or library have no shares: refused, or printed otherwise than they were set."""
    found: dict[str, Any] = {}
    vars(module)["Nftables"] = _Without
    for what in ("nothing", "connlimit", "words", "owners"):
        _Without.lacks = what
        with closing(Interception(Redirect(), WallClock())) as interception:
            interception.install()
            listed = json.loads(await command("nft", "-j", "list", "ruleset"))["nftables"]
            repaired = await interception.check()
            found[what] = {
                "warnings": interception.warnings(),
                "problems": interception.problems(),
                "sets": len([each for each in listed if "set" in each]),
                "repaired": repaired,
            }
    async with Agent.running():
        found["agent"] = await ask("p1", "/agent")
    return found


class _Without(Nftables):
    """A libnftables, or a kernel, that lacks something."""

    lacks = ""

    def run(self, commands: str) -> dict[str, Any]:
        if self.lacks == "connlimit" and "ct count" in commands:
            raise NftablesError("Could not process rule: No such file or directory")
        printed = super().run(commands)
        if self.lacks == "words":
            text = json.dumps(printed).replace('"ct count"', '"connections"')
            printed = json.loads(text)
        if self.lacks == "owners":
            # As libnftables 1.0.6, which sets no flag of a table and prints none.
            for each in printed.get("nftables", ()):
                each.get("table", {}).pop("flags", None)
        return printed


async def _drop_shares() -> None:
    listed = json.loads(await command("nft", "-j", "list", "ruleset"))["nftables"]
    for each in listed:
        chain = each.get("chain", {})
        if chain.get("name") in {"share", "share_of_port"} and chain["table"] == "podid":
            await command("nft", "flush", "chain", "ip", "podid", chain["name"])


async def _connects(pod: str, seconds: float = 0.7) -> str:
    with inside(pod, socket.socket) as client:
        try:
            await connected(client, IMDS, seconds)
        except (TimeoutError, ConnectionError) as error:
            return type(error).__name__
    return "connected"


def _let_open(descriptors: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (descriptors + 200,) * 2)
