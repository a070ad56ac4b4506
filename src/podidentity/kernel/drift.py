"""Whether our table is there, and the kernel's notices of changed rules, the moment they happen.

Each committed transaction sends what it changed to the multicast group of nf_tables, and last a
notice of the new generation with the process that did it (linux/netfilter/nf_tables.h).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import NamedTuple

from podidentity.kernel import netlink

_GROUP_NFTABLES = 7  # NFNLGRP_NFTABLES
_SUBSYSTEM_NFTABLES = 10
_MSG_GETTABLE, _MSG_NEWGEN = (_SUBSYSTEM_NFTABLES << 8) | 1, (_SUBSYSTEM_NFTABLES << 8) | 15
_NFGENMSG = struct.Struct("=BBH")  # family, version, resource
_ATTRIBUTE_TABLE = 1  # NFTA_TABLE_NAME
_ATTRIBUTE_PID, _ATTRIBUTE_PROCESS = 2, 3  # NFTA_GEN_PROC_PID, NFTA_GEN_PROC_NAME
_DATAGRAM = 1 << 17
_MOST_AT_ONCE = 256


class Notice(NamedTuple):
    """What the pending notices say of one table."""

    touched: bool
    """Whether a notice names the table, or some were lost and it may have been named."""
    cause: str
    """Who did it, such as `'nft' (pid 4711)`, counted outside containers; "" if not known yet."""


class TableInquiry:
    """Asks whether there is a table of IPv4 with this name: 10 µs, where a listing takes 140."""

    def __init__(self, table: str) -> None:
        self._socket = netlink.connect(netlink.NETFILTER)
        body = _NFGENMSG.pack(socket.AF_INET, 0, 0)
        body += netlink.attribute(_ATTRIBUTE_TABLE, table.encode() + b"\0")
        self._question = netlink.encode(_MSG_GETTABLE, netlink.NLM_F_REQUEST, 1, body)

    def exists(self) -> bool:
        """Whether there is one; raise OSError where the kernel does not say."""
        self._socket.send(self._question)
        answer = next(netlink.decode(self._socket.recv(_DATAGRAM)))
        if answer.errno not in {0, errno.ENOENT}:
            raise OSError(answer.errno, os.strerror(answer.errno))
        return answer.errno == 0

    def close(self) -> None:
        """Close the conversation."""
        self._socket.close()


def subscribe() -> socket.socket:
    """Return a non-blocking socket that receives the notices; needs CAP_NET_ADMIN."""
    return netlink.connect(netlink.NETFILTER, groups=1 << (_GROUP_NFTABLES - 1))


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


def committer(datagram: bytes) -> str:
    """Return who committed, if `datagram` is the notice of a new generation, else ""."""
    try:
        message = next(netlink.decode(datagram))
        if message.kind != _MSG_NEWGEN:
            return ""
        found = netlink.attributes(message.payload, _NFGENMSG.size)
        pid = struct.unpack(">I", found[_ATTRIBUTE_PID])[0]
        name = found[_ATTRIBUTE_PROCESS].rstrip(b"\0").decode(errors="replace")
    except (netlink.Malformed, StopIteration, KeyError, struct.error):
        return ""
    return f"{name!r} (pid {pid})"
