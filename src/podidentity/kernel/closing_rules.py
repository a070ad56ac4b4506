"""What closes IMDS to pods beside our own rules, and so while no NMI runs on the node.

Two are known: the table of podidentity's node unit (`podidentity node-unit`), and AKS's IMDS
restriction, which is, in table `filter` or `mangle`, written by iptables (Azure/AgentBaker,
parts/linux/cloud-init/artifacts/ensure_imds_restriction.sh):

    -I FORWARD 1 ! -s NODE -d 169.254.169.254/32 -p tcp --dport 80 -j DROP

Only what is certain counts: a rule with a condition that we do not know, one behind a rule that may
let packets pass, and rules of the old iptables (`iptables-legacy`), which libnftables does not see,
count as absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from podidentity.kernel.nftables import Nftables, NftablesError

BOOT_TABLE = "podid_boot"
NODE_UNIT = "the node unit"
RESTRICTION = "AKS's IMDS restriction"

_CHAINS = (
    (NODE_UNIT, BOOT_TABLE, "closed"),
    (RESTRICTION, "filter", "FORWARD"),
    (RESTRICTION, "mangle", "FORWARD"),
)
_KUBE_PROXY = "KUBE-"
"""How the names of kube-proxy's chains begin: they let answers and services' packets pass, which
those to IMDS are not."""


def closing(nft: Nftables, imds: str, port: int) -> tuple[str, ...]:
    tables = {
        item["table"]["name"]: item["table"].get("flags", ())
        for item in _listed(nft, {"tables": {"family": "ip"}})
        if "table" in item
    }
    found = []
    for name, table, chain in _CHAINS:
        if table in tables and "dormant" not in tables[table]:
            one = {"chain": {"family": "ip", "table": table, "name": chain}}
            if closes(_listed(nft, one), imds, port):
                found.append(name)
    return tuple(dict.fromkeys(found))


def _listed(nft: Nftables, what: dict[str, Any]) -> Sequence[Mapping[str, Any]]:
    try:
        listed = nft.run(json.dumps({"nftables": [{"list": what}]}))
    except NftablesError:
        return ()
    items: Sequence[Mapping[str, Any]] = listed.get("nftables", ())
    return items


def closes(items: Sequence[Mapping[str, Any]], imds: str, port: int) -> bool:
    """Whether the chain in a listing drops all that pods send to this address and port."""
    chains = [item["chain"] for item in items if "chain" in item]
    if [(each.get("hook"), each.get("type")) for each in chains] != [("forward", "filter")]:
        return False
    for rule in (item["rule"]["expr"] for item in items if "rule" in item):
        if _drops(rule, imds, port):
            return True
        if not _is_harmless(rule):
            return False
    return False


def _drops(rule: Sequence[Mapping[str, Any]], imds: str, port: int) -> bool:
    fields = [_field(each) for each in rule if "counter" not in each]
    *conditions, verdict = fields or [None]
    return (
        verdict == ("drop", None, None)
        and ("ip daddr", "==", imds) in conditions
        and all(
            each in {("ip daddr", "==", imds), ("tcp dport", "==", port)}
            or (each is not None and each[:2] == ("ip saddr", "!="))
            for each in conditions
        )
    )


def _field(expression: Mapping[str, Any]) -> tuple[str, Any, Any] | None:
    """Return an expression as field, operator and value; None for what we do not know."""
    if "drop" in expression:
        return ("drop", None, None)
    match = expression.get("match") or {}
    payload = (match.get("left") or {}).get("payload") or {}
    right = match.get("right")
    if not payload or not isinstance(right, str | int):
        return None
    return (f"{payload.get('protocol')} {payload.get('field')}", match.get("op"), right)


def _is_harmless(rule: Sequence[Mapping[str, Any]]) -> bool:
    """Whether a rule lets nothing pass that would be dropped behind it."""
    for each in rule:
        target = (each.get("jump") or each.get("goto") or {}).get("target", "")
        if "accept" in each or "queue" in each or "xt" in each or "vmap" in each:
            return False
        if ("jump" in each or "goto" in each) and not target.startswith(_KUBE_PROXY):
            return False
    return True
