"""What the rules look at, and what they find: entitlements beside refusals.

Values only; how they are found is in `matching`, which of them answers a request in `selection`.
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
    """The cluster's objects, as far as the rules look at them."""

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
        """Return what the annotations of a service account say; None where it has none."""


class Basis(StrEnum):
    """What entitles a pod; values are stable, for logs and metrics."""

    BINDING = "binding"
    SERVICE_ACCOUNT = "service-account"
    EXCEPTION = "exception"


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """An identity that a pod may use, and what says so."""

    identity: AzureIdentity
    basis: Basis = Basis.BINDING
    binding: AzureIdentityBinding | None = None
    """Of BINDING only."""
    awaited: Refusal | None = None
    """What is still missing, where it is on its way to the node."""


MOST_NAMED = 10
"""Identities that one message names; a namespace may have thousands."""


def named(identity: AzureIdentity) -> str:
    """Return an identity as messages name it: `orders (11111111-…)`."""
    known = identity.client_id or identity.resource_id
    return f"{identity.ref.name} ({known})" if known else identity.ref.name


def all_named(entitlements: Sequence[Entitlement]) -> str:
    """Return identities as messages name them, the first ten; `none` for none."""
    names = [named(each.identity) for each in entitlements[:MOST_NAMED]]
    more = len(entitlements) - len(names)
    return ", ".join(names or ["none"]) + (f" and {more} more" if more else "")


def may_use(usable: Sequence[Entitlement], unseen: int = 0) -> str:
    """Return what a pod may use as a sentence; behind the first ten there were `unseen` more."""
    said = f"It may use: {all_named(usable)}."
    if not unseen:
        return said
    seen = f"the first {MOST_NAMED} of {MOST_NAMED + unseen} were looked at"
    return f"{said} Only {seen}; name one by client_id."


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a pod may use, best first: highest weight, then the identity's name."""

    pod: Pod
    bindings: tuple[AzureIdentityBinding, ...] = ()
    """The bindings that select the pod, usable or not."""
    entitlements: tuple[Entitlement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Why the rest, or everything, was refused; the first one is the one to tell."""
    exception: AzurePodIdentityException | None = None
    """The pod is answered by the node's IMDS, within what this allows."""
