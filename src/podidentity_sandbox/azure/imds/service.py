"""IMDS: which machine asks, whether it may ask so, and which endpoint answers."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

from podidentity_sandbox.azure.faults import strike
from podidentity_sandbox.azure.imds.instance import instance
from podidentity_sandbox.azure.imds.rules import (
    VERSIONS,
    ImdsError,
    check_headers,
    check_identity_version,
    check_version,
    path_of,
)
from podidentity_sandbox.azure.imds.tokens import Tokens
from podidentity_sandbox.azure.messages import Reply, Request, RequestLog
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.azure.tokens import Issuer
from podidentity_sandbox.plan import NodePlan, Plan

_WORDS = {
    410: ("gone", "IMDS is being updated"),
    429: ("too_many_requests", "Too many requests"),
    500: ("server_error", "Failed to retrieve token from the Active directory."),
    503: ("service_unavailable", "The service is unavailable"),
}


def refusal(status: int) -> Reply:
    """Return the answer of that status."""
    error, description = _WORDS[status]
    return Reply.json({"error": error, "error_description": description}, status=status)


# ---- The quota of each virtual machine: requests a second, and requests at once
#
# https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#rate-limiting

IDENTITY_RATE = 20
IDENTITY_AT_ONCE = 5
GENERAL_RATE = 5


class Quota:
    """The requests of one machine in the last second, and those under way."""

    def __init__(self, rate: int, at_once: int | None = None) -> None:
        self._rate = rate
        self._at_once = at_once
        self._served: deque[float] = deque()
        self._under_way = 0

    @contextmanager
    def request(self, now: float) -> Iterator[None]:
        """Hold one place while a request is served; raise ImdsError 429 where there is none."""
        while self._served and self._served[0] <= now - 1:
            self._served.popleft()
        busy = self._at_once is not None and self._under_way >= self._at_once
        if busy or len(self._served) >= self._rate:
            raise ImdsError(429, "too_many_requests", "Too many requests")
        self._served.append(now)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


# ---- The service

SERVER = "IMDS/150.870.65.1854"


def node_of(plan: Plan, source: str) -> NodePlan | None:
    """Return the machine whose network card the address sits behind, or None."""
    try:
        address = ipaddress.ip_address(source)
    except ValueError:
        return None
    for node in plan.nodes:
        if source == node.address or address in ipaddress.ip_network(node.pod_cidr):
            return node
    return None


class Imds:
    """The metadata service of all nodes."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._tokens = Tokens(world, issuer)
        self._quotas: dict[tuple[str, bool], Quota] = {}
        self.journal = RequestLog()

    async def handle(self, request: Request) -> Reply:
        """Answer one request to 169.254.169.254:80."""
        node = node_of(self._world.plan, request.source)
        now = self._world.clock()
        entry = self.journal.open(
            time=now,
            node=node.name if node else "",
            source=request.source,
            method=request.method,
            target=request.target,
            headers=dict(request.headers),
        )
        try:
            reply = await self._answer(request, node, now)
        except ImdsError as error:
            reply = error.reply()
        entry["status"] = reply.status
        return replace(reply, headers={"Server": SERVER, **reply.headers})

    async def _answer(self, request: Request, node: NodePlan | None, now: float) -> Reply:
        if node is None:
            text = f"Unknown Source {request.source}"
            raise ImdsError(401, "unknown_source", text)
        path = path_of(request)
        identity = path == "identity" or path.startswith("identity/")
        check_headers(request, identity=identity)
        with self._quota(node, identity=identity).request(now):
            struck = await strike(self._world.weather, "imds", node.name, refusal)
            return struck or self._routed(request, node, path)

    def _quota(self, node: NodePlan, *, identity: bool) -> Quota:
        key = (node.name, identity)
        if key not in self._quotas:
            self._quotas[key] = (
                Quota(IDENTITY_RATE, IDENTITY_AT_ONCE) if identity else Quota(GENERAL_RATE)
            )
        return self._quotas[key]

    def _routed(self, request: Request, node: NodePlan, path: str) -> Reply:
        answer = self._endpoint(path)
        if request.method != "GET":
            raise ImdsError(405, "method_not_allowed", "Use GET")
        return answer(request, node)

    def _endpoint(self, path: str) -> Callable[[Request, NodePlan], Reply]:
        if path.lower() == "instance":
            return self._instance
        endpoints: dict[str, Callable[[Request, NodePlan], Reply]] = {
            "identity/oauth2/token": self._token,
            "identity/info": self._info,
            "versions": self._versions,
        }
        if path not in endpoints:
            raise ImdsError(404, "Not found")
        return endpoints[path]

    def _token(self, request: Request, node: NodePlan) -> Reply:
        check_identity_version(request)
        return self._tokens.answer(request, node)

    def _info(self, request: Request, _: NodePlan) -> Reply:
        check_identity_version(request)
        return Reply.json({"tenantId": self._world.plan.tenant_id})

    def _versions(self, _: Request, __: NodePlan) -> Reply:
        return Reply.json({"apiVersions": list(VERSIONS)})

    def _instance(self, request: Request, node: NodePlan) -> Reply:
        check_version(request)
        if request.parameter("format").lower() not in ("", "json"):
            raise ImdsError(400, "Bad request. The sandbox has the document as JSON only")
        return Reply.json(instance(self._world.plan, node))
