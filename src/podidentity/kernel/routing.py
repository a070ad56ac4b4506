"""The routing rules that close the real IMDS to pods, and the address for redirected connections.

`nft flush ruleset` deletes all tables of nf_tables, and nobody can restore one until that process
has ended (5 to 60 ms, measured). Routing rules are no part of nf_tables. They drop each packet of a
pod to IMDS that was not redirected, whatever its protocol and port: a fragment has no port, and the
kernel need not dissect every packet. As `ip -d rule` prints them:

    1:  from all to 169.254.169.254 iif lo oif eth0 lookup 2579 proto kernel
    2:  from all iif lo goto 6 proto kernel                 the node's own traffic passes
    3:  from all to 169.254.169.254 blackhole proto kernel
    4:  from all to 169.254.25.79 lookup local proto kernel
    5:  from all to 169.254.25.79 blackhole proto kernel    while it is not on lo
    6:  from all nop proto kernel

While table `ip podid` exists, connections to IMDS are redirected before these rules apply. Else the
packet is dropped and not refused, so that the client sends it again within a second, when the table
is back.

Rule 1 is for programs at pods' links that send packets out of the uplink past all of netfilter, as
Cilium's do with eBPF host routing (`redirect_neigh` in its bpf/lib/fib.h). For these the kernel
looks a route up as for the node's own packets, but names the uplink beforehand. Where there is no
route it would take IMDS for a neighbour. So table 2579 has one, of type broadcast, and the helper
drops what is no unicast (__bpf_redirect_neigh_v4 in net/core/filter.c). The node's own connections
name no interface, unless by SO_BINDTODEVICE. A program that looks the route up itself
(bpf_fib_lookup) meets rule 3. Against one that names the next hop itself no rule helps.

`proto kernel`: systemd-networkd removes the routing rules of others when it starts, except those
that the kernel is said to have made (networkd.conf(5), ManageForeignRoutingPolicyRules=).

169.254.25.79 is an address of `lo` with scope host, so that the kernel delivers redirected packets
without `route_localnet`. Rule 5 is for the case that somebody deletes the address: else redirected
packets would leave by the default route, and another machine could answer the pod. Rule 4 is for
nodes where table local is looked up later (Cilium moves it to priority 100).

Layouts: linux/fib_rules.h, linux/if_addr.h, ip-rule(8). Needs Linux 4.17 (FRA_PROTOCOL).
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass

from podidentity.kernel import netlink
from podidentity.kernel.rules import Redirect

_NEWADDR, _GETADDR = 20, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26
_NEWRULE, _DELRULE, _GETRULE = 32, 33, 34
_ACKNOWLEDGED = netlink.NLM_F_REQUEST | netlink.NLM_F_ACK
_CREATE = _ACKNOWLEDGED | netlink.NLM_F_CREATE | netlink.NLM_F_EXCL
_REPLACE = _ACKNOWLEDGED | netlink.NLM_F_CREATE | netlink.NLM_F_REPLACE
_DUMP = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP

# fib_rule_hdr: family, lengths of destination and source, tos, table, two reserved, action, flags
_RULE = struct.Struct("=BBBBBBBBI")
_DESTINATION, _INTERFACE, _GOTO, _PRIORITY, _TABLE, _PROTOCOL = 1, 3, 4, 6, 15, 21
_IP_PROTOCOL, _DESTINATION_PORTS = 22, 24
_OUTGOING = 17
_CONDITIONS = frozenset(
    {_DESTINATION, 2, _INTERFACE, 10, 12, 16, _OUTGOING, 19, 20, _IP_PROTOCOL, 23, 24}
)
"""Attributes that narrow a rule: those above, and source, marks, tunnel, outgoing interface, VRF,
users and source ports."""
_TO_TABLE, _ACTION_GOTO, _NOP, _BLACKHOLE = 1, 2, 3, 6
_INVERT = 0x2  # FIB_RULE_INVERT
_TABLE_LOCAL, _TABLE_OURS = 255, 2579
_RTPROT_KERNEL = b"\2"

# rtmsg: family, lengths of destination and source, tos, table, protocol, scope, type, flags
_ROUTE = struct.Struct("=BBBBBBBBI")
_ROUTE_DESTINATION, _ROUTE_OUTGOING, _ROUTE_TABLE = 1, 4, 15
_SCOPE_LINK, _BROADCAST = 253, 3

# ifaddrmsg: family, prefix length, flags, scope, interface
_ADDRESS = struct.Struct("=BBBBI")
_ADDRESS_LOCAL = 2
_SCOPE_HOST = 254
_LO = 1  # the kernel's LOOPBACK_IFINDEX

_U32, _PORT_RANGE = struct.Struct("=I"), struct.Struct("=HH")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutingRule:
    """One routing rule, with the attributes that ours have."""

    priority: int
    action: int
    to: str = ""
    """One IPv4 address; "": any."""
    table: int = 0
    """For _TO_TABLE."""
    more: tuple[tuple[int, bytes], ...] = ()
    """Further attributes, by type."""

    def encode(self) -> bytes:
        head = _RULE.pack(
            socket.AF_INET, 32 if self.to else 0, 0, 0, self.table & 0xFF, 0, 0, self.action, 0
        )
        return head + b"".join(netlink.attribute(*each) for each in self._attributes.items())

    def is_listed(self, body: bytes) -> bool:
        """Whether `body`, of a listing, is this rule, and matches no fewer packets."""
        _, to, origin, tos, _, _, _, action, flags = _RULE.unpack_from(body)
        listed = netlink.attributes(body, _RULE.size)
        mine = self._attributes
        return (
            (to, origin, tos, action, flags & _INVERT) == (32 * bool(self.to), 0, 0, self.action, 0)
            and all(listed.get(kind) == value for kind, value in mine.items())
            and not (listed.keys() & _CONDITIONS) - mine.keys()
        )

    @property
    def _attributes(self) -> dict[int, bytes]:
        found = {_PRIORITY: _U32.pack(self.priority), **dict(self.more)}
        if self.to:
            found[_DESTINATION] = socket.inet_aton(self.to)
        if self.action == _TO_TABLE:
            found[_TABLE] = _U32.pack(self.table)
        return found


def wanted(redirect: Redirect) -> tuple[RoutingRule, ...]:
    """Return the rules in the order of adding, which never cuts off the node's own traffic."""
    kernel = (_PROTOCOL, _RTPROT_KERNEL)
    own = ((_INTERFACE, b"lo\0"), (_GOTO, _U32.pack(6)), kernel)
    rules = (
        RoutingRule(priority=6, action=_NOP, more=(kernel,)),
        RoutingRule(priority=2, action=_ACTION_GOTO, more=own),
        RoutingRule(priority=3, action=_BLACKHOLE, to=redirect.metadata_ip, more=(kernel,)),
    )
    if not redirect.owns_target:
        return rules
    return (
        *rules,
        RoutingRule(
            priority=4, action=_TO_TABLE, to=redirect.target, table=_TABLE_LOCAL, more=(kernel,)
        ),
        RoutingRule(priority=5, action=_BLACKHOLE, to=redirect.target, more=(kernel,)),
    )


def past_netfilter(redirect: Redirect, uplink: str) -> RoutingRule:
    more = (
        (_PROTOCOL, _RTPROT_KERNEL),
        (_INTERFACE, b"lo\0"),
        (_OUTGOING, uplink.encode() + b"\0"),
    )
    return RoutingRule(
        priority=1, action=_TO_TABLE, to=redirect.metadata_ip, table=_TABLE_OURS, more=more
    )


def of_release_0_1(redirect: Redirect) -> tuple[RoutingRule, ...]:
    port = _PORT_RANGE.pack(redirect.metadata_port, redirect.metadata_port)
    closed = ((_IP_PROTOCOL, bytes([socket.IPPROTO_TCP])), (_DESTINATION_PORTS, port))
    own = ((_INTERFACE, b"lo\0"), (_GOTO, _U32.pack(5)))
    return (
        RoutingRule(priority=4, action=_BLACKHOLE, to=redirect.metadata_ip, more=closed),
        RoutingRule(priority=3, action=_ACTION_GOTO, more=own),
        RoutingRule(priority=5, action=_NOP),
    )


class Routing:
    """Adds, checks and deletes rules and address, in the network namespace where it is created.

    Every method raises OSError. Changes need CAP_NET_ADMIN.
    """

    def __init__(self, redirect: Redirect) -> None:
        self._redirect = redirect
        self._wanted = wanted(redirect)
        self._former = of_release_0_1(redirect)
        self._target = redirect.target if redirect.owns_target else ""
        self._requests = netlink.Requests(lambda: netlink.connect(socket.NETLINK_ROUTE))

    def differences(self) -> list[str]:
        found = []
        if missing := _not_in(self._listed(), self._wanted):
            priorities = ", ".join(str(each.priority) for each in missing)
            found.append(f"routing rules missing: {priorities}")
        if self._target and self._interface_of_target() != _LO:
            found.append(f"address {self._target} is not on lo")
        uplink = self._uplink()
        if uplink and self._route(uplink)[0] != _BROADCAST:
            found.append(f"packets may leave by {socket.if_indextoname(uplink)} past the rules")
        return found

    def uplink(self) -> str:
        found = self._uplink()
        return socket.if_indextoname(found) if found else ""

    def repair(self) -> None:
        listed = self._listed()
        for rule in _not_in(listed, self._wanted):
            self._change(_NEWRULE, _CREATE, rule.encode(), harmless=errno.EEXIST)
        for rule in self._former:
            if any(rule.is_listed(each) for each in listed):
                self._change(_DELRULE, _ACKNOWLEDGED, rule.encode(), harmless=errno.ENOENT)
        if self._target:
            self._add_target()
        if uplink := self._uplink():
            rule = past_netfilter(self._redirect, socket.if_indextoname(uplink))
            self._take_away(but=rule)
            self._change(_NEWRULE, _CREATE, rule.encode(), harmless=errno.EEXIST)
            self._change(_NEWROUTE, _REPLACE, self._closed(uplink))

    def remove(self) -> None:
        """Delete the rules; the one that closes IMDS goes first.

        The address stays, so that packets of redirected connections do not leave the node.
        """
        self._take_away()
        if uplink := self._uplink():
            self._change(_DELROUTE, _ACKNOWLEDGED, self._closed(uplink), harmless=errno.ESRCH)
        for rule in reversed(self._wanted):
            self._change(_DELRULE, _ACKNOWLEDGED, rule.encode(), harmless=errno.ENOENT)

    def close(self) -> None:
        self._requests.close()

    def _uplink(self) -> int:
        """Return the index of the interface by which the node reaches IMDS; 0: none."""
        _, interface = self._route(0)
        return 0 if interface == _LO else interface

    def _route(self, outgoing: int) -> tuple[int, int]:
        """Return type and interface of the route to IMDS, by an interface if one is named.

        (0, 0): there is none.
        """
        body = _ROUTE.pack(socket.AF_INET, 32, *([0] * 7))
        body += netlink.attribute(_ROUTE_DESTINATION, socket.inet_aton(self._redirect.metadata_ip))
        if outgoing:
            body += netlink.attribute(_ROUTE_OUTGOING, _U32.pack(outgoing))
        for each in self._requests.ask(_GETROUTE, _ACKNOWLEDGED, body):
            if each.kind == _NEWROUTE:
                kind = _ROUTE.unpack_from(each.payload)[7]
                found = netlink.attributes(each.payload, _ROUTE.size)
                return kind, _U32.unpack(found.get(_ROUTE_OUTGOING, bytes(4)))[0]
        return 0, 0

    def _closed(self, uplink: int) -> bytes:
        """Return the body of the message that adds or deletes the route of table 2579."""
        head = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 2, _SCOPE_LINK, _BROADCAST, 0)
        attributes = {
            _ROUTE_DESTINATION: socket.inet_aton(self._redirect.metadata_ip),
            _ROUTE_OUTGOING: _U32.pack(uplink),
            _ROUTE_TABLE: _U32.pack(_TABLE_OURS),
        }
        return head + b"".join(netlink.attribute(*each) for each in attributes.items())

    def _take_away(self, but: RoutingRule | None = None) -> None:
        for body in self._listed():
            found = netlink.attributes(body, _RULE.size)
            if found.get(_TABLE) == _U32.pack(_TABLE_OURS) and not (but and but.is_listed(body)):
                self._change(_DELRULE, _ACKNOWLEDGED, body, harmless=errno.ENOENT)

    def _listed(self) -> list[bytes]:
        body = _RULE.pack(socket.AF_INET, *([0] * 8))
        return [
            each.payload
            for each in self._requests.ask(_GETRULE, _DUMP, body)
            if each.kind == _NEWRULE
        ]

    def _interface_of_target(self) -> int:
        """Return the index of the interface with the address; 0: none."""
        target = socket.inet_aton(self._target)
        body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, 0)
        for each in self._requests.ask(_GETADDR, _DUMP, body):
            found = netlink.attributes(each.payload, _ADDRESS.size)
            if each.kind == _NEWADDR and found.get(_ADDRESS_LOCAL) == target:
                *_, interface = _ADDRESS.unpack_from(each.payload)
                return int(interface)
        return 0

    def _add_target(self) -> None:
        interface = self._interface_of_target()
        if interface == _LO:
            return
        if interface:
            name = socket.if_indextoname(interface)
            raise OSError(
                errno.EADDRINUSE,
                f"{self._target} is an address of {name}: give NMI another link-local one by "
                "--nmi-listen-address",
            )
        body = _ADDRESS.pack(socket.AF_INET, 32, 0, _SCOPE_HOST, _LO)
        body += netlink.attribute(_ADDRESS_LOCAL, socket.inet_aton(self._target))
        self._change(_NEWADDR, _CREATE, body, harmless=errno.EEXIST)

    def _change(self, kind: int, flags: int, body: bytes, *, harmless: int = 0) -> None:
        for answer in self._requests.ask(kind, flags, body):
            if answer.errno not in {0, harmless}:
                why = os.strerror(answer.errno)
                if answer.errno == errno.EPERM:
                    why += "; give the process CAP_NET_ADMIN in the node's network namespace"
                raise OSError(answer.errno, f"cannot change the routing rules: {why}")


def _not_in(listed: Sequence[bytes], rules: Sequence[RoutingRule]) -> list[RoutingRule]:
    return [rule for rule in rules if not any(rule.is_listed(each) for each in listed)]
