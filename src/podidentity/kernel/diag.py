"""Questions to the kernel about one TCP socket and about addresses, and its answers, as bytes.

Layouts: linux/inet_diag.h, linux/if_addr.h; sock_diag(7), rtnetlink(7).
"""

from __future__ import annotations

import socket
import struct
from typing import NamedTuple

from podidentity.kernel import netlink

_SOCK_DIAG_BY_FAMILY = 20
_RTM_NEWADDR, _RTM_GETADDR = 20, 22

# inet_diag_req_v2: family, protocol, extensions, pad, states, then inet_diag_sockid: ports in
# network order, two addresses of 16 bytes, interface, and a cookie that matches any socket.
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")
_ANY_COOKIE = b"\xff" * 8
_ANY_STATE = 0xFFFFFFFF
# inet_diag_msg: family, state, timer, retransmits, the same sockid, expires, queues, user, inode
_ANSWER = struct.Struct("=BBBB48sIIIII")
_CGROUP_ID = 21  # INET_DIAG_CGROUP_ID, kernel 5.7
_U64 = struct.Struct("=Q")

# ifaddrmsg: family, prefix length, flags, scope, interface
_ADDRESS = struct.Struct("=BBBBI")
_IFA_ADDRESS, _IFA_LOCAL = 1, 2

_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT, _LISTEN, _SYN_SENT = 1, 4, 5, 8, 10, 2
_CAN_RECEIVE = frozenset({_ESTABLISHED, _FIN_WAIT1, _FIN_WAIT2, _CLOSE_WAIT})
_NOT_THIS_CONNECTION = frozenset({_LISTEN, _SYN_SENT})


class Endpoint(NamedTuple):
    """An IPv4 address as text, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


class TcpSocket(NamedTuple):
    """What the kernel says of a socket."""

    state: int
    inode: int
    """0 where no process holds it any more."""
    cgroup: int
    """Id of the cgroup of whoever made it; 0 where the kernel does not say (before 5.7)."""
    user: int = -1
    """The uid that made it, as this user namespace numbers it; -1 where it was not asked."""

    @property
    def is_of_connection(self) -> bool:
        """Whether it is, or was, that connection's.

        Where there is no connection, the kernel answers with a socket that listens on the port. And
        a client is ESTABLISHED before the acknowledgement leaves that lets the server accept: one
        that still sends its SYN is not at the other end of an accepted connection.
        """
        return self.state not in _NOT_THIS_CONNECTION

    @property
    def is_open(self) -> bool:
        """Whether a process holds it and can still read an answer (also after a half-close)."""
        return self.state in _CAN_RECEIVE and self.inode != 0


def socket_question(
    sequence: int, local: Endpoint, remote: Endpoint, *, interface: int = 0
) -> bytes:
    """Return the question for the socket of one connection, as seen from its `local` end.

    With `interface`, sockets bound to it are found beside unbound ones; without, unbound ones only.
    """
    question = _REQUEST.pack(
        socket.AF_INET,
        socket.IPPROTO_TCP,
        0,
        _ANY_STATE,
        local.port.to_bytes(2, "big"),
        remote.port.to_bytes(2, "big"),
        socket.inet_aton(local.address),
        socket.inet_aton(remote.address),
        interface,
        _ANY_COOKIE,
    )
    return netlink.encode(_SOCK_DIAG_BY_FAMILY, netlink.NLM_F_REQUEST, sequence, question)


def socket_answer(message: netlink.Message) -> TcpSocket:
    """Return the socket that an answer describes; raise netlink.Malformed for anything else."""
    if message.kind != _SOCK_DIAG_BY_FAMILY or len(message.payload) < _ANSWER.size:
        raise netlink.Malformed(f"message {message.kind} describes no socket")
    _family, state, *_, user, inode = _ANSWER.unpack_from(message.payload)
    cgroup = netlink.attributes(message.payload, _ANSWER.size).get(_CGROUP_ID)
    return TcpSocket(state, inode, _U64.unpack(cgroup)[0] if cgroup else 0, user)


def addresses_question(sequence: int) -> bytes:
    """Return the question for all IPv4 addresses of a namespace."""
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
    return netlink.encode(_RTM_GETADDR, flags, sequence, _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0))


def address_answer(message: netlink.Message) -> tuple[str, int] | None:
    """Return address and interface that an answer tells of; None for any other message."""
    if message.kind != _RTM_NEWADDR or len(message.payload) < _ADDRESS.size:
        return None
    *_, interface = _ADDRESS.unpack_from(message.payload)
    found = netlink.attributes(message.payload, _ADDRESS.size)
    local = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS)
    return (socket.inet_ntoa(local), interface) if local else None
