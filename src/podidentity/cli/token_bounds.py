"""Which audiences NMI may ask tokens of service accounts for, by what `enable` has put there.

Entra's are always among them. Another one of `spec.federation.audience` must be named; else the API
server refuses the token, and pods get 403: `check` says so before a pod asks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from podidentity.cli.objects import POLICIES, Object, find
from podidentity.core.authorities import EXCHANGE_AUDIENCES
from podidentity.core.resources import AssertionSubject, AzureIdentity
from podidentity.manifests import NODE_AUDIENCES, POLICY_OF_NMI, literal
from podidentity.wire.kube import CLUSTER_ROLES

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


@dataclass(frozen=True, slots=True)
class TokenBounds:
    """What bounds the audiences of the tokens that NMI asks for."""

    policy: Object | None
    """It judges what NMI asks for by its own right; None if there is none: any audience then."""
    node_role: Object | None
    """Its resources are the audiences that a node may ask for, besides those of pods' volumes."""
    as_node: bool
    """Whether NMI asks for pods' tokens as its node."""

    def refused(self, identity: AzureIdentity) -> str:
        """Return the audience that NMI may not ask for, of a usable identity; "" if it may."""
        federation = identity.entra.federation if identity.entra else None
        if federation is None or federation.via is not None:
            return ""
        audience = federation.audience
        if not audience or audience in EXCHANGE_AUDIENCES.values():
            return ""
        named = True
        if self.as_node and federation.subject is AssertionSubject.POD:
            rules: Sequence[Object] = (self.node_role or {}).get("rules") or ()
            named = any(audience in rule.get("resources", ()) for rule in rules)
        elif self.policy is not None:
            written: Sequence[Object] = self.policy["spec"].get("validations") or ()
            named = any(literal(audience) in each["expression"] for each in written)
        return "" if named else audience


async def read_bounds(kube: Kube, *, as_node: bool) -> TokenBounds:
    return TokenBounds(
        policy=await find(kube, POLICIES, "", POLICY_OF_NMI),
        node_role=await find(kube, CLUSTER_ROLES, "", NODE_AUDIENCES) if as_node else None,
        as_node=as_node,
    )
