"""What the rules refuse: each identity, binding and exception, judged with an invented pod.

So a finding does not depend on the pods of one moment. The rules are those of `core`, by NMI's own
flags; what is missing of grants is asked of a function.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from podidentity.adapters.cluster import WatchedCluster
from podidentity.cli.chain import CREDENTIAL_STEP
from podidentity.cli.checks.findings import CheckReason, Finding, Severity
from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.decision import (
    Match,
    Rules,
    Use,
    exception_of,
    ineffective_exception,
    malformed,
    malformed_binding,
    match,
    not_permitted,
    unusable,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import (
    Authority,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    ObjectRef,
    Pod,
)

SWITCHES = {
    Reason.OTHER_NAMESPACE: "--compat-cross-namespace",
    Reason.FOREIGN_SECRET: "--compat-foreign-secrets",
}
"""NMI's flag that brings the archived project's rule back, for the whole cluster."""

Lacking = Callable[[str, AzureIdentity], Sequence[str]]
"""Returns the missing permissions if no service account of a namespace may use an identity."""


def only_told(finding: Finding) -> Finding:
    what = f"{finding.what} NMI only reports it ({finding.switch})."
    return replace(finding, what=what, switch="", severity=Severity.WARNING)


def matches(cluster: WatchedCluster, rules: Rules) -> list[Match]:
    return [match(pod, cluster, rules) for pod in cluster.pods()]


def refused(
    cluster: WatchedCluster,
    exceptions: Sequence[AzurePodIdentityException | Malformed],
    rules: Rules,
    matched: Sequence[Match],
) -> list[Finding]:
    """Return what the rules refuse whatever is granted, by namespace and name, each once."""
    return _in_order(
        [
            *_malformed([*cluster.all_identities(), *cluster.all_bindings(), *exceptions]),
            *_bound(cluster, rules),
            *_elsewhere(matched, rules),
            *(each for one in exceptions for each in _exception(cluster, one, rules)),
        ]
    )


def ungranted(
    cluster: WatchedCluster, rules: Rules, matched: Sequence[Match], lacking: Lacking
) -> list[Finding]:
    """Return the bound identities that no pod of the namespace was granted, each once."""
    found: list[Finding] = []
    for binding, identity, refusal in _bindings(cluster, rules):
        if isinstance(identity, AzureIdentity) and refusal is None:
            found += _not_granted(binding.ref.namespace, identity, lacking)
    return _in_order([*found, *_borrowed(matched, lacking)])


def _in_order(found: Sequence[Finding]) -> list[Finding]:
    return sorted(dict.fromkeys(found), key=lambda each: (each.about, each.kind, each.reason))


def _malformed(values: Sequence[object]) -> Iterator[Finding]:
    for each in values:
        if isinstance(each, Malformed):
            is_binding = each.kind == "AzureIdentityBinding"
            yield _refused(each.kind, malformed_binding(each) if is_binding else malformed(each))


def _bound(cluster: WatchedCluster, rules: Rules) -> Iterator[Finding]:
    for _, found, refusal in _bindings(cluster, rules):
        if refusal is not None and not isinstance(found, Malformed):
            kind = "AzureIdentityBinding" if found is None else "AzureIdentity"
            authority = found.entra.authority if found and found.entra else None
            yield _refused(kind, refusal, _switch(refusal, rules, authority))


def usable_identities(cluster: WatchedCluster, rules: Rules) -> list[AzureIdentity]:
    usable = (found for _, found, refusal in _bindings(cluster, rules) if refusal is None)
    return list(dict.fromkeys(each for each in usable if isinstance(each, AzureIdentity)))


def _bindings(
    cluster: WatchedCluster, rules: Rules
) -> Iterator[tuple[AzureIdentityBinding, AzureIdentity | Malformed | None, Refusal | None]]:
    """Yield each binding with its identity, and the refusal if that cannot be used."""
    for binding in cluster.all_bindings():
        if not isinstance(binding, Malformed):
            found = cluster.identity(ObjectRef(binding.ref.namespace, binding.identity))
            pod = _any_pod(binding.ref.namespace)
            yield binding, found, unusable(binding, found, pod, rules)


def cannot_sign_in(identity: ObjectRef, why: str) -> Finding:
    return Finding(
        kind="AzureIdentity",
        about=identity,
        reason=CheckReason.CREDENTIAL,
        what=f"AzureIdentity {identity} cannot sign in: {why}.",
        mend=CREDENTIAL_STEP,
    )


def unnamed_audience(identity: AzureIdentity, audience: str) -> Finding:
    return Finding(
        kind="AzureIdentity",
        about=identity.ref,
        reason=CheckReason.AUDIENCE,
        what=f"NMI may not ask for tokens for {audience}, the audience of AzureIdentity "
        f"{identity.ref}: pods get 403.",
        mend=f"Add {shlex.quote(f'--token-audience={audience}')} to the flags of podidentity "
        "enable, and run it again.",
    )


def _not_granted(namespace: str, identity: AzureIdentity, lacking: Lacking) -> Iterator[Finding]:
    """Yield each missing permission: an identity may need two."""
    pod = _any_pod(namespace)
    for name in lacking(namespace, identity):
        use = Use(ObjectRef(namespace, pod.service_account), name)
        yield Finding(
            kind="AzureIdentity",
            about=identity.ref,
            reason=Reason.NOT_PERMITTED.value,
            what=f"No pod of namespace {namespace} may use AzureIdentity {identity.ref}: the "
            f"permission for {name} is not granted.",
            mend=not_permitted(pod, identity, use).next_step,
            switch="--authorization=observe",
        )


def _borrowed(matched: Sequence[Match], lacking: Lacking) -> Iterator[Finding]:
    for found in matched:
        for each in found.entitlements:
            namespace, binding = found.pod.ref.namespace, each.binding
            if binding is not None and binding.ref.namespace != namespace:
                yield from _not_granted(namespace, each.identity, lacking)


def _elsewhere(matched: Sequence[Match], rules: Rules) -> Iterator[Finding]:
    for each in matched:
        refusals, pod = each.refusals, each.pod
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
    if exception_of(pod, [exception], rules) is None:
        idle = ineffective_exception(pod, [exception], rules)
        names = sorted({namespace, *(rules.exception_namespaces or ())})
        switch = f"--exception-namespaces={','.join(names)}" if idle else ""
        empty = Refusal(
            reason=Reason.EXCEPTION_IGNORED,
            message=f"AzurePodIdentityException {exception.ref} names no labels, so it selects no "
            "pod.",
            next_step="Name labels in spec.podLabels, or delete it.",
            about=exception.ref,
        )
        yield _refused("AzurePodIdentityException", idle or empty, switch)
    old = replace(rules, any_label=True)
    by_one = [
        each
        for each in cluster.pods()
        if each.ref.namespace == namespace
        # MIC's exception shares labels with NMI, and with NMI's probe, which needs no token.
        and not each.host_network
        and each.labels.get("app.kubernetes.io/name") != "podidentity"
        and exception_of(each, [exception], old)
        and not exception_of(each, [exception], rules)
    ]
    if by_one:
        yield Finding(
            kind="AzurePodIdentityException",
            about=exception.ref,
            reason=CheckReason.ANY_LABEL,
            what=f"Pods with some of its labels but not all: {len(by_one)}, such as "
            f"{by_one[0].ref}.",
            mend="Remove the labels from spec.podLabels that its pods do not have.",
            switch="--compat-any-label-exceptions",
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
