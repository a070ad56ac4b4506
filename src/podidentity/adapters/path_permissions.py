"""Whether the bearer of a token may read a path of the agent, by RBAC on non-resource URLs.

TokenReview names the token's user, SubjectAccessReview says whether the user may `get` the path, as
in controller-runtime's metrics filter. Every pod can reach the port, so answers are cached, each
address is rate-limited, and the questions under way are bounded.

https://github.com/kubernetes-sigs/controller-runtime/blob/main/pkg/metrics/filters/filters.go
"""

from __future__ import annotations

import asyncio
import re
import secrets
from collections import OrderedDict
from enum import Enum, auto
from hashlib import blake2b
from typing import NamedTuple

from podidentity.access_reviews import confirmed
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import RateLimiter
from podidentity.waiting import end_all
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.reviews import (
    PATH,
    TOKEN_PATH,
    InconclusiveReview,
    parse_review,
    parse_token_review,
    path_review,
    token_review,
)

ALLOWED = 60.0
"""Seconds that a permission is cached, and so the longest time that a revoked one counts."""
DENIED = 10.0
"""Seconds that a refusal is cached."""
OUTLIVES = 900.0
"""Seconds that a permission counts while the API server cannot be reached, if none are given."""
CAPACITY = 64
"""Entries of the cache: Prometheus has one token, and a few people have others."""
AT_ONCE = 4
QUESTIONS_PER_SECOND = 1.0
QUESTIONS_BURST = 5.0
"""Of one address."""

# A service account's token is a JWT, and so is that of most identity providers; RFC 6750.
_TOKEN = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([A-Za-z0-9._~+/-]{16,8192}=*)")


class Access(Enum):
    """The result of the check."""

    ALLOWED = auto()
    DENIED = auto()
    UNKNOWN_TOKEN = auto()
    """The request has no token, or the cluster does not know it."""
    TOO_OFTEN = auto()
    UNDECIDED = auto()
    """The API server cannot be reached."""


class _Answer(NamedTuple):
    access: Access
    at: float


class PathPermissions:
    """The permission to read one path, cached for each token."""

    def __init__(
        self,
        server: KubeApi,
        clock: Clock,
        *,
        path: str,
        audience: str,
        outlives: float = OUTLIVES,
    ) -> None:
        """Tokens must be for `audience`, so one that is sent to a stranger opens nothing else.

        `outlives` are the seconds that a permission counts while the API server is away.
        """
        self._server = server
        self._clock = clock
        self._path = path
        self._audience = audience
        self._outlives = outlives
        self._answers: OrderedDict[bytes, _Answer] = OrderedDict()
        self._flights: dict[bytes, asyncio.Task[Access]] = {}
        self._limiter = RateLimiter(QUESTIONS_PER_SECOND, QUESTIONS_BURST)
        # The cache holds keyed digests, no tokens; the key never leaves this process.
        self._key = secrets.token_bytes(32)

    async def access(self, authorization: bytes, address: str) -> Access:
        """Return the access that the value of the header `Authorization` gives."""
        found = _TOKEN.fullmatch(authorization.strip())
        if found is None:
            return Access.UNKNOWN_TOKEN
        token = found[1]
        name = blake2b(token, key=self._key, digest_size=16).digest()
        now = self._clock.monotonic()
        answer = self._answers.get(name)
        if answer is not None:
            counts = ALLOWED if answer.access is Access.ALLOWED else DENIED
            if now - answer.at < counts:
                return answer.access
        flight = self._flights.get(name)
        if flight is None:
            if len(self._flights) >= AT_ONCE or self._limiter.take(address, now) > 0:
                return Access.TOO_OFTEN
            flight = asyncio.create_task(self._ask(name, token.decode()))
            self._flights[name] = flight
            flight.add_done_callback(lambda _: self._flights.pop(name))
        return await asyncio.shield(flight)

    async def close(self) -> None:
        await end_all(self._flights.values())

    async def _ask(self, name: bytes, token: str) -> Access:
        last, asked = self._answers.get(name), self._clock.monotonic()
        allowed = last is not None and last.access is Access.ALLOWED
        try:
            access = await self._asked(token, before=allowed or None)
        except (KubeError, InconclusiveReview):
            if allowed and last and self._clock.monotonic() - last.at < self._outlives:
                return Access.ALLOWED
            return Access.UNDECIDED
        # A slow API server may have decided it at once.
        at = asked if access is Access.ALLOWED else self._clock.monotonic()
        self._answers[name] = _Answer(access, at)
        self._answers.move_to_end(name)
        if len(self._answers) > CAPACITY:
            # The oldest refusal goes; if there is none, the oldest permission.
            refusals = (
                each for each, kept in self._answers.items() if kept.access is not Access.ALLOWED
            )
            del self._answers[next(refusals, None) or next(iter(self._answers))]
        return access

    async def _asked(self, token: str, *, before: bool | None) -> Access:
        asked = token_review(token, self._audience)
        user = parse_token_review(await self._server.create(TOKEN_PATH, asked), self._audience)
        if user is None:
            return Access.UNKNOWN_TOKEN
        question = path_review(user, self._path)

        async def ask() -> bool:
            return parse_review(await self._server.create(PATH, question))

        allowed = await confirmed(ask, self._clock, before=before)
        return Access.ALLOWED if allowed else Access.DENIED
