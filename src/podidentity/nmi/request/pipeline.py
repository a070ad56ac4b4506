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
`answer_cache` remembers what this page answered, for the rest of the second.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Protocol

from podidentity.core.decision import Allowed, Ambiguity, granted
from podidentity.core.errors import InvalidRequest, NotYetKnown, PodIdentityError
from podidentity.core.ports import Clock, TokenSource
from podidentity.core.rate_limits import Flow
from podidentity.core.resources import Fetched, Grant, TokenRequest
from podidentity.nmi.reporting.request_log import CLIENT_LEFT, RequestLog
from podidentity.nmi.request import errors
from podidentity.nmi.request.answer_cache import AnswerCache
from podidentity.nmi.request.caller import Callers
from podidentity.nmi.request.decision import (
    Decider,
    Failed,
    Granted,
    Outcome,
    Rejected,
    Subject,
    TokenQuery,
    no_token,
)
from podidentity.nmi.request.hold import wait_for
from podidentity.nmi.request.host_token import HostCallers
from podidentity.nmi.server.messages import Request, Response
from podidentity.wire.host_token import parse_pod_name, render_host_answer
from podidentity.wire.imds import (
    AllowList,
    Route,
    Target,
    classify,
    parse_request,
    render_answer,
    render_answers,
    without_user_data,
)

_SHOWN = 200
"""Characters of a refused path that the log has."""
_PROPAGATION_PAUSE = 1.0
"""Seconds between questions while an identity that was attached a moment ago spreads."""
_METADATA, _FORWARDED = b"metadata", b"x-forwarded-for"


class MetadataAnswer(Protocol):
    """What the real service answered."""

    @property
    def status(self) -> int:
        """Its HTTP status."""

    @property
    def content_type(self) -> str:
        """Its Content-Type."""

    @property
    def body(self) -> bytes:
        """Its body."""


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


class RequestPipeline:
    """The handler of NMI's listener."""

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
    ) -> None:
        self._callers = callers
        self._host_callers = host_callers
        self._decider = decider
        self._tokens = tokens
        self._metadata = metadata
        self._answers = answers
        self._log = log
        self._clock = clock
        self._policy = policy

    async def __call__(self, request: Request) -> Response:
        """Return the answer; have it recorded."""
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

    # The header rule.

    def _check_headers(self, request: Request, route: Route) -> None:
        """Raise InvalidRequest unless `Metadata: true` came once, and not through a proxy.

        A client that can be made to send a request to any URL can seldom add a header of its own.
        """
        values: list[bytes] = []
        for name, value in request.fields:
            # By their length first: most headers are of no concern.
            if len(name) == len(_METADATA) and name.lower() == _METADATA:
                values.append(value.strip().lower())
            elif len(name) == len(_FORWARDED) and name.lower() == _FORWARDED:
                raise InvalidRequest(errors.FORWARDED)
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
            known = self._answers.find_by_target(request, begun)
            if known is not None:
                await self._log.again(known.template, begun)
                return known.response
        ambiguity = self._decider.policy.ambiguity
        outcome = await self.outcome(subject, query.request, ambiguity)
        time = self._clock.time()
        if isinstance(outcome, Granted):
            response = Response(HTTPStatus.OK, _body(outcome, query.request.resource, time))
        else:
            response = self._response(self._told(outcome.error, query.request))
        template = await self._log.token(query, outcome, response.status, begun)
        self._answers.remember(request, outcome, response, template, revision=revision, time=time)
        return response

    async def _host_token(self, request: Request, target: Target, begun: float) -> Response:
        """Answer the CSI driver's provider, which asks for a token in a pod's name."""
        asked_for = parse_pod_name(request.headers)
        query = TokenQuery(request.caller.address, parse_request(target.query), asked_for)
        self._log.check()
        subject = await self._host_callers.identify(request.caller, asked_for)
        # The provider cannot name one of several identities.
        outcome = await self.outcome(subject, query.request, Ambiguity.WEIGHT)
        if isinstance(outcome, Granted):
            body = _host_body(outcome, query.request.resource, self._clock.time())
            response = Response(HTTPStatus.OK, body)
        else:
            response = self._response(errors.host_answer(outcome.error))
        await self._log.token(query, outcome, response.status, begun)
        return response

    async def outcome(
        self, subject: Subject | Rejected | Failed, request: TokenRequest, ambiguity: Ambiguity
    ) -> Outcome:
        """Decide and fetch, until the decision still holds when the token has come."""
        if not isinstance(subject, Subject):
            return subject
        decider = self._decider
        while True:
            allowed = await decider.decide(subject, request, ambiguity)
            if not isinstance(allowed, Allowed):
                return allowed
            revision = decider.revision()
            outcome = await self._fetched(subject, allowed, request)
            if outcome is None:
                continue
            if not isinstance(outcome, Granted) or decider.revision() == revision:
                return outcome
            if decider.still_allows(allowed, request, ambiguity):
                return outcome

    async def _fetched(
        self, subject: Subject, allowed: Allowed, request: TokenRequest
    ) -> Outcome | None:
        """Return the outcome, or None if the request was held and must be decided again."""
        try:
            grant = granted(allowed.entitlement, allowed.pod, request)
            fetched = await self._fetch(grant, request)
            others = [await self._fetch(each, request) for each in self._others(subject, grant)]
        except NotYetKnown as error:
            left = self._decider.hold.after_change(subject.pod)
            if left <= 0:
                return no_token(error, subject, allowed=allowed)
            await self._pause(error, left)
            return None
        except PodIdentityError as error:
            return no_token(error, subject, allowed=allowed)
        tokens = tuple(each.token for each in others)
        return Granted(subject=subject, allowed=allowed, fetched=fetched, others=tokens)

    async def _fetch(self, grant: Grant, request: TokenRequest) -> Fetched:
        return await self._tokens.fetch(grant, request.resource, bypass_cache=request.bypass_cache)

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
            await wait_for(error.comes(), self._clock, left)

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

    def _told(self, error: PodIdentityError, asked: TokenRequest | None = None) -> errors.Answer:
        policy = self._policy
        if policy.text_errors:
            return errors.old_answer(error, asked, retry_after_header=policy.retry_after_header)
        return errors.answer(error, retry_after_header=policy.retry_after_header)

    def _response(self, told: errors.Answer) -> Response:
        return errors.old_response(told) if self._policy.text_errors else errors.response(told)


def _body(outcome: Granted, resource: str, now: float) -> bytes:
    token = outcome.fetched.token
    if outcome.others:
        return render_answers((token, *outcome.others), resource, now)
    return render_answer(token, resource, now)


def _host_body(outcome: Granted, resource: str, now: float) -> bytes:
    token = outcome.fetched.token
    client_id = str(outcome.identity.client_id or token.client_id)
    return render_host_answer(token, client_id, resource, now)
