"""The rules that lead pods' IMDS traffic to us, as data: what is installed is what is compared.

One table, `ip podid`, three chains. As nft prints them:

    chain guard_pre   { type filter hook prerouting priority raw;
      iifname != "lo" ip daddr 127.0.0.0/8 counter drop }
    chain intercept   { type nat hook prerouting priority dstnat - 10;
      ip daddr 169.254.169.254 tcp dport 80 counter dnat to 127.0.0.1:2579 }
    chain guard_imds  { type filter hook prerouting priority dstnat + 10;
      ip daddr 169.254.169.254 tcp dport 80 counter reject with tcp reset }

* guard_pre: `route_localnet`, which the redirection needs, would open the node's loopback to pods
  (CVE-2020-8558). No loopback address may come from a wire (RFC 1122, 3.2.1.3), so the guard holds
  for every interface but `lo`, and needs no list of pods' interfaces that a new CNI could escape.
  It comes before conntrack, and so before our own redirection turns the address into 127.0.0.1.
* intercept: before kube-proxy's chains (dstnat, -100); the first redirection of a connection wins.
* guard_imds: what was not redirected is refused at once: connections older than the rules, and
  those that another rule took out. It stands before routing (kernel 5.9), because there `backstop`
  drops what it would refuse. The node's own traffic does not come this way: it passes.

The last two have no interface match: whatever is routed through the node is meant.
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Redirect:
    """What is intercepted, and where to. Raises ValueError for what is no IPv4 address or port."""

    metadata_ip: str = "169.254.169.254"
    metadata_port: int = 80
    listen_address: str = "127.0.0.1"
    """Of NMI's listener; `0.0.0.0` is reached at 127.0.0.1, as before."""
    listen_port: int = 2579

    def __post_init__(self) -> None:
        for address in (self.metadata_ip, self.listen_address):
            IPv4Address(address)
        for port in (self.metadata_port, self.listen_port):
            if not 0 < port < 65536:
                raise ValueError(f"{port} is no port: it must be from 1 to 65535")

    @property
    def target(self) -> str:
        """The address that intercepted connections are redirected to."""
        unspecified = IPv4Address(self.listen_address).is_unspecified
        return "127.0.0.1" if unspecified else self.listen_address

    @property
    def needs_localnet(self) -> bool:
        """Whether the kernel must be told to route to a loopback address."""
        return IPv4Address(self.target).is_loopback


def wanted(redirect: Redirect) -> list[dict[str, Any]]:
    """Return table, chains and rules in libnftables' JSON (libnftables-json(5))."""
    imds = [
        _match(_field("ip", "daddr"), redirect.metadata_ip),
        _match(_field("tcp", "dport"), redirect.metadata_port),
    ]
    elsewhere = _match({"meta": {"key": "iifname"}}, "lo", operator="!=")
    return [
        {"table": dict(_TABLE_REF)},
        _chain("guard_pre", "filter", "prerouting", _RAW),
        _chain("intercept", "nat", "prerouting", _BEFORE_KUBE_PROXY),
        _chain("guard_imds", "filter", "prerouting", _AFTER_REDIRECTIONS),
        _rule("guard_pre", elsewhere, _match(_field("ip", "daddr"), _LOOPBACK), {"drop": None}),
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


def is_as_wanted(redirect: Redirect, listed: Mapping[str, Any]) -> bool:
    """Whether the kernel's listing of our table is exactly what we want, counters apart."""
    return _normal(wanted(redirect)) == _normal(listed.get("nftables", ()))


def _normal(items: Sequence[Mapping[str, Any]]) -> list[tuple[str, str, Mapping[str, Any]]]:
    """Return what decides about packets, chains in one order, the rules of each in theirs."""
    found = [
        (kind, str(body.get("chain", body.get("name"))), _bare(body))
        for item in items
        for kind, body in item.items()
        if kind != "metainfo"
    ]
    return sorted(found, key=lambda each: each[:2])


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
