"""Engines of network policies, as far as a pod's egress to blocks of addresses goes.

`Before` judges what leaves the pod, where Cilium's program does: at the ingress of the node's end
of its link, before all of netfilter. `After` judges what arrives at the node, after redirection, as
Calico judges what a workload sends to its host (aad-pod-identity issues 417 and 716).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from enum import Enum
from typing import Any

Policy = Mapping[str, Any]
_TABLES = "netdev policies", "ip policies"
GONE = "\n".join(f"nft add table {table}\nnft delete table {table}" for table in _TABLES)


class Engine(Enum):
    """When policies are judged."""

    BEFORE = "before redirection"
    AFTER = "after redirection"

    def script(self, link: str, policies: Sequence[Policy]) -> str:
        """Return what `nft -f` is given to judge all that a pod sends over this link."""
        return "\n".join([*self._lines(link, policies), ""])

    def _lines(self, link: str, policies: Sequence[Policy]) -> Iterator[str]:
        if self is Engine.BEFORE:
            table, match = "netdev policies", "meta protocol ip"
            hook = f"type filter hook ingress device {link} priority 0"
        else:
            table, match = "ip policies", "ct state new"
            hook = "type filter hook input priority filter"
        yield f"add table {table}"
        yield f"add chain {table} egress {{ {hook}; }}"
        if self is Engine.AFTER:
            yield f'add rule {table} egress iifname != {{ "{link}", "cbr0" }} accept'
        for policy in policies:
            for rule in policy["spec"].get("egress", ()):
                for peer in rule["to"]:
                    for port in rule["ports"]:
                        to = f"ip daddr {peer['ipBlock']['cidr']} tcp dport {port['port']}"
                        yield f"add rule {table} egress {to} accept"
        yield f"add rule {table} egress {match} drop"
