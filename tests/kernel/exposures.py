"""Scenarios: what a pod's packets reach while our rules are away, in whatever shape it sends them.

What reaches Azure is counted twice: the requests by its IMDS, the packets by a rule in Azure's
own network namespace, whatever they carry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import struct
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from tests.kernel.topology import (
    AZURE_NETNS,
    GATEWAY,
    PODS,
    Agent,
    Imds,
    ask,
    command,
    inside,
    serve,
)

_NODE = "/proc/self/ns/net"
_LOOPBACK = ("127.0.0.1", 10255)
_SIZES = (0, 8, 16, 24)
SERVED = 11
"""Answers that each of those gets who goes on during a storm, where he gets any."""
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
    async with counted() as packets, imds.serving(), _loopback(), Agent.running() as agent:
        for size in _SIZES:
            found[f"with the rules, {size}"] = await _fragments(size, more=_ONCE, seconds=60)
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


async def shapes() -> dict[str, Any]:
    """Return how many packets of each shape reach Azure: unhindered, and with the rules flushed."""
    found: dict[str, Any] = {}
    # Most nodes refuse source routes anyway.
    for name in ("all", "cbr0"):
        path = f"/proc/sys/net/ipv4/conf/{name}/accept_source_route"
        await command("sh", "-c", f"echo 1 >{path}")
    async with counted() as packets:
        found["unhindered"] = await _reach(packets)
        async with Agent.running() as agent:
            found["with the rules"] = await _reach(packets)
            await agent.kill()
        await command("nft", "flush", "ruleset")
        found["flushed"] = await _reach(packets)
    return found


async def _reach(packets: Callable[[], Awaitable[int]]) -> dict[str, int]:
    found = {}
    for what, packet in _SHAPES.items():
        before = await packets()
        with inside("p1", lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, _RAW)) as sender:
            sender.sendto(packet, (socket.inet_ntoa(packet[16:20]), 0))
        # The packets of veths are handed on within the call; a neighbour may be unknown at first.
        await ask(_NODE, "/until-it-has-passed", seconds=0.1)
        found[what] = await packets() - before
    return found


def _packet(
    protocol: int, body: bytes, *, to: str = "169.254.169.254", options: bytes = b"", flags: int = 0
) -> bytes:
    """Return a packet of IPv4; the kernel fills in its length, number and checksum."""
    first = 0x45 + len(options) // 4
    addresses = socket.inet_aton(PODS["p1"]) + socket.inet_aton(to)
    return (
        struct.pack("!BBHHHBBH", first, 0, 0, 7, flags, 64, protocol, 0)
        + addresses
        + options
        + body
    )


def _ports(destination: int, body: bytes = bytes(12)) -> bytes:
    return struct.pack("!HH", 40000, destination) + body


_RAW = 255  # IPPROTO_RAW
_SYN = _ports(80, struct.pack("!IIBBHHH", 1, 0, 0x50, 2, 1000, 0, 0))
_SHAPES = {
    "TCP, another port": _packet(6, _ports(443, _SYN[4:])),
    "TCP, the first fragment": _packet(6, _SYN[:8], flags=0x2000),
    "TCP, a later fragment": _packet(6, _SYN[8:16], flags=0x2001),
    "TCP, routed by its source": _packet(
        6, _SYN, to=GATEWAY, options=b"\x83\x07\x04" + socket.inet_aton("169.254.169.254") + b"\0"
    ),
    "TCP, urgent": _packet(6, _SYN[:13] + b"\x22" + _SYN[14:]),
    "UDP": _packet(17, _ports(80, struct.pack("!HH", 8, 0))),
    "ICMP": _packet(1, b"\x08\0\xf7\xff" + bytes(4)),
    "DCCP": _packet(33, _ports(80)),
    "UDP-Lite": _packet(136, _ports(80, struct.pack("!HH", 8, 0))),
    "SCTP": _packet(132, _ports(80)),
    "IP in IP": _packet(4, _packet(6, _SYN)),
    "IPv6 in IPv4": _packet(41, bytes.fromhex("60000000 0000 3b 40") + bytes(32)),
    "MPLS": _packet(137, bytes.fromhex("00010140") + _packet(6, _SYN)),
    "GRE": _packet(47, b"\0\0\x08\0" + _packet(6, _SYN)),
    "ESP": _packet(50, b"\0\0\1\0" + bytes(4) + _SYN),
    "AH": _packet(51, b"\x06\x04" + bytes(22) + _SYN),
    "no protocol that there is": _packet(253, bytes(8)),
}


async def storms(*, kind: str, lasts: float, copy: bool) -> dict[str, Any]:
    """The agent runs; others flush or reload the rules while a pod sends fragments."""
    imds = Imds()
    async with (
        counted() as packets,
        imds.serving(),
        _loopback(),
        Agent.running(copy=copy) as agent,
    ):
        storm = asyncio.create_task(_STORMS[kind]())
        served = (f"--least={SERVED}",) if copy else ()
        answered = await asyncio.gather(
            _fragments(8, seconds=lasts, source="10.244.0.211", more=("--flood",)),
            _fragments(8, seconds=lasts, source="10.244.0.212", more=served),
            _fragments(16, seconds=lasts, source="10.244.0.213", more=served),
            _fragments(0, seconds=lasts, source="10.244.0.214", more=served),
            _fragments(0, seconds=lasts, source="10.244.0.215", to=_LOOPBACK),
        )
        # A slow machine has repaired once by now: only a storm that goes on brings the next repair.
        repairs = await agent.tell("repairs 2")
        storm.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await storm
        return {
            "answered": answered,
            "leaked": [len(imds.seen), await packets()],
            "repairs": repairs,
            "problems": await agent.tell("problems"),
        }


async def _flush() -> None:
    while True:
        await command("nft", "flush", "ruleset")
        await asyncio.sleep(0.05)


async def _reload() -> None:
    while True:
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
async def counted() -> AsyncIterator[Callable[[], Awaitable[int]]]:
    """Count what of the pods' packets reaches Azure; yield how to ask for the number."""
    azure = ("nsenter", f"--net={AZURE_NETNS}")
    await command(*azure, "nft", _COUNTING)

    async def packets() -> int:
        listed = json.loads(await command(*azure, "nft", "-j", "list", "table", "ip", "seen"))
        (rule,) = (each["rule"] for each in listed["nftables"] if "rule" in each)
        return int(next(each["counter"]["packets"] for each in rule["expr"] if "counter" in each))

    yield packets
