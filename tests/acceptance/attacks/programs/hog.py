"""Opens connections from addresses that nobody has, and answers ARP for them.

    hog.py TARGET PORT ADDRESSES EACH SECONDS

`EACH` connections from each of the last `ADDRESSES` of its subnet, held for so long; one that is
ended is opened again. Prints how many connections there were.
"""

from __future__ import annotations

import ipaddress
import json
import socket
import struct
import sys
import time

from podidentity_sandbox.demo.forger import gateway, own
from podidentity_sandbox.demo.frames import (
    ACK,
    ETHERTYPE_ARP,
    ETHERTYPE_IP,
    FIN,
    RST,
    SYN,
    SYN_ACK,
    Wire,
    parse_segment,
)

FIRST_PORT = 20_000


class Hog:
    """The addresses, and the conversations that they hold."""

    def __init__(self, to: tuple[str, int], addresses: int, each: int) -> None:
        mac, mine = own()
        subnet = ipaddress.ip_interface(f"{mine}/24").network
        hosts = [str(subnet[-2 - number]) for number in range(addresses)]
        self._to, self._each = to, each
        self._wires = {host: Wire(mac, host) for host in hosts}
        self._listening = Wire(mac, mine)
        self._via = self._listening.resolve(gateway(), time.monotonic() + 60)
        self._next_port = FIRST_PORT
        self._lost: list[Wire] = []
        self.opened = 0

    def run(self, seconds: float) -> None:
        """Open them all, and hold them."""
        end = time.monotonic() + seconds
        for _ in range(self._each):
            for wire in self._wires.values():
                self._open(wire)
            self._serve(0.002)
        while time.monotonic() < end:
            self._serve(0.2)
            lost, self._lost = self._lost, []
            for wire in lost:
                self._open(wire)

    def _open(self, wire: Wire) -> None:
        self._next_port = self._next_port % 65_000 + 1
        wire.send_tcp(self._via, self._to, self._next_port, (1, 0), SYN)

    def _serve(self, seconds: float) -> None:
        for kind, body in self._listening.frames(seconds):
            if kind == ETHERTYPE_ARP:
                self._tell(body)
            elif kind == ETHERTYPE_IP:
                self._take(body)

    def _tell(self, asked: bytes) -> None:
        wire = self._wires.get(socket.inet_ntoa(asked[24:28]))
        if asked[6:8] == b"\0\1" and wire is not None:
            head = struct.pack("!HHBBH", 1, ETHERTYPE_IP, 6, 4, 2)
            body = wire.mac + asked[24:28] + asked[8:14] + asked[14:18]
            wire.send(asked[8:14], ETHERTYPE_ARP, head + body)

    def _take(self, packet: bytes) -> None:
        found = parse_segment(packet)
        wire = self._wires.get(found.to) if found is not None else None
        if found is None or wire is None:
            return
        if found.flags & (FIN | RST):
            self._lost.append(wire)
        elif found.flags & SYN_ACK == SYN_ACK:
            numbers = found.acknowledged, found.sequence + 1
            wire.send_tcp(self._via, self._to, found.port, numbers, ACK)
            self.opened += 1


if __name__ == "__main__":
    target, port, many, every, span = sys.argv[1:]
    hog = Hog((target, int(port)), int(many), int(every))
    hog.run(float(span))
    print(json.dumps({"opened": hog.opened}))
