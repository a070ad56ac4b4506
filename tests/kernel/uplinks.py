"""Scenarios: frames that come in by an uplink of the pods' bridge, from a tunnel of the node.

A tunnel unpacks what any program sends it in a packet of UDP, and so takes no capability of a pod.
"""

from __future__ import annotations

import asyncio
import json
import socket
import struct
from ipaddress import IPv4Address
from typing import Any

from podidentity.kernel.rules import MOST_CONNECTIONS, MOST_PODS
from podidentity_sandbox.demo.frames import SYN, Gateway, Wire
from tests.kernel.exposures import counted
from tests.kernel.sources import (
    UNTIL_IT_WORKS,
    VLAN_0,
    Attacker,
    attacker,
    beliefs,
    converse,
    mac_of,
    put_right,
    quiet,
    redirected,
)
from tests.kernel.topology import (
    AZURE_NETNS,
    GATEWAY,
    IMDS,
    PODS,
    Agent,
    Client,
    Imds,
    ask,
    command,
    inside,
)

_NODE = "10.240.0.4"
_PORT, _NUMBER = 4789, 1  # RFC 7348, 8; the number (VNI) is the network's
_ITS_OWN = bytes.fromhex("020000000099")
_REQUEST = 1
MANY = MOST_CONNECTIONS + 80
_OUTSIDE = "10.244.0.60"
_TUNNEL = f"""
ip link add vx type vxlan id {_NUMBER} dstport {_PORT} local {_NODE}
ip link set vx master cbr0 up
"""


class _Tunnel:
    """Frames in packets to a tunnel, by the part of a socket's methods that `Wire` uses."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("", _PORT))
        self.settimeout = self._socket.settimeout

    def send(self, frame: bytes) -> None:
        head = struct.pack("!II", 1 << 27, _NUMBER << 8)
        self._socket.sendto(head + frame, (_NODE, _PORT))

    def recvfrom(self, size: int) -> tuple[bytes, tuple[str, int, int]]:
        packet = self._socket.recv(size)
        return packet[8:], ("vx", 0, socket.PACKET_HOST)


class _Outsider(Attacker):
    """Frames out of the tunnel, from `mac` in the name of `address`."""

    def __init__(self, tunnel: _Tunnel, mac: bytes, address: str, tag: bytes = b"") -> None:
        self._socket: Any = tunnel
        self._address = socket.inet_aton(address)
        self.mac, self.own_mac, self.gateway, self.tag = mac, mac, b"", tag


async def uplinks(*, guarded: bool) -> dict[str, Any]:
    """Pod p1 sends to the tunnel of its node, which is a port of the bridge, in others' names."""
    imds = Imds()
    found: dict[str, Any] = {}
    await command("sh", "-ec", _TUNNEL)
    async with imds.serving(), Agent.running(source_guard=guarded) as agent:
        if guarded:
            found["sources"] = await agent.tell("sources")
        await quiet()
        tunnel = inside("p1", _Tunnel)
        gateway, victims = await mac_of(""), await mac_of("p2")
        once, twice = VLAN_0["802.1Q"], 2 * VLAN_0["802.1Q"]
        for what, mac, address, tag in (
            ("p2's address", _ITS_OWN, PODS["p2"], b""),
            ("p2's MAC address, too", victims, PODS["p2"], b""),
            ("in VLAN 0 of 802.1Q", _ITS_OWN, PODS["p2"], once),
            ("in VLAN 0 of 802.1ad", _ITS_OWN, PODS["p2"], VLAN_0["802.1ad"]),
            ("in VLAN 0 twice", _ITS_OWN, PODS["p2"], twice),
            ("an address that is no pod's", _ITS_OWN, _OUTSIDE, b""),
            ("an address that is no pod's, in VLAN 0", _ITS_OWN, _OUTSIDE, once),
        ):
            await put_right()
            wire = _Outsider(tunnel, mac, address, tag)
            wire.gateway = gateway
            seconds = () if guarded else (UNTIL_IT_WORKS,)
            found[what] = await asyncio.to_thread(converse, wire, *seconds)
        for what, mac, address, asked in (
            ("the gateway", _ITS_OWN, GATEWAY, PODS["p2"]),
            ("p2", _ITS_OWN, PODS["p2"], GATEWAY),
            ("nobody at p2's MAC address", victims, _OUTSIDE, GATEWAY),
        ):
            await put_right()
            wire = _Outsider(tunnel, mac, address)
            wire.arp(_REQUEST, mac, address, asked, source=mac)
            found[f"{what} by ARP"] = await beliefs()
        found["redirected of many"] = await _of_many(tunnel, gateway)
        found["victim"] = (await ask("p2", "/after"))["verdict"]
    return found | {"leaked": len(imds.seen)}


class _Beside(Attacker):
    """Frames of a machine beside the node; made in Azure's namespace."""

    def __init__(self) -> None:
        Wire.__init__(self, _ITS_OWN, "10.240.0.9", "node")
        self.tag = b""


async def crowds() -> dict[str, Any]:
    """A machine beside the node, and its tunnel, send SYNs of more senders than a set has places.

    Pod p1 has an open connection meanwhile, and p2 asks for the first time afterwards.
    """
    found: dict[str, Any] = {}
    await command("sh", "-ec", _ROUTED_TUNNEL)
    async with Agent.running(source_guard=True) as agent:
        await agent.tell("sources")
        kept = Client("p1")
        assert (await kept.get("/"))["who"] == "agent"
        beside = inside(AZURE_NETNS, _Beside)
        gateway = Gateway(_NODE, await _mac("eth0"))
        found["a machine beside the node"] = await asyncio.to_thread(converse, beside, via=gateway)
        tunnel = _Outsider(inside("p3", _Tunnel), _ITS_OWN, _OF_ANOTHER_NODE)
        for what, wire, link, first in (
            ("beside the node", beside, "eth0", "10.241.0.0"),
            ("through the tunnel", tunnel, "vx", "10.246.0.0"),
        ):
            before = await redirected()
            _send_many(wire, await _mac(link), first)
            found[what] = {
                "served pod": [(await kept.get("/"))["who"], (await ask("p1", "/"))["who"]],
                "new pod": (await ask("p2", "/"))["who"],
                "redirected": await redirected() - before,
            }
    return found


async def full() -> dict[str, str]:
    """Without a guard of sources pod p1 fills both sets with senders that it makes up.

    Pod p2 has a connection before, p3 asks for the first time afterwards.
    """
    async with Agent.running():
        kept = Client("p2")
        assert (await kept.get("/"))["who"] == "agent"
        _send_many(attacker("p1", PODS["p1"]), await _mac("v-p1"), "10.247.0.0")
        return {
            "open connection": (await kept.get("/"))["who"],
            "pod with a place": (await ask("p2", "/"))["who"],
            "pod without a place": (await ask("p3", "/", seconds=0.7))["who"],
        }


def _send_many(wire: Attacker, mac: bytes, first: str) -> None:
    """Send a SYN to IMDS from each of more addresses than a set of the rules has places."""
    start = int(IPv4Address(first))
    for number in range(start, start + MOST_PODS + 200):
        wire.speak_as(str(IPv4Address(number)))
        wire.send_tcp(mac, IMDS, 40_000, (1, 0), SYN)


async def _mac(link: str) -> bytes:
    (found,) = json.loads(await command("ip", "-j", "link", "show", link))
    return bytes.fromhex(found["address"].replace(":", ""))


async def _of_many(tunnel: _Tunnel, gateway: bytes) -> int:
    """Return how many connections are redirected of `MANY`, each from a MAC address of its own."""
    before, refused = await redirected(), await _refused()
    for number in range(MANY):
        wire = _Outsider(tunnel, b"\2\0\0\1" + number.to_bytes(2, "big"), _OUTSIDE)
        wire.send_tcp(gateway, IMDS, 20_000 + number, (1, 0), SYN)
    # What a tunnel unpacks passes through a queue of the kernel.
    while True:
        count = await redirected() - before
        if count + await _refused() - refused >= MANY:
            return count
        await asyncio.sleep(0.02)


async def _refused() -> int:
    """Return how many packets an uplink's rules, or the share of a port, refused or dropped."""
    listed = json.loads(await command("nft", "-j", "list", "ruleset"))["nftables"]
    rules = [each["rule"] for each in listed if "rule" in each]
    refusing = [rule["expr"] for rule in rules if rule["chain"] in {"share_of_port", "outside"}]
    return sum(
        part["counter"]["packets"] for rule in refusing for part in rule if "counter" in part
    )


_OF_ANOTHER_NODE = "10.246.1.5"
_ROUTED_TUNNEL = f"""
ip link add vx type vxlan id {_NUMBER} dstport {_PORT} local {_NODE}
ip link set vx up; ip route add 10.246.0.0/16 dev vx
for each in all vx; do echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter; done
"""


async def tunnelled(*, guarded: bool) -> dict[str, Any]:
    """Pod p1, on a routed link, sends to a tunnel by which the node reaches pods of other nodes.

    Without the guard the rules that close IMDS to tunnels are missing, too.
    """
    found: dict[str, Any] = {}
    await command("sh", "-ec", _ROUTED_TUNNEL)
    settings = {"source_guard": guarded, "guard": guarded, "copy": guarded}
    async with counted() as packets, Agent.running(**settings) as agent:
        if guarded:
            await agent.tell("sources")
        else:
            await command("nft", "flush", "chain", "ip", "podid", "outside")
        node, tunnel = await _mac("vx"), inside("p1", _Tunnel)
        # The first packet of a link waits for the address of its neighbour.
        assert (await ask("p1", "/"))["who"] == "agent"
        for what, address in {
            "p2's address": PODS["p2"],
            "the node's": _NODE,
            "IMDS's": IMDS[0],
            "one of another node's pod": _OF_ANOTHER_NODE,
        }.items():
            before = await redirected()
            for port in (IMDS[1], 443):
                _Outsider(tunnel, _ITS_OWN, address).send_tcp(
                    node, (IMDS[0], port), 40000, (1, 0), SYN
                )
            await ask("p1", "/behind-them")
            # What a tunnel unpacks passes through a queue of the kernel.
            while not guarded and await redirected() < before + 2:  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(0.02)
            found[what] = await redirected() - before - 1
        found["leaked"] = await packets()
    return found
