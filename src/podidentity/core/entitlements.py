"""The input of the rules (the Directory of objects) and their results: entitlements and refusals.

`matching` computes them; `decision` chooses the entitlement that answers a request.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Refusal
from podidentity.core.resources import (
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    Pod,
    WorkloadIdentity,
)


class Directory(Protocol):
    """The cluster's objects that the rules read."""

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings of a namespace with exactly this selector, in any order."""

    def malformed_bindings(self, namespace: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace that cannot be used."""

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""

    def exceptions(self, namespace: str) -> Sequence[AzurePodIdentityException]:
        """Return the exceptions of a namespace, in any order."""

    def assigned(self, pod: ObjectRef) -> Sequence[AzureAssignedIdentity]:
        """Return the controller's records about a pod, in any order."""

    def workload_identity(self, service_account: ObjectRef) -> WorkloadIdentity | Malformed | None:
        """Return the workload identity of an annotated service account; None for others."""


class Basis(StrEnum):
    """The kind of object that entitles a pod; values are stable, for logs and metrics."""

    BINDING = "binding"
    SERVICE_ACCOUNT = "service-account"
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """An identity that a pod may use, and the object that entitles it."""

    identity: AzureIdentity
    basis: Basis = Basis.BINDING
    binding: AzureIdentityBinding | None = None
    """Set only for Basis.BINDING."""
    awaited: Refusal | None = None
    """The refusal that holds until the identity is on the node."""


MOST_NAMED = 10
"""Identities that one message names; a namespace may have thousands."""


def named(identity: AzureIdentity) -> str:
    """Return an identity for a message: `orders (11111111-…)`."""
    known = identity.client_id or identity.resource_id
    return f"{identity.ref.name} ({known})" if known else identity.ref.name


def all_named(entitlements: Sequence[Entitlement]) -> str:
    """Return identities for a message, the first ten; `none` for none."""
    names = [named(each.identity) for each in entitlements[:MOST_NAMED]]
    more = len(entitlements) - len(names)
    return ", ".join(names or ["none"]) + (f" and {more} more" if more else "")


def may_use(usable: Sequence[Entitlement], unseen: int = 0) -> str:
    """Return a sentence with the identities that a pod may use; `unseen` more were not checked."""
    said = f"It may use: {all_named(usable)}."
    if not unseen:
        return said
    seen = f"the first {MOST_NAMED} of {MOST_NAMED + unseen} were checked"
    return f"{said} Only {seen}; name one by client_id."


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """The identities that a pod may use, best first: highest weight, then the identity's name."""

    pod: Pod
    bindings: tuple[AzureIdentityBinding, ...] = ()
    """The bindings that select the pod, usable or not."""
    entitlements: tuple[Entitlement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Why other identities, or all of them, are refused; the pod is told the first one."""
    exception: AzurePodIdentityException | None = None
    """The node's IMDS answers the pod, within the identities of this exception."""
