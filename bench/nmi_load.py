"""The load of `bench/nmi`, run inside a pod: asks 169.254.169.254 for one warm token, many times.

A plain blocking socket, so that the figures are those of the interception and of NMI and not of a
client library. Prints one JSON object: microseconds at the percentiles of each way of asking.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable
from time import perf_counter_ns

ADDRESS = ("169.254.169.254", 80)
REQUEST = (
    b"GET /metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
    b" HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n\r\n"
)


def connect() -> socket.socket:
    """Open a connection; NMI is where it ends."""
    connection = socket.create_connection(ADDRESS, timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def ask(connection: socket.socket) -> None:
    """Send one request and read its whole answer; end the program unless it is a token."""
    connection.sendall(REQUEST)
    answer = connection.recv(65536)
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(65536)
    head, _, body = answer.partition(b"\r\n\r\n")
    length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n", 1)[0])
    while len(body) < length:
        body += connection.recv(65536)
    if not answer.startswith(b"HTTP/1.1 200") or b"access_token" not in body:
        sys.exit(f"not a token: {head[:200]!r} {body[:200]!r}")


def measured(times: int, once: Callable[[], None]) -> dict[str, float]:
    """Return microseconds at the 50th, 90th and 99th percentile of `times` calls."""
    taken = []
    for _ in range(times):
        began = perf_counter_ns()
        once()
        taken.append((perf_counter_ns() - began) / 1000)
    taken.sort()
    return {f"p{share}": taken[int(len(taken) * share / 100)] for share in (50, 90, 99)}


def once_connected() -> None:
    """Connect, ask, close."""
    with connect() as connection:
        ask(connection)


def main() -> None:
    """Warm up, then measure both ways."""
    kept_times, new_times = int(sys.argv[1]), int(sys.argv[2])
    with connect() as kept:
        measured(200, lambda: ask(kept))
        on_kept = measured(kept_times, lambda: ask(kept))
    measured(50, once_connected)
    print(json.dumps({"kept": on_kept, "new": measured(new_times, once_connected)}))


if __name__ == "__main__":
    main()
