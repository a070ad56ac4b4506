"""Whether an identity that is bound to a pod can be used at all, before anybody asks for a token.

An AzureIdentity is written by whoever may write in its namespace. What it says about authorities
and secrets decides where a secret is sent: so both are checked here, once, for every way there is
to use it.
"""

from __future__ import annotations

from dataclasses import dataclass

from podidentity.core.authorities import KNOWN_AUTHORITIES, Authority, Tenant
from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    Assignment,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
    Malformed,
    Pod,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """What an operator chose, as far as the rules depend on it; the strict ones by default."""

    standard: bool = False
    """Wait for a controller's word that an identity is on the node."""
    exception_namespaces: frozenset[str] | None = frozenset({"kube-system"})
    """Where an AzurePodIdentityException has effect; None: everywhere, as it once was."""
    any_label: bool = False
    """One label of an exception is enough, whatever its case, as it once was."""
    cross_namespace: bool = False
    """Bindings and identities of other namespaces count, as they once did."""
    foreign_secrets: bool = False
    """Secrets of other namespaces are read, as they once were."""
    authorities: frozenset[Authority] = KNOWN_AUTHORITIES
    """Where a secret may be sent."""
    tenant: Tenant | None = None
    """Of service accounts that name none."""


STRICT = Rules()


def unusable(
    binding: AzureIdentityBinding, found: AzureIdentity | Malformed | None, pod: Pod, rules: Rules
) -> Refusal | None:
    """Return why what `binding` names cannot be used by `pod`, if so."""
    if found is None:
        return Refusal(
            reason=Reason.NO_IDENTITY,
            message=f"AzureIdentityBinding {binding.ref} names AzureIdentity "
            f"{binding.identity!r}, which does not exist in namespace {binding.ref.namespace}.",
            next_step="Create that AzureIdentity, or correct the binding's spec.azureIdentity.",
            about=binding.ref,
        )
    if isinstance(found, Malformed):
        return malformed(found)
    if found.namespaced and found.ref.namespace != pod.ref.namespace:
        return Refusal(
            reason=Reason.OTHER_NAMESPACE,
            message=f"AzureIdentity {found.ref} is for pods of its own namespace only.",
            next_step=f"Run the pod in namespace {found.ref.namespace}.",
            about=found.ref,
            told=f"No AzureIdentity of namespace {pod.ref.namespace} is bound to the pod.",
        )
    return _wrong_entra(found, rules)


def malformed(found: Malformed) -> Refusal:
    """Return the refusal of an object that exists and cannot be used."""
    return Refusal(
        reason=Reason.MALFORMED_IDENTITY,
        message=f"{found.kind} {found.ref} cannot be used: {found.why}.",
        next_step=f"Correct {found.kind} {found.ref}.",
        about=found.ref,
    )


def _wrong_entra(identity: AzureIdentity, rules: Rules) -> Refusal | None:
    entra = identity.entra
    if entra is None:
        return None
    if entra.authority is not None and entra.authority not in rules.authorities:
        return Refusal(
            reason=Reason.UNKNOWN_AUTHORITY,
            message=f"AzureIdentity {identity.ref} names the authority {entra.authority}, which is "
            "none of Azure's.",
            next_step="Correct spec.adEndpoint, or have the operator allow it: "
            f"--authorities={entra.authority}.",
            about=identity.ref,
        )
    secret = entra.secret
    if secret and secret.namespace != identity.ref.namespace and not rules.foreign_secrets:
        return Refusal(
            reason=Reason.FOREIGN_SECRET,
            message=f"AzureIdentity {identity.ref} names a secret of namespace "
            f"{secret.namespace}; only one of its own namespace is read.",
            next_step=f"Put the secret into namespace {identity.ref.namespace}, and leave "
            "spec.clientPassword.namespace out.",
            about=identity.ref,
        )
    return None


def not_assigned(
    pod: Pod, identity: AzureIdentity, record: AzureAssignedIdentity | None
) -> Refusal | None:
    """Return what is missing until the identity is on the pod's node, in standard mode, if so.

    Only what is attached to a machine needs a record: the other types are good at once.
    """
    if identity.type is not IdentityType.USER_ASSIGNED or identity.system_assigned:
        return None
    state = record.state if record else None
    if state is Assignment.ASSIGNED:
        return None
    what = f"AzureAssignedIdentity is {state.value}" if state else "no AzureAssignedIdentity yet"
    return Refusal(
        reason=Reason.NOT_ASSIGNED,
        message=f"AzureIdentity {identity.ref} is not assigned to node {pod.node} for pod "
        f"{pod.ref}: {what}.",
        next_step="See what the controller (MIC) says of it: its log, and the events of the "
        "AzureIdentityBinding.",
        about=identity.ref,
        told=f"The identity {identity.ref.name} is not assigned to the pod's node yet.",
    )


def assignment(
    records: tuple[AzureAssignedIdentity, ...], pod: Pod, identity: ObjectRef
) -> AzureAssignedIdentity | None:
    """Return the record that counts for `pod` and `identity`: of its own node, the furthest one."""
    order = {Assignment.ASSIGNED: 0, Assignment.CREATED: 1, Assignment.UNASSIGNED: 2}
    mine = [each for each in records if each.identity == identity and each.node == pod.node]
    return min(mine, key=lambda each: order[each.state], default=None)
