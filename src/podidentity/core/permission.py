"""The permission of a pod's service account to use an identity.

An AzureIdentity is only a request: its author can write any client id into it. The permission is
RBAC of the cluster: the verb `use` on the resource `azureidentities` of group
`aadpodidentity.k8s.io`, granted cluster-wide, so that the owner of a namespace cannot grant it by a
Role. The resource's name is the client id (without one the ARM id, in lower case), or
`system-assigned` for the node's own identity.

Two entitlements need no permission: a service account annotated for azure-workload-identity,
because Entra itself decides on it, and an exception, because it counts only in the operator's
namespaces.
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
    """The effect of a missing permission; values are those of `--authorization`."""

    RBAC = "rbac"
    """The request is refused."""
    OBSERVE = "observe"
    """Log, audit and event report it, but the token is given."""
    OFF = "off"
    """Permissions are not checked."""


@dataclass(frozen=True, slots=True)
class Use:
    """A question to the API server: may this service account use the resource of this name?"""

    service_account: ObjectRef
    name: str

    def __str__(self) -> str:
        return f"{self.service_account} {VERB} {self.name}"


def uses_of(pod: Pod, entitlement: Entitlement) -> tuple[Use, ...]:
    """Return all permissions that `entitlement` of `pod` needs; usually one.

    A managed identity that is the credential of another (`federation.via`) needs its own
    permission: else a tenant could sign in to his application by a neighbour's identity.
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

    `usable` are the identities that it may use instead, None if unknown; `unseen` more were not
    checked.
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
