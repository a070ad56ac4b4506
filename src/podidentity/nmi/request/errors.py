"""The one table from what went wrong to what the pod is answered.

Statuses are chosen for what clients do with them, measured: 400 and 403 end a client's attempt at
once, 404 makes every SDK ask again for some twenty seconds, 503 and 429 for less. Retry-After on
a 400 or 403 would make the Python SDK repeat what cannot succeed, so only 429 (and 503) has it.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import NamedTuple

from podidentity.core.errors import (
    InvalidRequest,
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.refusals import Reason


class Answer(NamedTuple):
    """An error as HTTP."""

    status: int
    error: str
    """The machine-readable word in the body."""
    description: str
    retry_after: int = 0
    """Seconds; 0: no header."""


_Row = tuple[HTTPStatus, str]

_DENIED: _Row = (HTTPStatus.FORBIDDEN, "access_denied")
_INVALID: _Row = (HTTPStatus.BAD_REQUEST, "invalid_request")
_ABSENT: _Row = (HTTPStatus.NOT_FOUND, "not_found")
_LATER: _Row = (HTTPStatus.SERVICE_UNAVAILABLE, "service_unavailable")

ERRORS: dict[type[PodIdentityError], _Row] = {
    InvalidRequest: _INVALID,
    UnknownCaller: _ABSENT,
    UnprovenCaller: _DENIED,
    TokenThrottled: (HTTPStatus.TOO_MANY_REQUESTS, "too_many_requests"),
    TokenSourceDown: _LATER,
    TokenUnavailable: _LATER,
    NotReady: _LATER,
}
"""What carries its own status is not here: Refused has a row for each reason below, TokenRefused
passes on what the issuer said."""

REFUSALS: dict[Reason, _Row] = {
    Reason.NO_LABEL: _INVALID,
    Reason.EXCEPTION_IGNORED: _INVALID,
    Reason.NO_BINDING: _ABSENT,
    Reason.OTHER_NAMESPACE: _ABSENT,
    Reason.NO_IDENTITY: _ABSENT,
    Reason.MALFORMED_BINDING: _ABSENT,
    Reason.MALFORMED_IDENTITY: _ABSENT,
    Reason.UNKNOWN_AUTHORITY: _DENIED,
    Reason.FOREIGN_SECRET: _DENIED,
    Reason.NO_TENANT: _DENIED,
    Reason.NOT_ASSIGNED: _ABSENT,
    Reason.NOT_PERMITTED: _DENIED,
    Reason.HOST_NETWORK: _DENIED,
    Reason.POD_ENDED: _DENIED,
    Reason.NOT_AMONG: _DENIED,
    Reason.AMBIGUOUS: _INVALID,
    Reason.NOT_A_PROVIDER: _DENIED,
    Reason.NO_CSI_VOLUME: _DENIED,
}

RETRY_AFTER = 20
"""Seconds; what the archived project sent with `--set-retry-after-header`."""


def answer(error: PodIdentityError, *, retry_after_header: bool = False) -> Answer:
    """Return what the pod is told.

    `retry_after_header`: the old switch; what is absent is then a 503 that says when to ask again.
    """
    if isinstance(error, TokenRefused):
        return Answer(error.status, error.error, str(error))
    if isinstance(error, Refused):
        status, word = REFUSALS[error.refusal.reason]
        if retry_after_header and status is HTTPStatus.NOT_FOUND:
            return Answer(*_LATER, str(error), RETRY_AFTER)
        return Answer(status, word, str(error))
    status, word = next(ERRORS[kind] for kind in type(error).__mro__ if kind in ERRORS)
    wait = error.retry_after if isinstance(error, TokenThrottled) else 0
    return Answer(status, word, str(error), wait)


def host_answer(error: PodIdentityError) -> Answer:
    """Return what the CSI driver's provider is told.

    It shows status and body to people, and asks again whatever they are: a pod without a label
    has no identity (404), as it always was, where a client of IMDS is told what IMDS would say.
    """
    told = answer(error)
    if isinstance(error, Refused) and error.refusal.reason in {
        Reason.NO_LABEL,
        Reason.EXCEPTION_IGNORED,
    }:
        status, word = _ABSENT
        return told._replace(status=status, error=word)
    return told
