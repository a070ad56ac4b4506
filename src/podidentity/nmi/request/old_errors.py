"""Errors as the archived project told them, for `--compat-text-errors`: plain text, old statuses.

Its texts name no reason, so that only programs that read them need this; what is refused is the
same, and log, events and `podidentity explain` say why as ever. What it did not know (a caller that
is not proved, a permission that is missing) keeps its status.
"""

from __future__ import annotations

from http import HTTPStatus

from podidentity.core.errors import (
    InvalidRequest,
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    TokenThrottled,
    TokenUnavailable,
    UnknownCaller,
)
from podidentity.core.refusals import Reason
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.request.errors import RETRY_AFTER, Answer, answer
from podidentity.nmi.server.messages import Response
from podidentity.wire.imds_server import render_error

TEXT = "text/plain; charset=utf-8"
_JSON = "application/json; charset=utf-8"
_NO_SNIFFING = ("X-Content-Type-Options", "nosniff")
NO_HEADER = "Required metadata header not specified"
"""The one error that was JSON."""

_NEW = frozenset({Reason.NOT_PERMITTED, Reason.HOST_NETWORK, Reason.POD_ENDED})
_TOKEN_REFUSED = (TokenRefused, TokenThrottled)


def old_answer(
    error: PodIdentityError, asked: TokenRequest | None = None, *, retry_after_header: bool = False
) -> Answer:
    """Return status and text of an error; `asked` is the request, where it could be read."""
    told = answer(error)
    if isinstance(error, Refused) and error.refusal.reason not in _NEW:
        text = f"no azure identity found for request clientID {_redacted(asked)}"
        if retry_after_header:
            return Answer(HTTPStatus.SERVICE_UNAVAILABLE, told.error, text, RETRY_AFTER)
        return Answer(HTTPStatus.NOT_FOUND, told.error, text)
    if isinstance(error, InvalidRequest) and "resource is missing" in told.description:
        return told._replace(description="parameter resource cannot be empty")
    return told._replace(status=_status(error, told.status), retry_after=0)


def old_response(told: Answer) -> Response:
    """Return the answer as Go's `http.Error` writes it."""
    extra = (("Retry-After", str(told.retry_after)),) if told.retry_after else ()
    if told.description == NO_HEADER:
        return Response(told.status, render_error(told.error, NO_HEADER) + b"\n", _JSON, extra)
    body = f"{told.description}\n".encode()
    return Response(told.status, body, TEXT, (_NO_SNIFFING, *extra))


def _status(error: PodIdentityError, status: int) -> int:
    if isinstance(error, UnknownCaller | NotReady):
        return HTTPStatus.INTERNAL_SERVER_ERROR
    if isinstance(error, _TOKEN_REFUSED):
        return HTTPStatus.FORBIDDEN
    return HTTPStatus.SERVICE_UNAVAILABLE if isinstance(error, TokenUnavailable) else status


def _redacted(asked: TokenRequest | None) -> str:
    """Return a client id with its middle taken out, in the archived project's words."""
    text = str(asked.client_id) if asked and asked.client_id else ""
    return f"{text[:4]}##### REDACTED #####{text[-4:]}" if text else ""
