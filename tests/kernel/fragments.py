"""A pod that speaks by IP fragments of its own making, from an address that nobody has.

    python3 -m tests.kernel.fragments --size 8 --to 169.254.169.254:80 --seconds 3

CAP_NET_RAW is enough, which containers have by default. No kernel answers for the address, so none
resets the conversation. Asks again and again, and prints who answered and how often (JSON).
"""

from __future__ import annotations

import argparse
import json
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator

from podidentity_sandbox.demo.frames import ETHERTYPE_IP, SYN, Gateway, Wire, checksum
from tests.kernel.topology import GATEWAY

_MORE_FRAGMENTS = 0x2000


class Fragments(Wire):
    """Sends each packet of IPv4 in fragments of so many bytes; 0: whole."""

    def __init__(self, mac: bytes, address: str, size: int) -> None:
        super().__init__(mac, address)
        self._size = size
        self._packets = 0

    def send(self, to: bytes, kind: int, content: bytes) -> None:
        """Send a frame, one for each fragment."""
        if kind != ETHERTYPE_IP or not self._size:
            super().send(to, kind, content)
            return
        self._packets += 1
        for each in fragments(content, self._size, self._packets):
            super().send(to, kind, each)

    def flood(self, to: tuple[str, int], seconds: float) -> int:
        """Open connections and wait for no answer; return how many."""
        end = time.monotonic() + seconds
        via = self.resolve(GATEWAY, end)
        self.request_arp(GATEWAY)
        while time.monotonic() < end:
            self.send_tcp(via, to, 20000 + self._packets % 40000, (1, 0), SYN)
            time.sleep(0.001)
        return self._packets


def fragments(packet: bytes, size: int, identification: int) -> Iterator[bytes]:
    """Yield the fragments of a packet that has no options; `size` is a multiple of 8."""
    body = packet[20:]
    for offset in range(0, len(body), size):
        piece = body[offset : offset + size]
        more = _MORE_FRAGMENTS if offset + size < len(body) else 0
        length = struct.pack("!HHH", 20 + len(piece), identification, more | offset // 8)
        head = packet[:2] + length + packet[8:10] + b"\0\0" + packet[12:20]
        yield head[:10] + struct.pack("!H", checksum(head)) + head[12:] + piece


def main() -> None:
    """Ask until the time is over."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--size", type=int, default=0, help="bytes of a fragment; 0: no fragments")
    options.add_argument("--to", default="169.254.169.254:80", metavar="ADDRESS:PORT")
    options.add_argument("--source", default="10.244.0.211", metavar="ADDRESS")
    options.add_argument("--seconds", type=float, default=2)
    options.add_argument("--first", action="store_true", help="end with the first answer")
    options.add_argument("--least", type=int, default=0, help="go on for a minute to so many")
    options.add_argument("--flood", action="store_true", help="wait for no answer")
    asked = options.parse_args()
    address, _, port = asked.to.partition(":")
    mac = b"\x02\0" + socket.inet_aton(asked.source)
    wire = Fragments(mac, asked.source, asked.size)
    if asked.flood:
        sent = wire.flood((address, int(port)), asked.seconds)
        sys.stdout.write(json.dumps({"sent": sent}))
        return
    answered: Counter[str] = Counter()
    end = time.monotonic() + asked.seconds
    last = end + 60 * bool(asked.least)
    while time.monotonic() < (last if answered.total() < asked.least else end):
        if asked.first and answered:
            break
        try:
            via = Gateway(GATEWAY, wire.resolve(GATEWAY, last))
            left = last - time.monotonic()
            came = wire.converse((address, int(port)), via, b"GET /raw HTTP/1.1\r\n\r\n", left)
        except TimeoutError:
            break
        answered[json.loads(came.partition(b"\r\n\r\n")[2])["who"]] += 1
    sys.stdout.write(json.dumps(answered))


if __name__ == "__main__":
    main()
