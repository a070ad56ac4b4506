"""What was answered a moment ago, answered again: the hot path of a node whose pods are busy.

An answer is kept with all that it depends on, and given again, byte for byte, only while none of
that has changed:

* the cluster as watched and the permissions: one change of either, and everything is forgotten;
* the token: fresh, and neither dropped nor replaced (`CachedToken`);
* the connection: proved to be the same pod's;
* the request: the same bytes, from its first to its last;
* the second on the clock, because the answer says in how many of them the token expires.

So this is never another way to a token, only a shorter one: once a second at least each is decided
anew where all are decided (`service`), and that is also what keeps token and permission in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from podidentity.core.errors import NotReady
from podidentity.core.ports import CachedToken, Clock, Origin
from podidentity.core.tokens import Grant
from podidentity.nmi.reporting.request_log import Given, Record
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.nmi.server.messages import Caller, Request, Response, render

ROOM = 4096
"""Answers that are kept, some 10 MB; a full node's pods have some hundred targets."""


_METADATA, _FORWARDED = b"metadata", b"x-forwarded-for"
_CONCERNED = frozenset({len(_METADATA), len(_FORWARDED)})

Cached = Callable[[Grant, str], CachedToken | None]
"""Looks a token for a grant and an audience up, without waiting."""
Mark = tuple[int, int]
"""The state of cluster and permissions."""


class _Answer(NamedTuple):
    """An answer, and what it depends on."""

    second: int
    """Since 1970."""
    kept: CachedToken
    rendered: bytes
    given: Given


class Express:
    """Answers again what `keep` was told, at once."""

    def __init__(
        self,
        *,
        revision: Callable[[], Mark],
        cached: Cached,
        record: Record,
        clock: Clock,
    ) -> None:
        """`revision` returns the state of what decides."""
        self.mark = revision
        """To be called before a decision begins, for `keep`."""
        self._cached = cached
        self._record = record
        self._time, self._monotonic = clock.time, clock.monotonic
        self._mark: Mark = (-1, -1)
        self._answers: dict[tuple[str, str, bytes], _Answer] = {}

    def answer(self, caller: Caller, raw: bytes) -> bytes | None:
        """Return the rendered answer; None where the request must be decided."""
        found = self._answers.get((caller.proven, caller.address, raw))
        if found is None:
            return None
        begun, now = self._monotonic(), self._time()
        if not self._holds(found, begun, now):
            return None
        found.given.note(now, self._monotonic() - begun)
        return found.rendered

    def _holds(self, found: _Answer, monotonic: float, time: float) -> bool:
        if self._mark != self.mark():
            self._answers.clear()
            return False
        try:
            self._record.must_be_possible()
        except NotReady:
            return False
        kept = found.kept
        return (
            int(time) == found.second
            and monotonic < kept.fresh_until
            and time < kept.fresh_until_time
        )

    def keep(  # noqa: PLR0917 - what came, what it led to, what was sent
        self,
        request: Request,
        asked: Asked,
        outcome: Outcome,
        response: Response,
        now: float,
        mark: Mark,
    ) -> None:
        """Give `response`, made at `now` by a decision begun at `mark`, again, where it may be."""
        if outcome.origin is not Origin.CACHE or outcome.grant is None:
            return
        # What is only observed is told each time; a connection that ends has its own answer.
        if outcome.observed is not None or not request.raw or not request.keep_alive:
            return
        if not request.caller.proven or mark != self.mark():
            return
        kept = self._cached(outcome.grant, asked.request.resource)
        if kept is None or kept.token is not outcome.token:
            return
        if mark != self._mark or len(self._answers) >= ROOM:
            self._answers.clear()
            self._mark = mark
        caller = request.caller
        self._answers[caller.proven, caller.address, request.raw] = _Answer(
            second=int(now),
            kept=kept,
            rendered=render(response, stays=True),
            given=self._record.given(asked, outcome),
        )


def is_plain(fields: Sequence[tuple[bytes, bytes]]) -> bool:
    """Whether a request has `Metadata: true`, once, and did not come through a proxy."""
    told = False
    for name, value in fields:
        # By their length first: most headers are of no concern.
        if len(name) in _CONCERNED:
            known = name.lower()
            if known == _FORWARDED or (known == _METADATA and (told or not _is_true(value))):
                return False
            told = told or known == _METADATA
    return told


def _is_true(value: bytes) -> bool:
    return value.strip().lower() == b"true"
