"""Notifications of the kernel about changed rules, routes and addresses.

Each transaction of nf_tables sends its changes to a multicast group. The last message names the new
generation and the process that committed it (linux/netfilter/nf_tables.h). Routing rules, routes
and addresses have their own groups (linux/rtnetlink.h).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from typing import NamedTuple

from podidentity.kernel import netlink

_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_GROUPS_ROUTING = 0x10 | 0x40 | 0x80  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV4_RULE
_ROUTES = frozenset({24, 25})  # RTM_NEWROUTE, RTM_DELROUTE
_SUBSYSTEM_NFTABLES = 10
_MSG_NEWGEN = (_SUBSYSTEM_NFTABLES << 8) | 15
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE_PID, _ATTRIBUTE_PROCESS = 2, 3  # NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
_DATAGRAM = 1 << 17
_MOST_AT_ONCE = 256


class Notice(NamedTuple):
    """Summary of the pending notifications for one table."""

    touched: bool
    """Whether a notification names the table, or notifications were lost."""
    cause: str
    """The process, such as `'nft' (pid 4711)`, with its pid on the node; "" if not known yet."""


def subscribe() -> socket.socket:
    """Return a non-blocking socket for notifications of nf_tables; needs CAP_NET_ADMIN."""
    return netlink.connect(netlink.NETFILTER, groups=1 << (_GROUP_NFTABLES - 1))


def subscribe_routing() -> socket.socket:
    return netlink.connect(socket.NETLINK_ROUTE, groups=_GROUPS_ROUTING)


def pending(notices: socket.socket, table: str) -> Notice:
    """Read the pending notifications, at most 256 datagrams, and summarize them for `table`."""
    named = table.encode() + b"\0"
    touched, cause = False, ""
    for datagram in _read(notices):
        if datagram is None:
            touched = True
            continue
        # kube-proxy changes thousands of rules at once, so this searches bytes and decodes nothing.
        # A false match costs one comparison of the table.
        touched = touched or named in datagram
        if touched and not cause:
            cause = committer(datagram)
    return Notice(touched, cause)


def routing_touched(notices: socket.socket, imds: str) -> bool:
    """Read the pending notifications, at most 256; say whether one may concern our rules.

    Each pod has a route of its own: of routes only those to IMDS count, and default routes.
    """
    address, touched = socket.inet_aton(imds), False
    for datagram in _read(notices):
        if datagram is None:
            touched = True
            continue
        for each in netlink.decode(datagram):
            of_pods = each.kind in _ROUTES and each.payload[1] != 0 and address not in each.payload
            touched = touched or not of_pods
    return touched


def _read(notices: socket.socket) -> Iterator[bytes | None]:
    for _ in range(_MOST_AT_ONCE):
        try:
            yield notices.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield None


def committer(datagram: bytes) -> str:
    """Return the process that committed a new generation; "" for other notifications."""
    try:
        message = next(netlink.decode(datagram))
        if message.kind != _MSG_NEWGEN:
            return ""
        found = netlink.attributes(message.payload, _NFGENMSG.size)
        pid = struct.unpack(">I", found[_ATTRIBUTE_PID])[0]
        name = found[_ATTRIBUTE_PROCESS].rstrip(b"\0").decode(errors="replace")
    except (netlink.MalformedMessage, StopIteration, KeyError, struct.error):
        return ""
    return f"{name!r} (pid {pid})"
