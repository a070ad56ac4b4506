"""The node's network links, as seen from the node's own namespace (rtnetlink(7)).

Only this module finds out which port of a bridge leads to which pod. It reads the node's end of
each link: a pod can rename, move and add links at its own end, but cannot touch the node's.

Layouts: linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import sys
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from podidentity.kernel import netlink

_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _GETROUTE = 24, 26
_NEWNSID, _GETNSID = 88, 90
_GROUP_LINK, _GROUP_IPV4_ADDRESSES = 0x1, 0x10  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR
_DATAGRAM = 1 << 17
_MOST_AT_ONCE = 1024
_ATTEMPTS = 3
_MOST_ADDRESSES = 64
"""Addresses read of a pod's link; no pod needs as many."""

_LINK = struct.Struct("=BxHiII")  # ifinfomsg: family, type, index, flags, change mask
_ADDRESS = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_ROUTE = struct.Struct("=BBBBBBBBI")  # rtmsg, of which only family and prefix length are given
_GENERIC = struct.Struct("=B3x")  # rtgenmsg: family
_U32, _S32 = struct.Struct("=I"), struct.Struct("=i")

_IFLA_ADDRESS, _IFLA_LINK, _IFLA_MASTER, _IFLA_LINKINFO = 1, 5, 10, 18
_IFLA_EXT_MASK, _IFLA_LINK_NETNSID, _IFLA_TARGET_NETNSID = 29, 37, 46
_IFLA_IFNAME, _INFO_KIND, _INFO_DATA = 3, 1, 2
_BR_STP_STATE = 5
_BR_MULTI_BOOLOPT, _NO_LL_LEARN = 46, 1 << 0  # BR_BOOLOPT_NO_LL_LEARN
_BOOLOPT = struct.Struct("=II")  # br_boolopt_multi: values, mask
_SKIP_STATS = 1 << 3  # RTEXT_FILTER_SKIP_STATS
_NESTED = 0x8000  # NLA_F_NESTED
_IFA_LOCAL, _IFA_CACHEINFO, _IFA_TARGET_NETNSID = 2, 6, 10
_CACHEINFO = struct.Struct("=IIII")  # ifa_cacheinfo: preferred, valid, created, updated
_NETNSA_NSID, _NETNSA_FD = 1, 3
_RTA_DST, _RTA_OIF = 1, 4
_NETLINK, _GET_STRICT_CHK = 270, 12  # SOL_NETLINK, NETLINK_GET_STRICT_CHK


@dataclass(frozen=True, slots=True, kw_only=True)
class Link:
    """One link of the node."""

    index: int
    """Never given to another link while the node runs."""
    name: str
    kind: str = ""
    """Such as `veth` or `bridge`; "" for hardware."""
    master: int = 0
    """Index of the bridge (bond, VRF) whose port it is; 0: none."""
    peer: int = 0
    """Index of its other end, in the namespace `namespace`."""
    namespace: int | None = None
    """Number (nsid) of the other end's namespace within the node's; None if the other end is in the
    node's own namespace."""
    learns_link_local: bool = False
    """Whether a bridge learns MAC addresses from link-local frames (01:80:c2:00:00:0x), which no
    filter sees (`BR_BOOLOPT_NO_LL_LEARN`, kernel 5.0)."""
    spans: bool = False
    """Whether a bridge speaks the spanning tree protocol (IEEE 802.1D) with who is at its ports."""

    @property
    def is_uplink(self) -> bool:
        """Whether it leads to no pod, as the port of a bridge.

        A veth that is being deleted has no other end for a moment, and is no uplink.
        """
        return self.namespace is None and not (self.kind == "veth" and not self.peer)


class FarEnd(NamedTuple):
    """MAC address and addresses of the other end of a link, in its own namespace."""

    namespace: int
    """As `Link.namespace`."""
    mac: str
    addresses: Mapping[str, int]
    """IPv4 addresses with their creation time, in 1/100 s since the boot."""


class Links:
    """All links of the current namespace, and the addresses of its bridges.

    The descriptor `fileno` becomes readable after changes; `refresh` applies them.
    """

    def __init__(self) -> None:
        groups = _GROUP_LINK | _GROUP_IPV4_ADDRESSES
        self._notices = netlink.connect(socket.NETLINK_ROUTE, groups=groups)
        self._route = _Route()
        self._links: dict[int, Link] = {}
        self._addresses: dict[int, frozenset[str]] = {}
        """IPv4 addresses of each bridge."""
        self.reload()

    def fileno(self) -> int:
        return self._notices.fileno()

    @property
    def all(self) -> Mapping[int, Link]:
        """The links by index, as of the last `refresh`."""
        return self._links

    def ports(self) -> Iterator[Link]:
        for index in sorted(self._links):
            link = self._links[index]
            if self._is_bridge(link.master):
                yield link

    def addresses(self) -> Mapping[int, frozenset[str]]:
        """Return the IPv4 addresses of each bridge, by its index: the pods' gateways."""
        return self._addresses

    def refresh(self) -> bool:
        """Apply the pending notifications; return whether a relevant value has changed.

        Raises OSError. Costs one system call if there are none, else 30 µs for each.
        """
        changed = False
        for _ in range(_MOST_AT_ONCE):
            try:
                datagram = self._notices.recv(_DATAGRAM)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                self.reload()
                return True
            for message in netlink.decode(datagram):
                changed = self._take(message) or changed
        return changed

    def reload(self) -> None:
        """Read all links and addresses again; raise OSError."""
        _drop(self._notices)
        self._links = {each.index: each for each in self._route.links()}
        self._addresses = {}
        for each in self._links.values():
            if each.kind == "bridge":
                self._addresses[each.index] = self._addresses_of(each.index)

    def far_end(self, index: int) -> FarEnd:
        """Read the other end of a link; raise OSError if it has no MAC address.

        Needs CAP_NET_ADMIN over its namespace (kernel 4.20).
        """
        # Read again, because there is no notification when a pod moves its end.
        link = self._route.link(index)
        if link.namespace is None:
            raise OSError(errno.EINVAL, f"{link.name} leads to no other namespace")
        mac = self._route.mac(link.peer, link.namespace)
        return FarEnd(link.namespace, mac, self._route.addresses(link.peer, link.namespace))

    def towards(self, address: str) -> Link | None:
        """Return the link by which packets to an address leave the node; None if there is none."""
        try:
            return self._links.get(self._route.interface_towards(address))
        except OSError:
            return None

    def set_link_local_learning(self, bridge: int, *, on: bool) -> None:
        """Set whether a bridge learns MAC addresses from link-local frames.

        Raises OSError, also if the kernel does not know the option.
        """
        self._route.set_link_local_learning(bridge, on=on)
        self._links[bridge] = self._route.link(bridge)
        if self._links[bridge].learns_link_local is not on:
            raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))

    def close(self) -> None:
        self._notices.close()
        self._route.close()

    def _is_bridge(self, index: int) -> bool:
        link = self._links.get(index)
        return link is not None and link.kind == "bridge"

    def _take(self, message: netlink.Message) -> bool:
        if message.kind in {_NEWADDR, _DELADDR}:
            return self._take_address(message)
        if message.kind not in {_NEWLINK, _DELLINK}:
            return False
        # A bridge also sends messages about its ports (AF_BRIDGE), with fewer attributes.
        link = link_of(message)
        if link is None:
            return False
        if message.kind == _DELLINK:
            self._addresses.pop(link.index, None)
            return self._links.pop(link.index, None) is not None
        if self._links.get(link.index) == link:
            return False
        self._links[link.index] = link
        if link.kind == "bridge" and link.index not in self._addresses:
            self._addresses[link.index] = self._addresses_of(link.index)
        return True

    def _take_address(self, message: netlink.Message) -> bool:
        *_, index = _ADDRESS.unpack_from(message.payload)
        if not self._is_bridge(index):
            return False
        before = self._addresses.get(index)
        self._addresses[index] = self._addresses_of(index)
        return self._addresses[index] != before

    def _addresses_of(self, index: int) -> frozenset[str]:
        try:
            return frozenset(self._route.addresses(index))
        except OSError as error:
            if error.errno == errno.ENODEV:  # gone meanwhile
                return frozenset()
            raise


class NamespaceNumbers:
    """Finds the number (nsid) of another namespace within the current one."""

    def __init__(self) -> None:
        self._route = _Route()

    def number(self, namespace: int) -> int | None:
        """Return the number of the namespace of this descriptor; assign one if it has none.

        Returns None if that is not permitted (no CAP_NET_ADMIN). The number stays the same until
        the namespace ends.
        """
        return self._route.nsid(namespace)

    def close(self) -> None:
        self._route.close()


def link_of(message: netlink.Message) -> Link | None:
    """Return the link of an RTM_NEWLINK or RTM_DELLINK; None for a bridge's message of a port."""
    if len(message.payload) < _LINK.size:
        return None
    family, _, index, _, _ = _LINK.unpack_from(message.payload)
    if family != socket.AF_UNSPEC:
        return None
    found = netlink.attributes(message.payload, _LINK.size)
    information = netlink.attributes(found.get(_IFLA_LINKINFO, b""))
    kind = information.get(_INFO_KIND, b"").rstrip(b"\0").decode()
    bridge = netlink.attributes(information.get(_INFO_DATA, b"")) if kind == "bridge" else {}
    return Link(
        index=index,
        name=found.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(errors="replace"),
        kind=kind,
        master=_number(found.get(_IFLA_MASTER)),
        peer=_number(found.get(_IFLA_LINK)),
        namespace=_S32.unpack(found[_IFLA_LINK_NETNSID])[0]
        if _IFLA_LINK_NETNSID in found
        else None,
        learns_link_local=kind == "bridge" and _learns_link_local(bridge),
        spans=_number(bridge.get(_BR_STP_STATE)) != 0,
    )


def _learns_link_local(data: Mapping[int, bytes]) -> bool:
    values = data.get(_BR_MULTI_BOOLOPT, bytes(_BOOLOPT.size))
    return not _BOOLOPT.unpack(values)[0] & _NO_LL_LEARN


def _number(value: bytes | None) -> int:
    return _U32.unpack(value)[0] if value else 0


class _Route:
    """Requests to rtnetlink, one at a time."""

    def __init__(self) -> None:
        self._requests = netlink.Requests(_connect)

    def links(self) -> list[Link]:
        """Return all links; raise OSError."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + _extended()
        found = [link_of(each) for each in self._dump(_GETLINK, _NEWLINK, body)]
        return [each for each in found if each is not None]

    def link(self, index: int) -> Link:
        """Return one link; raise OSError."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _extended()
        found = link_of(self._one(_GETLINK, body))
        if found is None:
            raise OSError(errno.EPROTO, "the kernel describes no link")
        return found

    def mac(self, index: int, namespace: int) -> str:
        """Return the MAC address of a link of another namespace; raise OSError."""
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0) + _extended()
        body += netlink.attribute(_IFLA_TARGET_NETNSID, _S32.pack(namespace))
        answer = self._one(_GETLINK, body)
        mac = netlink.attributes(answer.payload, _LINK.size).get(_IFLA_ADDRESS, b"")
        if len(mac) != 6:
            raise OSError(errno.EADDRNOTAVAIL, "the link has no MAC address")
        return mac.hex(":")

    def addresses(self, index: int, namespace: int | None = None) -> dict[str, int]:
        """Return the IPv4 addresses of a link with their creation times; raise OSError.

        Reads about `_MOST_ADDRESSES` of a link in another namespace, because a pod controls it.
        """
        body = _ADDRESS.pack(socket.AF_INET, 0, 0, 0, index)
        if namespace is not None:
            body += netlink.attribute(_IFA_TARGET_NETNSID, _S32.pack(namespace))
        found = {}
        most = sys.maxsize if namespace is None else _MOST_ADDRESSES
        for each in self._dump(_GETADDR, _NEWADDR, body, most=most):
            *_, on = _ADDRESS.unpack_from(each.payload)
            attributes = netlink.attributes(each.payload, _ADDRESS.size)
            local = attributes.get(_IFA_LOCAL)
            if local and on == index:
                created = _CACHEINFO.unpack(attributes.get(_IFA_CACHEINFO, bytes(16)))[2]
                found[socket.inet_ntoa(local)] = created
        return found

    def interface_towards(self, address: str) -> int:
        """Return the index of the link by which packets to an address leave; 0: none.

        Raises OSError where there is no route.
        """
        body = _ROUTE.pack(socket.AF_INET, 32, 0, 0, 0, 0, 0, 0, 0)
        body += netlink.attribute(_RTA_DST, socket.inet_aton(address))
        answer = self._one(_GETROUTE, body)
        return _number(netlink.attributes(answer.payload, _ROUTE.size).get(_RTA_OIF))

    def set_link_local_learning(self, index: int, *, on: bool) -> None:
        """Set the option of a bridge; raise OSError."""
        values = _BOOLOPT.pack(0 if on else _NO_LL_LEARN, _NO_LL_LEARN)
        data = netlink.attribute(_BR_MULTI_BOOLOPT, values)
        information = netlink.attribute(_INFO_KIND, b"bridge\0")
        information += netlink.attribute(_INFO_DATA | _NESTED, data)
        body = _LINK.pack(socket.AF_UNSPEC, 0, index, 0, 0)
        body += netlink.attribute(_IFLA_LINKINFO | _NESTED, information)
        self._order(_NEWLINK, body)

    def nsid(self, namespace: int) -> int | None:
        """Return the number of a namespace, as `NamespaceNumbers.number` does."""
        who = _GENERIC.pack(socket.AF_UNSPEC) + netlink.attribute(_NETNSA_FD, _U32.pack(namespace))
        number = self._nsid(who)
        if number is None:
            try:
                self._order(_NEWNSID, who + netlink.attribute(_NETNSA_NSID, _S32.pack(-1)))
            except OSError as error:
                if error.errno != errno.EEXIST:
                    return None
            number = self._nsid(who)
        return number

    def close(self) -> None:
        self._requests.close()

    def _nsid(self, who: bytes) -> int | None:
        answer = self._one(_GETNSID, who)
        value = netlink.attributes(answer.payload, _GENERIC.size).get(_NETNSA_NSID)
        number = _S32.unpack(value)[0] if value else -1
        return number if number >= 0 else None

    def _one(self, kind: int, body: bytes) -> netlink.Message:
        return next(iter(self._ask(kind, netlink.NLM_F_REQUEST, body)))

    def _order(self, kind: int, body: bytes) -> None:
        for _ in self._ask(kind, netlink.NLM_F_REQUEST | netlink.NLM_F_ACK, body):
            pass

    def _dump(
        self, question: int, answer: int, body: bytes, *, most: int = sys.maxsize
    ) -> list[netlink.Message]:
        """Return the answers of one kind; ask again if they changed during the dump."""
        flags = netlink.NLM_F_REQUEST | netlink.NLM_F_DUMP
        found: list[netlink.Message] = []
        for _ in range(_ATTEMPTS):
            messages = list(self._ask(question, flags, body, most=most))
            found = [each for each in messages if each.kind == answer]
            if not any(each.flags & netlink.NLM_F_DUMP_INTR for each in messages):
                break
        return found

    def _ask(
        self, kind: int, flags: int, body: bytes, *, most: int = sys.maxsize
    ) -> Collection[netlink.Message]:
        """Return the complete answer of the kernel; raise OSError with its error."""
        found = self._requests.ask(kind, flags, body, most)
        if number := found[-1].errno:
            raise OSError(number, os.strerror(number))
        return found


def _connect() -> socket.socket:
    made = netlink.connect(socket.NETLINK_ROUTE)
    # The kernel then honours the interface of a question for addresses.
    made.setsockopt(_NETLINK, _GET_STRICT_CHK, 1)
    return made


def _extended() -> bytes:
    return netlink.attribute(_IFLA_EXT_MASK, _U32.pack(_SKIP_STATS))


def _drop(notices: socket.socket) -> None:
    for _ in range(_MOST_AT_ONCE):
        try:
            notices.recv(_DATAGRAM)
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
