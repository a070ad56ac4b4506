"""Whether NetworkPolicies let a pod's requests out to IMDS, judged before or after our redirection.

Kubernetes does not say which destination a policy sees where a packet is redirected. Cilium judges
what leaves the pod, with the address that the pod asked for; Calico judges what the node routes,
with the address that NMI redirects to. A rule that is missing is a request that nobody answers, and
that nobody logs. Policies of other kinds (CiliumNetworkPolicy, Calico's own) are not read.

Source: https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address, ip_network

from podidentity.cli.chain import Fact, LinkState
from podidentity.cli.objects import Object
from podidentity.kernel.rules import Redirect
from podidentity.kernel.sock_diag import Endpoint
from podidentity.wire.kube import Resource

NETWORK_POLICIES = Resource("/apis/networking.k8s.io/v1", "networkpolicies")


@dataclass(frozen=True, slots=True, kw_only=True)
class Egress:
    """What policies say of a pod's requests."""

    policies: tuple[str, ...]
    """Names of those that judge what leaves the pod."""
    before: bool
    """Whether they let requests out where they are judged before redirection."""
    after: bool
    """The same, where they are judged after it."""

    def fact(self, redirect: Redirect) -> Fact:
        names = ", ".join(self.policies)
        if self.before and self.after:
            return Fact(LinkState.HOLDS, f"{names}: {redirect.metadata_ip} may be asked")
        need = f"allow egress to {self.missing(redirect)}"
        state = LinkState.UNKNOWN if self.before or self.after else LinkState.BROKEN
        return Fact(state, f"{names}: {need}")

    def missing(self, redirect: Redirect) -> str:
        ways = (
            (
                self.before,
                f"{_rule(redirect.imds)} (where policies see what the pod asked for: Cilium)",
            ),
            (self.after, f"{_rule(redirect.listener)} (where they see where it goes to: Calico)"),
        )
        return " and ".join(text for open_, text in ways if not open_)


def egress_of(
    labels: Mapping[str, str], policies: Sequence[Object], redirect: Redirect
) -> Egress | None:
    """Return what the policies of a namespace say of its pod with these labels.

    None where none of them judges what leaves it: then all may.
    """
    judging = [
        each
        for each in policies
        if _judges_egress(each["spec"]) and _selects(each["spec"].get("podSelector") or {}, labels)
    ]
    if not judging:
        return None
    rules = [rule for each in judging for rule in each["spec"].get("egress") or ()]
    return Egress(
        policies=tuple(sorted(each["metadata"]["name"] for each in judging)),
        before=any(_allows(rule, redirect.imds) for rule in rules),
        after=any(_allows(rule, redirect.listener) for rule in rules),
    )


def _rule(to: Endpoint) -> str:
    """Return what a rule must have to let a TCP connection out to this endpoint."""
    return f"{to.address}/32, TCP port {to.port}"


def _judges_egress(spec: Object) -> bool:
    types = spec.get("policyTypes")
    return "Egress" in types if types else "egress" in spec


def _selects(selector: Object, labels: Mapping[str, str]) -> bool:
    wanted: Mapping[str, str] = selector.get("matchLabels") or {}
    return wanted.items() <= labels.items() and all(
        _matches(each, labels) for each in selector.get("matchExpressions") or ()
    )


def _matches(expression: Object, labels: Mapping[str, str]) -> bool:
    value, values = labels.get(expression["key"]), expression.get("values") or ()
    match expression["operator"]:
        case "In":
            return value in values
        case "NotIn":
            return value not in values
        case "Exists":
            return value is not None
        case _:
            return value is None


def _allows(rule: Object, to: Endpoint) -> bool:
    """Whether a rule lets a packet out to this destination, which is no pod's."""
    peers, ports = rule.get("to") or (), rule.get("ports") or ()
    return (not peers or any(_covers(peer.get("ipBlock"), to) for peer in peers)) and (
        not ports or any(_has(port, to) for port in ports)
    )


def _covers(block: Object | None, to: Endpoint) -> bool:
    """Whether a block has the address; selectors of pods and namespaces are no block."""
    if block is None:
        return False
    excepted = block.get("except") or ()
    return _within(block["cidr"], to) and not any(_within(each, to) for each in excepted)


_ZEROS = re.compile(r"(?<![^.])0+(?=[0-9])")
"""The API server takes 010.0.0.0/8 for 10.0.0.0/8, as Go did once: Python takes it for none.

https://github.com/kubernetes/utils/blob/master/net/parse.go
"""


def _within(cidr: str, to: Endpoint) -> bool:
    network, address = ip_network(_ZEROS.sub("", cidr), strict=False), ip_address(to.address)
    return network.version == address.version and address in network


def _has(port: Object, to: Endpoint) -> bool:
    """Whether a rule's port is that of the destination; one with a name is a pod's."""
    first: int | str | None = port.get("port")
    if port.get("protocol", "TCP") != "TCP" or isinstance(first, str):
        return False
    if first is None:
        return True
    last: int = port.get("endPort", first)
    return first <= to.port <= last
