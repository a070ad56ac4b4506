"""IMDS: which machine asks, whether it may ask so, and which endpoint answers."""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from podidentity_sandbox.azure.faults import strike
from podidentity_sandbox.azure.imds.instance import instance, read
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
from podidentity_sandbox.plan import NodePlan, Plan, stable_guid

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
LEAKED_CREDENTIAL = "SANDBOX-LEAKED-NODE-CREDENTIAL"
"""A certificate of the machine, as IMDSv2 would hand it out: its leak is a leak of the node."""


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
        method, answer = self._endpoint(path)
        if request.method != method:
            raise ImdsError(405, "method_not_allowed", f"Use {method}")
        return answer(request, node)

    def _endpoint(self, path: str) -> tuple[str, Callable[[Request, NodePlan], Reply]]:
        if path.split("/")[0].lower() == "instance":
            return "GET", partial(self._instance, path)
        endpoints: dict[str, tuple[str, Callable[[Request, NodePlan], Reply]]] = {
            "identity/oauth2/token": ("GET", self._token),
            "identity/info": ("GET", self._info),
            "identity/getplatformmetadata": ("GET", self._platform),
            "identity/issuecredential": ("POST", self._credential),
            "versions": ("GET", self._versions),
            "attested/document": ("GET", self._attested),
            "scheduledevents": ("GET", self._events),
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

    def _platform(self, request: Request, node: NodePlan) -> Reply:
        _check_credential_version(request)
        plan = self._world.plan
        return Reply.json(
            {
                "clientId": stable_guid(plan.name, f"vm {node.name}"),
                "tenantId": plan.tenant_id,
                "cuId": {"vmId": stable_guid(plan.name, f"vm {node.name}")},
                "attestationEndpoint": "",
            }
        )

    def _credential(self, request: Request, _: NodePlan) -> Reply:
        _check_credential_version(request)
        plan = self._world.plan
        return Reply.json(
            {
                "client_id": LEAKED_CREDENTIAL,
                "tenant_id": plan.tenant_id,
                "certificate": LEAKED_CREDENTIAL,
                "identity_type": "UserAssigned",
                "mtls_authentication_endpoint": f"https://{plan.location}.mtlsauth.microsoft.com",
            }
        )

    def _versions(self, _: Request, __: NodePlan) -> Reply:
        return Reply.json({"apiVersions": list(VERSIONS)})

    def _attested(self, request: Request, node: NodePlan) -> Reply:
        check_version(request, first="2018-10-01")
        return Reply.json({"encoding": "pkcs7", "signature": f"SANDBOX-ATTESTATION-{node.name}"})

    def _events(self, request: Request, _: NodePlan) -> Reply:
        check_version(request, first="2017-08-01")
        return Reply.json({"DocumentIncarnation": 1, "Events": []})

    def _instance(self, path: str, request: Request, node: NodePlan) -> Reply:
        check_version(request)
        steps = path.split("/")[1:]
        form = request.parameter("format").lower() or "json"
        return read(instance(self._world.plan, node), steps, form)


def _check_credential_version(request: Request) -> None:
    if request.parameter("cred-api-version") != "2.0":
        raise ImdsError(400, "invalid_request", "cred-api-version must be 2.0")
