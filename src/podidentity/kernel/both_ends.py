"""Whether a client's socket is the other end of the connection that we have just accepted.

Two sockets with the same addresses and ports may belong to different connections. A client can keep
its socket of an old connection for as long as it likes (CLOSE_WAIT, or ESTABLISHED if our FIN or
RST never arrived), while the node forgets its own end within a minute. An attacker who can send
packets from that address and port then opens a new connection, and the old socket would prove it.

This check is a second barrier: it compares states, byte counts and times of both ends (`struct
tcp_info`). The first barrier is the source guard, because of which nobody else has the address.

An honest client passes: with retransmissions (the kernel counts them as sent), with pipelined
requests (the client may have sent more than we have received), after any time in our backlog (both
ends have the same age), with a zero window, and after it has shut down its own side.
"""

from __future__ import annotations

import errno

from podidentity.kernel.sock_diag import TcpInfo, TcpSocket, TcpState

SLACK_MS = 2000
"""Allowed difference of times: packets can wait in a queue of the pod, and this process can be
descheduled between the two questions."""

_CLIENT_STATES = frozenset({TcpState.ESTABLISHED, TcpState.FIN_WAIT1, TcpState.FIN_WAIT2})
"""In the last two states the client has shut down its own side and still reads."""


class NoCounters(OSError):
    """The kernel does not report the number of bytes that a socket has sent."""

    def __init__(self) -> None:
        super().__init__(
            errno.EOPNOTSUPP,
            "the kernel does not count what a socket has sent (tcpi_bytes_sent): "
            "the proof needs Linux 4.19 or later",
        )


def difference(client: TcpSocket, ours: TcpSocket) -> str:
    """Return why `client` is not the other end of `ours`; "" if it may be.

    The kernel must have been asked for `ours` first.

    Raises NoCounters.
    """
    if client.state not in _CLIENT_STATES:
        return "it has received the end of a connection, and we have sent none"
    if client.info is None or ours.info is None:
        raise NoCounters
    # A FIN counts as a received byte (tcp_rcv_nxt_update), and not as a sent one.
    half_closed = ours.state == TcpState.CLOSE_WAIT
    arrived = ours.info.bytes_received - half_closed
    return _difference_of_bytes(client.info, ours.info, arrived) or _difference_of_times(
        client.info, ours.info, arrived
    )


def _difference_of_bytes(client: TcpInfo, ours: TcpInfo, arrived: int) -> str:
    if client.bytes_sent < arrived:
        return f"it has sent {client.bytes_sent} bytes, and {arrived} have arrived"
    sent = ours.bytes_sent - ours.bytes_retrans
    if not ours.bytes_acked <= client.bytes_received <= sent:
        return f"it has received {client.bytes_received} bytes, and we have sent {sent}"
    return ""


def _difference_of_times(client: TcpInfo, ours: TcpInfo, arrived: int) -> str:
    """Compare ages in milliseconds.

    A socket that has sent no data reports the age of its connection as the time since it last sent
    some (tcp_create_openreq_child).
    """
    if arrived and client.last_data_sent > ours.last_data_recv + SLACK_MS:
        return "it sent its last data before the last that has arrived"
    if not ours.bytes_sent and client.last_ack_recv > ours.last_data_sent + SLACK_MS:
        return "it received its last acknowledgement before the connection began"
    return ""
