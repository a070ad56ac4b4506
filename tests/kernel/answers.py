"""Scenario: a pod speaks in the name of others, and where the node's answers go is seen.

Each attack by forged addresses lives on an answer: a connection from a port whose owner's end has
gone (A1) needs the SYN-ACK, an open connection is taken over (A2) by the numbers in a challenge
ACK, a conversation is overheard (A2b) by its data, and places are taken (A6) by connections of
addresses that nobody has, which need the SYN-ACK again.
"""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from pathlib import Path
from typing import Any

from podidentity_sandbox.demo.frames import ACK, SYN, SYN_ACK
from tests.kernel.sources import Attacker, attacker
from tests.kernel.topology import GATEWAY, IMDS, PODS, Agent, Client, Imds, command

_UNUSED = "10.244.0.99"
_KINDS = {SYN_ACK: "SYN-ACK", ACK: "ACK"}
_COUNTER = """
table ip seen {
	chain input {
		type filter hook input priority 300; policy accept;
		iifname { "cbr0", "v-p1" } tcp flags syn / syn,ack counter
	}
}
"""
"""Counts what has come as far as the node's own TCP."""


async def answers(*, guarded: bool) -> dict[str, Any]:
    """Return what of each attack came to the node's TCP, and what of its answers to p1 and p2."""
    _believe_each_source()
    # On a bridge, where nobody guards it, he hears something sooner or later.
    listens = 30 if _on_a_bridge() and not guarded else 2
    imds, found = Imds(), {}
    async with imds.serving(), Agent.running(source_guard=guarded) as agent:
        if guarded:
            await agent.tell("sources")
        await command("nft", _COUNTER)
        victim = Client("p2")
        assert (await victim.get("/before"))["who"] == "agent"
        victim.patience = 3  # what others have taken does not come
        own = attacker("p1", PODS["p1"])
        gateway = await asyncio.to_thread(own.resolve, GATEWAY, time.monotonic() + 60)
        for what, address, port in (
            ("a port without a connection", PODS["p2"], 5),
            ("an open connection", PODS["p2"], victim.port),
            ("an unused address", _UNUSED, 6),
        ):
            wire = attacker("p1", address)
            wire.gateway = gateway
            before = await _arrived()
            at_p2 = asyncio.create_task(asyncio.to_thread(_heard, attacker("p2", address), port))
            at_p1 = await asyncio.to_thread(_asked, wire, port)
            found[what] = {
                "arrived": await _arrived() - before,
                "at p1": at_p1,
                "at p2": await at_p2,
            }
        found["a conversation"] = {"at p1": await _overheard(victim, listens)}
        victim.close()
    return found | {"leaked": len(imds.seen)}


def _on_a_bridge() -> bool:
    return any(name == "cbr0" for _, name in socket.if_nameindex())


def _believe_each_source() -> None:
    """Switch the kernel's own reverse path filter off, wherever a distribution has it on."""
    for each in Path("/proc/sys/net/ipv4/conf").glob("*/rp_filter"):
        each.write_text("0")


async def _arrived() -> int:
    listed = json.loads(await command("nft", "-j", "list", "table", "ip", "seen"))["nftables"]
    (count,) = [
        part["counter"]["packets"]
        for each in listed
        if "rule" in each
        for part in each["rule"]["expr"]
        if "counter" in part
    ]
    return int(count)


def _asked(wire: Attacker, port: int) -> list[str]:
    """Send three SYNs; return the kinds of what came back here."""
    heard = set()
    for _ in range(3):
        wire.request_arp(GATEWAY)
        first = random.randrange(1 << 31)  # noqa: S311 - no secret
        wire.send_tcp(wire.gateway, IMDS, port, (first, 0), SYN)
        heard |= set(_heard(wire, port, 0.4))
    return sorted(heard)


def _heard(wire: Attacker, port: int, seconds: float = 1.4) -> list[str]:
    """Return the kinds of segments that IMDS's address sends to a port, and that come here."""
    segments = wire.segments(IMDS[0], seconds, port=port)
    return sorted({_KINDS.get(each.flags, "other") for each in segments})


async def _overheard(victim: Client, seconds: float) -> list[str]:
    """Return what p1 hears of p2's answers, while it sends with p2's MAC address."""
    wire = attacker("p1", PODS["p1"])
    theirs = attacker("p2", PODS["p2"])
    wire.mac = theirs.mac

    def listen() -> list[str]:
        heard, end = set[str](), time.monotonic() + seconds
        while time.monotonic() < end and not heard:
            wire.request_arp(GATEWAY)
            for each in wire.segments(IMDS[0], 0.01):
                if each.to == PODS["p2"] and each.data:
                    heard.add("data")
        return sorted(heard)

    listening = asyncio.create_task(asyncio.to_thread(listen))
    while not listening.done():
        await victim.get("/overheard")
    return await listening
