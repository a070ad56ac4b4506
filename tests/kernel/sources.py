"""Scenarios: pods speak with addresses that are not theirs, with the source guard and without it.

Frames are sent from sockets that this process makes in the pods, which is what CAP_NET_RAW allows a
pod to do; what takes CAP_NET_ADMIN is done by `ip` in the pod's namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import json
import random
import signal
import socket
import struct
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from podidentity.kernel import source_guard
from podidentity.kernel.attestation import ConnectionInspector
from podidentity.kernel.interception import Interception
from podidentity.kernel.links import Links
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.podnets import PodNetworks
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.kernel.source_guard import SourceGuard
from podidentity_sandbox.demo.frames import ACK, PSH, SYN, Gateway, Wire, checksum
from tests.fakes import FakeClock
from tests.kernel.agent import WallClock
from tests.kernel.topology import (
    ANSWERED,
    AZURE_NETNS,
    GATEWAY,
    IMDS,
    PODS,
    Agent,
    Client,
    Imds,
    add_pod,
    ask,
    command,
    connected,
    inside,
    remove_pod,
)
from tests.kernel.transmitting import PacketRing, XdpSocket

_NODE = "/proc/self/ns/net"
_UNUSED = "10.244.0.99"
_SECONDS = 1.2
"""What an attack has against the guard."""
UNTIL_IT_WORKS = 30.0
"""What it has without the guard, where it works, on however slow a machine."""
_BROADCAST = b"\xff" * 6
_TAKEN = 40000
"""A port of the victim."""
_LLDP, _PAUSE = bytes.fromhex("0180c200000e"), bytes.fromhex("0180c2000003")
_ARP, _IPV4, _IPV6 = 0x0806, 0x0800, 0x86DD
VLAN_0 = {"802.1Q": bytes.fromhex("81000000"), "802.1ad": bytes.fromhex("88a80000")}
_REQUEST = 1
_EMPTY_IPV6 = bytes.fromhex("60000000 0000 3b 40") + bytes(15) + b"\1" + bytes(15) + b"\2"
_GET = b"GET /stolen HTTP/1.1\r\n\r\n"


class Attacker(Wire):
    """Frames of a pod's own making; made inside it."""

    wrapped: tuple[int, bytes] | None = None
    """The type of each packet's frame in place of its own, and what it is put behind."""

    def __init__(self, address: str) -> None:
        super().__init__(b"", address)
        self.mac = self.own_mac = bytes(self._socket.getsockname()[4])
        self.gateway = b""
        """Its MAC address: who forges has asked for it in his own name."""
        self.tag = b""
        """Put between the addresses and the type of each frame."""

    def speak_as(self, address: str) -> None:
        self._address = socket.inet_aton(address)

    def send_from(self, to: bytes, source: bytes, kind: int, content: bytes) -> None:
        """Send one frame from any MAC address."""
        self.emit(to + source + self.tag + struct.pack("!H", kind) + content)

    def emit(self, frame: bytes) -> None:
        self._socket.send(frame)

    def arp(self, operation: int, mac: bytes, address: str, target: str, *, source: bytes) -> None:
        """Say by ARP that `address` is at `mac`, in a frame that comes from `source`."""
        head = struct.pack("!HHBBH", 1, _IPV4, 6, 4, operation)
        body = mac + socket.inet_aton(address) + bytes(6) + socket.inet_aton(target)
        self.send_from(_BROADCAST, source, _ARP, head + body)

    def receives(self, last: int, kinds: set[int], to: bytes) -> bool:
        """Whether a frame of these types, sent `to`, comes before one of type `last` does."""
        found = False
        self._socket.settimeout(UNTIL_IT_WORKS)
        while True:
            frame = self._socket.recv(1 << 16)
            (kind,) = struct.unpack_from("!H", frame, 12)
            if kind == last:
                return found
            found = found or (kind in kinds and frame.startswith(to))

    def take_over(self, port: int, seconds: float) -> bytes:
        """Send a request into another's open connection; return the answer, b"" for none.

        A SYN with its addresses makes the node tell both sequence numbers (RFC 5961, 4.2), at most
        twice a second for one connection.
        """
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            self.request_arp(GATEWAY)
            self.send_tcp(self.gateway, IMDS, port, (random.randrange(1 << 31), 0), SYN)  # noqa: S311 - no secret
            for segment in self.segments(IMDS[0], 0.6, port=port):
                if segment.data:
                    return segment.data
                if segment.flags == ACK:
                    numbers = (segment.acknowledged, segment.sequence)
                    self.send_tcp(self.gateway, IMDS, port, numbers, ACK | PSH, data=_GET)
        return b""

    def send(self, to: bytes, kind: int, content: bytes) -> None:
        kind, head = self.wrapped or (kind, b"")
        self.send_from(to, self.mac, kind, head + content)


def attacker(pod: str, address: str) -> Attacker:
    """Return one in this pod that speaks in the name of `address`."""
    return inside(pod, lambda: Attacker(address))


async def theft(*, guarded: bool) -> dict[str, Any]:
    """Pod p1 has a conversation in the name of p2 or of nobody, each way of it that we know."""
    imds = Imds()
    seconds = _SECONDS if guarded else UNTIL_IT_WORKS
    async with imds.serving(), Agent.running(source_guard=guarded) as agent:
        found = {"sources": await agent.tell("sources")} if guarded else {}
        gateway, victims = await mac_of(""), await mac_of("p2")

        async def steal(what: str, address: str, **more: Any) -> None:
            await put_right()
            wire = attacker("p1", address)
            wire.gateway = gateway
            for name, value in more.items():
                setattr(wire, name, value)
            found[what] = await asyncio.to_thread(converse, wire, seconds)

        await steal("ARP", PODS["p2"])
        await steal("its MAC address, too", PODS["p2"], mac=victims)
        await steal("an unused address", _UNUSED)
        for what, sender in _senders("p1").items():
            await steal(what, PODS["p2"], emit=sender.send)
        for kind, tag in VLAN_0.items():
            await steal(f"in VLAN 0 of {kind}", PODS["p2"], tag=tag)
        await put_right()
        victim = Client("p2")
        await victim.get("/before")
        wire = attacker("p1", PODS["p2"])
        wire.gateway = gateway
        answer = await asyncio.to_thread(wire.take_over, victim.port, seconds)
        found["an open connection"] = _answerer(answer)
        victim.close()
        await put_right()
        found["a second address"] = await _second_address(seconds)
        await put_right()
        for who, pod in {"victim": "p2", "attacker": "p1"}.items():
            found[who] = (await ask(pod, f"/{who}"))["verdict"]
    return found | {"leaked": len(imds.seen)}


def _senders(pod: str) -> dict[str, PacketRing | XdpSocket]:
    """Return other ways to send frames, of those that the kernel has."""
    found: dict[str, PacketRing | XdpSocket] = {"by a ring of packets": inside(pod, PacketRing)}
    try:
        found["by AF_XDP"] = inside(pod, XdpSocket)
    except OSError as error:
        if error.errno != errno.EAFNOSUPPORT:
            raise
    return found


def converse(wire: Attacker, seconds: float = _SECONDS, via: Gateway | None = None) -> str:
    """Return who answers, and to which address; `via` is the pods' gateway unless it is named."""
    via = via or Gateway(GATEWAY, wire.gateway)
    try:
        return _answerer(wire.converse(IMDS, via, _GET, seconds))
    except TimeoutError:
        return "nobody"


def _answerer(answer: bytes) -> str:
    if not answer:
        return "nobody"
    found = json.loads(answer.partition(b"\r\n\r\n")[2])
    return f"{found['who']}, to {found.get('peer')}"


async def _second_address(seconds: float) -> str:
    """Pod p1 adds p2's address to its interface, tells everybody, and asks from it."""
    await _ip("p1", f"addr add {PODS['p2']}/32 dev eth0")
    wire = attacker("p1", PODS["p2"])
    wire.arp(_REQUEST, wire.mac, PODS["p2"], PODS["p2"], source=wire.mac)
    wire.request_arp(GATEWAY)
    try:
        return _answerer(await _ask_from("p1", PODS["p2"], seconds))
    finally:
        await _ip("p1", f"addr del {PODS['p2']}/32 dev eth0")


async def _ask_from(netns: str, address: str, seconds: float = _SECONDS, *, port: int = 0) -> bytes:
    """Ask IMDS from one of the addresses of a namespace; b"" for no answer."""
    loop = asyncio.get_running_loop()
    client = inside(netns, socket.socket)
    with contextlib.closing(client), contextlib.suppress(OSError, TimeoutError):
        client.bind((address, port))
        await connected(client, IMDS, seconds)
        async with asyncio.timeout(ANSWERED):
            await loop.sock_sendall(client, _GET)
            return await loop.sock_recv(client, 4096)
    return b""


_QUIET = (
    "echo 300 > /proc/sys/net/ipv4/neigh/{0}/delay_first_probe_time; "
    "echo 1 > /proc/sys/net/ipv6/conf/{0}/disable_ipv6"
)


async def learning(*, guarded: bool) -> dict[str, Any]:
    """Return what the node and p2 come to believe of each kind of frame of p1."""
    found: dict[str, Any] = {}
    async with Agent.running(source_guard=guarded) as agent:
        if guarded:
            await agent.tell("sources")
        await quiet()
        own, other = await mac_of("p1"), await mac_of("p2")
        p1, p2 = PODS["p1"], PODS["p2"]
        wire = attacker("p1", p1)
        for what, frame in {
            "IPv4 of its own address": (_BROADCAST, other, _IPV4, _ipv4_of(p1)),
            "IPv6": (_BROADCAST, other, _IPV6, _EMPTY_IPV6),
            "LLDP": (_LLDP, other, 0x88CC, bytes(60)),
            "a pause": (_PAUSE, other, 0x8808, bytes(60)),
            "another type": (_BROADCAST, other, 0x9000, bytes(60)),
        }.items():
            await put_right()
            wire.send_from(*frame)
            found[f"{what}, from p2's MAC address"] = await beliefs()
        for what, (operation, mac, address, target, source) in {
            "ARP request as p2": (_REQUEST, own, p2, GATEWAY, own),
            "ARP of itself at p2's MAC address": (_REQUEST, other, p1, GATEWAY, own),
            "ARP as the gateway": (_REQUEST, own, GATEWAY, p2, own),
            "ARP as an unused address": (_REQUEST, own, _UNUSED, GATEWAY, own),
        }.items():
            await put_right()
            wire.arp(operation, mac, address, target, source=source)
            found[what] = await beliefs()
    return found


async def link_local(*, guarded: bool) -> dict[str, Any]:
    """Pod p1 sends IPv4 and ARP in p2's name where a filter of a bridge may not find them.

    Frames to the addresses that bridges keep to themselves (01:80:c2:00:00:0x, IEEE 802.1Q 8.6.3)
    pass no filter. Behind other types of frames the kernel may look for IPv4 (br_netfilter).
    """
    imds = Imds()
    taught, reached = {}, []
    async with imds.serving(), Agent.running(source_guard=guarded) as agent:
        if guarded:
            await agent.tell("sources")
        await quiet()
        own, other = await mac_of("p1"), await mac_of("p2")
        wire, victim = attacker("p1", PODS["p2"]), attacker("p2", PODS["p2"])
        arp = struct.pack("!HHBBH", 1, _IPV4, 6, 4, _REQUEST)
        arp += own + socket.inet_aton(PODS["p2"]) + bytes(6) + socket.inet_aton(GATEWAY)
        for last in range(16):
            await put_right()
            to = bytes.fromhex("0180c20000") + bytes([last])
            wire.mac = other
            wire.send_tcp(to, IMDS, 40000, (1, 0), SYN)
            wire.send_from(to, other, _ARP, arp)
            # An ordinary frame behind them: when that has come, they have come or will not.
            wire.send_from(_BROADCAST, own, 0x9000, bytes(60))
            if victim.receives(0x9000, {_IPV4, _ARP}, to):
                reached.append(last)
            if believed := await beliefs():
                taught[last] = believed
        sent_on = await redirected()
        wire.mac = own
        hidden = await _hidden(wire, victim)
    return {
        "taught": taught,
        "reached": reached,
        "redirected": sent_on,
        "hidden": hidden,
        "leaked": len(imds.seen),
    }


async def _hidden(wire: Attacker, victim: Attacker) -> dict[str, int]:
    """Return how many connections are redirected of those begun behind each type of frame."""
    await asyncio.to_thread(_look_behind_all_types)
    await put_right()
    gateway, found = await mac_of(""), {}
    for port, (what, tag, kind, head) in enumerate(_WRAPPED, 41_000):
        before = await redirected()
        wire.tag, wire.wrapped = tag, (kind, head)
        wire.send_tcp(gateway, IMDS, port, (1, 0), SYN)
        wire.tag = b""
        wire.send_from(_BROADCAST, wire.mac, 0x9000, bytes(60))
        victim.receives(0x9000, set(), b"")
        found[what] = await redirected() - before
    return found


BRIDGE_NETFILTER = Path("/proc/sys/net/bridge")
"""Kernels without br_netfilter have no such folder."""
_PPPOE = struct.pack("!BBHHH", 0x11, 0, 1, 42, 0x0021)
"""Version, code, session, length of what follows, and IPv4 (RFC 2516, 4; RFC 1332)."""
_WRAPPED = (
    ("PPPoE", b"", 0x8864, _PPPOE),
    ("PPPoE in VLAN 0", VLAN_0["802.1Q"], 0x8864, _PPPOE),
    ("MPLS", b"", 0x8847, struct.pack("!I", 16 << 12 | 1 << 8 | 64)),
    ("SNAP", b"", 48, bytes.fromhex("aaaa03 000000 0800")),
    ("802.2", b"", 43, bytes.fromhex("060603")),
    ("a tag of another type", b"", 0x9100, bytes.fromhex("0000 0800")),
    ("a backbone's tag", b"", 0x88E7, bytes(16) + bytes.fromhex("0800")),
    ("IPv6", b"", _IPV6, bytes.fromhex("60000000 0028 04 40") + _EMPTY_IPV6[8:]),
)


def _look_behind_all_types() -> None:
    """Have bridged packets pass IPv4's hooks, whatever they are put behind."""
    for what in ("call-iptables", "filter-vlan-tagged", "filter-pppoe-tagged"):
        setting = BRIDGE_NETFILTER / f"bridge-nf-{what}"
        if setting.exists():
            setting.write_text("1")


def _ipv4_of(source: str) -> bytes:
    """Return an empty packet of IPv4 from `source` to everybody."""
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20, 1, 0, 64, 253, 0)
    head += socket.inet_aton(source) + b"\xff" * 4
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:]


async def quiet() -> None:
    """Let no kernel send a frame by itself for some minutes: each would put a belief right.

    Those are probes of a neighbour that was used a moment ago, and IPv6's own messages.
    """
    for pod in ("p1", "p2"):
        await command("sh", "-c", _QUIET.format("eth0"), netns=pod)
    await command("sh", "-c", _QUIET.format("cbr0"))


async def put_right() -> None:
    """Have everybody know the truth again."""
    await command("ip", "neigh", "flush", "dev", "cbr0")
    for pod in ("p1", "p2"):
        await command("ip", "neigh", "flush", "dev", "eth0", netns=pod)
        await _reaches(pod, GATEWAY)
    for pod in ("p1", "p2"):
        await _reaches("", PODS[pod])


async def beliefs() -> list[str]:
    """Return what the node and p2 believe that is not so."""
    pods = {(await mac_of(pod)).hex(":"): pod for pod in PODS}
    owners = {address: pod for pod, address in PODS.items()}
    wrong = []
    for entry in json.loads(await command("ip", "-j", "neigh", "show", "dev", "cbr0")):
        at = pods.get(entry.get("lladdr", ""), "a stranger" if "lladdr" in entry else None)
        owner = owners.get(entry["dst"])
        if at not in {None, owner} and (owner or at in pods.values()):
            wrong.append(f"{owner or 'nobody'} is at {at}")
    for entry in json.loads(await command("bridge", "-j", "fdb", "show", "br", "cbr0")):
        owner = pods.get(entry["mac"])
        # What a tunnel has learned of its own far ends is no belief of the bridge.
        own = "self" in entry.get("flags", ())
        if owner is not None and entry["ifname"] != f"v-{owner}" and not own:
            wrong.append(f"{owner}'s MAC address is at {entry['ifname']}")
    neighbours = await command("ip", "-j", "neigh", "show", "dev", "eth0", netns="p2")
    gateways = [each for each in json.loads(neighbours) if each["dst"] == GATEWAY]
    found = [each["lladdr"] for each in gateways if "lladdr" in each]
    bridge = (await mac_of("")).hex(":")
    return wrong + [
        f"the gateway is {pods.get(each, 'a stranger')}" for each in found if each != bridge
    ]


async def changing() -> dict[str, Any]:
    """Pod p1, with CAP_NET_ADMIN, changes what lies at its own end."""
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving(), Agent.running(source_guard=True) as agent:
        await agent.tell("sources")

        async def note(what: str) -> None:
            await agent.tell("sources")
            found[what] = [(await ask(pod, "/"))["who"] for pod in ("p1", "p2")]

        await note("ordinary")
        own, other = [(await mac_of(pod)).hex(":") for pod in ("p1", "p2")]
        await _ip("p1", "link set eth0 address 02:00:00:00:00:77")
        await note("another MAC address")
        await _ip("p1", f"link set eth0 address {other}")
        await note("p2's MAC address")
        await _ip("p1", f"link set eth0 address {own}")
        await note("its own again")
        await _ip("p1", "link set eth0 down", "link set eth0 name eth9", "link set eth9 up")
        await _ip("p1", f"route replace default via {GATEWAY} dev eth9")
        await note("renamed")
        await _ip("p1", "link add eth0 type veth peer name eth1", "link set eth0 up")
        await _ip("p1", f"addr add {PODS['p2']}/32 dev eth0", "link set eth1 up")
        await note("another link with p2's address")
        await command("sh", "-e", "-c", _NESTED, netns="p1")
        await agent.tell("sources")
        for name, address in PODS.items():
            found[f"nested, with {name}'s address"] = _answerer(await _ask_from(_NEST, address))
        found["p2 at last"] = (await ask("p2", "/"))["who"]
        found["sources"] = await agent.tell("sources")
    return found | {"leaked": len(imds.seen)}


_NEST = "/run/nest"
_NESTED = f"""
touch {_NEST}; unshare --net={_NEST} true
ip link set eth9 netns {_NEST}
nsenter --net={_NEST} sh -e <<'END'
ip link set eth9 up
for address in {" ".join(PODS.values())}; do ip addr add $address/24 dev eth9; done
ip route add default via {GATEWAY}
END
"""


async def life() -> dict[str, Any]:
    """Pods do what pods do: they speak, end, and come again."""
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving(), Agent.running(source_guard=True) as agent:
        await agent.tell("sources")
        gateway = await mac_of("")
        found |= await _everyday()
        await remove_pod("p1")
        await add_pod("p1", PODS["p1"])
        found["a pod's first packet"] = await _reaches("p1", PODS["p2"])
        await agent.tell("sources")
        found["the same address in a new namespace"] = (await ask("p1", "/"))["verdict"]
        await remove_pod("p1")
        await add_pod("p4", PODS["p1"])
        await agent.tell("sources")
        found["a new pod with the address of one that ended"] = (await ask("p4", "/"))["who"]
        await add_pod("twin", PODS["p2"])
        await agent.tell("sources")
        found["a twin"] = (await ask("twin", "/", seconds=1))["who"]
        found["its first holder"] = (await ask("p2", "/"))["who"]
        await remove_pod("p2")
        await command("ip", "neigh", "flush", "dev", "cbr0")
        await agent.tell("sources")
        found["the twin, when the first has gone"] = (await ask("twin", "/"))["who"]
        found["the gateway's MAC address"] = (await mac_of("")) == gateway
        found["sources"] = await agent.tell("sources")
    return found | {"leaked": len(imds.seen)}


async def _everyday() -> dict[str, Any]:
    for number, pod in enumerate(("p1", "p2"), 1):
        await _ip(pod, f"addr add fd00::{number}/64 dev eth0 nodad")
    return {
        "pods": [(await ask(pod, "/"))["verdict"] for pod in PODS],
        "to a pod": await _reaches("p1", PODS["p2"]),
        "to the node": await _reaches("p1", GATEWAY),
        "from the node": await _reaches("", PODS["p2"]),
        "to the world": await _reaches("p1", "10.240.0.1"),
        "IPv6": await _reaches("p1", "fd00::2"),
        "address conflict detection": await asyncio.to_thread(_probe),
    }


async def absence() -> dict[str, Any]:
    """The agent goes, and comes again; pods come and take addresses meanwhile."""
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving():
        async with Agent.running(source_guard=True) as agent:
            found["first"] = await agent.tell("sources")
        await add_pod("p4", "10.244.0.14")
        found["new to a pod"] = await _reaches("p4", PODS["p3"])
        found["new to the world"] = await _reaches("p4", "10.240.0.1")
        found["new to IMDS"] = (await ask("p4", "/", seconds=1))["why"]
        found["old to IMDS"] = (await ask("p3", "/", seconds=1))["why"]
        await _ip("p3", f"addr add {_UNUSED}/32 dev eth0")
        async with Agent.running(source_guard=True, guard=False) as agent:
            found["again"] = await agent.tell("sources")
            found["new, known"] = (await ask("p4", "/"))["who"]
            found["old, from what it took"] = _answerer(await _ask_from("p3", _UNUSED))
            await agent.tell("unguard")
            await agent.tell("remove")
            found["removed"] = await command("nft", "list", "tables")
    return found | {"leaked": len(imds.seen)}


async def switched_off() -> dict[str, Any]:
    """An agent with the guard is followed by one without it for bridges, and that by one with it.

    Pod p1 has a virtual address beside its own, which it was not seen with at first.
    """
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving():
        for what, source_guard in {"on": True, "off": "off", "on again": True}.items():
            async with Agent.running(source_guard=source_guard) as agent:
                await agent.tell("sources")
                if what == "on":
                    await _ip("p1", f"addr add {_UNUSED}/32 dev lo")
                await put_right()
                problems = (await agent.tell("sources"))[2]
                reaches = await _reaches("p1", PODS["p2"], _UNUSED)
                found[what] = [reaches, problems, (await ask("p2", "/"))["who"], await _tables_of()]
    return found | {"leaked": len(imds.seen)}


async def _tables_of() -> list[str]:
    """Return the tables that filter sources."""
    listed = json.loads(await command("nft", "-j", "list", "tables"))["nftables"]
    tables = [each["table"] for each in listed if "table" in each]
    ours = [each for each in tables if each["name"].startswith("podid_source")]
    return sorted(f"{each['family']} {each['name'].partition('-')[0]}" for each in ours)


def _probe() -> str:
    """Ask, as p1, by the rules of RFC 5227, whether somebody has p2's address."""
    wire = attacker("p1", "0.0.0.0")  # noqa: S104 - the sender of a probe
    mac = wire.resolve(PODS["p2"], time.monotonic() + UNTIL_IT_WORKS)
    return "conflict" if mac else "none"


async def strangers() -> dict[str, Any]:
    """A container of another runtime is on the same bridge: nobody knows its namespace."""
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving(), Agent.running(source_guard=True) as agent:
        await add_pod("other", "10.244.0.50")
        await command("sh", "-e", "-c", _ELSEWHERE)
        found["sources"] = await agent.tell("sources")
        other = "/run/other"
        found["to a pod"] = await _reaches(other, PODS["p2"])
        found["to the world"] = await _reaches(other, "10.240.0.1")
        found["IMDS"] = _answerer(await _ask_from(other, "10.244.0.50"))
        own = inside(other, lambda: Attacker(PODS["p2"]))
        for what, frame in {
            "ARP as p2": (own.own_mac, PODS["p2"]),
            "ARP as the gateway": (own.own_mac, GATEWAY),
            "ARP of itself at p2's MAC address": (await mac_of("p2"), "10.244.0.50"),
        }.items():
            await put_right()
            own.arp(_REQUEST, *frame, GATEWAY, source=own.own_mac)
            found[what] = await beliefs()
        await put_right()
        own.send_from(_BROADCAST, await mac_of("p2"), _IPV6, _EMPTY_IPV6)
        found["p2's MAC address"] = await beliefs()
        own.gateway = await mac_of("")
        found["p2's address"] = await asyncio.to_thread(converse, own)
        own.tag = VLAN_0["802.1Q"]
        found["p2's address in VLAN 0"] = await asyncio.to_thread(converse, own)
    return found | {"leaked": len(imds.seen)}


_ELSEWHERE = """
touch /run/other
mount --bind /run/netns/other /run/other
ip netns del other
"""


async def routed(*, guarded: bool) -> dict[str, Any]:
    """Pods on routes of their own, without a bridge: one sends with the other's address."""
    imds = Imds()
    found: dict[str, Any] = {}
    for number, pod in enumerate(("r1", "r2"), 1):
        await command("sh", "-e", "-c", ROUTED.format(pod=pod, number=number))
    async with imds.serving(), Agent.running(source_guard=guarded) as agent:
        if guarded:
            found["sources"] = await agent.tell("sources")
        found["own address"] = _answerer(await _ask_from("r1", "10.245.0.1"))
        found["the other's"] = _answerer(await _ask_from("r2", "10.245.0.2"))
        _speak_as_imds("r1", "10.245.0.2", _TAKEN)
        found["from a port to which IMDS is said to have spoken"] = _answerer(
            await _ask_from("r2", "10.245.0.2", port=_TAKEN)
        )
        found["the node hears"] = await _heard_of_imds()
        before = await redirected()
        await _ip("r1", "addr add 10.245.0.2/32 dev eth0")
        await _ask_from("r1", "10.245.0.2")
        found["arrived"] = await redirected() - before
    return found | {"leaked": len(imds.seen)}


def _speak_as_imds(netns: str, to: str, port: int) -> None:
    """Send the first segment of a connection from IMDS to a port of a pod.

    The pod does not refuse it, and so the node goes on tracking it: whoever has no key drops a
    segment that claims to be signed (option 19, RFC 2385).
    """
    options = bytes([19, 18]) + bytes(16) + bytes(2)
    segment = struct.pack("!HHIIBBHHH", IMDS[1], port, 1, 0, 0xA0, SYN, 1000, 0, 0) + options
    ends = socket.inet_aton(IMDS[0]) + socket.inet_aton(to)
    right = checksum(ends + struct.pack("!HH", socket.IPPROTO_TCP, len(segment)) + segment)
    segment = segment[:16] + struct.pack("!H", right) + segment[18:]
    # The kernel fills in the packet's length, number and checksum (raw(7)).
    head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_TCP, 0) + ends
    _send_raw(netns, head + segment, to)


def _send_raw(netns: str, packet: bytes, to: str) -> None:
    raw = inside(netns, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    with raw:
        raw.sendto(packet, (to, 0))


async def _heard_of_imds() -> list[str]:
    """Return who comes through to the node in the name of IMDS."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as node:
        node.bind(("10.240.0.4", 0))
        to = node.getsockname()
        for netns, words in ((AZURE_NETNS, b"IMDS"), ("r1", b"who speaks as IMDS")):
            ends = socket.inet_aton(IMDS[0]) + socket.inet_aton(to[0])
            head = struct.pack("!BBHHHBBH", 0x45, 0, 0, 0, 0, 64, socket.IPPROTO_UDP, 0) + ends
            datagram = struct.pack("!HHHH", IMDS[1], to[1], 8 + len(words), 0) + words
            _send_raw(netns, head + datagram, to[0])
        # A packet of the node's own behind them: when that has come, they have come or will not.
        node.sendto(b"end", to)
        return [each.decode() for each in iter(lambda: node.recv(100), b"end")]


ROUTED = """
ip netns add {pod}
ip link add z-{pod} type veth peer name eth0 netns {pod}
ip link set z-{pod} up; echo 1 >/proc/sys/net/ipv4/conf/z-{pod}/proxy_arp
late=/proc/sys/net/ipv4/neigh/z-{pod}/proxy_delay
[ ! -e $late ] || echo 0 >$late
echo 0 >/proc/sys/net/ipv4/conf/z-{pod}/rp_filter; echo 0 >/proc/sys/net/ipv4/conf/all/rp_filter
ip route add 10.245.0.{number}/32 dev z-{pod}
ip -n {pod} -batch - <<END
link set lo up
addr add 10.245.0.{number}/32 dev eth0
link set eth0 up
route add 169.254.1.1 dev eth0
route add default via 169.254.1.1 dev eth0
END
"""


async def redirected() -> int:
    """Return how many connections have been redirected, by whichever of our tables."""
    listed = json.loads(await command("nft", "-j", "list", "ruleset"))["nftables"]
    rules = [each["rule"]["expr"] for each in listed if "rule" in each]
    redirecting = [rule for rule in rules if any("dnat" in each for each in rule)]
    return sum(
        each["counter"]["packets"] for rule in redirecting for each in rule if "counter" in each
    )


async def rivals(*, pods: int) -> list[Any]:
    """Two agents guard one node, as in an update, while pods come and go."""
    settings = {"source_guard": True, "guard": True}
    async with Agent.running(**settings) as one, Agent.running(listen=False, **settings) as other:
        for number in range(pods):
            await add_pod("p4", f"10.244.0.{20 + number}")
            await one.tell("sources")
            await remove_pod("p4")
            await other.tell("sources")
        await command("nft", "delete", "table", "bridge", "podid_source")
        # Each answers after what it was told of before; a quarrel would go on all the time.
        return [[await one.tell("sources"), await other.tell("sources")] for _ in range(50)]


_TCP_REPAIR, _AND_SAY_NOTHING = 19, -1


async def twins(*, guarded: bool, own_links: bool) -> list[list[str]]:
    """A pod has its neighbour's address, and a socket with both ends of the neighbour's connection.

    The two are on a bridge, or each on a link of its own. There it makes the socket out of nothing,
    which takes NET_ADMIN in the namespace as the address does (TCP_REPAIR, tcp(7)).
    """
    attacking, victim, address = "p1", "p2", PODS["p2"]
    if own_links:
        attacking, victim, address = "r1", "r2", "10.245.0.2"
        for number, pod in enumerate((attacking, victim), 1):
            await command("sh", "-e", "-c", ROUTED.format(pod=pod, number=number))
    redirect = Redirect()
    Interception(redirect, WallClock()).install()
    listener = (redirect.target, redirect.listen_port)
    inspector = ConnectionInspector(
        netns_dirs=[Path("/run/netns")], cgroups=None, listener=Endpoint(*listener)
    )
    guard = SourceGuard(inspector.networks, redirect, WallClock()) if guarded else None
    if guard is not None:
        guard.refresh()
        inspector.bound_to = guard.bound_to
    await _ip(attacking, f"addr add {address}/32 dev lo", f"addr add {IMDS[0]}/32 dev lo")
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(listener))
        own = stack.enter_context(inside(victim, socket.socket))
        own.bind((address, 0))
        port = own.getsockname()[1]
        made = _out_of_nothing if own_links else _with_a_server
        stack.enter_context(made(attacking, (address, port)))
        own.connect(IMDS)
        stack.enter_context(listening.accept()[0])
        facts = inspector.facts(address, port)
    if guard is not None:
        guard.close()
    inspector.close()
    return sorted([each.network, each.state, each.doubt] for each in facts.sightings)


@contextlib.contextmanager
def _with_a_server(pod: str, end: tuple[str, int]) -> Iterator[None]:
    with (
        inside(pod, lambda: socket.create_server(IMDS)) as server,
        inside(pod, socket.socket) as twin,
    ):
        twin.bind(end)
        twin.connect(IMDS)
        with server.accept()[0]:
            yield


@contextlib.contextmanager
def _out_of_nothing(pod: str, end: tuple[str, int]) -> Iterator[None]:
    with inside(pod, socket.socket) as twin:
        twin.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
        twin.bind(end)
        twin.connect(IMDS)
        twin.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, _AND_SAY_NOTHING)
        yield


async def swollen(*, addresses: int) -> dict[str, Any]:
    """Pod p1 takes thousands of addresses at the end of its link, once it is bound."""
    networks = PodNetworks(Path("/run/netns"))
    guard = SourceGuard(networks, Redirect(), WallClock())
    guard.refresh()
    links = Links()
    index = {each.name: each.index for each in links.all.values()}
    many = "\n".join(
        f"addr add 10.{20 + n // 62500}.{n // 250 % 250}.{n % 250 + 1}/32 dev eth0"
        for n in range(addresses)
    )
    with tempfile.NamedTemporaryFile("w") as batch:
        batch.write(many)
        batch.flush()
        await command("ip", "-n", "p1", "-batch", batch.name)
    read = len(links.far_end(index["v-p1"]).addresses)
    other = list(links.far_end(index["v-p2"]).addresses)
    guard.refresh()
    found = {"read": read, "other": other, "bound": guard.bound, "problems": guard.problems()}
    links.close()
    guard.close()
    networks.close()
    return found


async def flushed(*, copy: bool) -> list[str]:
    """Return what is believed of p1 after others have flushed all rules, and nobody repairs yet."""
    async with Agent.running(source_guard=True, copy=copy) as agent:
        await agent.tell("sources")
        await add_pod("p4", "10.244.0.14")
        await agent.tell("sources")
        agent.process.send_signal(signal.SIGSTOP)
        await put_right()
        await command("nft", "flush", "ruleset")
        own = await mac_of("p1")
        wire = attacker("p1", PODS["p2"])
        wire.arp(_REQUEST, own, PODS["p2"], GATEWAY, source=own)
        return await beliefs()


class _Old(Nftables):
    """A libnftables on a kernel that lacks something."""

    lacks = ""
    """Commands with this text fail."""
    forgets = ""
    """Elements of this set are not kept."""
    owners = True
    """Whether the owner of a table is known, as after libnftables 1.0.6."""

    def run(self, commands: str) -> dict[str, Any]:
        if self.lacks and self.lacks in commands and '"list"' not in commands:
            raise NftablesError("Error: Could not process rule: Operation not supported")
        listed = super().run(commands)
        for each in listed.get("nftables", ()):
            body = each.get("set", {})
            if not self.owners:
                each.get("table", {}).pop("flags", None)
            if self.forgets and body.get("name") == self.forgets:
                body.pop("elem", None)
        return listed


async def unable() -> dict[str, Any]:
    """Return whether sources are guarded, and what is said, where a kernel cannot."""
    vars(source_guard)["Nftables"] = _Old
    networks = PodNetworks(Path("/run/netns"))
    found: dict[str, Any] = {}

    async def note(what: str, lacks: str = "", forgets: str = "") -> None:
        await command("nft", "flush", "ruleset")
        _Old.lacks, _Old.forgets = lacks, forgets
        guard = SourceGuard(networks, Redirect(), WallClock())
        before = guard.guarded
        guard.refresh()
        found[what] = [before, guard.guarded, list(guard.problems())]
        guard.close()

    await note("all")
    await note("bridge family", lacks='"bridge"')
    await note("fib", lacks='"fib"')
    await note("elements", forgets="taken_macs")
    _Old.lacks, _Old.forgets, _Old.owners = "", "", False
    guard = SourceGuard(networks, Redirect(), WallClock())
    guard.refresh()
    found["owners"] = [list(guard.problems()), list(guard.warnings())]
    guard.close()
    _Old.owners = True
    elsewhere = PodNetworks(Path("/run/azure-empty"))
    guard = SourceGuard(elsewhere, Redirect(), WallClock())
    _Old.lacks = _Old.forgets = ""
    guard.refresh()
    found["namespaces elsewhere"] = [False, guard.guarded, list(guard.problems())]
    guard.close()
    for pod in PODS:
        await remove_pod(pod)
    await note("bridge family, no bridge of pods", lacks='"bridge"')
    return found


async def spanning() -> list[list[Any]]:
    """Somebody switches the spanning tree protocol on, and off again."""
    networks = PodNetworks(Path("/run/netns"))
    guard = SourceGuard(networks, Redirect(), WallClock())
    found = []
    for state in ("0", "1", "0"):
        await command("ip", "link", "set", "cbr0", "type", "bridge", "stp_state", state)
        guard.refresh()
        found.append([guard.guarded, *guard.problems()])
    guard.close()
    networks.close()
    return found


async def unwritten(*, times: int) -> dict[str, Any]:
    """So many attempts to write the bridge's rules fail, by a clock that stands; a pod comes."""
    clock, networks = FakeClock(), PodNetworks(Path("/run/netns"))
    guard = SourceGuard(networks, Redirect(), clock, copy=False)
    installed: Any = vars(source_guard)["_InstalledTable"]
    write = installed.write

    def fail(self: Any, *given: Any, **more: Any) -> Any:
        if self is vars(guard)["_bridge"]:
            attempts.append(clock.slept.count(1.0))
            if len(attempts) <= times:
                raise NftablesError("somebody was faster")
        return write(self, *given, **more)

    attempts: list[int] = []
    """By how many pauses of a second were before each."""
    found: dict[str, Any] = {}
    with (
        contextlib.closing(networks),
        contextlib.closing(guard),
        mock.patch.object(installed, "write", autospec=True, side_effect=fail),
    ):
        running = asyncio.create_task(guard.run())
        while not (guard.guarded or clock.slept.count(1.0)):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.001)
        found |= {"paused": clock.slept.count(1.0), "guarded": guard.guarded}
        found["tried"] = attempts.count(0)
        if not guard.guarded:
            await add_pod("p4", "10.244.0.14")
            await asyncio.wait_for(_binds(guard, clock), 60)
        found["bound"] = guard.bound
        running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    return found


async def _binds(guard: SourceGuard, clock: FakeClock) -> None:
    """Return when a further port is bound; no time passes but what follows a notice of a link."""
    told = 0
    while guard.bound <= len(PODS):
        if clock.slept.count(0.25) > told:
            told += 1
            clock.advance(0.25)
        await asyncio.sleep(0.001)


async def drift() -> dict[str, Any]:
    """Others change our tables, and the bridge's option."""
    found: dict[str, Any] = {}
    async with Agent.running(source_guard=True) as agent:
        found["before"] = await agent.tell("sources")
        found["nft"] = await _tables()
        edits = found["edits"] = {}
        for what, edit in _EDITS.items():
            repairs = (await agent.tell("sources"))[1]
            await command(*edit)
            while (now := await agent.tell("sources"))[1] == repairs:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
            same = sorted("".join(await _tables())) == sorted("".join(found["nft"]))
            edits[what] = [now[1] - repairs, now[2], same]
        await command("nft", "add", "table", "ip", "other")
        await add_pod("p4", "10.244.0.14")
        found["after"] = await agent.tell("sources")
    return found


async def _tables() -> list[str]:
    """Return our tables as nft prints them; the order of elements is the kernel's."""
    return [
        await command("nft", "-s", "list", "table", family, "podid_source")
        for family in ("bridge", "ip")
    ]


_EDITS = {
    "everything flushed": ["nft", "flush", "ruleset"],
    "a table deleted": ["nft", "delete", "table", "bridge", "podid_source"],
    "the other one deleted": ["nft", "delete", "table", "ip", "podid_source"],
    "a rule before ours": ["nft", "insert rule bridge podid_source arriving accept"],
    "a chain emptied": ["nft", "flush chain bridge podid_source bound"],
    "a set emptied": ["nft", "flush set bridge podid_source addresses"],
    "a set filled": ["nft", 'add element bridge podid_source macs { "v-p1" . 2:0:0:0:0:1 }'],
    "a port made an uplink": [
        "nft",
        'delete element bridge podid_source pods { "v-p1" }; '
        'add element bridge podid_source uplinks { "v-p1" }',
    ],
}


async def _ip(pod: str, *commands: str) -> None:
    for each in commands:
        await command("ip", *each.split(), netns=pod)


async def _reaches(netns: str, address: str, source: str = "") -> bool:
    """Whether a packet to a host, with this source, is answered at once: that nobody listens."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(netns or _NODE, lambda: socket.socket(family)) as client:
        if source:
            client.bind((source, 0))
        try:
            await connected(client, (address, 9), _SECONDS)
        except ConnectionRefusedError:
            return True
        except OSError:
            return False
    return False


async def mac_of(pod: str) -> bytes:
    """Return the MAC address of a pod, or of the bridge."""
    link = ("eth0",) if pod else ("cbr0",)
    found = json.loads(await command("ip", "-j", "link", "show", *link, netns=pod))
    return bytes.fromhex(found[0]["address"].replace(":", ""))
