"""Which identities a pod may use, and for each that it may not, why.

The chain is label → binding → identity, all three in the pod's own namespace:

* the pod's label `aadpodidbinding` and the binding's selector are equal, exactly and with case;
* the binding names an AzureIdentity of its own namespace.

The result lists what the pod is entitled to, best first, beside the refusals, so that the same
walk answers a request, fills a log line and prints `podidentity explain`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
    Malformed,
    Pod,
)

SERVED = frozenset({IdentityType.USER_ASSIGNED})
"""The types of identity that this release serves."""


class Directory(Protocol):
    """The cluster's custom resources, as far as the rules look at them."""

    def bindings(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings of a namespace with exactly this selector, in any order."""

    def malformed_bindings(self, namespace: str) -> Sequence[Malformed]:
        """Return the bindings of a namespace that cannot be used."""

    def identity(self, ref: ObjectRef) -> AzureIdentity | Malformed | None:
        """Return the identity of that name, or why it cannot be used, or None."""

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Entitlement:
    """An identity that a pod may use, and the binding that says so."""

    identity: AzureIdentity
    binding: AzureIdentityBinding


@dataclass(frozen=True, slots=True, kw_only=True)
class Match:
    """What a pod may use, best first: highest weight, then the identity's name."""

    pod: Pod
    bindings: tuple[AzureIdentityBinding, ...] = ()
    """The bindings that select the pod, usable or not."""
    entitlements: tuple[Entitlement, ...] = ()
    refusals: tuple[Refusal, ...] = ()
    """Why the rest, or everything, was refused; the first one is the one to tell."""


def match(pod: Pod, directory: Directory) -> Match:
    """Return what `pod` may use; never empty on both sides."""
    closed = _closed(pod)
    if closed is not None:
        return Match(pod=pod, refusals=(closed,))
    bindings = tuple(sorted(directory.bindings(pod.ref.namespace, pod.selector), key=_order))
    entitled: dict[ObjectRef, Entitlement] = {}
    refusals: list[Refusal] = []
    for binding in bindings:
        found = directory.identity(ObjectRef(binding.ref.namespace, binding.identity))
        if isinstance(found, AzureIdentity) and found.type in SERVED:
            # Two bindings of one identity: the first, and so the heavier, stands.
            entitled.setdefault(found.ref, Entitlement(identity=found, binding=binding))
        else:
            refusals.append(_no_identity(binding, found))
    if not bindings:
        refusals.append(_no_binding(pod, directory))
    return Match(
        pod=pod,
        bindings=bindings,
        entitlements=tuple(entitled.values()),
        refusals=tuple(refusals),
    )


def _order(binding: AzureIdentityBinding) -> tuple[int, str, str]:
    return (-binding.weight, binding.identity, binding.ref.name)


def _closed(pod: Pod) -> Refusal | None:
    """Return why no binding is even looked at, if so."""
    if not pod.selector:
        return Refusal(
            reason=Reason.NO_LABEL,
            message=f"Pod {pod.ref} has no label {BINDING_LABEL}.",
            next_step=f"Label it {BINDING_LABEL}=SELECTOR, SELECTOR being that of a binding in "
            f"namespace {pod.ref.namespace}.",
            about=pod.ref,
            told="Identity not found",
        )
    if pod.host_network:
        return Refusal(
            reason=Reason.HOST_NETWORK,
            message=f"Pod {pod.ref} uses the node's network, where pods cannot be told apart.",
            next_step="Run it without hostNetwork.",
            about=pod.ref,
        )
    if pod.ended:
        return Refusal(
            reason=Reason.POD_ENDED,
            message=f"Pod {pod.ref} has ended ({pod.phase.value}).",
            next_step="Nothing is to be done: an ended pod needs no token.",
            about=pod.ref,
        )
    return None


def _no_binding(pod: Pod, directory: Directory) -> Refusal:
    namespace, selector = pod.ref.namespace, pod.selector
    told = f"No AzureIdentityBinding in namespace {namespace} has the selector {selector!r}."
    malformed = directory.malformed_bindings(namespace)
    if malformed:
        first = malformed[0]
        return Refusal(
            reason=Reason.MALFORMED_BINDING,
            message=f"{told} AzureIdentityBinding {first.ref} cannot be used: {first.why}.",
            next_step=f"Correct AzureIdentityBinding {first.ref}.",
            about=first.ref,
        )
    elsewhere = [name for name in directory.namespaces_with(selector) if name != namespace]
    if elsewhere:
        return Refusal(
            reason=Reason.OTHER_NAMESPACE,
            message=f"{told} Namespace {', '.join(elsewhere)} has one, but the application and its "
            "AzureIdentity must be in the same namespace.",
            next_step=f"Create the AzureIdentity and its binding in namespace {namespace}, or run "
            f"the pod in {elsewhere[0]}.",
            about=pod.ref,
            told=told,
        )
    return Refusal(
        reason=Reason.NO_BINDING,
        message=told,
        next_step=f"Create one (podidentity add --namespace {namespace} --binding-selector "
        f"{selector} …), or correct the pod's label {BINDING_LABEL}.",
        about=pod.ref,
    )


def _no_identity(binding: AzureIdentityBinding, found: AzureIdentity | Malformed | None) -> Refusal:
    if isinstance(found, AzureIdentity):
        return Refusal(
            reason=Reason.UNSERVED_TYPE,
            message=f"AzureIdentity {found.ref} has type {int(found.type)}, which this release "
            "does not serve.",
            next_step="Use a user-assigned managed identity (type 0).",
            about=found.ref,
        )
    if found is not None:
        return Refusal(
            reason=Reason.MALFORMED_IDENTITY,
            message=f"AzureIdentity {found.ref} cannot be used: {found.why}.",
            next_step=f"Correct AzureIdentity {found.ref}.",
            about=found.ref,
        )
    return Refusal(
        reason=Reason.NO_IDENTITY,
        message=f"AzureIdentityBinding {binding.ref} names AzureIdentity {binding.identity!r}, "
        f"which does not exist in namespace {binding.ref.namespace}.",
        next_step="Create that AzureIdentity, or correct the binding's spec.azureIdentity.",
        about=binding.ref,
    )
