"""The HTTP face of the cluster: who asks, may he, what about, and errors as Status objects."""

from __future__ import annotations

import logging
import uuid

from aiohttp import web

from podidentity_sandbox.cluster import Obj, bodies, discovery, status, tokens
from podidentity_sandbox.cluster.authentication import User, refusal
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.paths import RequestInfo, request_info
from podidentity_sandbox.cluster.presentation import JSON, SERVED, wishes
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import encode
from podidentity_sandbox.cluster.verbs import Verbs, json_answer
from podidentity_sandbox.plan import JWKS_PATH


def document_answer(registry: Registry, path: str, accept: str) -> web.Response | None:
    """Return the document at a path; None for no such path; raise 406 where the client takes none.

    A client that would rather have all types in one document takes them one by one as well.
    """
    raw, content_type = b"", JSON
    if path == discovery.OLDER_PATH:
        if discovery.OLDER_ACCEPT not in accept and discovery.OLDER_TYPE not in accept:
            raise status.not_acceptable([discovery.OLDER_TYPE])
        raw, content_type = discovery.OLDER_DOCUMENT, discovery.OLDER_TYPE
    elif all("as" in wish for wish in wishes(accept)):
        raise status.not_acceptable(SERVED)
    elif path.startswith(discovery.ROOT):
        raw = discovery.openapi_document(registry, path.rstrip("/")) or b""
    elif document := discovery.document(registry, path):
        raw = encode(document)
    headers = {"Content-Type": content_type, "Vary": "Accept"}
    return web.Response(body=raw, headers=headers) if raw else None


# ---- The application

log = logging.getLogger(__name__)

_CHECKED = "[+]ping ok\n[+]log ok\n[+]etcd ok\n{} check passed\n"
"""https://kubernetes.io/docs/reference/using-api/health-checks/."""
HEALTH = ("/healthz", "/livez", "/readyz")
VERSION = ("/version", "/version/")
KEYS = (tokens.CONFIGURATION_PATH, JWKS_PATH)
OPEN = (*HEALTH, *VERSION, *KEYS)
"""Paths that anybody may read; all others need credentials.

Entra reads the keys without credentials. A request with credentials needs a right: https://kubernetes.io/docs/tasks/configure-pod-container/configure-service-account/#service-account-issuer-discovery
"""


class HttpApi:
    """Serves a cluster."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._verbs = Verbs(cluster)

    def application(self) -> web.Application:
        """Return the application: one handler, since the served types change as it runs."""
        app = web.Application(client_max_size=bodies.BODY_LIMIT)
        app.router.add_route("*", "/{path:.*}", self.handle)
        app.on_shutdown.append(self._end_watches)
        return app

    async def _end_watches(self, _: web.Application) -> None:
        self._cluster.storage.close_all()

    async def handle(self, request: web.Request) -> web.StreamResponse:
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
        opened = info.path in OPEN and request.method == "GET"
        if opened and not (info.path in KEYS and "Authorization" in request.headers):
            return self._open(info.path, verbose="verbose" in request.query)
        if "Authorization" not in request.headers:
            raise status.left_out(401, "Unauthorized", "credentials but bearer tokens")
        user = self._cluster.authenticator.header(request.headers["Authorization"])
        if user is None:
            raise status.unauthorized()
        if any(name.lower().startswith("impersonate-") for name in request.headers):
            raise status.left_out(403, "Forbidden", "impersonation")
        self._authorize(user, info)
        if opened:
            return self._open(info.path, verbose=False)
        if info.resource:
            if not list(wishes(request.headers.get("Accept", ""))):
                raise status.not_acceptable(SERVED)
            if (info.group, info.version) not in self._cluster.registry.group_versions():
                return _no_such_page()
            return await self._verbs.serve(request, info, user)
        accept = request.headers.get("Accept", "")
        document = document_answer(self._cluster.registry, info.path, accept)
        return document if document is not None else _no_such_page()

    def _authorize(self, user: User, info: RequestInfo) -> None:
        decision = self._cluster.authorizer.decide(user, info)
        if decision.allowed:
            return
        if not info.resource:
            raise status.forbidden_path(user.name, info.verb, info.path)
        cause = refusal(user, info, decision.reason)
        raise status.forbidden(info.resource, info.group, info.name, cause)

    def _open(self, path: str, *, verbose: bool) -> web.Response:
        """Answer what anybody may read."""
        if path in HEALTH:
            return web.Response(text=_CHECKED.format(path[1:]) if verbose else "ok")
        if path in VERSION:
            return json_answer(encode(discovery.VERSION))
        answers: dict[str, Obj | None] = {
            tokens.CONFIGURATION_PATH: self._cluster.issuer.configuration(),
            JWKS_PATH: self._cluster.issuer.keys(),
        }
        return json_answer(encode(answers[path]))


def _no_such_page() -> web.Response:
    """Return the real server's answer outside of its API groups: text, not a Status."""
    return web.Response(text="404 page not found\n", status=404)
