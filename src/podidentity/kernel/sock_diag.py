"""Looks TCP sockets up: one by both ends of its connection, or all with the same remote end.

Source: linux/inet_diag.h, linux/tcp.h, sock_diag(7).
"""

from __future__ import annotations

import errno
import fcntl
import os
import socket
import struct
from enum import IntEnum
from typing import NamedTuple

from podidentity.kernel import netlink

_DATAGRAM = 4096
"""An answer has some 400 bytes; a larger buffer costs microseconds."""
_STRAY_ANSWERS = 8

_SOCK_DIAG_BY_FAMILY = 20
# inet_diag_req_v2: family, protocol, extensions, pad, states, then inet_diag_sockid: ports in
# network order, two addresses of 16 bytes, interface, and a cookie that matches any socket.
_REQUEST = struct.Struct("=BBBxI2s2s16s16sI8s")
_ANY_COOKIE = b"\xff" * 8
_ANY_STATE = 0xFFFFFFFF
# A filter of a dump: if the remote end matches go on behind it, where it is accepted, else further.
# inet_diag_bc_op: code, yes, no; inet_diag_hostcond: family, prefix length, port, address.
_FILTER = struct.Struct("=BBHBBxxi4s")
_BYTECODE, _REMOTE_END = 1, 8  # INET_DIAG_REQ_BYTECODE, INET_DIAG_BC_D_COND
_WHOLE_ADDRESS = 32
_DUMPED = 32 * 1024
"""Size of the kernel's datagrams of a dump."""
# inet_diag_msg: family, state, timer, retransmits, the same sockid, expires, queues, user, inode;
# of these the state, the user and the inode.
_ANSWER = struct.Struct("=xB62xII")
_INFO, _CGROUP_ID = 2, 21  # INET_DIAG_INFO, INET_DIAG_CGROUP_ID (kernel 5.7)
_WITH_INFO = 1 << (_INFO - 1)
_U64 = struct.Struct("=Q")
_SIOCGSKNS = 0x894C
# struct tcp_info, by offset: 44 last_data_sent, 52 last_data_recv, 56 last_ack_recv (milliseconds),
# 120 bytes_acked, 128 bytes_received (kernel 4.1), 200 bytes_sent, 208 bytes_retrans (kernel 4.19).
_TCP_INFO = struct.Struct("=44xI4xII60xQQ64xQQ")


class TcpState(IntEnum):
    """States of a TCP socket (net/tcp_states.h)."""

    ESTABLISHED = 1
    SYN_SENT = 2
    SYN_RECV = 3
    FIN_WAIT1 = 4
    FIN_WAIT2 = 5
    TIME_WAIT = 6
    CLOSE = 7
    CLOSE_WAIT = 8
    LAST_ACK = 9
    LISTEN = 10
    CLOSING = 11


_CAN_RECEIVE = frozenset(
    {TcpState.ESTABLISHED, TcpState.FIN_WAIT1, TcpState.FIN_WAIT2, TcpState.CLOSE_WAIT}
)
_NOT_THIS_CONNECTION = frozenset({TcpState.LISTEN, TcpState.SYN_SENT})
_OPEN_STATES = sum(1 << state for state in _CAN_RECEIVE)


class Endpoint(NamedTuple):
    """An IPv4 address as text, and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"{self.address}:{self.port}"


_NOBODY = Endpoint("0.0.0.0", 0)  # noqa: S104 - the remote end of no connection


class TcpInfo(NamedTuple):
    """Part of the counters in `struct tcp_info`; times are milliseconds before the question."""

    last_data_sent: int
    """The age of the socket if it has sent no data."""
    last_data_recv: int
    last_ack_recv: int
    bytes_acked: int
    """Includes a client's SYN, and the FIN of either end."""
    bytes_received: int
    """Includes the other end's FIN."""
    bytes_sent: int
    """Includes retransmissions."""
    bytes_retrans: int


class TcpSocket(NamedTuple):
    """One TCP socket as the kernel describes it."""

    state: int
    inode: int
    """0 if no process has the socket open any more."""
    cgroup: int
    """Id of the cgroup of the process that created the socket; 0 before kernel 5.7."""
    user: int = -1
    """Uid of the process that created the socket, in this user namespace."""
    info: TcpInfo | None = None
    """None before kernel 4.19, and for a socket in TIME_WAIT."""

    @property
    def is_of_connection(self) -> bool:
        """Whether this is, or was, a socket of the connection that was asked for.

        If there is none, the kernel returns a socket that listens on the port. And a socket that
        still sends its SYN is no client of an accepted connection: a client is ESTABLISHED before
        it sends the acknowledgement that lets the server accept.
        """
        return self.state not in _NOT_THIS_CONNECTION

    @property
    def is_open(self) -> bool:
        """Whether a process has it open and can still read an answer, also after a half-close."""
        return self.state in _CAN_RECEIVE and self.inode != 0


class TooManySockets(OSError):
    """There are more sockets than anybody needs."""

    def __init__(self, most: int) -> None:
        super().__init__(errno.E2BIG, f"there are more than {most} clients of IMDS")


class SockDiag:
    """Finds sockets of the network namespace in which it is created."""

    def __init__(self) -> None:
        self._socket = netlink.connect(netlink.SOCK_DIAG)
        self._sequence = 0

    def find(self, local: Endpoint, remote: Endpoint, *, interface: int = 0) -> TcpSocket | None:
        """Return the socket at the `local` end of a connection, or None; raise OSError."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._socket.send(encode_request(self._sequence, local, remote, interface=interface))
        # Skip answers to earlier requests that were abandoned.
        for _ in range(_STRAY_ANSWERS):
            for message in netlink.decode(self._socket.recv(_DATAGRAM)):
                if message.sequence != self._sequence:
                    continue
                if message.kind != netlink.NLMSG_ERROR:
                    return decode_answer(message)
                if message.errno == errno.ENOENT:
                    return None
                raise OSError(message.errno, os.strerror(message.errno))
        raise OSError(errno.EPROTO, "the kernel does not answer the request for a socket")

    def clients_of(self, remote: Endpoint, *, most: int) -> list[TcpSocket]:
        """Return the open sockets that are connected to `remote`; raise OSError.

        The kernel walks all connections of the machine for it, a millisecond for half a million
        places in its table. After TooManySockets this object must be closed: answers are left.
        """
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._socket.send(encode_dump(self._sequence, remote))
        found: list[TcpSocket] = []
        while True:
            for message in netlink.decode(self._socket.recv(_DUMPED)):
                if message.sequence != self._sequence:
                    continue
                if message.kind == netlink.NLMSG_DONE:
                    return [each for each in found if each.is_open]
                if message.errno:
                    raise OSError(message.errno, os.strerror(message.errno))
                found.append(decode_answer(message))
            if len(found) > most:
                raise TooManySockets(most)

    def namespace(self) -> int:
        """Return a new descriptor of this object's network namespace; raise OSError.

        https://man7.org/linux/man-pages/man7/socket.7.html has no word about it: SIOCGSKNS is in
        include/uapi/linux/sockios.h since Linux 4.9, and needs CAP_NET_ADMIN in the namespace.
        """
        return fcntl.ioctl(self._socket, _SIOCGSKNS)

    def close(self) -> None:
        self._socket.close()


def listener_user(local: Endpoint) -> int | None:
    """Return the user of the socket of this network namespace that accepts connections to `local`.

    Returns None if there is no such socket. Raises OSError.
    """
    diag = SockDiag()
    try:
        found = diag.find(local, _NOBODY)
    finally:
        diag.close()
    return found.user if found is not None and found.state == TcpState.LISTEN else None


def encode_request(
    sequence: int, local: Endpoint, remote: Endpoint, *, interface: int = 0
) -> bytes:
    """Return the request for the socket at the `local` end of a connection.

    It finds unbound sockets, and with `interface` also those that are bound to that interface.
    """
    request = _REQUEST.pack(
        socket.AF_INET,
        socket.IPPROTO_TCP,
        _WITH_INFO,
        _ANY_STATE,
        local.port.to_bytes(2, "big"),
        remote.port.to_bytes(2, "big"),
        socket.inet_aton(local.address),
        socket.inet_aton(remote.address),
        interface,
        _ANY_COOKIE,
    )
    return netlink.encode(_SOCK_DIAG_BY_FAMILY, netlink.NLM_F_REQUEST, sequence, request)


def encode_dump(sequence: int, remote: Endpoint) -> bytes:
    nothing = bytes(16)
    request = _REQUEST.pack(
        *(socket.AF_INET, socket.IPPROTO_TCP, 0, _OPEN_STATES),
        *(bytes(2), bytes(2), nothing, nothing, 0, _ANY_COOKIE),
    )
    match = _FILTER.pack(
        *(_REMOTE_END, _FILTER.size, _FILTER.size + 4),
        *(socket.AF_INET, _WHOLE_ADDRESS, remote.port, socket.inet_aton(remote.address)),
    )
    flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
    request += netlink.attribute(_BYTECODE, match)
    return netlink.encode(_SOCK_DIAG_BY_FAMILY, flags, sequence, request)


def decode_answer(message: netlink.Message) -> TcpSocket:
    """Return the socket in an answer; raise netlink.MalformedMessage for anything else."""
    if message.kind != _SOCK_DIAG_BY_FAMILY or len(message.payload) < _ANSWER.size:
        raise netlink.MalformedMessage(f"message {message.kind} describes no socket")
    state, user, inode = _ANSWER.unpack_from(message.payload)
    found = netlink.attributes(message.payload, _ANSWER.size)
    cgroup, info = found.get(_CGROUP_ID), found.get(_INFO, b"")
    return TcpSocket(
        state,
        inode,
        _U64.unpack(cgroup)[0] if cgroup else 0,
        user,
        TcpInfo._make(_TCP_INFO.unpack_from(info)) if len(info) >= _TCP_INFO.size else None,
    )
