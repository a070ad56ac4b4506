"""The ways in which a test can make IMDS or Entra fail."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum

from podidentity_sandbox.azure.messages import Reply


class Mode(StrEnum):
    """The effect of a fault on a request."""

    NONE = "none"
    SLOW = "slow"
    """Answers after `seconds`, a place in the quota held meanwhile."""
    HANG = "hang"
    """Never answers."""
    RESET = "reset"
    """Cuts the connection (RST)."""
    RUBBISH = "rubbish"
    """200 with a body that is not JSON."""
    CUT = "cut"
    """200 with JSON that ends in the middle."""
    TYPES = "types"
    """200 with JSON of the right names and the wrong types."""
    HTML = "html"
    """502 with a page, as a proxy on the way answers."""
    REDIRECT = "redirect"
    """307, which asks the client to send all of it, secrets included, to another host."""
    BROKEN = "500"
    UNAVAILABLE = "503"
    THROTTLED = "429"
    GONE = "410"


class Reset(Exception):
    """The connection is to be cut without an answer."""


Refusal = Callable[[int], Reply]
"""Returns the service's error of that status."""
_PAGE = b"<!DOCTYPE html><html><head><title>502 Bad Gateway</title></head></html>"
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


@dataclass(slots=True, kw_only=True)
class Fault:
    """The fault in force."""

    mode: Mode = Mode.NONE
    seconds: float = 0.0
    """For SLOW; for THROTTLED and UNAVAILABLE the Retry-After in whole seconds, where not 0."""
    times: int | None = None
    """How many requests it strikes yet; None: all."""

    async def strike(self, refusal: Refusal) -> Reply | None:
        """Return the answer of the fault, or None for the true answer; raise Reset."""
        if self.times is not None:
            self.times -= 1
            if self.times < 0:
                return None
        match self.mode:
            case Mode.NONE:
                return None
            case Mode.SLOW:
                await asyncio.sleep(self.seconds)
                return None
            case Mode.HANG:
                await asyncio.Event().wait()  # until the client leaves
            case Mode.RESET:
                raise Reset
        return _answered(self.mode) or self._refused(refusal(int(self.mode)))

    def _refused(self, reply: Reply) -> Reply:
        waits = self.mode in {Mode.THROTTLED, Mode.UNAVAILABLE} and self.seconds
        more = {"Retry-After": str(int(self.seconds))} if waits else {}
        return Reply(
            status=reply.status,
            body=reply.body,
            headers={**reply.headers, **more},
            content_type=reply.content_type,
        )


def _answered(mode: Mode) -> Reply | None:
    """Return the answers that are the same for all services."""
    match mode:
        case Mode.RUBBISH:
            return Reply(body=b"<html>it works!", content_type="text/html")
        case Mode.CUT:
            return Reply(body=b'{"token_type":"Bearer","expires_in":"86')
        case Mode.TYPES:
            return Reply.json(_WRONG)
        case Mode.HTML:
            return Reply(status=502, body=_PAGE, content_type="text/html")
        case Mode.REDIRECT:
            return Reply(status=307, headers={"Location": REDIRECTED})
    return None
