"""Reads the IPv4 addresses of one network namespace, and notices when they change.

Source: linux/if_addr.h, rtnetlink(7).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator

from podidentity.kernel import netlink

_DATAGRAM = 1 << 15
_GROUP_IPV4_ADDRESSES = 0x10  # RTMGRP_IPV4_IFADDR
_SMALLEST_BUFFER = 1
"""Size of the receive buffer. The kernel rounds it up to a few notifications. More of them cause
an overrun error, which tells us the same: something has changed."""
_MOST_NOTICES = 64
_ATTEMPTS = 3
_MOST_ADDRESSES = 256

_RTM_NEWADDR, _RTM_GETADDR = 20, 22
# ifaddrmsg: family, prefix length, flags, scope, interface
_ADDRESS = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2


class TooManyAddresses(Exception):
    """The namespace has more addresses than any pod needs; reading all would cost too much."""


class Addresses:
    """The IPv4 addresses of the current namespace.

    The socket `notices` becomes readable when they change.
    """

    def __init__(self) -> None:
        self.notices = netlink.connect(socket.NETLINK_ROUTE, groups=_GROUP_IPV4_ADDRESSES)
        self.notices.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALLEST_BUFFER)
        self._sequence = 0

    def read(self) -> dict[str, int]:
        """Return the addresses and the interface of each; raise TooManyAddresses or OSError.

        Pending notifications are dropped first, because the answer is newer than they are.
        """
        self._drop_notices()
        found: dict[str, int] = {}
        for _ in range(_ATTEMPTS):
            found, complete = self._dump()
            if complete:
                return found
        return found  # The addresses change all the time: another notification will come.

    def close(self) -> None:
        self.notices.close()

    def _drop_notices(self) -> None:
        for _ in range(_MOST_NOTICES):
            try:
                self.notices.recv(_DATAGRAM)
            except BlockingIOError:
                return
            except OSError as error:
                _only_overrun(error)

    def _dump(self) -> tuple[dict[str, int], bool]:
        """Return the addresses, and whether they stayed the same during the dump."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self.notices.send(encode_request(self._sequence))
        found: dict[str, int] = {}
        complete = True
        for message in self._answers():
            if message is None or message.sequence != self._sequence:
                # A notification, or a loss of some, may be newer than the answer.
                complete = False
                continue
            if message.errno:
                raise OSError(message.errno, os.strerror(message.errno))
            if message.flags & netlink.NLM_F_DUMP_INTR:
                complete = False
            if message.kind == netlink.NLMSG_DONE:
                break
            address = decode_answer(message)
            if address is not None:
                found.setdefault(*address)
            if len(found) > _MOST_ADDRESSES:
                raise TooManyAddresses(f"holds more than {_MOST_ADDRESSES} addresses")
        return found, complete

    def _answers(self) -> Iterator[netlink.Message | None]:
        while True:
            try:
                datagram = self._receive()
            except _Overrun:
                yield None
            else:
                yield from netlink.decode(datagram)

    def _receive(self) -> bytes:
        try:
            return self.notices.recv(_DATAGRAM)
        except OSError as error:
            _only_overrun(error)
            raise _Overrun from error


class _Overrun(Exception):
    """Notifications were lost; the kernel reports it once, in place of a datagram."""


def _only_overrun(error: OSError) -> None:
    if error.errno != errno.ENOBUFS:
        raise error


def encode_request(sequence: int) -> bytes:
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
    return netlink.encode(_RTM_GETADDR, flags, sequence, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))


def decode_answer(message: netlink.Message) -> tuple[str, int] | None:
    """Return the address and the interface of an answer; None for other messages."""
    if message.kind != _RTM_NEWADDR or len(message.payload) < _ADDRESS.size:
        return None
    *_, interface = _ADDRESS.unpack_from(message.payload)
    found = netlink.attributes(message.payload, _ADDRESS.size)
    local = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return (socket.inet_ntoa(local), interface) if local else None
