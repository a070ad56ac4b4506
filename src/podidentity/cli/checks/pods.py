"""Pods that have an identity and get no token all the same: nobody hears them, or believes them."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from podidentity.cli.agent_choices import Choices
from podidentity.cli.checks.findings import MOST_NAMED, CheckReason, Finding, named, sentence
from podidentity.cli.network_policies import Egress, egress_of
from podidentity.cli.objects import Object
from podidentity.cli.pod_requests import OF_THE_OBJECTS
from podidentity.cli.proofs import Unproved, unproved
from podidentity.cli.rollout import seen
from podidentity.core.decision import Match, Use, uses_of
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef, Pod


def asking(matched: Sequence[Match]) -> list[Pod]:
    """Return the pods that have an identity, and ask for it over the network."""
    return [each.pod for each in matched if each.entitlements or each.exception]


def closed_by_policies(
    pods: Sequence[Pod], policies: Sequence[Object], choices: Choices
) -> Iterator[Finding]:
    """Yield which policies let no request of pods with an identity out to IMDS, for all at once."""
    by_namespace: dict[str, list[Object]] = {}
    for each in policies:
        by_namespace.setdefault(each["metadata"]["namespace"], []).append(each)
    alike: dict[tuple[str, Egress], list[str]] = {}
    for pod in pods:
        judging = by_namespace.get(pod.ref.namespace, [])
        if judging:
            egress = egress_of(pod.labels, judging, choices.redirect)
            if egress and not egress.before and not egress.after:
                alike.setdefault((pod.ref.namespace, egress), []).append(str(pod.ref))
    for (namespace, egress), names in sorted(alike.items(), key=lambda each: each[1]):
        yield Finding(
            kind="NetworkPolicy",
            about=ObjectRef(namespace, egress.policies[0]),
            reason=CheckReason.EGRESS,
            what=f"No policy of {', '.join(egress.policies)} lets requests out to IMDS: "
            f"{len(names)} pods with an identity get no answer, such as {min(names)}.",
            mend=sentence(f"allow egress to {egress.missing(choices.redirect)}"),
        )


def not_provable(pods: Sequence[Pod], choices: Choices) -> Iterator[Finding]:
    """Yield why pods with an identity are refused for the way in which their connections are made.

    All pods with the same reason are one finding.
    """
    alike: dict[Unproved, list[ObjectRef]] = {}
    for pod in pods:
        why = unproved(pod, choices.attestation, choices.trust)
        if why is not None:
            alike.setdefault(why, []).append(pod.ref)
    for found, refs in sorted(alike.items()):
        others = len(refs) - 1
        more = f"{others} more pods" if others > 1 else "one more pod" if others else ""
        yield Finding(
            kind="Pod",
            about=min(refs),
            reason=found.reason.value,
            what=f"It {found.what}{f', as with {more}' if more else ''}: requests are refused.",
            mend=sentence(found.mend),
        )


def without_tokens(pods: Sequence[Pod], silent: Collection[str]) -> Iterator[Finding]:
    """Yield the pods with an identity on nodes where no request comes to NMI, by node."""
    for node in sorted(silent):
        there = sorted(pod.ref for pod in pods if pod.node == node)
        if there:
            shown = ", ".join(map(str, there[:MOST_NAMED]))
            more = f" and {len(there) - MOST_NAMED} more" if there[MOST_NAMED:] else ""
            yield Finding(
                kind="Pod",
                about=there[0],
                reason=CheckReason.NO_TOKENS,
                what=f"On {node} no request of a pod comes to NMI, so these get no token: "
                f"{shown}{more}.",
                mend=f"See the findings about {node}, or run podidentity explain {there[0]}.",
            )


RECENT = 300.0
"""Seconds for which a refusal is news; NMI writes one that lasts each minute."""


def refused_lately(
    events: Sequence[Object], now: float, stands: Callable[[ObjectRef, str, float], bool]
) -> Iterator[Finding]:
    """Yield for which reasons NMI refused pods last, by its events on them.

    `now` in seconds since 1970; `stands` says whether a pod's refusal of a time may still hold.
    """
    told = (each for each in events if each.get("type") == "Warning")
    last = {about(each): each for each in sorted(told, key=seen) if seen(each) > now - RECENT}
    alike: dict[str, list[ObjectRef]] = {}
    for ref, each in last.items():
        if stands(ref, reason := str(each.get("reason")), seen(each)):
            alike.setdefault(reason, []).append(ref)
    for reason, found in sorted(alike.items()):
        refs, newest = sorted(found), last[found[-1]]
        yield Finding(
            kind="Pod",
            about=refs[0],
            reason=CheckReason.REQUESTS_FAIL,
            what=f"NMI gave {named(list(map(str, refs)), 'pods')} no token, last "
            f"{max(now - seen(newest), 0):.0f} s ago ({reason}): {newest.get('message', '')}",
            mend=f"Run podidentity explain {refs[0]}.",
        )


def stands(reason: str, found: Match | None, permitted: Callable[[Use], bool]) -> bool:
    """Whether a refusal may still hold, by the objects as they are now; `found` None: no pod.

    What Azure said, a request alone, or a record of MIC (which is not read here) may.
    """
    if reason not in OF_THE_OBJECTS or reason == Reason.NOT_ASSIGNED:
        return True
    if found is None:
        return False
    if reason == Reason.NOT_PERMITTED:
        uses = (use for each in found.entitlements for use in uses_of(found.pod, each))
        return not all(map(permitted, uses))
    return reason in {each.reason for each in found.refusals}


def about(event: Object) -> ObjectRef:
    found = event["involvedObject"]
    return ObjectRef(str(found.get("namespace", "")), str(found.get("name", "")))
