"""Labels of pods that lead to no identity, with what was probably meant.

A pod whose label matches nothing is refused with a 404 or a 400 that names no binding: what differs
by its case or by one letter is seen only beside the bindings of its namespace.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice

from podidentity.cli.checks.findings import CheckReason, Finding, Severity
from podidentity.cli.use_roles import grant_command
from podidentity.core.decision import Basis, Match, Use, uses_of
from podidentity.core.refusals import Reason
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    ObjectRef,
    Pod,
)
from podidentity.wire.rbac import Grantee

_ALIKE = 0.75
"""Least likeness of two selectors, from 0 to 1, for one to be what was meant by the other."""

_NEAR = 0.85
"""As _ALIKE, of names of labels: two letters of fifteen may differ."""

MOST_LABELS = 20
"""Labels of a namespace of which the likeness is looked for: a tenant may have thousands."""
MOST_SELECTORS = 200
"""Selectors to which one is compared; a comparison takes up to half a millisecond."""


def unmatched(
    matched: Sequence[Match], bindings: Sequence[AzureIdentityBinding]
) -> Iterator[Finding]:
    """Yield each label of a namespace's pods for which no namespace has a binding."""
    selectors: dict[str, dict[str, AzureIdentityBinding]] = {}
    for each in bindings:
        selectors.setdefault(each.ref.namespace, {})[each.selector] = each
    alike: dict[tuple[str, str], list[ObjectRef]] = {}
    for match in matched:
        reason = match.refusals[0].reason if match.refusals and not match.bindings else None
        if reason is Reason.NO_BINDING:
            alike.setdefault((match.pod.ref.namespace, match.pod.selector), []).append(
                match.pod.ref
            )
    looked: Counter[str] = Counter()
    for (namespace, selector), pods in sorted(alike.items()):
        looked[namespace] += 1
        there = selectors.get(namespace, {}) if looked[namespace] <= MOST_LABELS else {}
        meant = nearest(selector, there)
        yield Finding(
            kind="Pod",
            about=min(pods),
            reason=Reason.NO_BINDING,
            what=f"{_counted(pods)} the label {BINDING_LABEL}={selector}, and no binding of "
            f"namespace {namespace} has that selector.",
            mend=did_you_mean(meant)
            if meant
            else f"Run podidentity add --namespace {namespace} --binding-selector {selector}, or "
            "correct the label.",
        )


def did_you_mean(meant: AzureIdentityBinding) -> str:
    """Return the next step where a label is nearly the selector of a binding."""
    return (
        f"Did you mean {BINDING_LABEL}={meant.selector}, of AzureIdentityBinding {meant.ref}? "
        "Correct the label, or the binding's spec.selector."
    )


def nearest(
    selector: str, there: Mapping[str, AzureIdentityBinding]
) -> AzureIdentityBinding | None:
    """Return the binding whose selector was probably meant: another case first, then a slip."""
    by_case = {each.lower(): each for each in sorted(there, reverse=True)}
    wanted = selector.lower()
    if wanted in by_case:
        return there[by_case[wanted]]
    some = list(islice(by_case, MOST_SELECTORS))
    found = get_close_matches(wanted, some, n=1, cutoff=_ALIKE)
    return there[by_case[found[0]]] if found else None


def misspelt(matched: Sequence[Match]) -> Iterator[Finding]:
    """Yield the pods whose label is nearly that which the rules read."""
    alike: dict[tuple[str, str], list[ObjectRef]] = {}
    for match in matched:
        silent = match.refusals and match.refusals[0].reason is Reason.NO_LABEL
        if silent and (why := slip(match.pod)):
            alike.setdefault((match.pod.ref.namespace, why), []).append(match.pod.ref)
    for (_, why), pods in sorted(alike.items()):
        yield Finding(
            kind="Pod",
            about=min(pods),
            reason=CheckReason.MISSPELT_LABEL,
            what=f"{_counted(pods)} {why}: to the rules the pods have no label.",
            mend=f"Label them {BINDING_LABEL}=SELECTOR, exactly so.",
        )


def slip(pod: Pod) -> str:
    """Return how the label of a pod differs from the one that the rules read; "" if it has none."""
    if BINDING_LABEL in pod.labels:
        return f"the label {BINDING_LABEL} with no value"
    names = {each.lower().rpartition("/")[2]: each for each in sorted(pod.labels)}
    near = [names[each] for each in get_close_matches(BINDING_LABEL, names, n=1, cutoff=_NEAR)]
    return f"the label {near[0]} in place of {BINDING_LABEL}" if near else ""


def on_the_node(matched: Sequence[Match]) -> Iterator[Finding]:
    """Yield the pods with the label that are in the network of their node, by namespace."""
    alike: dict[str, list[ObjectRef]] = {}
    for match in matched:
        refused = match.refusals and match.refusals[0].reason is Reason.HOST_NETWORK
        if refused and match.pod.selector and not match.pod.ended:
            alike.setdefault(match.pod.ref.namespace, []).append(match.pod.ref)
    for _, pods in sorted(alike.items()):
        yield Finding(
            kind="Pod",
            about=min(pods),
            reason=Reason.HOST_NETWORK,
            what=f"{_counted(pods)} the label {BINDING_LABEL} and the network of the node: they "
            "reach every identity of the machine, and none by their label.",
            mend="Run them without hostNetwork. They ask IMDS themselves meanwhile: MIC attaches "
            "what is bound to them by --attach-for-node-network.",
            severity=Severity.WARNING,
        )


def not_theirs(
    matched: Sequence[Match],
    lacking: Callable[[str, AzureIdentity], Sequence[str]],
    may: Callable[[Use], bool],
) -> Iterator[Finding]:
    """Yield bound identities that others of the namespace may use, and these pods may not.

    `lacking` says what nobody of a namespace may: that is found by itself.
    """
    alike: dict[tuple[Use, ObjectRef], list[Match]] = {}
    identities: dict[ObjectRef, AzureIdentity] = {}
    for match in matched:
        for each in match.entitlements:
            if each.basis is Basis.BINDING:
                identities[each.identity.ref] = each.identity
                for use in uses_of(match.pod, each):
                    alike.setdefault((use, each.identity.ref), []).append(match)
    for use, ref in sorted(alike, key=str):
        identity, matches = identities[ref], alike[use, ref]
        if may(use) or lacking(use.service_account.namespace, identity):
            continue
        pods = [each.pod.ref for each in matches]
        yield Finding(
            kind="Pod",
            about=min(pods),
            reason=Reason.NOT_PERMITTED,
            what=f"{_counted(pods)} service account {use.service_account}, which may not use "
            f"{use.name} of AzureIdentity {ref}: they get 403.",
            mend=f"Run {grant_command(use.name, Grantee(*use.service_account))}.",
        )


def _counted(pods: Sequence[ObjectRef]) -> str:
    return "It has" if len(pods) == 1 else f"{len(pods)} pods, such as {min(pods)}, have"
