"""Encodes and decodes netlink messages, the format of all requests of this package to the kernel.

Layout: https://docs.kernel.org/userspace-api/netlink/intro.html and linux/netlink.h. Numbers are in
the host's byte order unless stated otherwise.
"""

from __future__ import annotations

import errno
import fcntl
import socket
import struct
import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

FIRST_OF_OURS = 1024
"""libnftables waits with select(2), for which a descriptor must be below FD_SETSIZE: with a higher
one the C library ends the process."""

SOCK_DIAG, NETFILTER = 4, 12  # NETLINK_SOCK_DIAG, NETLINK_NETFILTER; socket has NETLINK_ROUTE

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP = 0x1, 0x4, 0x300
NLM_F_CREATE, NLM_F_EXCL, NLM_F_REPLACE = 0x400, 0x200, 0x100
NLM_F_DUMP_INTR = 0x10
"""Set on an answer if the table changed during the dump, so that it may be incomplete."""

NLMSG_ERROR = 2
NLMSG_DONE = 3

_DATAGRAM = 1 << 17
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_TYPE_MASK = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER
_ERRNO = struct.Struct("=i")


def connect(protocol: int, *, groups: int = 0) -> socket.socket:
    """Return a non-blocking netlink socket that receives the notifications of `groups`.

    No wait is needed for an answer: the kernel queues its begin before `send` returns. Each pod has
    some of these sockets, so they leave the low descriptors to libnftables (`FIRST_OF_OURS`).
    """
    made = _with_high_number(socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol))
    try:
        made.setblocking(False)
        made.bind((0, groups))
    except OSError:
        made.close()
        raise
    return made


def _with_high_number(made: socket.socket) -> socket.socket:
    try:
        number = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, FIRST_OF_OURS)
    except OSError as error:
        if error.errno == errno.EINVAL:  # above the limit of open files
            return made
        made.close()
        raise
    family, kind, protocol = made.family, made.type, made.proto
    made.close()
    return socket.socket(family, kind, protocol, fileno=number)


class MalformedMessage(ValueError):
    """The bytes are no netlink message or attribute."""


class Message(NamedTuple):
    """One message of a datagram."""

    kind: int
    flags: int
    sequence: int
    payload: bytes

    @property
    def errno(self) -> int:
        """The error number that an NLMSG_ERROR carries; 0 for an acknowledgement or another."""
        if self.kind != NLMSG_ERROR or len(self.payload) < _ERRNO.size:
            return 0
        code: int = -_ERRNO.unpack_from(self.payload)[0]
        return code


class Requests:
    """Requests on a socket, one at a time."""

    def __init__(self, connect: Callable[[], socket.socket]) -> None:
        self._connect = connect
        self._socket = connect()
        self._sequence = 0

    def ask(self, kind: int, flags: int, body: bytes, most: int = sys.maxsize) -> list[Message]:
        """Return the kernel's complete answer, or what came up to its error; raise OSError.

        After `most` messages the socket is closed, so that the kernel produces no more. Answers to
        earlier requests are skipped.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._socket.send(encode(kind, flags, self._sequence, body))
        found: list[Message] = []
        while True:
            for message in decode(self._socket.recv(_DATAGRAM)):
                if message.sequence != self._sequence:
                    continue
                found.append(message)
                several = flags & (NLM_F_DUMP | NLM_F_ACK)
                if not several or message.kind in {NLMSG_DONE, NLMSG_ERROR}:
                    return found
                if len(found) >= most:
                    self.close()
                    self._socket = self._connect()
                    return found

    def close(self) -> None:
        self._socket.close()


def encode(kind: int, flags: int, sequence: int, payload: bytes) -> bytes:
    """Return one message. Its port is 0: the kernel fills it in."""
    return _HEADER.pack(_HEADER.size + len(payload), kind, flags, sequence, 0) + payload


def decode(datagram: bytes) -> Iterator[Message]:
    """Yield the messages of a datagram; raise MalformedMessage if one is cut."""
    offset, size = 0, len(datagram)
    while offset < size:
        if size - offset < _HEADER.size:
            raise MalformedMessage(f"{size - offset} bytes are too few for a netlink header")
        length, kind, flags, sequence, _port = _HEADER.unpack_from(datagram, offset)
        if not _HEADER.size <= length <= size - offset:
            raise MalformedMessage(f"a netlink message claims {length} bytes of {size - offset}")
        yield Message(kind, flags, sequence, datagram[offset + _HEADER.size : offset + length])
        offset += _aligned(length)


def attribute(kind: int, value: bytes) -> bytes:
    """Return one attribute, padded to the boundary where the next may begin."""
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def attributes(payload: bytes, offset: int = 0) -> dict[int, bytes]:
    """Return the attributes from `offset` on, by type; raise MalformedMessage if one is cut."""
    found: dict[int, bytes] = {}
    size, header, unpack = len(payload), _ATTRIBUTE.size, _ATTRIBUTE.unpack_from
    while size - offset >= header:
        length, kind = unpack(payload, offset)
        if not header <= length <= size - offset:
            raise MalformedMessage(f"a netlink attribute claims {length} bytes of {size - offset}")
        found[kind & _TYPE_MASK] = payload[offset + header : offset + length]
        offset += (length + 3) & ~3  # as _aligned; called some ten times for each proof
    return found


def _aligned(length: int) -> int:
    return (length + 3) & ~3
