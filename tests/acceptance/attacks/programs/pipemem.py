"""Sends what the agent may have to keep: requests behind one that is held, on many connections.

    pipemem.py CONNECTIONS REQUESTS BYTES SECONDS

Each request has a header of so many bytes. Reads nothing. Prints how many bytes the agent took.
"""

from __future__ import annotations

import json
import resource
import socket
import sys
import time
from contextlib import suppress

PATH = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"


def fill(connections: int, requests: int, size: int, seconds: float) -> int:
    """Return how many bytes were taken."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (connections + 100,) * 2)
    head = f"GET {PATH} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n"
    text = f"{head}Filling: {'x' * size}\r\n\r\n".encode() * requests
    held = [socket.create_connection(("169.254.169.254", 80)) for _ in range(connections)]
    left = [memoryview(text) for _ in held]
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number, client in enumerate(held):
            client.setblocking(False)
            with suppress(OSError):
                left[number] = left[number][client.send(left[number]) :]
        time.sleep(0.05)
    return sum(len(text) - len(rest) for rest in left)


if __name__ == "__main__":
    many, behind, length, span = sys.argv[1:]
    print(json.dumps({"bytes": fill(int(many), int(behind), int(length), float(span))}))
