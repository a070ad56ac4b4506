"""What Entra refuses, by its numbers: what may pass, what stays, and when to ask again.

The numbers: https://learn.microsoft.com/entra/identity-platform/reference-error-codes; those of
federation: https://azure.github.io/azure-workload-identity/docs/troubleshooting.html
"""

from __future__ import annotations

from collections.abc import Sequence
from http import HTTPStatus
from typing import NoReturn

from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown, TokenThrottled
from podidentity.wire.oauth import Fields, error_of, number

DEFAULT_RETRY_AFTER = 5
"""Seconds, where a 429 names none: what Microsoft's own clients wait."""
LONGEST_RETRY_AFTER = 3600
LOOP_RETRY_AFTER = 60
"""Seconds to leave Entra alone once it has said that a client asks in a loop."""


class StaleAssertion(TokenRefused):
    """The assertion is not valid now, by Entra's clock: a new one may be."""


_SPREADING = frozenset({70021, 700016, 700211, 700212, 700213, 70025})
"""Of an application or a federated credential: wrong, or made a moment ago."""
_STALE = 700024
_LOOP = 50196
_ISSUER_DOWN = 90061
_TRACE = "Trace ID:"


def refuse(
    status: int, fields: Fields | None, *, who: str, hidden: Sequence[str], retry_after: str
) -> NoReturn:
    """Raise what an answer that is not 200 stands for.

    `who` answered; `hidden` is what it was told in confidence, and is repeated nowhere.
    """
    error, description = error_of(_without(hidden, fields))
    # The rest differs each time, and would make the same refusal look new.
    description = description.partition(_TRACE)[0].strip()
    told = f"{who}: {description or 'no reason given'}"
    codes = _codes(fields)
    if status == HTTPStatus.TOO_MANY_REQUESTS or _LOOP in codes:
        default = LOOP_RETRY_AFTER if _LOOP in codes else DEFAULT_RETRY_AFTER
        seconds = min(number(retry_after) or default, LONGEST_RETRY_AFTER)
        raise TokenThrottled(told, retry_after=seconds)
    if status not in {400, 401, 403} or _ISSUER_DOWN in codes or not error:
        raise TokenSourceDown(f"{told} (status {status})")
    raise _kind(codes)(told, status=status, error=error)


def _without(hidden: Sequence[str], fields: Fields | None) -> Fields:
    """Return the texts among the fields, with nothing of `hidden` in them."""
    texts = {name: value for name, value in (fields or {}).items() if isinstance(value, str)}
    for secret in filter(None, hidden):
        texts = {name: value.replace(secret, "…") for name, value in texts.items()}
    return texts


def _kind(codes: frozenset[int]) -> type[TokenRefused]:
    if _STALE in codes:
        return StaleAssertion
    return NotYetKnown if codes & _SPREADING else TokenRefused


def _codes(fields: Fields | None) -> frozenset[int]:
    found = (fields or {}).get("error_codes")
    return frozenset(map(number, found)) if isinstance(found, list) else frozenset()
