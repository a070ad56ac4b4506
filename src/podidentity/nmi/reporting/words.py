"""What is said of a request: to operators in the log, to a pod's owner in an event."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from http import HTTPStatus

from podidentity.core.attestation import Verdict
from podidentity.core.errors import PodIdentityError, Refused, TokenRefused, UnprovenCaller
from podidentity.nmi.reporting.audit import reason_of
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.telemetry.lines import Said
from podidentity.telemetry.repeats import WINDOW

FAILED_FROM = HTTPStatus.BAD_REQUEST
"""From this status on a line is a warning, and repeated ones are counted instead."""

_LOGGER = "podidentity.request"


def owners_words(error: PodIdentityError, outcome: Outcome) -> str:
    """Return what whoever may read the pod's events is told; "" where there is nothing to tell."""
    if isinstance(error, Refused):
        # What is worded for the pod names nothing that it may not know.
        return error.refusal.told or str(error.refusal)
    if isinstance(error, UnprovenCaller):
        return str(error) if outcome.verdict is not Verdict.GONE else ""
    return str(error) if isinstance(error, TokenRefused) else ""


def said(asked: Asked, outcome: Outcome, status: int) -> Said:
    """Return the line of a token request."""
    error, identity = outcome.error, outcome.identity
    pod = outcome.pod.ref if outcome.pod else asked.named
    # The operator reads more than the pod: objects of other namespaces, and what to do next.
    message = str(error.refusal if isinstance(error, Refused) else error or "token given")
    observed = outcome.observed
    more = {
        "pod": pod.name if pod else None,
        "namespace": pod.namespace if pod else None,
        "identity": identity.ref.name if identity else None,
        "client_id": str(identity.client_id or "") if identity else None,
        "resource": asked.request.resource,
        "asked": str(asked.request.asked or ""),
        "source": outcome.origin,
        "reason": reason_of(error) if error else None,
        "observed": observed.reason if observed else None,
        "proof": outcome.detail if error or outcome.delegated else None,
    }
    return request_line(status, message, asked.caller.address, more)


def request_line(status: int, message: str, address: str, more: Mapping[str, object]) -> Said:
    """Return the line of any request."""
    level = logging.INFO if status < FAILED_FROM else logging.WARNING
    head = {"status": int(status), "address": address or None}
    return Said(logging.getLevelName(level), _LOGGER, message, {**head, **more})


def more_like_this(who: str, reason: str, more: int) -> Said:
    """Return the line that stands for so many lines of the same kind."""
    fields = {"who": who, "reason": reason, "seconds": int(WINDOW)}
    return Said("WARNING", _LOGGER, f"{more} more like this", fields)
