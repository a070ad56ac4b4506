"""Scenarios: what a pod's packets reach while our rules are away, in whatever shape it sends them.

What reaches Azure is counted twice: the requests by its IMDS, the packets by a rule in Azure's
own network namespace, whatever they carry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.kernel.topology import AZURE_NETNS, Agent, Imds, ask, command, serve

_NODE = "/proc/self/ns/net"
_LOOPBACK = ("127.0.0.1", 10255)
_SIZES = (0, 8, 16, 24)
_ONCE = ("--first",)

_COUNTING = """
table ip seen {
  chain prerouting {
    type filter hook prerouting priority raw;
    ip saddr 10.244.0.0/16 ip daddr 169.254.169.254 counter
  }
}
"""
_FIREWALL = """
flush ruleset
table inet filter {
  chain input {
    type filter hook input priority filter; policy accept;
    tcp dport 22 accept
  }
}
"""
"""An ordinary firewall of a node, loaded as its unit does; nothing in it tracks connections."""


async def killed() -> dict[str, Any]:
    """The agent is dead, all rules are flushed, and a network manager is restarted."""
    imds = Imds()
    found: dict[str, Any] = {}
    async with _counted() as packets, imds.serving(), _loopback(), Agent.running() as agent:
        for size in _SIZES:
            found[f"with the rules, {size}"] = await _fragments(size, more=_ONCE)
        found["leaked with the rules"] = [len(imds.seen), await packets()]
        await agent.kill()
        await command("nft", "flush", "ruleset")
        for size in _SIZES:
            found[f"flushed, {size}"] = await _fragments(size, more=_ONCE)
        found["loopback"] = await _fragments(0, more=_ONCE, to=_LOOPBACK)
        await _remove_foreign_routing_rules()
        found["restarted"] = await _fragments(0, more=_ONCE)
        found["restarted, 8"] = await _fragments(8, more=_ONCE)
        found["leaked"] = [len(imds.seen), await packets()]
        found["node"] = await ask(_NODE, "/node")
        found["ip rule"] = json.loads(await command("ip", "-j", "rule"))
    return found


async def storms(*, kind: str, lasts: float, copy: bool) -> dict[str, Any]:
    """The agent runs; others flush or reload the rules while a pod sends fragments."""
    imds = Imds()
    async with (
        _counted() as packets,
        imds.serving(),
        _loopback(),
        Agent.running(copy=copy) as agent,
    ):
        storm = asyncio.create_task(_STORMS[kind]())
        answered = await asyncio.gather(
            _fragments(8, seconds=lasts, source="10.244.0.211", more=("--flood",)),
            _fragments(8, seconds=lasts, source="10.244.0.212"),
            _fragments(16, seconds=lasts, source="10.244.0.213"),
            _fragments(0, seconds=lasts, source="10.244.0.214"),
            _fragments(0, seconds=lasts, source="10.244.0.215", to=_LOOPBACK),
        )
        storm.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await storm
        return {
            "answered": answered,
            "leaked": [len(imds.seen), await packets()],
            "repairs": await agent.tell("repairs 1"),
            "problems": await agent.tell("problems"),
        }


async def _flush() -> None:
    while True:
        await command("nft", "flush", "ruleset")
        await asyncio.sleep(0.05)


async def _reload() -> None:
    for _ in range(40):
        await command("nft", _FIREWALL)
        await asyncio.sleep(0.2)


_STORMS = {"flush": _flush, "reload": _reload}


async def _fragments(
    size: int,
    *,
    seconds: float = 2,
    more: tuple[str, ...] = (),
    source: str = "10.244.0.211",
    to: tuple[str, int] = ("169.254.169.254", 80),
) -> Any:
    """Return who answered a pod with CAP_NET_RAW alone, and how often."""
    program = (sys.executable, "-m", "tests.kernel.fragments", f"--size={size}")
    how = (f"--to={to[0]}:{to[1]}", f"--source={source}", f"--seconds={seconds}")
    pod = ("setpriv", "--bounding-set=-all,+net_raw")
    return json.loads(await command(*pod, *program, *how, *more, netns="p1"))


async def _remove_foreign_routing_rules() -> None:
    """Do as systemd-networkd when it starts: of routing rules only the kernel's own stay.

    https://www.freedesktop.org/software/systemd/man/latest/networkd.conf.html
    (ManageForeignRoutingPolicyRules=, on by default).
    """
    for rule in json.loads(await command("ip", "-j", "-d", "rule")):
        if rule["protocol"] != "kernel":
            await command("ip", "rule", "del", "pref", str(rule["priority"]))


@contextlib.asynccontextmanager
async def _loopback() -> AsyncIterator[None]:
    """Serve something of the node's own on its loopback, as many a daemon does."""
    listening = socket.create_server(_LOOPBACK)
    server = await serve(listening, lambda _peer, _path: {"who": "loopback"})
    try:
        yield
    finally:
        server.close()


@contextlib.asynccontextmanager
async def _counted() -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Count what of the pods' packets reaches Azure; yield how to ask for the number."""
    azure = ("nsenter", f"--net={AZURE_NETNS}")
    await command(*azure, "nft", _COUNTING)

    async def packets() -> int:
        listed = json.loads(await command(*azure, "nft", "-j", "list", "table", "ip", "seen"))
        (rule,) = (each["rule"] for each in listed["nftables"] if "rule" in each)
        return int(next(each["counter"]["packets"] for each in rule["expr"] if "counter" in each))

    yield packets
