"""A memo of the pipeline's answers: what was answered a moment ago is answered again at once.

An answer is remembered with all that it depends on, and given again, byte for byte, only while
none of that has changed:

* the revision of cluster and permissions: with one change of either, everything is forgotten;
* the token: fresh, and neither dropped nor replaced (`CachedToken`);
* the connection: proved to be the same pod's, from the same address;
* the request: the same bytes, from the first to the last, or, where the pipeline has read its
  headers, the same path and query: nothing else of a request decides about its answer;
* the second on the clock, because the answer says in how many of them the token expires.

So there is one way to a token, and this is only its memory: once a second at least each request is
decided anew, and that is also what keeps token and permission in use.
"""

from __future__ import annotations

from typing import NamedTuple

from podidentity.core.ports import Clock, Cluster, Permissions
from podidentity.core.resources import CachedToken, Origin
from podidentity.nmi.reporting.request_log import RequestTemplate
from podidentity.nmi.request.decision import Granted, Outcome, Revision
from podidentity.nmi.server.messages import Caller, Request, Response, render

CAPACITY = 4096
"""Keys, two for an answer of some 4 kB; the pods of a full node have some hundred answers."""


class CachedAnswer(NamedTuple):
    """An answer, and what it depends on."""

    second: int
    """Since 1970."""
    token: CachedToken
    response: Response
    rendered: bytes
    template: RequestTemplate


class AnswerCache:
    """Remembers answers."""

    def __init__(
        self,
        cluster: Cluster,
        permissions: Permissions | None,
        clock: Clock,
        *,
        recorded_first: bool = False,
    ) -> None:
        """`recorded_first`: no answer may leave before its audit record is written."""
        self._cluster = cluster
        self._permissions = permissions
        self._time, self._monotonic = clock.time, clock.monotonic
        self._recorded_first = recorded_first
        self._revision: Revision = (-1, -1)
        self._answers: dict[tuple[str, str, bytes], CachedAnswer] = {}

    def answer(self, caller: Caller, raw: bytes) -> bytes | None:
        """Return the rendered answer to the request `raw` of a connection, and record it.

        None if the request must be decided, or may wait for its record.
        """
        if self._recorded_first:
            return None
        begun = self._monotonic()
        found = self.find(caller, raw, begun)
        if found is None:
            return None
        found.template.record(self._time(), self._monotonic() - begun)
        return found.rendered

    def find(self, caller: Caller, key: bytes, monotonic: float) -> CachedAnswer | None:
        """Return the answer to a request of a connection if it still holds.

        `key`: all of the request, or the target of a GET whose headers were found right.
        """
        found = self._answers.get((caller.proven, caller.address, key))
        if found is None:
            return None
        permissions = self._permissions
        cluster_revision, permissions_revision = self._revision
        if cluster_revision != self._cluster.revision or (
            permissions is not None and permissions_revision != permissions.revision
        ):
            self._answers.clear()
            return None
        time, token = self._time(), found.token
        holds = (
            int(time) == found.second
            and monotonic < token.fresh_until
            and time < token.fresh_until_time
        )
        return found if holds else None

    def find_by_target(self, request: Request, monotonic: float) -> CachedAnswer | None:
        """Return the answer to a GET whose headers were found right, if it still holds.

        Its bytes are remembered as well: their next arrival is answered without being parsed.
        """
        found = self.find(request.caller, request.raw_target, monotonic)
        if found is not None and request.raw and request.keep_alive:
            self._store(request, request.raw, found)
        return found

    def remember(
        self,
        request: Request,
        outcome: Outcome,
        response: Response,
        template: RequestTemplate,
        *,
        revision: Revision,
        time: float,
    ) -> None:
        """Remember `response`, made at `time` by a decision begun at `revision`, if it may be.

        Only a token from the cache: of another the origin is recorded. What is only observed is
        told each time, and the last answer of a connection has a header of its own.
        """
        caller, raw, target = request.caller, request.raw, request.raw_target
        if not isinstance(outcome, Granted) or outcome.fetched.origin is not Origin.CACHE:
            return
        if not (raw and request.keep_alive and caller.proven) or outcome.observed or outcome.others:
            return
        if revision != self._revision:
            self._answers.clear()
            self._revision = revision
        answer = CachedAnswer(
            second=int(time),
            token=outcome.fetched.entry,
            response=response,
            rendered=render(response, stays=True),
            template=template,
        )
        # Clients that put a number of its own into each request repeat the target alone.
        for key in (raw, target):
            self._store(request, key, answer)

    def _store(self, request: Request, key: bytes, answer: CachedAnswer) -> None:
        if len(self._answers) >= CAPACITY:
            self._answers.clear()
        self._answers[request.caller.proven, request.caller.address, key] = answer
