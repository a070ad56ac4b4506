"""MIC: what keeps identities from following pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podidentity.cli.checks.findings import CheckReason, Finding, Severity, first_lines, sentence
from podidentity.cli.objects import Object, ref_of
from podidentity.cli.rollout import rollback_of, seen
from podidentity.core.resources import ObjectRef
from podidentity.manifests import ADMIN_SECRET
from podidentity.wire.events import AGAIN_OF_MIC, COMPONENT_OF_MIC, MicReason
from podidentity.wire.pauses import Pauses

EVENTS_OF_MIC = f"involvedObject.kind=Pod,source={COMPONENT_OF_MIC}"
_REASONS = {each.value for each in MicReason}
_SEVERITIES = {MicReason.AZURE_THROTTLES.value: Severity.WARNING}
"""It passes by itself."""


def no_controller(where: ObjectRef) -> Finding:
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.NO_CONTROLLER,
        what="NMI is in standard mode, and no MIC is there: requests of pods wait in vain.",
        mend="Run podidentity enable --mic with MIC's sign-in (docs/how-to/run-mic.md), or give "
        "NMI --operation-mode=managed.",
    )


def _back(deployment: Object) -> str:
    way = rollback_of(deployment) or "podidentity enable --no-mic"
    return f"where no MIC was before, {way} goes back."


def mic_not_ready(deployment: Object, lines: Sequence[str]) -> Finding:
    where = ref_of(deployment)
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.CONTROLLER_NOT_READY,
        what=f"No replica of MIC is ready: {first_lines(lines)}",
        mend=f"See kubectl logs -n {where.namespace} deployment/{where.name}; {_back(deployment)}",
    )


def no_sign_in(deployment: Object) -> Finding:
    where = ref_of(deployment)
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.CONTROLLER_NOT_READY,
        what="MIC has no credential for Azure: neither its flags nor Secret "
        f"{where.namespace}/{ADMIN_SECRET} say how it signs in.",
        mend=f"Give it one (docs/how-to/run-mic.md); {_back(deployment)}",
    )


def mic_paused(where: ObjectRef, pauses: Pauses) -> Finding:
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.CONTROLLER_PAUSED,
        what=str(pauses),
        mend="Run podidentity mic resume.",
        severity=Severity.WARNING,
    )


def mic_warnings(pods: Sequence[Object], events: Sequence[Object], now: float) -> Iterator[Finding]:
    """Yield what keeps MIC from its work in Azure, by the events on its pods.

    `now` in seconds since 1970. Of each reason the newest event counts; one that is not repeated
    any more is over, and so is one of a pod that has gone.
    """
    names = {each["metadata"]["name"]: ref_of(each) for each in pods}
    newest: dict[str, Object] = {}
    for each in sorted(events, key=seen):
        ours = (each.get("source") or {}).get("component") == COMPONENT_OF_MIC
        if ours and each["involvedObject"].get("name") in names and each.get("reason") in _REASONS:
            newest[each["reason"]] = each
    for reason, each in sorted(newest.items()):
        if seen(each) > now - 2 * AGAIN_OF_MIC:
            what, _, mend = str(each.get("message", "")).partition("; ")
            yield Finding(
                kind="Pod",
                about=names[each["involvedObject"]["name"]],
                reason=reason,
                what=sentence(what),
                mend=sentence(mend or "see MIC's log"),
                severity=_SEVERITIES.get(reason, Severity.ERROR),
            )


_OF_AZURE = {CheckReason.DENIED, CheckReason.FORBIDDEN, CheckReason.REFUSED_BY_AZURE}
"""Reasons of MIC's condition of an AzureIdentity that Azure has given, and the rules have not."""


def not_attached(identity: Object) -> Iterator[Finding]:
    """Yield why Azure does not let MIC attach an identity, by its condition.

    Its status may be anything where the definitions are those of AAD Pod Identity.
    """
    status = identity.get("status")
    listed = status.get("conditions") if isinstance(status, dict) else None
    for each in listed if isinstance(listed, list) else ():
        if not isinstance(each, dict):
            continue
        told = each.get("type"), each.get("status"), each.get("reason")
        if not all(isinstance(one, str) for one in told) or told[:2] != ("Ready", "False"):
            continue
        if told[2] in _OF_AZURE:
            yield Finding(
                kind="AzureIdentity",
                about=ref_of(identity),
                reason=str(told[2]),
                what=sentence(str(each.get("message", ""))),
                mend="MIC tries again by itself when that is mended.",
            )
