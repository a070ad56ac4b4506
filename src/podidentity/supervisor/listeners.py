"""The listening sockets of `serve`: opened here, or taken over from the agent before this one."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from podidentity.local_sockets import network_namespace_of

BACKLOG = 4096
"""Connections that the kernel keeps for a socket while no worker accepts, but no more than
net.core.somaxconn (4096 by default): twelve pods may have all that they are allowed to."""
_SEND_BUFFER, _RECEIVE_BUFFER = 16 << 10, 8 << 10
"""Kernel memory of one connection, in bytes; Linux doubles both. Unbounded, a client that does
not read has megabytes of it."""
_SO_DETACH_FILTER = 27  # asm-generic/socket.h
_IP_FREEBIND = 15
"""linux/in.h; Python names it from 3.13 on."""


class ListenError(Exception):
    """Nothing can be heard at an address: whose fault, and what to do."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where to listen, and what for."""

    name: str
    """`pods`, `host`, `probes`, `metrics`, …: what the worker serves there."""
    host: str
    port: int
    freebind: bool = False
    """Whether the address may come later: `net` puts it on a link."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def listening_socket(host: str, port: int, *, freebind: bool = False) -> socket.socket:
    """Return a socket that listens on an address (port 0: any free one); raise ListenError.

    `freebind`: the address need not be there yet.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit these.
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        if freebind:
            made.setsockopt(socket.SOL_IP, _IP_FREEBIND, 1)
        made.bind((host, port))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise ListenError(_why_deaf(host, port, error)) from error
    return made


def open_missing(
    addresses: Iterable[Address], found: Mapping[str, socket.socket]
) -> dict[str, socket.socket]:
    """Return a socket for each address, those of `found` among them; raise ListenError."""
    made: dict[str, socket.socket] = {}
    try:
        for each in addresses:
            if each.name not in found:
                made[each.name] = listening_socket(each.host, each.port, freebind=each.freebind)
    except ListenError:
        close_all(made)
        raise
    return {**found, **made}


def restore(listening: socket.socket) -> str:
    """Have a socket hear again, whatever a worker did to it; return why that failed, or "".

    The worker before had it, too, and may have ended it, or given it a filter or a short backlog.
    What waits in its backlog stays there.
    """
    try:
        listening.listen(BACKLOG)
        with suppress(FileNotFoundError):
            listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        return str(error.strerror)
    return ""


def close_all(sockets: Mapping[str, socket.socket]) -> None:
    """Close them: what waits in a backlog that nobody else has is reset."""
    for each in sockets.values():
        each.close()


def why_not_ours(given: socket.socket, wanted: Address) -> str:
    """Return why a socket that another process gave is not one to accept from; "" if it is."""
    try:
        is_tcp = (
            given.family is socket.AF_INET
            and given.type is socket.SOCK_STREAM
            and given.proto == socket.IPPROTO_TCP
        )
        if not is_tcp:
            return "it is no TCP socket"
        if not given.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return "it does not listen"
        host, port = given.getsockname()
        if (host, port) != (wanted.host, wanted.port):
            return f"it listens on {host}:{port}, not on {wanted}"
        with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as own:
            if network_namespace_of(given) != network_namespace_of(own):
                return "it listens in another network namespace"
    except OSError as error:
        return f"the kernel does not say what it is: {error.strerror}"
    return ""


def from_descriptors(descriptors: Iterable[int]) -> list[socket.socket | None]:
    """Return a socket for each descriptor; None, closed, for what is none."""
    found: list[socket.socket | None] = []
    for each in descriptors:
        try:
            found.append(socket.socket(fileno=each))
        except OSError:
            found.append(None)
            with suppress(OSError):
                os.close(each)
    return found


def _why_deaf(host: str, port: int, error: OSError) -> str:
    cause = f"cannot listen on {host}:{port}: {os.strerror(error.errno or errno.EADDRNOTAVAIL)}"
    if error.errno != errno.EADDRINUSE:
        return cause
    return (
        f"{cause}. Another program of this node has the port, such as an NMI of aad-pod-identity "
        f"or of podidentity 0.1: `ss -ltnp 'sport = :{port}'` on the node names it. Until it ends, "
        "pods get no token"
    )
