"""From an HTTP request to its answer, and the one log line that each leaves.

Cheap checks first: what is wrong with the request itself is said at once, before anybody waits
for anything. SDKs probe with a request without the header and give it 500 ms.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from http import HTTPStatus
from time import perf_counter
from typing import Protocol

from podidentity.core.errors import InvalidRequest, PodIdentityError, Refused
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.answers import Answer, answer, host_answer
from podidentity.nmi.host import HostTokenService
from podidentity.nmi.http import Request, Response
from podidentity.nmi.outcomes import Outcome
from podidentity.nmi.service import TokenService
from podidentity.telemetry import fields
from podidentity.wire.host_token import parse_pod_name, render_host_answer
from podidentity.wire.imds_server import parse_request, render_answer, render_error
from podidentity.wire.metadata import AllowList, Route, Target, classify, without_user_data

CLIENT_LEFT = 499
"""In the log only, as nginx writes it: the client did not wait for its answer."""

_log = logging.getLogger("podidentity.request")

_REFUSED = {
    Route.SUSPICIOUS: Answer(HTTPStatus.BAD_REQUEST, "invalid_request", "Invalid request"),
    Route.UNKNOWN: Answer(HTTPStatus.NOT_FOUND, "not_found", "No such path."),
    Route.BLOCKED: Answer(
        HTTPStatus.FORBIDDEN, "access_denied", "This metadata is not open to pods of this cluster."
    ),
}
_NOT_GET = Answer(HTTPStatus.METHOD_NOT_ALLOWED, "method_not_allowed", "Only GET is allowed.")
_NO_HEADER = "Required metadata header not specified"
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

    async def metadata(self, target: str, accept: str) -> Passed:
        """Return its answer for path and query `target`; raise TokenSourceDown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutePolicy:
    """What an operator chose."""

    allow: AllowList
    header_required: bool = True
    retry_after_header: bool = False


class Routes:
    """The handler of NMI's listener."""

    def __init__(
        self,
        service: TokenService,
        host: HostTokenService,
        metadata: MetadataSource,
        clock: Clock,
        policy: RoutePolicy,
    ) -> None:
        self._service = service
        self._host = host
        self._metadata = metadata
        self._clock = clock
        self._policy = policy

    async def __call__(self, request: Request) -> Response:
        """Return the answer; leave a log line."""
        begun = perf_counter()
        target = classify(request.target, self._policy.allow)
        if target.route in _REFUSED:
            return self._plain(request, begun, _REFUSED[target.route])
        if request.method != "GET":
            return self._plain(request, begun, _NOT_GET)
        try:
            self._check_headers(request, target.route)
            if target.route is Route.FORWARD:
                return await self._forward(request, target, begun)
            if target.route is Route.HOST_TOKEN:
                return await self._host_token(request, target, begun)
            return await self._token(request, target, begun)
        except PodIdentityError as error:
            return self._plain(request, begun, answer(error), type(error).__name__)
        except asyncio.CancelledError:
            _line(request, begun, CLIENT_LEFT, "the client left before its answer")
            raise

    def _check_headers(self, request: Request, route: Route) -> None:
        if "x-forwarded-for" in request.headers:
            raise InvalidRequest(_FORWARDED)
        values = request.headers.get("metadata", [])
        # The CSI driver's provider sends none; that its own names are needed protects as well.
        required = self._policy.header_required and route is not Route.HOST_TOKEN
        if required and [value.lower() for value in values] != ["true"]:
            raise InvalidRequest(_NO_HEADER)

    async def _token(self, request: Request, target: Target, begun: float) -> Response:
        asked = parse_request(target.query)
        outcome = await self._service.answer(request.caller, asked)
        if outcome.token is not None:
            body = render_answer(outcome.token, asked.resource, self._clock.time())
            _outcome_line(request, begun, HTTPStatus.OK, asked, outcome)
            return Response(HTTPStatus.OK, body)
        assert outcome.error is not None  # noqa: S101 - an outcome has one of the two
        told = answer(outcome.error, retry_after_header=self._policy.retry_after_header)
        _outcome_line(request, begun, told.status, asked, outcome)
        return _response(told)

    async def _host_token(self, request: Request, target: Target, begun: float) -> Response:
        named = parse_pod_name(request.headers)
        asked = parse_request(target.query)
        outcome = await self._host.answer(request.caller, named, asked)
        if outcome.token is not None and outcome.identity is not None:
            client_id = outcome.identity.client_id or outcome.token.client_id
            now = self._clock.time()
            body = render_host_answer(outcome.token, str(client_id), asked.resource, now)
            _outcome_line(request, begun, HTTPStatus.OK, asked, outcome)
            return Response(HTTPStatus.OK, body)
        assert outcome.error is not None  # noqa: S101 - an outcome has one of the two
        told = host_answer(outcome.error)
        _outcome_line(request, begun, told.status, asked, outcome, named=named)
        return _response(told)

    async def _forward(self, request: Request, target: Target, begun: float) -> Response:
        accept = request.headers.get("accept", ["*/*"])[-1]
        query = f"?{target.query}" if target.query else ""
        passed = await self._metadata.metadata(target.path + query, accept)
        body = passed.body
        if self._policy.allow.strips(target.path):
            body = without_user_data(body)
        _line(request, begun, passed.status, "metadata passed on", path=target.path)
        return Response(passed.status, body, passed.content_type)

    def _plain(self, request: Request, begun: float, told: Answer, reason: str = "") -> Response:
        """Answer what concerns no pod in particular."""
        path = request.target.partition("?")[0][:200]
        _line(request, begun, told.status, told.description, path=path, reason=reason)
        return _response(told)


def _response(told: Answer) -> Response:
    headers: list[tuple[str, str]] = []
    if told.retry_after:
        headers.append(("Retry-After", str(told.retry_after)))
    if told.status == HTTPStatus.METHOD_NOT_ALLOWED:
        headers.append(("Allow", "GET"))
    body = render_error(told.error, told.description)
    return Response(told.status, body, headers=tuple(headers))


def _outcome_line(
    request: Request,
    begun: float,
    status: int,
    asked: TokenRequest,
    outcome: Outcome,
    *,
    named: ObjectRef | None = None,
) -> None:
    """Write the line of a token request; `named` is the pod that another asked for."""
    error, identity = outcome.error, outcome.identity
    pod = outcome.pod.ref if outcome.pod else named
    # The operator reads more than the pod: objects of other namespaces, and what to do next.
    refusal = error.refusal if isinstance(error, Refused) else None
    message = str(refusal or error or "token given")
    _line(
        request,
        begun,
        status,
        message,
        pod=pod.name if pod else None,
        namespace=pod.namespace if pod else None,
        identity=identity.ref.name if identity else None,
        client_id=identity.client_id if identity else None,
        resource=asked.resource,
        asked=asked.asked,
        source=outcome.origin,
        reason=refusal.reason if refusal else type(error).__name__ if error else None,
        proof=outcome.detail if error or outcome.delegated else None,
    )


def _line(request: Request, begun: float, status: int, message: str, **more: object) -> None:
    level = logging.INFO if status < HTTPStatus.BAD_REQUEST else logging.WARNING
    milliseconds = round((perf_counter() - begun) * 1000, 2)
    extra = fields(
        status=int(status), ms=milliseconds, address=request.caller.address or None, **more
    )
    _log.log(level, message, extra=extra)
