"""The kernel's notices of changed rules and addresses, the moment they happen.

Each committed transaction of nf_tables sends what it changed to a multicast group, and last a
notice of the new generation with the process that did it (linux/netfilter/nf_tables.h). Routing
rules and addresses have groups of their own (linux/rtnetlink.h).
"""

from __future__ import annotations

import errno
import socket
import struct
from typing import NamedTuple

from podidentity.kernel import netlink

_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_GROUPS_ROUTING = 0x10 | 0x80  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_RULE
_SUBSYSTEM_NFTABLES = 10
_MSG_NEWGEN = (_SUBSYSTEM_NFTABLES << 8) | 15
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE_PID, _ATTRIBUTE_PROCESS = 2, 3  # NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
_DATAGRAM = 1 << 17
_MOST_AT_ONCE = 256


class Notice(NamedTuple):
    """What the pending notices say of one table."""

    touched: bool
    """Whether a notice names the table, or some were lost and it may have been named."""
    cause: str
    """Who did it, such as `'nft' (pid 4711)`, counted outside containers; "" if not known yet."""


def subscribe() -> socket.socket:
    """Return a non-blocking socket with the notices of nf_tables; needs CAP_NET_ADMIN."""
    return netlink.connect(netlink.NETFILTER, groups=1 << (_GROUP_NFTABLES - 1))


def subscribe_routing() -> socket.socket:
    """Return a non-blocking socket with the notices of routing rules and of addresses."""
    return netlink.connect(socket.NETLINK_ROUTE, groups=_GROUPS_ROUTING)


def pending(notices: socket.socket, table: str) -> Notice:
    """Read what waits, at most 256 datagrams, and return what it says of `table`."""
    named = table.encode() + b"\0"
    touched, cause = False, ""
    for _ in range(_MOST_AT_ONCE):
        try:
            datagram = notices.recv(_DATAGRAM)
        except BlockingIOError:
            break
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            touched = True
            continue
        # Thousands of kube-proxy's rules may come at once: a search of bytes, no decoding. Bytes
        # that only look like the name cost one comparison.
        touched = touched or named in datagram
        if touched and not cause:
            cause = committer(datagram)
    return Notice(touched, cause)


def drop_pending(notices: socket.socket) -> None:
    """Drop what waits, at most 256 datagrams: that there was something is all that it tells."""
    for _ in range(_MOST_AT_ONCE):
        try:
            notices.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def committer(datagram: bytes) -> str:
    """Return who committed, if `datagram` is the notice of a new generation, else ""."""
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
