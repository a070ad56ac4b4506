"""The one table from what went wrong to what the pod is answered.

Statuses are chosen for what clients do with them, measured: 400 and 403 end a client's attempt at
once, 404 makes every SDK ask again for some twenty seconds, 503 and 429 for less. After a 400, but
not after a 403, az (up to 2.60) tries its id as one of another kind, and older SDKs the next
credential of a chain: so an id that is not the pod's is a 400, as at IMDS. Retry-After on a 400 or
403 would make the Python SDK repeat what cannot succeed, so only 429 (and 503) has it.
https://github.com/Azure/azure-cli/blob/azure-cli-2.60.0/src/azure-cli-core/azure/cli/core/_profile.py

`--compat-text-errors` brings back the archived project's errors: plain text, its statuses. Its
texts name no reason, so only programs that read them need it; the same is refused, and log, events
and `podidentity explain` say why as ever. What it did not know (a client that is not proved, a
permission that is missing) keeps its status.
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
from podidentity.core.resources import TokenRequest
from podidentity.nmi.server.messages import Response
from podidentity.wire.imds import Route, render_error


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
    Reason.NOT_AMONG: _INVALID,
    Reason.AMBIGUOUS: _INVALID,
    Reason.NOT_A_PROVIDER: _DENIED,
    Reason.NO_CSI_VOLUME: _DENIED,
    Reason.MADE_BY_PROXY: _DENIED,
    Reason.ADDRESS_CONTESTED: _DENIED,
    Reason.RUNTIME_CLASS: _DENIED,
}

NOT_SERVED = {
    Route.SUSPICIOUS: Answer(HTTPStatus.BAD_REQUEST, "invalid_request", "Invalid request"),
    Route.UNKNOWN: Answer(HTTPStatus.NOT_FOUND, "not_found", "No such path."),
    Route.BLOCKED: Answer(
        HTTPStatus.FORBIDDEN, "access_denied", "This metadata is not open to pods of this cluster."
    ),
}
NOT_GET = Answer(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET is allowed.")
NOT_LOCAL = "the connection is not from this node"
NO_HEADER = "Required metadata header not specified"
"""The one error that the archived project sent as JSON."""
FORWARDED = (
    "X-Forwarded-For, Forwarded and Via are not allowed: metadata is not served through a proxy"
)
FOREIGN_HOST = (
    "the header Host has a name of the Internet, by which a web page could ask; "
    "ask http://169.254.169.254"
)

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


def response(told: Answer) -> Response:
    """Return the answer as IMDS would write it."""
    headers: list[tuple[str, str]] = []
    if told.retry_after:
        headers.append(("Retry-After", str(told.retry_after)))
    if told.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET"))
    body = render_error(told.error, told.description)
    return Response(told.status, body, headers=tuple(headers))


# The archived project's errors.

_TEXT = "text/plain; charset=utf-8"
_JSON = "application/json; charset=utf-8"
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
_NEW = frozenset(
    {
        Reason.NOT_PERMITTED,
        Reason.HOST_NETWORK,
        Reason.POD_ENDED,
        Reason.MADE_BY_PROXY,
        Reason.ADDRESS_CONTESTED,
        Reason.RUNTIME_CLASS,
        Reason.NOT_A_PROVIDER,
        Reason.NO_CSI_VOLUME,
    }
)
_OLD_WORDS = {
    NOT_SERVED[Route.BLOCKED].description: (403, "Request blocked by AAD Pod Identity NMI"),
    NOT_LOCAL: (500, "request remote address is not from a host"),
    "parameter resource is missing": (400, "parameter resource cannot be empty"),
}


def old_answer(
    error: PodIdentityError,
    asked: TokenRequest | None = None,
    *,
    retry_after_header: bool = False,
    host: bool = False,
) -> Answer:
    """Return the status of an error, and its text unless `old_response` has another one.

    `asked` is the request, where it could be read; `host`: it came to `/host/token`.
    """
    told = answer(error)
    if host and isinstance(error, UnknownCaller):
        return told
    if isinstance(error, Refused) and error.refusal.reason not in _NEW:
        text = f"no azure identity found for request clientID {_redacted(asked)}"
        if retry_after_header and not host:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, told.error, text, RETRY_AFTER)
        return Answer(HTTPStatus.NOT_FOUND, told.error, text)
    return told._replace(status=_status(error, told.status), retry_after=0)


def old_response(told: Answer) -> Response:
    """Return the answer as Go's `http.Error` writes it."""
    extra = (("Retry-After", str(told.retry_after)),) if told.retry_after else ()
    if told.description == NO_HEADER:
        return Response(told.status, render_error(told.error, NO_HEADER) + b"\n", _JSON, extra)
    status, text = _OLD_WORDS.get(told.description, (told.status, told.description))
    return Response(status, f"{text}\n".encode(), _TEXT, (_NO_SNIFFING, *extra))


def _status(error: PodIdentityError, status: int) -> int:
    if isinstance(error, UnknownCaller | NotReady):
        return HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, TokenRefused | TokenThrottled):
        return HTTPStatus.FORBIDDEN
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, TokenUnavailable) else status


def _redacted(asked: TokenRequest | None) -> str:
    """Return a client id with its middle taken out, in the archived project's words."""
    text = str(asked.client_id) if asked and asked.client_id else ""
    return f"{text[:4]}##### REDACTED #####{text[-4:]}" if text else ""
