"""The HTTP face of the cluster: who asks, may he, what about, and errors as Status objects."""

from __future__ import annotations

import logging
import uuid

from aiohttp import web

from podidentity_sandbox.cluster import bodies, discovery, documents, presentation, status, tokens
from podidentity_sandbox.cluster.calls import json_answer
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.paths import RequestInfo, request_info
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import encode
from podidentity_sandbox.cluster.users import User, refusal
from podidentity_sandbox.cluster.verbs import Verbs

log = logging.getLogger(__name__)

HEALTH = ("/healthz", "/livez", "/readyz")
OPEN = (*HEALTH, "/version", tokens.CONFIGURATION_PATH, tokens.JWKS_PATH)
"""What anybody may read; everything else wants credentials."""


class Api:
    """Serves a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._verbs = Verbs(cluster)

    def application(self) -> web.Application:
        """Return the application: one handler, since what is served changes as it runs."""
        app = web.Application(client_max_size=bodies.BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self.handle)
        app.on_shutdown.append(self._end_watches)
        return app

    async def _end_watches(self, _: web.Application) -> None:
        self._cluster.storage.close_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        """Answer any request."""
        info = request_info(request.method, request.rel_url.raw_path, request.query)
        try:
            answer = await self._serve(request, info)
        except StatusError as error:
            answer = json_answer(encode(error.body()), error.code)
            if (request.method, error.code) != ("GET", 404):
                log.info("%s %s: %d %s", request.method, info.path, error.code, error.message)
        if not answer.prepared:
            answer.headers["Audit-Id"] = str(uuid.uuid4())
        return answer

    async def _serve(self, request: web.Request, info: RequestInfo) -> web.StreamResponse:
        if info.path in OPEN and request.method == "GET":
            return self._open(info.path)
        user = self._cluster.authenticator.header(request.headers.get("Authorization", ""))
        if user is None:
            raise status.unauthorized()
        self._authorize(user, info)
        if info.resource:
            _negotiate(request)
            if (info.group, info.version) not in self._cluster.registry.group_versions():
                return _no_such_page()
            return await self._verbs.serve(request, info, user)
        accept = request.headers.get("Accept", "")
        document = documents.answer(self._cluster.registry, info.path, accept)
        return document if document is not None else _no_such_page()

    def _authorize(self, user: User, info: RequestInfo) -> None:
        decision = self._cluster.authorizer.decide(user, info)
        if decision.allowed:
            return
        if not info.resource:
            raise status.forbidden_path(user.name, info.verb, info.path)
        cause = refusal(user, info, decision.reason)
        raise status.forbidden(info.resource, info.group, info.name, cause)

    def _open(self, path: str) -> web.Response:
        """Answer what anybody may read."""
        if path in HEALTH:
            return web.Response(text="ok")
        documents: dict[str, Obj | None] = {
            "/version": discovery.document(self._cluster.registry, path),
            tokens.CONFIGURATION_PATH: self._cluster.issuer.configuration(),
            tokens.JWKS_PATH: self._cluster.issuer.keys(),
        }
        return json_answer(encode(documents[path]))


def _negotiate(request: web.Request) -> None:
    """Refuse a client that does not take JSON; of several wishes one that we can meet is enough."""
    if not any(True for _ in presentation.wishes(request.headers.get("Accept", ""))):
        raise status.not_acceptable(presentation.SERVED)


def _no_such_page() -> web.Response:
    """Return what the real server answers outside of its API groups: text, not a Status."""
    return web.Response(text="404 page not found\n", status=404)
