"""From an HTTP request to its answer, and what is recorded of it.

Cheap checks first: what is wrong with the request itself is said at once, before anybody waits
for anything. SDKs probe with a request without the header and give it 500 ms.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from http import HTTPStatus
from typing import Protocol

from podidentity.core.errors import InvalidRequest, PodIdentityError
from podidentity.core.ports import Clock
from podidentity.core.rate_limits import Flow
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.reporting.request_log import CLIENT_LEFT, Record
from podidentity.nmi.request.answer_cache import Express, is_plain
from podidentity.nmi.request.decision import TokenService
from podidentity.nmi.request.errors import Answer, answer, host_answer
from podidentity.nmi.request.host_token import HostTokenService
from podidentity.nmi.request.old_errors import NO_HEADER, old_answer, old_response
from podidentity.nmi.request.outcome import Asked, Outcome
from podidentity.nmi.server.messages import Request, Response
from podidentity.wire.host_token import parse_pod_name, render_host_answer
from podidentity.wire.imds_server import (
    parse_request,
    render_answer,
    render_answers,
    render_error,
)
from podidentity.wire.metadata import AllowList, Route, Target, classify, without_user_data

_REFUSED = {
    Route.SUSPICIOUS: Answer(HTTPStatus.BAD_REQUEST, "invalid_request", "Invalid request"),
    Route.UNKNOWN: Answer(HTTPStatus.NOT_FOUND, "not_found", "No such path."),
    Route.BLOCKED: Answer(
        HTTPStatus.FORBIDDEN, "access_denied", "This metadata is not open to pods of this cluster."
    ),
}
_SHOWN = 200
"""Characters of a refused path that the log has."""
_NOT_GET = Answer(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET is allowed.")
_FORWARDED = "X-Forwarded-For is not allowed: metadata is not served through a proxy"


class Passed(Protocol):
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
    """The real service, for what is passed on."""

    async def metadata(self, target: str, accept: str, flow: Flow) -> Passed:
        """Return its answer for path and query `target`; raise a TokenUnavailable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """What an operator chose."""

    allow: AllowList
    header_required: bool = True
    retry_after_header: bool = False
    text_errors: bool = False
    """Errors as the archived project told them."""


class Routes:
    """The handler of NMI's listener."""

    def __init__(
        self,
        service: TokenService,
        host: HostTokenService,
        metadata: MetadataSource,
        *,
        clock: Clock,
        policy: RoutePolicy,
        record: Record,
        express: Express | None = None,
    ) -> None:
        """`express` None: each request is decided."""
        self._service = service
        self._host = host
        self._metadata = metadata
        self._clock = clock
        self._policy = policy
        self._record = record
        self._express = express

    async def __call__(self, request: Request) -> Response:
        """Return the answer; have it recorded."""
        begun = self._clock.monotonic()
        target = classify(request.target, self._policy.allow)
        if target.route in _REFUSED:
            return self._plain(request, target.route, begun, _REFUSED[target.route])
        if request.method != "GET":
            return self._plain(request, target.route, begun, _NOT_GET)
        try:
            self._check_headers(request, target.route)
            if target.route is Route.FORWARD:
                return await self._forward(request, target, begun)
            if target.route is Route.HOST_TOKEN:
                return await self._host_token(request, target, begun)
            return await self._token(request, target, begun)
        except PodIdentityError as error:
            why = type(error).__name__
            return self._plain(request, target.route, begun, self._told(error), reason=why)
        except asyncio.CancelledError:
            left = "the client left before its answer"
            self._record.other(request.caller, target.route, CLIENT_LEFT, left, begun)
            raise

    def _check_headers(self, request: Request, route: Route) -> None:
        if is_plain(request.fields):
            return
        headers = request.headers
        if "x-forwarded-for" in headers:
            raise InvalidRequest(_FORWARDED)
        # The CSI driver's provider sends none; that its own names are needed protects as well.
        required = self._policy.header_required and route is not Route.HOST_TOKEN
        if required:
            raise InvalidRequest(NO_HEADER)

    async def _token(self, request: Request, target: Target, begun: float) -> Response:
        asked = Asked(request.caller, parse_request(target.query))
        self._record.must_be_possible()
        mark = self._express.mark() if self._express else None
        outcome = await self._service.answer(request.caller, asked.request)
        if outcome.token is not None:
            now = self._clock.time()
            response = Response(HTTPStatus.OK, _body(outcome, asked.request.resource, now))
            self._record.token(asked, outcome, HTTPStatus.OK, begun)
            if self._express and mark and not outcome.others:
                self._express.keep(request, asked, outcome, response, now, mark)
            return response
        assert outcome.error is not None  # noqa: S101 - an outcome has one of the two
        told = self._told(outcome.error, asked.request)
        self._record.token(asked, outcome, told.status, begun)
        return self._response(told)

    async def _host_token(self, request: Request, target: Target, begun: float) -> Response:
        named = parse_pod_name(request.headers)
        asked = Asked(request.caller, parse_request(target.query), named)
        self._record.must_be_possible()
        outcome = await self._host.answer(request.caller, named, asked.request)
        if outcome.token is not None and outcome.identity is not None:
            client_id = str(outcome.identity.client_id or outcome.token.client_id)
            now, resource = self._clock.time(), asked.request.resource
            body = render_host_answer(outcome.token, client_id, resource, now)
            self._record.token(asked, outcome, HTTPStatus.OK, begun)
            return Response(HTTPStatus.OK, body)
        assert outcome.error is not None  # noqa: S101 - an outcome has one of the two
        told = host_answer(outcome.error)
        self._record.token(asked, outcome, told.status, begun)
        return self._response(told)

    async def _forward(self, request: Request, target: Target, begun: float) -> Response:
        accept = request.headers.get("accept", ["*/*"])[-1]
        query = f"?{target.query}" if target.query else ""
        passed = await self._metadata.metadata(
            # The caller is not proved here; each address has its own turns.
            target.path + query,
            accept,
            Flow("", request.caller.address),
        )
        body = passed.body
        if self._policy.allow.strips(target.path):
            body = without_user_data(body)
        self._record.other(
            request.caller,
            target.route,
            passed.status,
            "metadata passed on",
            begun,
            path=target.path,
        )
        return Response(passed.status, body, passed.content_type)

    def _plain(
        self, request: Request, route: Route, begun: float, told: Answer, *, reason: str = ""
    ) -> Response:
        """Answer what concerns no pod in particular."""
        path = request.target.partition("?")[0]
        self._record.other(
            request.caller,
            route,
            told.status,
            told.description,
            begun,
            path=path[:_SHOWN],
            reason=reason,
        )
        return self._response(told)

    def _told(self, error: PodIdentityError, asked: TokenRequest | None = None) -> Answer:
        policy = self._policy
        if policy.text_errors:
            return old_answer(error, asked, retry_after_header=policy.retry_after_header)
        return answer(error, retry_after_header=policy.retry_after_header)

    def _response(self, told: Answer) -> Response:
        return old_response(told) if self._policy.text_errors else _response(told)


def _body(outcome: Outcome, resource: str, now: float) -> bytes:
    assert outcome.token is not None  # noqa: S101 - who asks has looked
    if outcome.others:
        return render_answers((outcome.token, *outcome.others), resource, now)
    return render_answer(outcome.token, resource, now)


def _response(told: Answer) -> Response:
    headers: list[tuple[str, str]] = []
    if told.retry_after:
        headers.append(("Retry-After", str(told.retry_after)))
    if told.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET"))
    body = render_error(told.error, told.description)
    return Response(told.status, body, headers=tuple(headers))
