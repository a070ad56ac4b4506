"""The ways in which a test can make IMDS fail."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from podidentity_sandbox.azure.messages import NO_HEADERS, Reply


class Mode(StrEnum):
    """What IMDS does to a request instead of, or before, answering it."""

    NONE = "none"
    SLOW = "slow"
    """Answers after `seconds`, the place in the quota held meanwhile."""
    HANG = "hang"
    """Never answers."""
    RESET = "reset"
    """Cuts the connection (RST)."""
    RUBBISH = "rubbish"
    """200 with what is not JSON."""
    UNAVAILABLE = "500"
    THROTTLED = "429"
    GONE = "410"


class Reset(Exception):
    """The connection is to be cut without an answer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """The fault in force."""

    mode: Mode = Mode.NONE
    seconds: float = 0.0
    """For SLOW; for THROTTLED the Retry-After, in whole seconds, where it is not 0."""

    async def strike(self) -> Reply | None:
        """Return what is answered instead, or None for the true answer; raise Reset."""
        match self.mode:
            case Mode.SLOW:
                await asyncio.sleep(self.seconds)
            case Mode.HANG:
                await asyncio.Event().wait()  # until the client leaves
            case Mode.RESET:
                raise Reset
            case Mode.RUBBISH:
                return Reply(body=b"<html>it works!", content_type="text/html")
            case Mode.UNAVAILABLE:
                text = "Failed to retrieve token from the Active directory."
                return _error(500, "server_error", text)
            case Mode.THROTTLED:
                more = {"Retry-After": str(int(self.seconds))} if self.seconds else {}
                return _error(429, "too_many_requests", "Too many requests", more)
            case Mode.GONE:
                return _error(410, "gone", "IMDS is being updated")
        return None


def _error(
    status: int, error: str, description: str, headers: Mapping[str, str] = NO_HEADERS
) -> Reply:
    body = {"error": error, "error_description": description}
    return Reply.json(body, status=status, headers=headers)
