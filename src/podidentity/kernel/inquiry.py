"""The two conversations with a network namespace: about a connection, and about its addresses.

Their sockets are made once, inside the namespace, and may be used from anywhere afterwards.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator

from podidentity.kernel import diag, netlink
from podidentity.kernel.diag import Endpoint, TcpSocket

_DATAGRAM = 1 << 15
_STRAY_ANSWERS = 8
_GROUP_IPV4_ADDRESSES = 0x10  # RTMGRP_IPV4_IFADDR
_SMALLEST_BUFFER = 1
"""The kernel rounds it up: a few notices fit, more is an overrun, which tells as much."""
_MOST_NOTICES = 64
_ATTEMPTS = 3
_MOST_ADDRESSES = 256


class Crowded(Exception):
    """A namespace with more addresses than any pod has; reading them would cost too much."""


class SocketInquiry:
    """Asks the namespace in which it is made for the socket of a connection."""

    def __init__(self) -> None:
        self._socket = netlink.connect(netlink.SOCK_DIAG)
        self._sequence = 0

    def find(self, local: Endpoint, remote: Endpoint, *, interface: int = 0) -> TcpSocket | None:
        """Return the socket at the `local` end, or None where there is none; raise OSError."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        question = diag.socket_question(self._sequence, local, remote, interface=interface)
        self._socket.send(question)
        # An answer that an earlier question, broken off, has left behind is passed over.
        for _ in range(_STRAY_ANSWERS):
            for message in netlink.decode(self._socket.recv(_DATAGRAM)):
                if message.sequence != self._sequence:
                    continue
                if message.errno == errno.ENOENT:
                    return None
                if message.errno:
                    raise OSError(message.errno, os.strerror(message.errno))
                return diag.socket_answer(message)
        raise OSError(errno.EPROTO, "the kernel answers other questions than ours")

    def close(self) -> None:
        """Close the conversation."""
        self._socket.close()


class AddressInquiry:
    """Knows the IPv4 addresses of the namespace in which it is made; `notices` tells of changes."""

    def __init__(self) -> None:
        self.notices = netlink.connect(socket.NETLINK_ROUTE, groups=_GROUP_IPV4_ADDRESSES)
        self.notices.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _SMALLEST_BUFFER)
        self._sequence = 0

    def read(self) -> dict[str, int]:
        """Return each address with its interface; raise Crowded or OSError.

        What waits in `notices` is dropped first: the answer is newer.
        """
        self._drop_notices()
        found: dict[str, int] = {}
        for _ in range(_ATTEMPTS):
            found, complete = self._dump()
            if complete:
                return found
        return found  # they change all the time; the next notice is on its way

    def close(self) -> None:
        """Close the conversation."""
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
        """Return the addresses, and whether none changed meanwhile."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self.notices.send(diag.addresses_question(self._sequence))
        found: dict[str, int] = {}
        complete = True
        for message in self._answers():
            if message is None or message.sequence != self._sequence:
                # A notice, or the word that some were lost: either may be newer than the answer.
                complete = False
                continue
            if message.errno:
                raise OSError(message.errno, os.strerror(message.errno))
            if message.flags & netlink.NLM_F_DUMP_INTR:
                complete = False
            if message.kind == netlink.NLMSG_DONE:
                break
            address = diag.address_answer(message)
            if address is not None:
                found.setdefault(*address)
            if len(found) > _MOST_ADDRESSES:
                raise Crowded(f"holds more than {_MOST_ADDRESSES} addresses")
        return found, complete

    def _answers(self) -> Iterator[netlink.Message | None]:
        """Yield what comes; None where notices were lost."""
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
    """Notices were lost: the kernel says so once, in the place of a datagram."""


def _only_overrun(error: OSError) -> None:
    if error.errno != errno.ENOBUFS:
        raise error
