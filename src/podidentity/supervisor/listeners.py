"""Opens the listening sockets of `serve`, and checks those taken over from the agent before."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass

from podidentity.local_sockets import network_namespace_of

BACKLOG = 4096
"""Connections that the kernel keeps for a socket while no worker accepts; the kernel bounds it by
net.core.somaxconn (default 4096). Twelve pods with all the connections they may have fit in."""
_SEND_BUFFER, _RECEIVE_BUFFER = 16 << 10, 8 << 10
"""Kernel memory of one connection, in bytes; Linux doubles both. Without a limit, a client that
does not read uses megabytes."""
_SO_DETACH_FILTER = 27  # asm-generic/socket.h
_IP_FREEBIND = 15
"""linux/in.h; Python names it from 3.13 on."""


class ListenError(Exception):
    """We cannot listen at an address; the text has the cause and the next step."""

    def __init__(self, cause: str, *, taken: bool = False) -> None:
        super().__init__(cause)
        self.taken = taken
        """Whether another program has the address."""


@dataclass(frozen=True, slots=True)
class Address:
    """An address to listen at."""

    name: str
    """Purpose: `pods`, `host`, `probes`, `metrics`, …"""
    host: str
    port: int
    freebind: bool = False
    """Whether to listen before `net` adds the address to a link."""
    late: bool = False
    """Whether pods are served without it, as long as another program has it: an NMI whose place
    this one takes keeps its ports until it has ended."""

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def listening_socket(host: str, port: int, *, freebind: bool = False) -> socket.socket:
    """Return a socket that listens on an address (port 0: any free one); raise ListenError.

    With `freebind` the node need not have the address yet.
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
        taken = error.errno == errno.EADDRINUSE
        raise ListenError(_why_deaf(host, port, error), taken=taken) from error
    return made


def open_missing(
    addresses: Iterable[Address], found: Mapping[str, socket.socket], *, patient: bool = False
) -> dict[str, socket.socket]:
    """Return a socket for each address, those of `found` among them; raise ListenError.

    `patient`: leave out the late ones that another program has.
    """
    made: dict[str, socket.socket] = {}
    try:
        for each in addresses:
            if each.name in found:
                continue
            try:
                made[each.name] = listening_socket(each.host, each.port, freebind=each.freebind)
            except ListenError as error:
                if not (patient and each.late and error.taken):
                    raise
    except ListenError:
        close_all(made)
        raise
    return {**found, **made}


def restore(listening: socket.socket) -> str:
    """Undo changes of a listening socket by an earlier worker; return why that failed, or "".

    A worker shares the socket, so it can shut it down, attach a filter or shorten the backlog. The
    connections in the backlog stay.
    """
    try:
        listening.listen(BACKLOG)
        with suppress(FileNotFoundError):
            listening.setsockopt(socket.SOL_SOCKET, _SO_DETACH_FILTER, 0)
    except OSError as error:
        return str(error.strerror)
    return ""


def close_all(sockets: Mapping[str, socket.socket]) -> None:
    """Close the sockets; connections in the backlog are reset if no other agent has it."""
    for each in sockets.values():
        each.close()


def why_not_ours(given: socket.socket, wanted: Address) -> str:
    """Return why a socket from another process is not the wanted one; "" if it is."""
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
    """Return the socket of each descriptor; None for one that is no socket, which is closed."""
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
        f"or of podidentity 0.1: `ss -ltnp 'sport = :{port}'` on the node names it. Until it ends "
        "nobody is served there"
    )
