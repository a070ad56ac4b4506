"""Table `ip podid`, which redirects the pods' connections to IMDS, as data.

As nft prints it:

    chain guard_local { type filter hook prerouting priority raw;
      iifname != "lo" ip daddr 127.0.0.0/8 counter drop
      iifname != "lo" ip daddr 169.254.25.79 counter drop }
    chain arriving    { type filter hook prerouting priority raw;
      ip daddr 169.254.169.254 tcp dport 80 jump outside
      ip daddr 10.240.0.4 tcp dport 2579 jump outside }   with --backend=lrp
    chain outside {
      iifname "lo" return
      meta iifkind "bridge" return
      iifname "eth0" counter drop
      meta iifkind "veth" return                 and for each further kind of a pod's link
      counter drop }
    chain intercept   { type nat hook prerouting priority dstnat - 10;
      ip daddr 169.254.169.254 tcp dport 80 jump share
      ip daddr 169.254.169.254 tcp dport 80 counter dnat to 169.254.25.79:2579 }
    chain share {
      meta iifkind "bridge" goto share_of_port
      update @source_rates { ip saddr limit rate over 1000/second burst 1000 packets } counter drop
      ip saddr != @source_rates counter drop
      meta l4proto tcp add @source_shares { ip saddr ct count over 320 } counter reject
      meta l4proto tcp ip saddr != @source_shares counter reject }
    chain share_of_port {
      update @port_rates { ether saddr limit rate over 1000/second burst 1000 packets } counter drop
      ether saddr != @port_rates counter drop
      meta l4proto tcp add @port_shares { ether saddr ct count over 320 } counter reject
      meta l4proto tcp ether saddr != @port_shares counter reject }
    chain ending      { type filter hook prerouting priority raw + 1;
      ip daddr 169.254.169.254 tcp dport 80 tcp flags rst jump ends }
    chain ends {
      meta iifkind "bridge" goto ends_of_port
      update @source_ends { ip saddr limit rate over 20/second burst 100 packets } counter drop
      ip saddr != @source_ends counter drop }
    chain ends_of_port {
      update @port_ends { ether saddr limit rate over 20/second burst 100 packets } counter drop
      ether saddr != @port_ends counter drop }
    chain guard_imds  { type filter hook prerouting priority dstnat + 10;
      ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset }
    chain from_imds   { type filter hook forward priority filter;
      ip saddr 169.254.169.254 counter drop }
    chain from_node   { type nat hook output priority dstnat - 10;
      ip daddr 169.254.169.254 tcp dport 80 counter dnat to 169.254.169.254:80 }

* guard_local comes before the redirection. It drops packets from a wire to the address that we
  redirect to, so that only redirected packets reach it, and packets to the node's loopback (RFC
  1122, 3.2.1.3). kube-proxy opens the loopback with `route_localnet` (CVE-2020-8558), as
  podidentity 0.1 did.
* outside drops what asks for IMDS by a link that leads to no pod: the uplink, a tunnel, hardware.
  So a machine beside the node reads no metadata by way of the node, and takes no place in a set.
  Pods are behind the kinds of links that network plugins make for them. A bridge has its own rules
  for its uplinks (`source_rules`). With `--backend=lrp`, and where the listener has an address of
  the node, the same holds for that address: Cilium sends pods there.
* intercept comes before kube-proxy's chains (dstnat, -100); the first redirection of a connection
  wins.
* share limits the connections of one pod, before any process of ours handles them. So one pod
  cannot fill the backlog of the listener, in which connections wait while no worker accepts, and
  cannot burden the worker with more connections than it may have. A pod is identified by its port:
  on a bridge by the port's one MAC address, because a pod can take many addresses there; on a
  routed link by the source address (`source_rules` binds both). Too many connections are refused;
  too many per second are dropped, so that the client tries again a second later. A pod that finds
  no place in a full set gets the same, because without a place it would have no limit. The rate
  also bounds the kernel's own work: it expires at most eight connections of a count in one tick. As
  in every NAT chain, only the first packet of a connection arrives here, and only in the first of
  two tables that redirect it. Connections in TIME_WAIT do not count.
* ends is the other side of it: nor do connections count that were reset (`already_closed` in
  net/netfilter/nf_conncount.c), and a pod can have the kernel see an end that our socket does not
  take for one (an RST behind an ACK of the same number, ahead of what it has sent). So it may reset
  a few connections in a second, before the kernel tracks the packet. Who resets more of them, and
  means it, is asked again: our socket sends what it has to send, and the RST that answers comes
  later. The chain comes behind that of `source_rules` in which sources are checked.
* guard_imds refuses at once all connections to IMDS that were not redirected: those that are older
  than the rules, and those that another rule excluded. It comes before routing (kernel 5.9),
  because the routing rules would drop the packets. The node's own traffic does not pass here.
* from_imds drops what another pod sends to a pod in the name of IMDS, on links where no source is
  guarded for the sake of other destinations. The kernel would track it as a connection of IMDS, and
  take the pod's own one from that port to IMDS for its other half: it is no new connection, so it
  is not redirected, and guard_imds refuses it. A dropped packet is not tracked. No answer of IMDS
  is lost: the node forwards no pod's connection to IMDS, and answers to the node itself do not pass
  this hook.
* from_node leaves the node's own questions to IMDS, NMI's among them, as they are. Whoever may
  write the status of a Service can have the address of IMDS there, and kube-proxy leads what the
  node sends to such an address to the Service's pods, which would answer in the name of IMDS. A
  connection is translated once: kube-proxy's chains (-100) find that this one is done. IPVS and
  Cilium translate elsewhere, and are not kept from it.

`intercept` and `guard_imds` match every interface, because all traffic that the node routes is
meant. AKS's own IMDS restriction drops pods' packets in the forward hook, which redirected packets
do not reach.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

from podidentity.kernel.nftables import field, match, transaction
from podidentity.kernel.sock_diag import Endpoint

TABLE = "podid"

_LOOPBACK = {"prefix": {"addr": "127.0.0.0", "len": 8}}
_RAW, _BEHIND_SOURCES, _BEFORE_KUBE_PROXY, _AFTER_REDIRECTIONS = -300, -299, -110, -90
_FILTER = 0
_POD_LINKS = ("veth", "netkit", "tun", "openvswitch", "vrf")
"""Kinds of links behind which network plugins have pods, beside bridges."""
_KERNELS_OWN = frozenset({"handle", "index", "elem"})
_NAMES = frozenset({"family", "table", "chain", "name"})
_ENDS = ("ends", "ends_of_port")
_LONGEST = 400
_TCP = 6  # IPPROTO_TCP

MOST_CONNECTIONS = 320
"""Limit for one pod. It is larger than the agent's own (256), so that the agent can answer a pod
that needs more, and smaller than a twelfth of the listener's backlog."""
MOST_A_SECOND = 1000
"""New connections of one pod in a second, and in one burst."""
MOST_PODS = 4096
"""Size of a set; the kernel removes elements of pods without a connection."""
MOST_ENDS_A_SECOND, MOST_ENDS_AT_ONCE = 20, 100
"""Connections that one pod may reset."""
_RATE_SECONDS = 10
"""Lifetime of a pod's rate after its last new connection; one second would be enough."""

LINK_LOCAL = "169.254.25.79"
"""Target of the redirection: an address of `lo` for nothing else. It is no loopback address, so the
kernel needs no `route_localnet`, and it is link-local, so that no router forwards it (RFC 3927, 7).
Others on such nodes: 169.254.1.1 (Calico, Azure CNI), 10.10 and 10.11 (AKS LocalDNS), 20.10
(NodeLocal DNSCache), 25.10 (kubespray), 169.254 (IMDS). The number is NMI's port, 2579."""
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """What is intercepted, and where to. Raises ValueError for what is no IPv4 address or port."""

    metadata_ip: str = "169.254.169.254"
    metadata_port: int = 80
    listen_address: str = _HOST
    """As `--nmi-listen-address` says it."""
    listen_port: int = 2579
    node_address: str = ""
    """The node's own address, at which we listen, too, for Cilium's local redirect policies."""

    def __post_init__(self) -> None:
        for address in filter(None, (self.metadata_ip, self.listen_address, self.node_address)):
            IPv4Address(address)
        for port in (self.metadata_port, self.listen_port):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port: it must be from 1 to 65535")
        if self.metadata_ip in {self.target, self.node_address}:
            raise ValueError(f"{self.metadata_ip} cannot be both what is intercepted and where to")

    @property
    def target(self) -> str:
        """The address that intercepted connections are redirected to.

        `listen_address`, unless that is a loopback address or 0.0.0.0: then `LINK_LOCAL`.
        """
        listen = IPv4Address(self.listen_address)
        return LINK_LOCAL if listen.is_loopback or listen.is_unspecified else self.listen_address

    @property
    def imds(self) -> Endpoint:
        return Endpoint(self.metadata_ip, self.metadata_port)

    @property
    def listener(self) -> Endpoint:
        return Endpoint(self.target, self.listen_port)

    @property
    def node_listener(self) -> Endpoint | None:
        """Where connections arrive that Cilium redirects; None if nothing listens there for it."""
        return Endpoint(self.node_address, self.listen_port) if self.node_address else None

    @property
    def owns_target(self) -> bool:
        """Whether we add `target` to `lo` and guard it, as we do with a link-local address."""
        return IPv4Address(self.target).is_link_local

    @property
    def host_address(self) -> str:
        """The loopback address for processes of the node, which ask at `/host/token`."""
        return self.listen_address if IPv4Address(self.listen_address).is_loopback else _HOST

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """Addresses to listen at. Bind with IP_FREEBIND, because `target` may be set later."""
        if IPv4Address(self.listen_address).is_unspecified:
            return (self.listen_address,)
        node = (self.node_address,) if self.node_address not in {"", self.target} else ()
        return (self.target, self.host_address, *node)


@dataclass(frozen=True, slots=True)
class RedirectTable:
    """Table `ip podid`, or a copy of it, which exists only while our process does."""

    redirect: Redirect
    name: str = TABLE
    owned: bool = False
    """Whether the netlink socket that creates the table owns it (Linux 5.12, nft(8)): nobody else
    can change it, `nft flush ruleset` skips it, and the kernel deletes it with the socket."""
    shares: bool = True
    """Whether to limit the connections of each pod. This needs the expressions `connlimit` and
    `limit`, which a kernel may lack."""
    uplink: str = ""
    """The interface by which the node reaches IMDS; "" if there is none."""

    def wanted(self) -> list[dict[str, Any]]:
        """Return table, chains and rules in libnftables' JSON (libnftables-json(5))."""
        imds = [
            match(field("ip", "daddr"), self.redirect.metadata_ip),
            match(field("tcp", "dport"), self.redirect.metadata_port),
        ]
        ways = [imds, *self._unguarded()]
        target = {"addr": self.redirect.target, "port": self.redirect.listen_port}
        imds_itself = {"addr": self.redirect.metadata_ip, "port": self.redirect.metadata_port}
        flags = {"flags": ["owner"]} if self.owned else {}
        return [
            {"table": {**self._reference, **flags}},
            *self._local(),
            self._chain("intercept", "nat", _BEFORE_KUBE_PROXY),
            self._chain("guard_imds", "filter", _AFTER_REDIRECTIONS),
            self._chain("from_imds", "filter", _FILTER, hook="forward"),
            self._chain("from_node", "nat", _BEFORE_KUBE_PROXY, hook="output"),
            *self._outside(ways),
            *(self._shares(ways) if self.shares else ()),
            self._rule("intercept", *imds, {"dnat": target}),
            self._rule("guard_imds", *imds, {"reject": {"type": "tcp reset"}}),
            self._rule(
                "from_imds", match(field("ip", "saddr"), self.redirect.metadata_ip), {"drop": None}
            ),
            self._rule("from_node", *imds, {"dnat": imds_itself}),
        ]

    def replacement(self) -> str:
        fresh = [{"add": self.wanted()[0]}, {"delete": {"table": self._reference}}]
        return transaction([*fresh, *({"add": each} for each in self.wanted())])

    def release(self) -> str:
        """Return the transaction after which the table redirects nothing more.

        Connections that it has redirected go on. For them a NAT chain stays, with a rule that
        names `ct`: the kernel follows connections and translates their addresses only while a rule
        needs it.
        """
        fresh = [{"add": self.wanted()[0]}, {"delete": {"table": self._reference}}]
        established = match({"ct": {"key": "state"}}, "established", operator="in")
        kept = [
            {"table": self._reference},
            self._chain("intercept", "nat", _BEFORE_KUBE_PROXY),
            self._rule("intercept", established, {"accept": None}),
            *self._local(),
        ]
        return transaction([*fresh, *({"add": each} for each in kept)])

    def deletion(self) -> str:
        return transaction([{"add": self.wanted()[0]}, {"delete": {"table": self._reference}}])

    def listing(self) -> str:
        return transaction([{"list": {"table": self._reference}}])

    def differences(self, listed: Mapping[str, Any]) -> list[str]:
        """Return a description of each difference between the kernel's listing and our table.

        Counters are ignored.
        """
        here, there = _normal(self.wanted()), _normal(listed.get("nftables", ()))
        return [
            f"table ip {self.name}, {name}: {_difference(here.get(name), there.get(name))}"
            for name in sorted(here.keys() | there.keys())
            if here.get(name) != there.get(name)
        ]

    def dropped_resets(self, listed: Mapping[str, Any]) -> int:
        """Return how many resets the table has dropped by the kernel's listing, since it was set.

        A reset is counted once: what this table drops does not reach its copy.
        """
        rules = [item["rule"] for item in listed.get("nftables", ()) if "rule" in item]
        return sum(
            each["counter"]["packets"]
            for rule in rules
            if rule["chain"] in _ENDS
            for each in rule["expr"]
            if each.get("counter")
        )

    @property
    def _reference(self) -> dict[str, Any]:
        return {"family": "ip", "name": self.name}

    def _outside(self, ways: Sequence[Sequence[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        """Yield what closes the ways to us to links that lead to no pod."""
        kind, name = ({"meta": {"key": key}} for key in ("iifkind", "iifname"))
        to_return = {"return": None}
        yield self._chain("arriving", "filter", _RAW)
        yield self._jump_chain("outside")
        yield self._bare_rule("outside", match(name, "lo"), to_return)
        yield self._bare_rule("outside", match(kind, "bridge"), to_return)
        if self.uplink:
            yield self._rule("outside", match(name, self.uplink), {"drop": None})
        for each in _POD_LINKS:
            yield self._bare_rule("outside", match(kind, each), to_return)
        yield self._rule("outside", {"drop": None})
        for way in ways:
            yield self._bare_rule("arriving", *way, {"jump": {"target": "outside"}})

    def _shares(self, ways: Sequence[Sequence[dict[str, Any]]]) -> Iterator[dict[str, Any]]:
        yield self._chain("ending", "filter", _BEHIND_SOURCES)
        for whose, what in (("share", self._share), ("ends", self._ends)):
            yield from (self._jump_chain(each) for each in (whose, f"{whose}_of_port"))
            bridge = match({"meta": {"key": "iifkind"}}, "bridge")
            yield self._bare_rule(whose, bridge, {"goto": {"target": f"{whose}_of_port"}})
            yield from what(whose, "source", "ipv4_addr", field("ip", "saddr"))
            yield from what(f"{whose}_of_port", "port", "ether_addr", field("ether", "saddr"))
        reset = match(field("tcp", "flags"), "rst", operator="in")
        for way in ways:
            yield self._bare_rule("intercept", *way, {"jump": {"target": "share"}})
            yield self._bare_rule("ending", *way, reset, {"jump": {"target": "ends"}})

    def _share(
        self, chain: str, whose: str, kind: str, key: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        rates, shares = f"{whose}_rates", f"{whose}_shares"
        yield self._rates(rates, kind)
        yield self._set(shares, kind)
        yield from self._at_most(chain, rates, key, MOST_A_SECOND, MOST_A_SECOND)
        count = {"ct count": {"val": MOST_CONNECTIONS, "inv": True}}
        in_set = {"op": "add", "elem": key, "set": f"@{shares}", "stmt": [count]}
        tcp = match({"meta": {"key": "l4proto"}}, _TCP)
        for too_many in ({"set": in_set}, match(key, f"@{shares}", "!=")):
            yield self._rule(chain, tcp, too_many, {"reject": {"type": "tcp reset"}})

    def _ends(
        self, chain: str, whose: str, kind: str, key: dict[str, Any]
    ) -> Iterator[dict[str, Any]]:
        yield self._rates(f"{whose}_ends", kind)
        yield from self._at_most(chain, f"{whose}_ends", key, MOST_ENDS_A_SECOND, MOST_ENDS_AT_ONCE)

    def _rates(self, name: str, kind: str) -> dict[str, Any]:
        # libnftables adds the flag `dynamic`; up to 1.0.6 it knows no word for it in JSON.
        return self._set(name, kind, flags=["timeout"], timeout=_RATE_SECONDS)

    def _at_most(
        self, chain: str, rates: str, key: dict[str, Any], rate: int, burst: int
    ) -> Iterator[dict[str, Any]]:
        """Yield the rules that drop what comes more often for one key, or finds no place."""
        limit = {"limit": {"rate": rate, "burst": burst, "per": "second", "inv": True}}
        in_set = {"op": "update", "elem": key, "set": f"@{rates}", "stmt": [limit]}
        yield self._rule(chain, {"set": in_set}, {"drop": None})
        yield self._rule(chain, match(key, f"@{rates}", "!="), {"drop": None})

    def _local(self) -> Iterator[dict[str, Any]]:
        yield self._chain("guard_local", "filter", _RAW)
        from_a_wire = match({"meta": {"key": "iifname"}}, "lo", operator="!=")
        for each in (_LOOPBACK, *([self.redirect.target] if self.redirect.owns_target else [])):
            to_it = match(field("ip", "daddr"), each)
            yield self._rule("guard_local", from_a_wire, to_it, {"drop": None})

    def _unguarded(self) -> Iterator[list[dict[str, Any]]]:
        """Yield matches for connections that reach us without a redirection of ours."""
        redirect = self.redirect
        port = match(field("tcp", "dport"), redirect.listen_port)
        if IPv4Address(redirect.listen_address).is_unspecified:
            yield [match({"fib": {"result": "type", "flags": ["daddr"]}}, "local"), port]
            return
        own = (redirect.target,) if not redirect.owns_target else ()
        for each in dict.fromkeys((*own, *filter(None, (redirect.node_address,)))):
            yield [match(field("ip", "daddr"), each), port]

    def _chain(
        self, name: str, kind: str, priority: int, *, hook: str = "prerouting"
    ) -> dict[str, Any]:
        where = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
        return {"chain": {"family": "ip", "table": self.name, "name": name, **where}}

    def _jump_chain(self, name: str) -> dict[str, Any]:
        return {"chain": {"family": "ip", "table": self.name, "name": name}}

    def _set(self, name: str, kind: str, **more: object) -> dict[str, Any]:
        where = {"family": "ip", "table": self.name, "name": name}
        return {"set": {**where, "type": kind, "size": MOST_PODS, **more}}

    def _rule(self, chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
        """Return a rule with a counter before its last expression, the verdict."""
        return self._bare_rule(chain, *expressions[:-1], {"counter": None}, expressions[-1])

    def _bare_rule(self, chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
        where = {"family": "ip", "table": self.name, "chain": chain}
        return {"rule": {**where, "expr": list(expressions)}}


def redirects_to_loopback(listed: Mapping[str, Any]) -> bool:
    """Whether this listing is of the table of podidentity 0.1, which needed `route_localnet`."""
    rules = [item["rule"] for item in listed["nftables"] if "rule" in item]
    targets = [each["dnat"] for rule in rules for each in rule["expr"] if "dnat" in each]
    return any(str(each["addr"]).startswith("127.") for each in targets)


def _normal(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the items that decide about packets: table, chains, and the rules of each in order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        for kind, body in item.items():
            if kind != "metainfo":
                name = f"rules of {body['chain']}" if "chain" in body else f"{kind} {body['name']}"
                found.setdefault(name, []).append(_bare(body))
    return found


def _difference(here: object, there: object) -> str:
    if there is None:
        return "missing"
    found = json.dumps(there, ensure_ascii=False)
    cut = found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"
    return f"changed to {cut}" if here is not None else f"not ours, {cut}"


def _bare(body: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in body.items() if key not in _KERNELS_OWN | _NAMES}
    flags = bare.pop("flags", [])
    flags = [flags] if isinstance(flags, str) else flags  # libnftables lists a single flag so
    if kept := sorted(each for each in flags if each != "dynamic"):
        bare["flags"] = kept
    if "expr" in bare:
        bare["expr"] = [{"counter": None} if "counter" in each else each for each in bare["expr"]]
    return bare
