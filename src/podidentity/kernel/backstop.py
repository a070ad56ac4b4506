"""What keeps pods from the real IMDS while our nftables rules are gone: a rule of routing.

Whoever runs `nft flush ruleset` holds the lock of nf_tables until his process has ended: measured
5 to 60 ms in which nobody can put our table back, and each new connection of a pod would reach the
real IMDS. So packets that pods send there, and that were not redirected, have no route:

    3:  from all iif lo goto 5                                             the node's own: pass
    4:  from all to 169.254.169.254 ipproto tcp dport 80 blackhole
    5:  from all nop

Where our table stands, no packet comes as far as that. Where it does not, the packet is dropped
rather than refused: the client sends it again within a second, and by then the table is back.

Layouts: linux/fib_rules.h, ip-rule(8); matching ports needs kernel 4.17.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass

from podidentity.kernel import netlink

_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_FLAGS = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
_CREATE = _FLAGS | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
_GROUP_IPV4_RULES = 0x80  # RTMGRP_IPV4_RULE
_DATAGRAM = 1 << 16
_MOST_AT_ONCE = 64

# fib_rule_hdr: family, lengths of destination and source, tos, table, two reserved, action, flags
_HEADER = struct.Struct("=BBBBBBBBI")
_DESTINATION, _INTERFACE, _GOTO, _PRIORITY, _IP_PROTOCOL, _PORTS = 1, 3, 4, 6, 22, 24
_ACTION_GOTO, _ACTION_NOP, _ACTION_BLACKHOLE = 2, 3, 6
_U32, _RANGE = struct.Struct("=I"), struct.Struct("=HH")

_OWN, _CLOSED, _END = 3, 4, 5
"""Priorities: after the local table (0) and before any rule that a network plugin makes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """One rule of routing, as far as we make any."""

    action: int
    prefix: int = 0
    attributes: tuple[tuple[int, bytes], ...]

    def encode(self) -> bytes:
        """Return the body of the message that makes or removes it."""
        head = _HEADER.pack(socket.AF_INET, self.prefix, 0, 0, 0, 0, 0, self.action, 0)
        return head + b"".join(netlink.attribute(*each) for each in self.attributes)

    def is_listed(self, body: bytes) -> bool:
        """Whether `body`, of a listing, is this rule; the kernel adds attributes of its own."""
        _, prefix, *_, action, _ = _HEADER.unpack_from(body)
        listed = netlink.attributes(body, _HEADER.size)
        same = all(listed.get(kind) == value for kind, value in self.attributes)
        return same and (prefix, action) == (self.prefix, self.action)


def wanted(address: str, port: int) -> tuple[RoutingRule, ...]:
    """Return the rules in the order of making: the node's own traffic is never cut off."""
    destination = (
        (_DESTINATION, socket.inet_aton(address)),
        (_IP_PROTOCOL, bytes([socket.IPPROTO_TCP])),
        (_PORTS, _RANGE.pack(port, port)),
    )
    return (
        RoutingRule(action=_ACTION_NOP, attributes=(_priority(_END),)),
        RoutingRule(
            action=_ACTION_GOTO,
            attributes=(_priority(_OWN), (_INTERFACE, b"lo\0"), (_GOTO, _U32.pack(_END))),
        ),
        RoutingRule(
            action=_ACTION_BLACKHOLE, prefix=32, attributes=(_priority(_CLOSED), *destination)
        ),
    )


class Backstop:
    """Makes, checks and removes these rules, in the network namespace where it is made."""

    def __init__(self, address: str, port: int) -> None:
        self._wanted = wanted(address, port)
        self._socket = netlink.connect(socket.NETLINK_ROUTE)
        self._sequence = 0

    def missing(self) -> tuple[RoutingRule, ...]:
        """Return those that are not there; raise OSError."""
        body = _HEADER.pack(socket.AF_INET, *([0] * 8))
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
        listed = [
            each.payload for each in self._ask(_GETRULE, flags, body) if each.kind == _NEWRULE
        ]
        return tuple(
            rule for rule in self._wanted if not any(rule.is_listed(each) for each in listed)
        )

    def repair(self) -> bool:
        """Make those that are not there; return whether any was not. Needs CAP_NET_ADMIN."""
        missing = self.missing()
        for rule in missing:
            self._change(_NEWRULE, _CREATE, rule, harmless=errno.EEXIST)
        return bool(missing)

    def remove(self) -> None:
        """Remove those that are there, the closed door first; raise OSError."""
        for rule in reversed(self._wanted):
            self._change(_DELRULE, _FLAGS, rule, harmless=errno.ENOENT)

    def close(self) -> None:
        """Close the conversation; the rules stay."""
        self._socket.close()

    def _change(self, kind: int, flags: int, rule: RoutingRule, *, harmless: int) -> None:
        for answer in self._ask(kind, flags, rule.encode()):
            if answer.errno not in {0, harmless}:
                why = os.strerror(answer.errno)
                if answer.errno == errno.EPERM:
                    why += "; give the process CAP_NET_ADMIN in the node's network namespace"
                raise OSError(answer.errno, f"cannot change the rules of routing: {why}")

    def _ask(self, kind: int, flags: int, body: bytes) -> Iterator[netlink.Message]:
        """Yield what the kernel answers, to its end."""
        self._sequence = self._sequence % 0xFFFFFFFF + 1
        self._socket.send(netlink.encode(kind, flags, self._sequence, body))
        while True:
            for message in netlink.decode(self._socket.recv(_DATAGRAM)):
                if message.sequence != self._sequence:
                    continue
                yield message
                if message.kind in {netlink.NLMSG_DONE, netlink.NLMSG_ERROR}:
                    return


def subscribe() -> socket.socket:
    """Return a non-blocking socket that is readable when rules of routing have changed."""
    return netlink.connect(socket.NETLINK_ROUTE, groups=_GROUP_IPV4_RULES)


def forget(notices: socket.socket) -> None:
    """Drop what waits, at most 64 datagrams: that there was something is all that it tells."""
    for _ in range(_MOST_AT_ONCE):
        try:
            notices.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise


def _priority(number: int) -> tuple[int, bytes]:
    return _PRIORITY, _U32.pack(number)
