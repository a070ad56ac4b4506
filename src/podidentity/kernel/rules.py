"""Table `ip podid`, which redirects pods' IMDS traffic to NMI: what is installed is what is compared.

Three chains. As nft prints them:

    chain guard_local { type filter hook prerouting priority raw;
      iifname != "lo" ip daddr 127.0.0.0/8 counter drop
      iifname != "lo" ip daddr 169.254.25.79 counter drop }
    chain intercept   { type nat hook prerouting priority dstnat - 10;
      ip daddr 169.254.169.254 tcp dport 80 counter dnat to 169.254.25.79:2579 }
    chain guard_imds  { type filter hook prerouting priority dstnat + 10;
      ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset }

* guard_local: nothing from a wire reaches the address that we redirect to unless we redirected it,
  because this chain comes before the redirection; nor the node's loopback (RFC 1122, 3.2.1.3),
  which others open with `route_localnet` (CVE-2020-8558): kube-proxy does, podidentity 0.1 did.
* intercept: before kube-proxy's chains (dstnat, -100); the first redirection of a connection wins.
* guard_imds: what was not redirected is refused at once: connections older than the rules, and
  those that another rule took out. It stands before routing (kernel 5.9), because there the
  routing rules drop what it would refuse. The node's own traffic does not come this way: it passes.

The last two have no interface match: whatever is routed through the node is meant. AKS's own IMDS
restriction drops pods' packets in the forward hook, behind all this: what we redirect does not
come there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any

TABLE = "podid"

_TABLE_REF = {"family": "ip", "name": TABLE}
_LOOPBACK = {"prefix": {"addr": "127.0.0.0", "len": 8}}
_RAW, _BEFORE_KUBE_PROXY, _AFTER_REDIRECTIONS = -300, -110, -90
_KERNELS_OWN = ("handle", "index")
_LONGEST = 400


LINK_LOCAL = "169.254.25.79"
"""Where pods' connections are redirected to: an address of `lo` for this alone. It is no loopback
address, so the kernel needs no `route_localnet`, and link-local, so no router forwards it (RFC
3927, 7). Others on such nodes: 169.254.1.1 (Calico, Azure CNI), 10.10 and 10.11 (AKS LocalDNS),
20.10 (NodeLocal DNSCache), 25.10 (kubespray), 169.254 (IMDS). The number is NMI's port, 2579."""
_HOST = "127.0.0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """What is intercepted, and where to. Raises ValueError for what is no IPv4 address or port."""

    metadata_ip: str = "169.254.169.254"
    metadata_port: int = 80
    listen_address: str = _HOST
    """As `--nmi-listen-address` says it."""
    listen_port: int = 2579

    def __post_init__(self) -> None:
        for address in (self.metadata_ip, self.listen_address):
            IPv4Address(address)
        for port in (self.metadata_port, self.listen_port):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port: it must be from 1 to 65535")
        if self.target == self.metadata_ip:
            raise ValueError(f"{self.target} cannot be both what is intercepted and where to")

    @property
    def target(self) -> str:
        """The address that intercepted connections are redirected to.

        `listen_address`, unless that is a loopback address or 0.0.0.0: then `LINK_LOCAL`.
        """
        listen = IPv4Address(self.listen_address)
        return LINK_LOCAL if listen.is_loopback or listen.is_unspecified else self.listen_address

    @property
    def owns_target(self) -> bool:
        """Whether `target` is ours to put on `lo` and to guard: a link-local address is."""
        return IPv4Address(self.target).is_link_local

    @property
    def host_address(self) -> str:
        """The loopback address where the node's own processes ask, at `/host/token`."""
        return self.listen_address if IPv4Address(self.listen_address).is_loopback else _HOST

    @property
    def listen_addresses(self) -> tuple[str, ...]:
        """Where NMI listens, at `listen_port`; bind with IP_FREEBIND, an address may be late."""
        if IPv4Address(self.listen_address).is_unspecified:
            return (self.listen_address,)
        return self.target, self.host_address


def wanted(redirect: Redirect) -> list[dict[str, Any]]:
    """Return table, chains and rules in libnftables' JSON (libnftables-json(5))."""
    imds = [
        _match(_field("ip", "daddr"), redirect.metadata_ip),
        _match(_field("tcp", "dport"), redirect.metadata_port),
    ]
    from_a_wire = _match({"meta": {"key": "iifname"}}, "lo", operator="!=")
    local = [_LOOPBACK, redirect.target] if redirect.owns_target else [_LOOPBACK]
    guarded = [(from_a_wire, _match(_field("ip", "daddr"), each)) for each in local]
    return [
        {"table": dict(_TABLE_REF)},
        _chain("guard_local", "filter", "prerouting", _RAW),
        _chain("intercept", "nat", "prerouting", _BEFORE_KUBE_PROXY),
        _chain("guard_imds", "filter", "prerouting", _AFTER_REDIRECTIONS),
        *(_rule("guard_local", *each, {"drop": None}) for each in guarded),
        _rule(
            "intercept",
            *imds,
            {"dnat": {"addr": redirect.target, "port": redirect.listen_port}},
        ),
        _rule("guard_imds", *imds, {"reject": {"type": "tcp reset"}}),
    ]


def replacement(redirect: Redirect) -> str:
    """Return the transaction that puts our table in the place of whatever has its name."""
    return _commands(
        {"add": {"table": _TABLE_REF}},
        {"delete": {"table": _TABLE_REF}},
        *({"add": each} for each in wanted(redirect)),
    )


def deletion() -> str:
    """Return the transaction that takes our table away, also where there is none."""
    return _commands({"add": {"table": _TABLE_REF}}, {"delete": {"table": _TABLE_REF}})


def listing() -> str:
    """Return the command that lists our table."""
    return _commands({"list": {"table": _TABLE_REF}})


def redirects_to_loopback(listed: Mapping[str, Any]) -> bool:
    """Whether this listing is of the table of podidentity 0.1, which needed `route_localnet`."""
    expressions = (each for item in listed["nftables"] for each in item.get("rule", {}).get("expr", ()))
    return any(str(each["dnat"]["addr"]).startswith("127.") for each in expressions if "dnat" in each)


def differences(redirect: Redirect, listed: Mapping[str, Any]) -> list[str]:
    """Return where the kernel's listing of our table is not what we want, in words.

    [] where it is, whatever the counters say.
    """
    here, there = _normal(wanted(redirect)), _normal(listed.get("nftables", ()))
    return [
        f"{name} of table ip {TABLE} {_difference(here.get(name), there.get(name))}"
        for name in sorted(here.keys() | there.keys())
        if here.get(name) != there.get(name)
    ]


def _normal(items: Sequence[Mapping[str, Any]]) -> dict[str, list[Mapping[str, Any]]]:
    """Return what decides about packets: table, chains, and the rules of each in their order."""
    found: dict[str, list[Mapping[str, Any]]] = {}
    for item in items:
        for kind, body in item.items():
            if kind != "metainfo":
                name = f"rules in {body['chain']}" if "chain" in body else f"{kind} {body['name']}"
                found.setdefault(name, []).append(_bare(body))
    return found


def _difference(here: object, there: object) -> str:
    if there is None:
        return "missing"
    found = json.dumps(there)
    cut = found if len(found) <= _LONGEST else f"{found[:_LONGEST]}…"
    return f"changed to {cut}" if here is not None else f"not ours: {cut}"


def _bare(body: Mapping[str, Any]) -> dict[str, Any]:
    bare = {key: value for key, value in body.items() if key not in _KERNELS_OWN}
    if "expr" in bare:
        bare["expr"] = [{"counter": None} if "counter" in each else each for each in bare["expr"]]
    return bare


def _field(protocol: str, name: str) -> dict[str, Any]:
    return {"payload": {"protocol": protocol, "field": name}}


def _match(left: dict[str, Any], right: object, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": left, "right": right}}


def _chain(name: str, kind: str, hook: str, priority: int) -> dict[str, Any]:
    where = {"type": kind, "hook": hook, "prio": priority, "policy": "accept"}
    return {"chain": {"family": "ip", "table": TABLE, "name": name, **where}}


def _rule(chain: str, *expressions: dict[str, Any]) -> dict[str, Any]:
    """Return a rule that counts what it decides about: its last expression is the decision."""
    expr = [*expressions[:-1], {"counter": None}, expressions[-1]]
    return {"rule": {"family": "ip", "table": TABLE, "chain": chain, "expr": expr}}


def _commands(*commands: dict[str, Any]) -> str:
    return json.dumps({"nftables": commands})
