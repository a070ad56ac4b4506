"""What the weather does to a request of Azure, as a client sees it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.weather import BAD_GATEWAY, Blow, Effect, WeatherInForce


class Reset(Exception):
    """The connection is to be cut without an answer."""


Refusal = Callable[[int], Reply]
"""Returns the service's error of that status."""
_WRONG = {
    "token_type": ["Bearer"],
    "access_token": 7,
    "expires_in": "",
    "ext_expires_in": None,
    "expires_on": {},
    "not_before": "",
    "resource": True,
    "client_id": [],
}
REDIRECTED = "https://management.azure.com/redirected"


async def strike(
    weather: WeatherInForce, service: str, kind: str, refusal: Refusal
) -> Reply | None:
    """Let a request of that kind meet the weather; return its answer, or None for the true one.

    It takes the time that the service takes for its answers. Raises Reset.
    """
    await asyncio.sleep(weather.seconds("answers", service))
    blow = weather.blow(service, kind)
    if blow is None or await blow.passes():
        return None
    return answered(blow, refusal)


def answered(blow: Blow, refusal: Refusal) -> Reply:
    """Return the answer of a blow other than SLOW and HANG; raise Reset."""
    match blow.effect:
        case Effect.RESET:
            raise Reset
        case Effect.RUBBISH:
            return Reply(body=b"<html>it works!", content_type="text/html")
        case Effect.CUT:
            return Reply(body=b'{"token_type":"Bearer","expires_in":"86')
        case Effect.TYPES:
            return Reply.json(_WRONG)
        case Effect.HTML:
            return Reply(status=502, body=BAD_GATEWAY.encode(), content_type="text/html")
        case Effect.REDIRECT:
            return Reply(status=307, headers={"Location": REDIRECTED})
    reply = refusal(int(blow.effect))
    return replace(reply, headers={**reply.headers, **blow.headers})
