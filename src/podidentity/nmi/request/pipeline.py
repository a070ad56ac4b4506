"""One request, from its bytes to its answer and its record.

    classify   which route the target means                        wire.imds
    check      method, header, query: wrong requests end here      wire.imds
    caller     whose connection it is, proved by the kernel        caller, host_token
    decision   which identity the pod gets, or why none            decision
    token      from the cache, IMDS or Entra                       the TokenSource
    answer     the body of a success, or the error's row           errors
    record     log line, audit record, metrics, event              reporting.request_log

Each step takes a value and returns a value; an error of an earlier step is answered at once, before
anybody waits for anything. SDKs probe with a request without the header and give it 500 ms.
What was answered is answered again for a second or two: `by_bytes` finds it in the `AnswerCache`,
and waits for nothing but the proof of a connection, at most once a second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Literal, Protocol
from zlib import crc32

from podidentity.core.decision import Allowed, Ambiguity, granted
from podidentity.core.errors import InvalidRequest, NotYetKnown, PodIdentityError
from podidentity.core.ports import Clock, Cluster, Permissions, TokenSource
from podidentity.core.rate_limits import FairCache, Flow, kib
from podidentity.core.resources import CachedToken, Fetched, Grant, Origin, TokenRequest
from podidentity.nmi.reporting.request_log import CLIENT_LEFT, RequestLog, RequestTemplate
from podidentity.nmi.request import errors
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import (
    Decider,
    Failed,
    Granted,
    Outcome,
    Rejected,
    Revision,
    Subject,
    TokenQuery,
    no_token,
)
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.server.messages import (
    LATER,
    Answered,
    Caller,
    KnownAnswer,
    Request,
    Response,
    Waiting,
    render,
)
from podidentity.waiting import first_of
from podidentity.wire.host_token import parse_pod_name, render_host_answer
from podidentity.wire.imds import (
    AllowList,
    MetadataAnswer,
    Route,
    Target,
    classify,
    names_the_internet,
    parse_request,
    render_answer,
    render_answers,
    without_user_data,
)
from podidentity.wire.path_probe import ANSWER

_SHOWN = 200
"""Characters of a refused path that the log has."""
_PROPAGATION_PAUSE = 1.0
"""Seconds between questions while an identity that was attached a moment ago spreads."""
REMEMBERED_SECONDS = 1.0
"""For which an answer is remembered at least; at most for twice as long."""
SECONDS = 9.0
"""In which a request is answered, its hold included, though IMDS or Entra hangs: clients that give
up after ten seconds (Terraform, AzCopy) then know why, and a client that asks again has what came
meanwhile."""
LEAST_FOR_TOKEN = 1.0
"""Seconds. A client that was held until less would be left waits for longer, as for a controller;
then its token has the whole time."""
CAPACITY = 16_384
"""KiB of answers, of some four each; the pods of a full node have some hundred of them."""
MOST_REQUESTS = 4096
"""Requests that are known by their bytes, of at most 2 kB each."""
_PROBE_ANSWER = Response(HTTPStatus.OK, ANSWER)
_METADATA, _HOST = b"metadata", b"host"
_BY_PROXIES = frozenset({b"x-forwarded-for", b"forwarded", b"via"})
"""What a proxy adds by which somebody asks who is not the pod: a custom, RFC 7239 and RFC 9110."""
_THEIR_LENGTHS = frozenset(map(len, _BY_PROXIES))
_USUAL_HOST = b"169.254.169.254"


class MetadataSource(Protocol):
    """The real service, for paths that are passed on."""

    async def metadata(self, target: str, accept: str, flow: Flow) -> MetadataAnswer:
        """Return its answer for path and query `target`; raise a TokenUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """What an operator chose."""

    allow: AllowList
    header_required: bool = True
    retry_after_header: bool = False
    text_errors: bool = False
    """Errors as the archived project told them."""


@dataclass(frozen=True, slots=True)
class KnownRequest:
    """What the bytes of a request mean: a GET with the right headers."""

    target: bytes
    keep_alive: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CachedAnswer:
    """An answer, and what it depends on."""

    namespace: str
    """Of the pod."""
    pod_uid: str
    """Whose connection it was."""
    until: float
    """In monotonic seconds."""
    token: CachedToken
    resource: str
    """As the client wrote it, which is how the answer echoes it."""
    template: RequestTemplate
    second: int
    """Since 1970; in it the answer is right about the seconds that are left of the token."""
    response: Response
    rendered: tuple[KnownAnswer, KnownAnswer]
    """By whether the client wants the connection kept."""

    @property
    def size(self) -> int:
        known = self.rendered[0]
        return kib(known.kept, known.last, self.response.body)

    def at(self, time: float) -> CachedAnswer:
        """Return the same answer, with the seconds that are left at `time` (since 1970)."""
        response = Response(HTTPStatus.OK, render_answer(self.token.token, self.resource, time))
        return replace(
            self, second=int(time), response=response, rendered=_rendered_both_ways(response)
        )


class AnswerCache:
    """Remembers answers of the pipeline for a moment.

    An answer is remembered with all that it depends on, and given again only while none of that has
    changed:

    * the revision of cluster and permissions: with one change of either, everything is forgotten;
    * the token: fresh, and neither dropped nor replaced (`CachedToken`);
    * the connection: proved to be the same pod's, from the same address;
    * the request: a GET whose headers were found right, of the same path and query: nothing else of
      a request decides about its answer;
    * the time: an answer says in how many seconds the token expires, so it is rendered again with
      each second of the clock; and after one to two seconds its request is decided anew. When, is a
      matter of address and request, so that those of all pods do not come in the same moment.

    So there is one way to a token, and this is only its memory: every other second at least each
    request is decided anew, and that is also what keeps token and permission in use.

    Beside the answers it knows requests by their bytes: equal bytes are the same request, and need
    not be parsed again. That holds for good and for everybody.
    """

    def __init__(self, cluster: Cluster, permissions: Permissions | None, clock: Clock) -> None:
        self._cluster = cluster
        self._permissions = permissions
        self._time = clock.time
        self._revision: Revision = (-1, -1)
        self._answers: FairCache[tuple[str, bytes], CachedAnswer] = FairCache(CAPACITY)
        """By address and target: pods seldom share an address, and then the last one counts."""
        self.requests: FairCache[bytes, KnownRequest] = FairCache(MOST_REQUESTS)
        """What the bytes of requests mean, as far as that is known."""

    def note(self, request: Request, namespace: str) -> None:
        """Remember what the bytes of a request mean: a GET whose headers were found right."""
        if request.raw:
            known = KnownRequest(request.raw_target, request.keep_alive)
            self.requests.put(request.raw, known, namespace)

    def find(self, address: str, target: bytes, monotonic: float) -> CachedAnswer | None:
        """Return the answer to a GET with the right headers if it still holds.

        It is for connections that are proved to be its pod's, and for no other.
        """
        key = address, target
        found = self._answers.get(key)
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
        if not (
            monotonic < found.until
            and monotonic < token.fresh_until
            and time < token.fresh_until_time
        ):
            return None
        if int(time) != found.second:
            found = found.at(time)
            self._answers.put(key, found, found.namespace, found.size)
        return found

    def remember(
        self,
        request: Request,
        outcome: Outcome,
        response: Response,
        template: RequestTemplate,
        *,
        resource: str,
        revision: Revision,
        begun: float,
        time: float,
    ) -> None:
        """Remember `response`, made at `time` by a decision begun at `revision`, if it may be.

        `begun`: when the decision began, in monotonic seconds.

        Only a token from the cache: of another the origin is recorded. What is only observed is
        told each time.
        """
        caller = request.caller
        if not isinstance(outcome, Granted) or outcome.fetched.origin is not Origin.CACHE:
            return
        if not caller.proven or outcome.observed or outcome.others:
            return
        if revision != self._revision:
            self._answers.clear()
            self._revision = revision
        key = caller.address, request.raw_target
        answer = CachedAnswer(
            namespace=outcome.pod.ref.namespace,
            pod_uid=caller.proven,
            until=begun + remembered_seconds(*key),
            token=outcome.fetched.entry,
            resource=resource,
            template=template,
            second=int(time),
            response=response,
            rendered=_rendered_both_ways(response),
        )
        self._answers.put(key, answer, answer.namespace, answer.size)
        self.note(request, answer.namespace)


def remembered_seconds(address: str, target: bytes) -> float:
    share = crc32(target, crc32(address.encode())) / (1 << 32)
    return REMEMBERED_SECONDS * (1 + share)


def _rendered_both_ways(response: Response) -> tuple[KnownAnswer, KnownAnswer]:
    kept, last = (render(response, stays=stays) for stays in (True, False))
    return KnownAnswer(kept, last, keep_alive=False), KnownAnswer(kept, last, keep_alive=True)


class RequestPipeline:
    """The handler of NMI's listener, and its memo."""

    def __init__(
        self,
        *,
        callers: Callers,
        host_callers: HostCallers,
        decider: Decider,
        tokens: TokenSource,
        metadata: MetadataSource,
        answers: AnswerCache,
        log: RequestLog,
        clock: Clock,
        policy: RoutePolicy,
        recorded_first: bool = False,
        take_probe: Callable[[str, int, str, str], bool] = lambda *_: False,
    ) -> None:
        """`recorded_first`: no answer may leave before its audit record is written.

        `take_probe` says of address, port, own address and target whether a request is the probe
        of the data path that is expected.
        """
        self._callers = callers
        self._host_callers = host_callers
        self._decider = decider
        self._tokens = tokens
        self._metadata = metadata
        self._answers = answers
        self._log = log
        self._clock = clock
        self._policy = policy
        self._recorded_first = recorded_first
        self._take_probe = take_probe

    async def __call__(self, request: Request) -> Response:
        """Return the answer; have it recorded, unless it is a probe of our own."""
        caller = request.caller
        if self._take_probe(caller.address, caller.port, caller.own, request.target):
            return _PROBE_ANSWER
        begun = self._clock.monotonic()
        target = classify(request.target, self._policy.allow)
        route = target.route
        if route in errors.NOT_SERVED:
            return self._plain(request, route, begun, errors.NOT_SERVED[route])
        if request.method != "GET":
            return self._plain(request, route, begun, errors.NOT_GET)
        try:
            self._check_headers(request, route)
            if route is Route.FORWARD:
                return await self._forward(request, target, begun)
            if route is Route.HOST_TOKEN:
                return await self._host_token(request, target, begun)
            return await self._token(request, target, begun)
        except PodIdentityError as error:
            reason = type(error).__name__
            return self._plain(request, route, begun, self._told(error), reason=reason)
        except asyncio.CancelledError:
            left = "the client left before its answer"
            self._log.other(request.caller.address, route, CLIENT_LEFT, left, begun)
            raise

    # What was answered a moment ago.

    def by_bytes(
        self, caller: Caller, raw: bytes, answered: Answered
    ) -> KnownAnswer | Literal[Waiting.LATER] | None:
        """Return what is remembered for the request `raw` of a connection, and record it.

        LATER, and `answered` is called, if the connection must be proved before.
        """
        known = self._answers.requests.get(raw)
        if known is None or self._recorded_first:
            return None
        begun, address = self._clock.monotonic(), caller.address
        found = self._answers.find(address, known.target, begun)
        if found is None:
            return None
        if found.pod_uid == caller.proven:
            if begun < caller.proven_until:
                return self._given(found, begun, keep_alive=known.keep_alive)
        elif caller.proven or caller.proxied is not None:
            return None

        def proved() -> None:
            found = self._answers.find(address, known.target, self._clock.monotonic())
            if found is None or found.pod_uid != caller.proven:
                answered(None)
            else:
                answered(self._given(found, begun, keep_alive=known.keep_alive))

        return LATER if self._callers.prove(caller, proved) else None

    def _given(self, found: CachedAnswer, begun: float, *, keep_alive: bool) -> KnownAnswer:
        """Record an answer that is given again, and return it."""
        clock = self._clock
        found.template.record(clock.time(), clock.monotonic() - begun)
        return found.rendered[keep_alive]

    # The header rule.

    def _check_headers(self, request: Request, route: Route) -> None:
        """Raise InvalidRequest unless `Metadata: true` came once, not by a proxy or a web page.

        A client that can be made to send a request to any URL can seldom add a header of its own.
        A page in a browser can, but it says by which name it found us.
        """
        values: list[bytes] = []
        for name, value in request.fields:
            # By their length first: most headers are of no concern.
            if len(name) == len(_METADATA) and name.lower() == _METADATA:
                values.append(value.strip().lower())
            elif len(name) in _THEIR_LENGTHS and name.lower() in _BY_PROXIES:
                raise InvalidRequest(errors.FORWARDED)
            elif (
                len(name) == len(_HOST)
                and name.lower() == _HOST
                and value != _USUAL_HOST
                and names_the_internet(value.strip().decode("latin-1"))
            ):
                raise InvalidRequest(errors.FOREIGN_HOST)
        # The CSI driver's provider sends none; that its own names are needed protects as well.
        required = self._policy.header_required and route is not Route.HOST_TOKEN
        if required and values != [b"true"]:
            raise InvalidRequest(errors.NO_HEADER)

    # Tokens.

    async def _token(self, request: Request, target: Target, begun: float) -> Response:
        """Answer a pod that asks for a token of its own."""
        query = TokenQuery(request.caller.address, parse_request(target.query))
        self._log.check()
        revision = self._decider.revision()
        subject = await self._callers.identify(request.caller)
        if isinstance(subject, Subject):
            known = self._answers.find(request.caller.address, request.raw_target, begun)
            if known is not None and known.pod_uid == request.caller.proven:
                self._answers.note(request, subject.pod.ref.namespace)
                await self._log.again(known.template, begun)
                return known.response
        ambiguity = self._decider.policy.ambiguity
        outcome = await self.outcome(subject, query.request, ambiguity, begun=begun)
        if isinstance(outcome, Granted):
            still = await self._callers.still(request.caller, outcome.subject)
            outcome = outcome if isinstance(still, Subject) else still
        time = self._clock.time()
        if isinstance(outcome, Granted):
            response = Response(HTTPStatus.OK, _body(outcome, query.request.resource, time))
        else:
            response = self._response(self._told(outcome.error, query.request))
        template = await self._log.token(query, outcome, response.status, begun)
        self._answers.remember(
            request,
            outcome,
            response,
            template,
            resource=query.request.resource,
            revision=revision,
            begun=begun,
            time=time,
        )
        return response

    async def _host_token(self, request: Request, target: Target, begun: float) -> Response:
        """Answer the CSI driver's provider, which asks for a token in a pod's name."""
        asked_for = parse_pod_name(request.headers)
        query = TokenQuery(request.caller.address, parse_request(target.query), asked_for)
        self._log.check()
        subject = await self._host_callers.identify(request.caller, asked_for)
        # The provider cannot name one of several identities.
        outcome = await self.outcome(subject, query.request, Ambiguity.WEIGHT, begun=begun)
        if isinstance(outcome, Granted):
            body = _host_body(outcome, query.request.resource, self._clock.time())
            response = Response(HTTPStatus.OK, body)
        else:
            response = self._response(self._told(outcome.error, query.request, host=True))
        await self._log.token(query, outcome, response.status, begun)
        return response

    async def outcome(
        self,
        subject: Subject | Rejected | Failed,
        request: TokenRequest,
        ambiguity: Ambiguity,
        *,
        begun: float,
    ) -> Outcome:
        """Decide and fetch, until the decision still holds when the token has come.

        `begun` is when the request came, in monotonic seconds.
        """
        if not isinstance(subject, Subject):
            return subject
        decider = self._decider
        unknown_since: float | None = None
        while True:
            allowed = await decider.decide(subject, request, ambiguity, begun=begun)
            if not isinstance(allowed, Allowed):
                return allowed
            revision, now = decider.revision(), self._clock.monotonic()
            outcome = await self._fetched(subject, allowed, request, fetch_until(begun, now))
            if isinstance(outcome, NotYetKnown):
                # What a controller has attached may have been waited for longer than that spreads.
                unknown_since = now if unknown_since is None else unknown_since
                left = decider.hold.until_known(subject.pod, unknown_since)
                if left <= 0:
                    return no_token(outcome, subject, allowed=allowed)
                await self._pause(outcome, left)
                continue
            if not isinstance(outcome, Granted) or decider.revision() == revision:
                return outcome
            if decider.still_allows(allowed, request, ambiguity):
                return outcome

    async def _fetched(
        self, subject: Subject, allowed: Allowed, request: TokenRequest, until: float
    ) -> Outcome | NotYetKnown:
        """Return the outcome, or why the token may come in a moment."""
        try:
            grant = granted(allowed.entitlement, allowed.pod, request)
            fetched = await self._fetch(grant, request, until)
            more = self._others(subject, grant)
            others = [await self._fetch(each, request, until) for each in more]
        except NotYetKnown as error:
            return error
        except PodIdentityError as error:
            return no_token(error, subject, allowed=allowed)
        tokens = tuple(each.token for each in others)
        return Granted(subject=subject, allowed=allowed, fetched=fetched, others=tokens)

    async def _fetch(self, grant: Grant, request: TokenRequest, until: float) -> Fetched:
        return await self._tokens.fetch(
            grant, request.resource, bypass_cache=request.bypass_cache, until=until
        )

    def _others(self, subject: Subject, grant: Grant) -> Sequence[Grant]:
        """Return the grants of the identity's other tenants, if the answer has them all."""
        entra = grant.identity.entra
        if not self._decider.policy.tenant_array or subject.evidence.delegated:
            return ()
        if entra is None or grant.tenant is not None:
            return ()
        return [replace(grant, tenant=tenant) for tenant in entra.auxiliary_tenants]

    async def _pause(self, error: NotYetKnown, left: float) -> None:
        """Return when asking again makes sense, within so many seconds."""
        if error.comes is None:
            await self._clock.sleep(min(_PROPAGATION_PAUSE, left))
        else:
            await first_of(error.comes(), self._clock.sleep(left))

    # All others.

    async def _forward(self, request: Request, target: Target, begun: float) -> Response:
        """Answer what the real service answers."""
        address = request.caller.address
        accept = request.headers.get("accept", ["*/*"])[-1]
        query = f"?{target.query}" if target.query else ""
        # The caller is not proved here; each address has its own turns.
        flow = Flow("", address)
        passed = await self._metadata.metadata(target.path + query, accept, flow)
        body = passed.body
        if self._policy.allow.strips(target.path):
            body = without_user_data(body)
        told = "metadata passed on"
        self._log.other(address, target.route, passed.status, told, begun, path=target.path)
        return Response(passed.status, body, passed.content_type)

    def _plain(
        self, request: Request, route: Route, begun: float, told: errors.Answer, *, reason: str = ""
    ) -> Response:
        """Answer a request that concerns no pod in particular."""
        path = request.target.partition("?")[0][:_SHOWN]
        address, text = request.caller.address, told.description
        self._log.other(address, route, told.status, text, begun, path=path, reason=reason)
        return self._response(told)

    def _told(
        self, error: PodIdentityError, asked: TokenRequest | None = None, *, host: bool = False
    ) -> errors.Answer:
        later = self._policy.retry_after_header
        if self._policy.text_errors:
            return errors.old_answer(error, asked, retry_after_header=later, host=host)
        return errors.host_answer(error) if host else errors.answer(error, retry_after_header=later)

    def _response(self, told: errors.Answer) -> Response:
        return errors.old_response(told) if self._policy.text_errors else errors.response(told)


def fetch_until(begun: float, now: float) -> float:
    """Return until when the token of a request may be waited for; all in monotonic seconds."""
    left = begun + SECONDS - now
    return now + (left if left >= LEAST_FOR_TOKEN else SECONDS)


def _body(outcome: Granted, resource: str, now: float) -> bytes:
    token = outcome.fetched.token
    if outcome.others:
        return render_answers((token, *outcome.others), resource, now)
    return render_answer(token, resource, now)


def _host_body(outcome: Granted, resource: str, now: float) -> bytes:
    token = outcome.fetched.token
    client_id = str(outcome.identity.client_id or token.client_id)
    return render_host_answer(token, client_id, resource, now)
