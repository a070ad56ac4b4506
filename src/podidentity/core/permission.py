"""Whether a pod's service account may use an identity: a permission, not a wish.

Whoever may create an AzureIdentity could write any client id into it. The permission is RBAC of
the cluster: the verb `use` on the resource `azureidentities` of group `aadpodidentity.k8s.io`,
granted cluster-wide, so that no Role of a namespace's owner can give it; the resource's name is
the client id (without one the ARM id, in lower case), and `system-assigned` for the node's own.

Two entitlements need none: a service account annotated for azure-workload-identity, because Entra
itself decides for it, and an exception, because it counts in the operator's namespaces only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from podidentity.core.entitlements import Basis, Entitlement, may_use
from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import SYSTEM_ASSIGNED, AzureIdentity, Pod

GROUP = "aadpodidentity.k8s.io"
RESOURCE = "azureidentities"
VERB = "use"


class Authorization(StrEnum):
    """What a missing permission does; values are those of the flag."""

    RBAC = "rbac"
    """It refuses."""
    OBSERVE = "observe"
    """It is told, by log, audit and event, and the token is given all the same."""
    OFF = "off"
    """Nobody asks."""


@dataclass(frozen=True, slots=True)
class Use:
    """What is asked of the API server: may this service account use what has this name?"""

    service_account: ObjectRef
    name: str

    def __str__(self) -> str:
        return f"{self.service_account} {VERB} {self.name}"


def uses_of(pod: Pod, entitlement: Entitlement) -> tuple[Use, ...]:
    """Return the permissions that `entitlement` of `pod` needs, all of them; often one.

    A managed identity that is another's credential (`federation.via`) is used as well: without
    its own permission, anybody could sign in to an application of his by a neighbour's identity.
    """
    if entitlement.basis is not Basis.BINDING:
        return ()
    account = ObjectRef(pod.ref.namespace, pod.service_account)
    return tuple(Use(account, name) for name in permission_names(entitlement.identity))


def permission_names(identity: AzureIdentity) -> tuple[str, ...]:
    """Return the names of all resources to which `use` must be granted."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is None:
        return (permission_name(identity),)
    return (permission_name(identity), federation.via.folded)


def permission_name(identity: AzureIdentity) -> str:
    """Return the name of the resource to which `use` must be granted."""
    if identity.system_assigned:
        return SYSTEM_ASSIGNED
    if identity.client_id is not None:
        return str(identity.client_id)
    return identity.resource_id.folded if identity.resource_id else ""


def not_permitted(
    pod: Pod,
    identity: AzureIdentity,
    use: Use,
    usable: Sequence[Entitlement] | None = None,
    unseen: int = 0,
) -> Refusal:
    """Return the refusal of a pod whose service account lacks the permission.

    `usable` is what it may use instead, None where nobody has looked; `unseen` more were not
    looked at.
    """
    instead = "" if usable is None else f" {may_use(usable, unseen)}"
    return Refusal(
        reason=Reason.NOT_PERMITTED,
        message=f"Service account {use.service_account} of pod {pod.ref} may not use the identity "
        f"{use.name} of AzureIdentity {identity.ref}.{instead}",
        next_step="An operator grants it: podidentity grant --namespace "
        f"{use.service_account.namespace} --identity {use.name}.",
        about=identity.ref,
    )
