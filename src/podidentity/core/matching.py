"""Which identities a pod may use, and for each that it may not, why.

Three ways lead to an identity, and the first that applies is taken:

* an AzurePodIdentityException of the pod's namespace: the pod is answered by the node's IMDS;
* the label `aadpodidbinding`: label → binding → identity, all three in the pod's own namespace;
* without that label, the pod's service account, annotated for azure-workload-identity.

The result lists what the pod is entitled to, best first, beside the refusals, so that the same
walk answers a request, fills a log line and prints `podidentity explain`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from heapq import nsmallest

from podidentity.core.entitlements import MOST_NAMED, Basis, Directory, Entitlement, Match
from podidentity.core.excepting import excepting, ignored
from podidentity.core.ids import ObjectRef
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Entra,
    Federation,
    IdentityType,
    Malformed,
    Pod,
)
from podidentity.core.usability import (
    STRICT,
    Rules,
    assignment,
    malformed,
    not_assigned,
    unusable,
)

MOST_BOUND = 500
"""Bindings of one selector that count, the heaviest first: whoever makes ten thousand would take
milliseconds of each request that is answered on the node."""


def match(pod: Pod, directory: Directory, rules: Rules = STRICT) -> Match:
    """Return what `pod` may use: an exception, entitlements or refusals, never none of them."""
    closed = _closed(pod)
    if closed is not None:
        return Match(pod=pod, refusals=(closed,))
    exceptions = directory.exceptions(pod.ref.namespace)
    found = excepting(pod, exceptions, rules)
    if found is not None:
        return Match(pod=pod, exception=found)
    if pod.selector:
        return _by_label(pod, directory, rules)
    return _by_service_account(pod, directory, rules, exceptions)


def _by_label(pod: Pod, directory: Directory, rules: Rules) -> Match:
    bindings = tuple(nsmallest(MOST_BOUND, _bindings(pod, directory, rules), key=_order))
    records = tuple(directory.assigned(pod.ref)) if rules.standard else ()
    entitled: dict[ObjectRef, Entitlement] = {}
    refusals: list[Refusal] = []
    for binding in bindings:
        found = directory.identity(ObjectRef(binding.ref.namespace, binding.identity))
        refusal = unusable(binding, found, pod, rules)
        if refusal is not None:
            refusals.append(_for_a_stranger(refusal, binding, pod))
        elif isinstance(found, AzureIdentity) and found.ref not in entitled:
            # Two bindings of one identity: the first, and so the heavier, stands.
            record = assignment(records, pod, found.ref)
            awaited = not_assigned(pod, found, record) if rules.standard else None
            entitled[found.ref] = Entitlement(identity=found, binding=binding, awaited=awaited)
    if not bindings:
        refusals.append(_no_binding(pod, directory))
    return Match(
        pod=pod,
        bindings=bindings,
        entitlements=tuple(entitled.values()),
        refusals=tuple(refusals),
    )


def _bindings(pod: Pod, directory: Directory, rules: Rules) -> Iterable[AzureIdentityBinding]:
    if not rules.cross_namespace:
        return directory.bindings(pod.ref.namespace, pod.selector)
    return (
        binding
        for namespace in directory.namespaces_with(pod.selector)
        for binding in directory.bindings(namespace, pod.selector)
    )


def _for_a_stranger(refusal: Refusal, binding: AzureIdentityBinding, pod: Pod) -> Refusal:
    """Return `refusal` so that a pod is told nothing of what is wrong in another namespace."""
    if refusal.told or binding.ref.namespace == pod.ref.namespace:
        return refusal
    return replace(refusal, told="What is bound to the pod in another namespace cannot be used.")


def _order(binding: AzureIdentityBinding) -> tuple[int, str, ObjectRef]:
    return (-binding.weight, binding.identity, binding.ref)


def _by_service_account(
    pod: Pod, directory: Directory, rules: Rules, exceptions: Sequence[AzurePodIdentityException]
) -> Match:
    account = ObjectRef(pod.ref.namespace, pod.service_account)
    found = directory.workload_identity(account)
    if found is None:
        idle = ignored(pod, exceptions, rules)
        return Match(pod=pod, refusals=(idle or _no_label(pod),))
    if isinstance(found, Malformed):
        return Match(pod=pod, refusals=(malformed(found),))
    tenant = found.tenant or rules.tenant
    if tenant is None:
        return Match(pod=pod, refusals=(_no_tenant(account),))
    identity = AzureIdentity(
        ref=account,
        type=IdentityType.FEDERATED,
        client_id=found.client_id,
        entra=Entra(tenant=tenant, federation=Federation()),
    )
    return Match(
        pod=pod, entitlements=(Entitlement(identity=identity, basis=Basis.SERVICE_ACCOUNT),)
    )


def _closed(pod: Pod) -> Refusal | None:
    """Return why nothing is even looked at, if so."""
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


def _no_label(pod: Pod) -> Refusal:
    return Refusal(
        reason=Reason.NO_LABEL,
        message=f"Pod {pod.ref} has no label {BINDING_LABEL}, and its service account "
        f"{pod.service_account} is not annotated with azure.workload.identity/client-id.",
        next_step=f"Label it {BINDING_LABEL}=SELECTOR, SELECTOR being that of a binding in "
        f"namespace {pod.ref.namespace}.",
        about=pod.ref,
        told="Identity not found",
    )


def _no_tenant(account: ObjectRef) -> Refusal:
    return Refusal(
        reason=Reason.NO_TENANT,
        message=f"ServiceAccount {account} names a client id but no tenant, and NMI was told none.",
        next_step="Annotate it with azure.workload.identity/tenant-id, or start NMI with "
        "--tenant-id.",
        about=account,
    )


def _no_binding(pod: Pod, directory: Directory) -> Refusal:
    namespace, selector = pod.ref.namespace, pod.selector
    told = f"No AzureIdentityBinding in namespace {namespace} has the selector {selector!r}."
    malformed_ones = directory.malformed_bindings(namespace)
    if malformed_ones:
        first = malformed_ones[0]
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
            message=f"{told} Namespace {_some(elsewhere)} has one, but the application and its "
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


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_NAMED
    return ", ".join(names[:MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
