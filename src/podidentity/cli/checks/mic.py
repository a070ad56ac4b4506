"""MIC: what keeps identities from following pods."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podidentity.cli.checks.findings import (
    CheckReason,
    Finding,
    Severity,
    first_lines,
    ref_of,
    sentence,
)
from podidentity.cli.objects import Object
from podidentity.core.resources import ObjectRef
from podidentity.wire.pauses import Pauses


def no_controller(where: ObjectRef) -> Finding:
    """Return that NMI waits for records that nobody writes."""
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.NO_CONTROLLER,
        what="NMI is in standard mode, and no MIC is there: requests of pods wait in vain.",
        mend="Run podidentity enable --mic, or give NMI --operation-mode=managed.",
    )


def mic_not_ready(where: ObjectRef, lines: Sequence[str]) -> Finding:
    """Return that no replica of MIC is ready, with the reason of the first."""
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.CONTROLLER_NOT_READY,
        what=f"No replica of MIC is ready: {first_lines(lines)}",
        mend=f"See kubectl logs -n {where.namespace} deployment/{where.name}.",
    )


def mic_paused(where: ObjectRef, pauses: Pauses) -> Finding:
    """Return that an operator has paused MIC."""
    return Finding(
        kind="Deployment",
        about=where,
        reason=CheckReason.CONTROLLER_PAUSED,
        what=str(pauses),
        mend="Run podidentity mic resume.",
        severity=Severity.WARNING,
    )


_OF_AZURE = {CheckReason.DENIED, CheckReason.FORBIDDEN, CheckReason.REFUSED_BY_AZURE}
"""Reasons of MIC's condition of an AzureIdentity that Azure has given, and the rules have not."""


def not_attached(identity: Object) -> Iterator[Finding]:
    """Yield why Azure does not let MIC attach an identity, by its condition."""
    for each in (identity.get("status") or {}).get("conditions") or ():
        if (each.get("type"), each.get("status")) != ("Ready", "False"):
            continue
        if each.get("reason") in _OF_AZURE:
            yield Finding(
                kind="AzureIdentity",
                about=ref_of(identity),
                reason=each["reason"],
                what=sentence(str(each.get("message", ""))),
                mend="MIC tries again by itself when that is mended.",
            )
