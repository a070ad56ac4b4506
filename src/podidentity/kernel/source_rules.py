"""The rules that bind a source address to its port, as data.

On bridges, table `bridge podid_source`, as nft prints it (each rule that drops also counts):

    set pods        { typeof iif }                   the node's end of each bound port
    set uplinks     { typeof iif }
    set macs        { type iface_index . ether_addr }
    set addresses   { type iface_index . ipv4_addr }
    set taken_macs      { type ether_addr }          closed to unknown ports
    set taken_addresses { type ipv4_addr }
    set inside_macs      { type iface_index . ether_addr }   closed to an uplink: its bridge's own
    set inside_addresses { type iface_index . ipv4_addr }
    chain arriving { type filter hook prerouting priority dstnat - 10;
      iif @pods goto bound
      iif @uplinks goto outside
      goto unknown }
    chain bound {
      ether type 8021q drop
      ether type 8021ad drop
      ether type 0x8864 drop
      iif . ether saddr != @macs drop
      ether type arp goto bound_arp
      iif . ip saddr != @addresses drop }
    chain bound_arp {
      iif . arp saddr ether != @macs drop
      iif . arp saddr ip @addresses accept
      arp operation request arp saddr ip 0.0.0.0 accept
      drop }
    chain outside {
      meta protocol 8021q drop
      meta protocol 8021ad drop
      meta protocol 0x8864 drop
      iif . ether saddr @inside_macs drop
      iif . arp saddr ether @inside_macs drop
      iif . arp saddr ip @inside_addresses drop
      iif . ip saddr @inside_addresses drop
      ip daddr 169.254.169.254 drop }
    chain unknown {
      ether type 8021q drop
      ether type 8021ad drop
      ether type 0x8864 drop
      ether saddr @taken_macs drop
      arp saddr ether @taken_macs drop
      arp saddr ip @taken_addresses drop
      ip saddr @taken_addresses drop
      ip daddr 169.254.169.254 drop }

* The hook is the first for a frame, before the bridge learns its source MAC and before br_netfilter
  passes it to IPv4's hooks. Link-local frames (01:80:c2:00:00:0x) do not pass it, so the bridge
  must not learn from them (`Links.set_link_local_learning`).
* The kernel removes a tag of VLAN 0 above the bridge. A tagged frame would pass these rules and
  then count as an untagged one, so tagged frames are dropped first. So are PPPoE's (0x8864), in
  which br_netfilter finds IPv4 that a filter of the bridge does not see, where its setting
  bridge-nf-filter-pppoe-tagged is on.
* An uplink brings frames of other machines, and what a tunnel of the node unpacks (VXLAN): any pod
  can send such packets to the node, with any frame in them. So an uplink may bring everything but
  two things. The first is a frame in the name of its own bridge: of a bound port, or of the node's
  addresses there. It may bring a tag, behind which IPv4 and ARP are found as well (`meta protocol`
  is the type behind the first tag), but not two: the kernel removes any number of tags of VLAN 0.
  The second is a packet for IMDS. No pod of this node asks by an uplink, and a sender out there
  could make up MAC addresses, each of which takes a place in the sets of the pods' shares
  (`rules`).
* ARP probes for an address conflict have the sender 0.0.0.0 (RFC 5227). Nobody learns from them.
* A port is identified by the index of the node's end, which no other link ever gets.
* A new port is in neither set, whether we run or not. So the rules for such ports need no knowledge
  about the port. A port changes from one set to the other in one transaction.
* No map leads to a verdict, because the `nft` of many nodes crashes on one (`nftables`).

On routed links, table `ip podid_source` requires that a packet to IMDS comes in by the interface by
which its answer goes out. So does one from IMDS: else a pod could speak into the node's own
connections to IMDS, NMI's among them. So does an ICMP redirect.

    chain reverse_path { type filter hook prerouting priority raw;
      ip daddr 169.254.169.254 fib saddr . iif oif missing drop
      ip saddr 169.254.169.254 fib saddr . iif oif missing drop
      icmp type redirect fib saddr . iif oif missing drop }

The last is for who says in the name of a gateway that the way to IMDS is another. Its neighbour has
one gateway, which it believes (RFC 1122, 3.2.2.2), and so has the node where somebody has switched
`accept_redirects` on.

With `--backend=lrp` all of this holds for TCP to port 2579 of the node's own address, too.

Source of the grammar: nft(8), libnftables-json(5).
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from podidentity.kernel.nftables import field, match, transaction
from podidentity.kernel.rules import Redirect

TABLE = "podid_source"

_BEFORE_LEARNING, _RAW = -310, -300
_PPPOE = 0x8864  # ETH_P_PPP_SES; nft(8) has no word for it
_KERNELS_OWN = ("handle", "index", "elem")

_Commands = Sequence[Mapping[str, Any]]
Element = str | int | tuple[int, str]
"""An address, a port, or a port with an address."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Elements:
    """Elements of the sets in the bridge's table. Ports are indexes of links."""

    pods: frozenset[int] = frozenset()
    """Bound ports."""
    uplinks: frozenset[int] = frozenset()
    """Ports that lead to no other namespace."""
    macs: frozenset[tuple[int, str]] = frozenset()
    addresses: frozenset[tuple[int, str]] = frozenset()
    reserved: frozenset[str] = frozenset()
    """Addresses that no port may have: those of the node on its bridges."""
    inside_macs: frozenset[tuple[int, str]] = frozenset()
    """By uplink, the MAC addresses of the bound ports of its bridge."""
    inside_addresses: frozenset[tuple[int, str]] = frozenset()
    """By uplink, the addresses of the bound ports of its bridge, and the node's own there."""

    def by_set(self) -> dict[str, frozenset[Element]]:
        taken = {address for _, address in self.addresses} | self.reserved
        return {
            "pods": self.pods,
            "uplinks": self.uplinks - self.pods,
            "macs": self.macs,
            "addresses": self.addresses,
            "taken_macs": frozenset(mac for _, mac in self.macs),
            "taken_addresses": frozenset(taken),
            "inside_macs": self.inside_macs,
            "inside_addresses": self.inside_addresses,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Table:
    """One of our tables, without the elements of its sets; its methods return JSON text."""

    family: str
    name: str = TABLE
    items: tuple[Mapping[str, Any], ...]
    """Table, chains, sets and rules in the order of adding (libnftables-json(5))."""

    def listing(self) -> str:
        return transaction([{"list": self._reference()}])

    def deletion(self) -> str:
        commands: _Commands = [{"add": self.items[0]}, {"delete": self._reference()}]
        return transaction(commands)

    def replacement(self, elements: Elements) -> str:
        fresh: _Commands = [{"add": self.items[0]}, {"delete": self._reference()}]
        items = [{"add": each} for each in self.items]
        return transaction([*fresh, *items, *self._elements("add", elements.by_set())])

    def change(self, old: Elements, new: Elements) -> str:
        """Return the transaction that changes `old` to `new`, only where they differ."""
        before, after = old.by_set(), new.by_set()
        gone = {name: before[name] - after[name] for name in before}
        come = {name: after[name] - before[name] for name in after}
        return transaction([*self._elements("delete", gone), *self._elements("add", come)])

    def difference(
        self, elements: Elements, listed: Mapping[str, Any], links: Mapping[str, int]
    ) -> str:
        """Return the first difference in the kernel's listing of the table; "" if there is none.

        `links` maps names of links to indexes, because libnftables prints names.
        """
        ours, theirs = _by_name(self.items), _by_name(listed.get("nftables", ()))
        for kind, name in sorted(ours.keys() | theirs.keys()):
            if ours.get((kind, name)) != theirs.get((kind, name)):
                how = "is changed" if (kind, name) in theirs else "is gone"
                return f"{kind} {name} {how}"
        found, wanted = _elements_of(listed, links), elements.by_set()
        wrong = [name for name in self._sets() if found[name] != wanted[name]]
        return f"set {wrong[0]} holds other elements" if wrong else ""

    def _sets(self) -> list[str]:
        return [each["set"]["name"] for each in self.items if "set" in each]

    def _elements(self, command: str, by_set: Mapping[str, Collection[Element]]) -> _Commands:
        where = {"family": self.family, "table": self.name}
        return [
            {command: {"element": {**where, "name": name, "elem": elements}}}
            for name in self._sets()
            if (elements := [_as_json(each) for each in sorted(by_set[name], key=str)])
        ]

    def _reference(self) -> dict[str, Any]:
        return {"table": {"family": self.family, "name": self.name}}


def bridge_table(redirect: Redirect, name: str = TABLE, *, owned: bool = False) -> Table:
    """Return the table of the bridge family, or a copy of it with another name.

    With `owned`, the netlink socket that creates the table owns it (Linux 5.12, nft(8)): nobody
    else can change it, `nft flush ruleset` skips it, and the kernel deletes it with the socket.
    """
    make = _Maker("bridge", name, owned=owned)
    index, hidden = {"meta": {"key": "iif"}}, ("8021q", "8021ad", _PPPOE)
    mac, kind = field("ether", "saddr"), field("ether", "type")
    arp_mac, arp_address = field("arp", "saddr ether"), field("arp", "saddr ip")
    address = field("ip", "saddr")
    probe = [match(field("arp", "operation"), "request"), match(arp_address, "0.0.0.0")]  # noqa: S104 - no listener
    return make.table(
        *(make.chain(name) for name in ("bound", "bound_arp", "outside", "unknown")),
        make.chain("arriving", type="filter", hook="prerouting", prio=_BEFORE_LEARNING),
        {"set": make.set("pods", "iface_index")},
        {"set": make.set("uplinks", "iface_index")},
        {"set": make.set("macs", ["iface_index", "ether_addr"])},
        {"set": make.set("addresses", ["iface_index", "ipv4_addr"])},
        {"set": make.set("taken_macs", "ether_addr")},
        {"set": make.set("taken_addresses", "ipv4_addr")},
        {"set": make.set("inside_macs", ["iface_index", "ether_addr"])},
        {"set": make.set("inside_addresses", ["iface_index", "ipv4_addr"])},
        make.rule("arriving", match(index, "@pods"), {"goto": {"target": "bound"}}),
        make.rule("arriving", match(index, "@uplinks"), {"goto": {"target": "outside"}}),
        make.rule("arriving", {"goto": {"target": "unknown"}}),
        *(make.drop("bound", match(kind, each)) for each in hidden),
        make.drop("bound", match(_both(index, mac), "@macs", "!=")),
        make.rule("bound", match(kind, "arp"), {"goto": {"target": "bound_arp"}}),
        make.drop("bound", match(_both(index, address), "@addresses", "!=")),
        make.drop("bound_arp", match(_both(index, arp_mac), "@macs", "!=")),
        make.rule("bound_arp", match(_both(index, arp_address), "@addresses"), {"accept": None}),
        make.rule("bound_arp", *probe, {"accept": None}),
        make.drop("bound_arp"),
        *(make.drop("outside", match({"meta": {"key": "protocol"}}, each)) for each in hidden),
        make.drop("outside", match(_both(index, mac), "@inside_macs")),
        make.drop("outside", match(_both(index, arp_mac), "@inside_macs")),
        make.drop("outside", match(_both(index, arp_address), "@inside_addresses")),
        make.drop("outside", match(_both(index, address), "@inside_addresses")),
        *(make.drop("outside", *each) for each in _to_us(redirect)),
        *(make.drop("unknown", match(kind, each)) for each in hidden),
        make.drop("unknown", match(mac, "@taken_macs")),
        make.drop("unknown", match(arp_mac, "@taken_macs")),
        make.drop("unknown", match(arp_address, "@taken_addresses")),
        make.drop("unknown", match(address, "@taken_addresses")),
        *(make.drop("unknown", *each) for each in _to_us(redirect)),
    )


def reverse_path_table(redirect: Redirect) -> Table:
    make = _Maker("ip", TABLE)
    no_way_back = match({"fib": {"result": "oif", "flags": ["saddr", "iif"]}}, right=False)
    from_imds = match(field("ip", "saddr"), redirect.metadata_ip)
    another_way = match(field("icmp", "type"), "redirect")
    return make.table(
        make.chain("reverse_path", type="filter", hook="prerouting", prio=_RAW),
        *(make.drop("reverse_path", *each, no_way_back) for each in _to_us(redirect)),
        make.drop("reverse_path", from_imds, no_way_back),
        make.drop("reverse_path", another_way, no_way_back),
    )


def _to_us(redirect: Redirect) -> Iterator[list[dict[str, Any]]]:
    """Yield matches for what asks IMDS, or us."""
    for each in closed(redirect):
        yield [match(field("ip", "daddr"), each)]
    if redirect.node_address:
        yield [
            match(field("ip", "daddr"), redirect.node_address),
            match(field("tcp", "dport"), redirect.listen_port),
        ]


def closed(redirect: Redirect) -> tuple[str, ...]:
    """Return the addresses that no pod has and that only the redirection serves."""
    own = (redirect.target,) if redirect.owns_target else ()
    return (redirect.metadata_ip, *own)


def bound_ports(listed: Mapping[str, Any], links: Mapping[str, int]) -> Elements:
    found = _elements_of(listed, links)
    macs, addresses = (
        frozenset((each[0], str(each[1])) for each in found[name] if isinstance(each, tuple))
        for name in ("macs", "addresses")
    )
    return Elements(macs=macs, addresses=addresses)


def _elements_of(
    listed: Mapping[str, Any], links: Mapping[str, int]
) -> dict[str, frozenset[Element]]:
    """Return the elements in a listing of the bridge's table, as `Elements.by_set` does.

    An element of a form that we do not use is kept as text, so that it counts as a difference.
    """
    found: dict[str, frozenset[Element]] = {name: frozenset() for name in Elements().by_set()}
    for body in (item["set"] for item in listed.get("nftables", ()) if "set" in item):
        if body["name"] in found:
            of_ports = body["type"] == "iface_index"
            found[body["name"]] = frozenset(
                _index(each, links) if of_ports else _from_json(each, links)
                for each in body.get("elem", ())
            )
    return found


def _by_name(items: Iterable[Mapping[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """Return the items that decide about packets: rules by chain in order, the others by name."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for item in items:
        for kind, body in item.items():
            if kind == "rule":
                found.setdefault(("chain", str(body["chain"])), []).append(_bare(body))
            elif kind != "metainfo":
                found.setdefault((kind, str(body["name"])), []).append(_bare(body))
    return found


def _bare(body: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in body.items() if key not in _KERNELS_OWN}
    if isinstance(bare.get("flags"), str):  # libnftables lists a single flag so
        bare["flags"] = [bare["flags"]]
    if "expr" in bare:
        bare["expr"] = [{"counter": None} if "counter" in each else each for each in bare["expr"]]
    return bare


def _from_json(listed: object, links: Mapping[str, int]) -> Element:
    match listed:
        case str():
            return listed
        case {"concat": [port, str() as value]}:
            return _index(port, links), value
    return json.dumps(listed, sort_keys=True)


def _as_json(element: Element) -> object:
    return {"concat": list(element)} if isinstance(element, tuple) else element


def _index(port: object, links: Mapping[str, int]) -> int:
    """Return the index of a port, which is listed by name, or by number if the link is deleted."""
    name = str(port)
    if name in links:
        return links[name]
    return int(name) if name.isdecimal() else -1


@dataclass(frozen=True, slots=True)
class _Maker:
    """Makes the items of one table."""

    family: str
    name: str
    owned: bool = False

    def table(self, *items: Mapping[str, Any]) -> Table:
        flags = {"flags": ["owner"]} if self.owned else {}
        first = {"table": {"family": self.family, "name": self.name, **flags}}
        return Table(family=self.family, name=self.name, items=(first, *items))

    def chain(self, name: str, **hook: str | int) -> dict[str, Any]:
        policy = {"policy": "accept"} if hook else {}
        return {
            "chain": {"family": self.family, "table": self.name, "name": name, **hook, **policy}
        }

    def set(self, name: str, kind: str | list[str]) -> dict[str, Any]:
        return {"family": self.family, "name": name, "table": self.name, "type": kind}

    def rule(self, chain: str, *expressions: Mapping[str, Any]) -> dict[str, Any]:
        where = {"family": self.family, "table": self.name, "chain": chain}
        return {"rule": {**where, "expr": list(expressions)}}

    def drop(self, chain: str, *conditions: Mapping[str, Any]) -> dict[str, Any]:
        return self.rule(chain, *conditions, {"counter": None}, {"drop": None})


def _both(*parts: Mapping[str, Any]) -> dict[str, Any]:
    return {"concat": list(parts)}
