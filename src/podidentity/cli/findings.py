"""What a cluster has that the rules refuse, and what would let it be: each by the rules themselves.

Nothing is found for the pods of one moment alone: what an identity, a binding or an exception says
is judged as if a pod were there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.authorities import KNOWN_AUTHORITIES, Authority
from podidentity.core.excepting import excepting, ignored
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import match
from podidentity.core.permission import Use, not_permitted
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    Pod,
)
from podidentity.core.usability import Rules, malformed, unusable

SWITCHES = {
    Reason.OTHER_NAMESPACE: "--compat-cross-namespace",
    Reason.FOREIGN_SECRET: "--compat-foreign-secrets",
}
"""NMI's flag that brings the old rule back, for all of the cluster."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """Something that the rules refuse."""

    kind: str
    about: ObjectRef
    reason: str
    what: str
    """A sentence."""
    mend: str
    """What to do about it, as a sentence."""
    switch: str = ""
    """The flag of NMI that brings the old rule back; "" where there is none."""


Lacking = Callable[[str, AzureIdentity], Sequence[str]]
"""The permissions for want of which no service account of a namespace may use an identity."""


def findings(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    rules: Rules,
    lacking: Lacking,
) -> list[Finding]:
    """Return what the rules refuse, in order of namespace and name, each once."""
    found = [
        *_malformed([*cluster.all_identities(), *cluster.all_bindings(), *exceptions]),
        *_bound(cluster, rules, lacking),
        *_borrowed(cluster, rules, lacking),
        *_elsewhere(cluster, rules),
        *(each for one in exceptions for each in _exception(cluster, one, rules)),
    ]
    return sorted(dict.fromkeys(found), key=lambda each: (each.about, each.kind, each.reason))


def _malformed(values: Sequence[object]) -> Iterator[Finding]:
    for each in values:
        if isinstance(each, Malformed):
            yield _refused(each.kind, replace(malformed(each), about=each.ref))


def _bound(cluster: WatchedCluster, rules: Rules, lacking: Lacking) -> Iterator[Finding]:
    """Yield what keeps bound identities from being used by pods of their namespace."""
    for binding, found, refusal in _bindings(cluster, rules):
        if isinstance(found, AzureIdentity) and refusal is None:
            yield from _not_granted(binding.ref.namespace, found, lacking)
        elif refusal is not None and not isinstance(found, Malformed):
            kind = "AzureIdentityBinding" if found is None else "AzureIdentity"
            authority = found.entra.authority if found and found.entra else None
            yield _refused(kind, refusal, _switch(refusal, rules, authority))


def usable_identities(cluster: WatchedCluster, rules: Rules) -> list[AzureIdentity]:
    """Return the identities that are bound and that the rules let be used, each once."""
    usable = (found for _, found, refusal in _bindings(cluster, rules) if refusal is None)
    return list(dict.fromkeys(each for each in usable if isinstance(each, AzureIdentity)))


def _bindings(
    cluster: WatchedCluster, rules: Rules
) -> Iterator[tuple[AzureIdentityBinding, AzureIdentity | Malformed | None, Refusal | None]]:
    """Yield each binding with its identity, and why that cannot be used, if so."""
    for binding in cluster.all_bindings():
        if not isinstance(binding, Malformed):
            found = cluster.identity(ObjectRef(binding.ref.namespace, binding.identity))
            pod = _any_pod(binding.ref.namespace)
            yield binding, found, unusable(binding, found, pod, rules)


def cannot_sign_in(identity: ObjectRef, why: str) -> Finding:
    """Return the finding of an identity whose secret or account cannot be used."""
    return Finding(
        kind="AzureIdentity",
        about=identity,
        reason="Credential",
        what=f"AzureIdentity {identity} cannot sign in: {why}.",
        mend="Make it, or correct what it holds.",
    )


def _not_granted(namespace: str, identity: AzureIdentity, lacking: Lacking) -> Iterator[Finding]:
    """Yield each permission that is missing: with one of two, an identity is of no use."""
    pod = _any_pod(namespace)
    for name in lacking(namespace, identity):
        use = Use(ObjectRef(namespace, pod.service_account), name)
        yield Finding(
            kind="AzureIdentity",
            about=identity.ref,
            reason=Reason.NOT_PERMITTED.value,
            what=f"No pod of namespace {namespace} may use AzureIdentity {identity.ref}, for want "
            f"of the permission for {name}.",
            mend=not_permitted(pod, identity, use).next_step,
            switch="--authorization=observe",
        )


def _borrowed(cluster: WatchedCluster, rules: Rules, lacking: Lacking) -> Iterator[Finding]:
    """Yield identities of other namespaces that pods are bound to, and were not granted."""
    for pod in cluster.pods():
        for each in match(pod, cluster, rules).entitlements:
            namespace, binding = pod.ref.namespace, each.binding
            if binding is not None and binding.ref.namespace != namespace:
                yield from _not_granted(namespace, each.identity, lacking)


def _elsewhere(cluster: WatchedCluster, rules: Rules) -> Iterator[Finding]:
    """Yield labels of pods that only another namespace has a binding for; once a label."""
    for pod in cluster.pods():
        refusals = match(pod, cluster, rules).refusals
        if refusals and refusals[0].reason is Reason.OTHER_NAMESPACE:
            about = ObjectRef(pod.ref.namespace, f"aadpodidbinding={pod.selector}")
            found = replace(refusals[0], about=about)
            yield _refused("Pod", found, _switch(found, rules))


def _exception(
    cluster: WatchedCluster, exception: AzurePodIdentityException | Malformed, rules: Rules
) -> Iterator[Finding]:
    if isinstance(exception, Malformed):
        return
    namespace = exception.ref.namespace
    pod = replace(_any_pod(namespace), labels=exception.pod_labels)
    if excepting(pod, [exception], rules) is None:
        idle = ignored(pod, [exception], rules)
        names = sorted({namespace, *(rules.exception_namespaces or ())})
        switch = f"--exception-namespaces={','.join(names)}" if idle else ""
        yield _refused("AzurePodIdentityException", idle or _empty(exception), switch)
    old = replace(rules, any_label=True)
    by_one = [
        each
        for each in cluster.pods()
        if each.ref.namespace == namespace
        and excepting(each, [exception], old)
        and not excepting(each, [exception], rules)
    ]
    if by_one:
        yield Finding(
            kind="AzurePodIdentityException",
            about=exception.ref,
            reason="AnyLabel",
            what=f"Pods that have some of its labels and not all: {len(by_one)}, such as "
            f"{by_one[0].ref}.",
            mend="Leave out of spec.podLabels what its pods do not have.",
            switch="--compat-any-label-exceptions",
        )


def _empty(exception: AzurePodIdentityException) -> Refusal:
    return Refusal(
        reason=Reason.EXCEPTION_IGNORED,
        message=f"AzurePodIdentityException {exception.ref} names no label, and so no pod.",
        next_step="Name labels in spec.podLabels, or delete it.",
        about=exception.ref,
    )


def _any_pod(namespace: str) -> Pod:
    return Pod(ref=ObjectRef(namespace, "any"), uid="")


def _refused(kind: str, refusal: Refusal, switch: str = "") -> Finding:
    return Finding(
        kind=kind,
        about=refusal.about or ObjectRef("", ""),
        reason=refusal.reason.value,
        what=refusal.message,
        mend=refusal.next_step,
        switch=switch,
    )


def _switch(refusal: Refusal, rules: Rules, authority: Authority | None = None) -> str:
    if refusal.reason is Reason.UNKNOWN_AUTHORITY and authority is not None:
        more = sorted(map(str, {authority, *(rules.authorities - KNOWN_AUTHORITIES)}))
        return f"--authorities={','.join(more)}"
    return SWITCHES.get(refusal.reason, "")
