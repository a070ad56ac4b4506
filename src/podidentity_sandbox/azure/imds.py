"""The Instance Metadata Service of the sandbox's virtual machines.

Words marked (*) are those of the real service, seen in its documentation or in answers that people
reported; the rest are ours in its form.

https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service
"""

from __future__ import annotations

import ipaddress
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from podidentity_sandbox.azure.entra.answers import unknown_resource
from podidentity_sandbox.azure.faults import strike
from podidentity_sandbox.azure.messages import NO_HEADERS, Reply, Request, RequestLog
from podidentity_sandbox.azure.state import Machines, Principal, World
from podidentity_sandbox.azure.tokens import CLOCK_SKEW, MANAGED_LIFETIME, Grant, Issuer, SignedInBy
from podidentity_sandbox.plan import NodePlan, Plan, stable_guid

# ---- Refusals


class ImdsError(Exception):
    """A refusal; only the identity endpoints describe their errors."""

    def __init__(
        self,
        status: int,
        error: str,
        description: str = "",
        *,
        more: Mapping[str, object] = NO_HEADERS,
    ) -> None:
        """`more` is what the answer says beside error and description."""
        super().__init__(description or error)
        self.status = status
        self.error = error
        self.description = description
        self.more = more

    def reply(self) -> Reply:
        described = {"error_description": self.description} if self.description else {}
        return Reply.json({"error": self.error, **described, **self.more}, status=self.status)


def _invalid(description: str) -> ImdsError:
    return ImdsError(400, "invalid_request", description)


_FAULTS = {
    410: ("gone", "IMDS is being updated"),
    429: ("too_many_requests", "Too many requests"),
    500: ("server_error", "Failed to retrieve token from the Active directory."),
    503: ("service_unavailable", "The service is unavailable"),
}


def _faulty(status: int) -> ImdsError:
    return ImdsError(status, *_FAULTS[status])


# ---- Rules for a request, checked before the machine is looked up

VERSIONS = (
    *("2017-03-01", "2017-04-02", "2017-08-01", "2017-10-01", "2017-12-01", "2018-02-01"),
    *("2018-04-02", "2018-10-01", "2019-02-01", "2019-03-11", "2019-04-30", "2019-06-01"),
    *("2019-06-04", "2019-08-01", "2019-08-15", "2019-11-01", "2020-06-01", "2020-07-15"),
    *("2020-09-01", "2020-10-01", "2020-12-01", "2021-01-01", "2021-02-01", "2021-03-01"),
    *("2021-05-01", "2021-08-01", "2021-10-01", "2021-11-01", "2021-11-15", "2021-12-13"),
    *("2023-07-01", "2023-11-15", "2024-03-15", "2024-07-17", "2025-04-07"),
)
FIRST_WITH_IDENTITY = "2018-02-01"
_SELECTORS = {
    "client_id": "client_id",
    "object_id": "object_id",
    "msi_res_id": "resource_id",
    # App Service's spelling: https://github.com/Azure/go-autorest sent it to IMDS, and was served.
    "mi_res_id": "resource_id",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenQuery:
    """A token request that obeys the rules."""

    resource: str
    selector: str = ""
    """"" or client_id, object_id, resource_id."""
    value: str = ""
    bypass_cache: bool = False


def _path_of(request: Request) -> str:
    """Return the path below /metadata, which alone is matched without case; raise ImdsError."""
    path = request.target.partition("?")[0]
    head, _, rest = path.removeprefix("/").partition("/")
    if not path.startswith("/") or head.lower() != "metadata":
        raise ImdsError(404, "Not found")
    return rest.rstrip("/")


def _check_headers(request: Request, *, identity: bool) -> None:
    """Refuse a request that a proxy, a browser or a redirect could have made; raise ImdsError."""
    if "x-forwarded-for" in request.headers:
        text = "Requests with an X-Forwarded-For header are not accepted"
        raise ImdsError(400, "invalid_request", text) if identity else ImdsError(400, text)
    if request.headers.get("metadata", "").lower() != "true":
        text = "Required metadata header not specified"  # (*)
        if identity:
            raise ImdsError(400, "invalid_request", text)
        raise ImdsError(400, f"Bad request. {text} or not correct")


def _check_version(request: Request, *, first: str = VERSIONS[0]) -> None:
    """Refuse an api-version that IMDS has not, or from before `first`; raise ImdsError."""
    version = request.parameter("api-version")
    if version not in VERSIONS or version < first:
        raise ImdsError(
            400,  # (*)
            "Bad request. api-version is invalid or was not specified in the request. For more"
            " information refer to aka.ms/azureimds",
            more={"newest-versions": list(reversed(VERSIONS[-3:]))},
        )


def _check_identity_version(request: Request) -> None:
    """Refuse an api-version that has no managed identities; raise ImdsError."""
    if not request.parameter("api-version"):
        raise _invalid("Required query variable 'api-version' is missing")
    _check_version(request, first=FIRST_WITH_IDENTITY)


def _token_query(request: Request) -> TokenQuery:
    """Read the query of a token request; raise ImdsError."""
    names = [name.lower() for name, _ in request.query]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise _invalid(f"The query parameter '{repeated[0]}' is given more than once")
    resource = request.parameter("resource")
    if not resource:
        raise _invalid("Required query variable 'resource' is missing")  # (*)
    asked = [(kind, request.parameter(name)) for name, kind in _SELECTORS.items() if name in names]
    if len(asked) > 1:
        raise _invalid("Only one of client_id, object_id and msi_res_id may be specified")
    selector, value = asked[0] if asked else ("", "")
    if asked and not value:
        raise _invalid("The identifier of the identity is empty")
    bypass = request.parameter("bypass_cache").lower() == "true"
    return TokenQuery(resource=resource, selector=selector, value=value, bypass_cache=bypass)


# ---- Tokens of the identities that ARM attached to a node, and the caches of both


class AttachedIdentity(NamedTuple):
    """An identity of a machine."""

    client_id: str
    object_id: str
    resource_id: str
    """Of the machine itself, where the identity is the system's."""


class KnownIdentities(NamedTuple):
    """The identities of a node as IMDS saw them last."""

    until: float
    """Seconds since 1970 at which it looks again."""
    system: tuple[AttachedIdentity, ...]
    user: tuple[AttachedIdentity, ...]

    def choose(self, ask: TokenQuery) -> AttachedIdentity:
        if ask.selector:
            wanted = ask.value.lower()
            both = (*self.system, *self.user)
            matching = [one for one in both if getattr(one, ask.selector).lower() == wanted]
        else:
            matching = [*(self.system or self.user)]
        if len(matching) > 1:
            raise _invalid(  # (*)
                "Multiple user assigned identities exist, please specify the clientId / resourceId"
                " of the identity in the token request"
            )
        if not matching:
            raise _invalid("Identity not found")  # (*)
        return matching[0]


RENEWED_BELOW = MANAGED_LIFETIME // 2
"""Seconds left at which IMDS fetches a new token for the next request."""


class Tokens:
    """Answers /metadata/identity/oauth2/token."""

    def __init__(self, world: World, issuer: Issuer) -> None:
        self._world = world
        self._issuer = issuer
        self._cache: dict[tuple[str, str, str], tuple[str, int]] = {}
        """Tokens, with the second at which they expire, by node, object id and resource."""
        self._seen: dict[str, KnownIdentities] = {}
        """By node."""

    def answer(self, request: Request, node: NodePlan) -> Reply:
        _check_identity_version(request)
        ask = _token_query(request)
        now = self._world.clock()
        machines = self._world.machines_of(node)
        if machines is None:
            raise _invalid("Identity not found")
        chosen = self._identities(node, machines, now).choose(ask)
        if not self._issuer.tenant.cloud.has_resource(ask.resource):
            refusal = unknown_resource(ask.resource, self._world.plan.tenant_id)
            raise ImdsError(refusal.status, refusal.error, str(refusal))
        key = (node.name, chosen.object_id, ask.resource)
        token, expires = self._cache.get(key, ("", 0))
        if ask.bypass_cache or expires - now < RENEWED_BELOW:
            token, expires = self._minted(chosen, ask.resource, now), int(now) + MANAGED_LIFETIME
            self._cache[key] = token, expires
        return Reply.json(
            {
                "access_token": token,
                "client_id": chosen.client_id,
                "expires_in": str(expires - int(now) - 1),
                "expires_on": str(expires),
                "ext_expires_in": str(MANAGED_LIFETIME - 1),
                "not_before": str(expires - MANAGED_LIFETIME - CLOCK_SKEW),
                "resource": ask.resource,
                "token_type": "Bearer",
            }
        )

    def _identities(self, node: NodePlan, machines: Machines, now: float) -> KnownIdentities:
        seen = self._seen.get(node.name)
        if seen is None or now >= seen.until:
            block, there = machines.in_force(now), self._world.principals
            users = [one for one in block.user if one.principal_id in there]
            seen = self._seen[node.name] = KnownIdentities(
                until=now + self._world.weather.seconds("identities", node.name),
                system=tuple(
                    AttachedIdentity(one.app_id, one.object_id, machines.id)
                    for one in filter(None, [block.system])
                ),
                user=tuple(
                    AttachedIdentity(one.client_id, one.principal_id, one.id) for one in users
                ),
            )
        return seen

    def _minted(self, chosen: AttachedIdentity, resource: str, now: float) -> str:
        principal = Principal(  # it may be deleted by now: IMDS goes by what it saw
            object_id=chosen.object_id,
            app_id=chosen.client_id,
            name="",
            tenant_id=self._issuer.tenant.id,
        )
        grant = Grant(
            principal=principal,
            audience=resource,
            signed_in_by=SignedInBy.ASSERTION,
            managed_identity=chosen.resource_id,
        )
        return self._issuer.mint(grant, now=now, lifetime=MANAGED_LIFETIME)


# ---- The metadata of a virtual machine: /metadata/instance
#
# https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#instance-metadata

USER_DATA = "c2FuZGJveC1ub2RlLXVzZXItZGF0YQ=="
"""Base64, as the real one: a machine's start-up script, which pods have no business with."""


def _document(plan: Plan, node: NodePlan) -> dict[str, Any]:
    resource_id = node.provider_id.removeprefix("azure://")
    steps = resource_id.split("/")
    scale_set = node.scale_set or (resource_id.rsplit("/", 2)[0] if node.is_instance else "")
    name = scale_set.rpartition("/")[2]
    return {
        "compute": {
            "azEnvironment": "AzurePublicCloud",
            "location": plan.location,
            "name": f"{name}_{steps[-1]}" if node.is_instance else steps[-1],
            "osType": "Linux",
            "provider": "Microsoft.Compute",
            "resourceGroupName": steps[4],
            "resourceId": resource_id,
            "subscriptionId": steps[2],
            "tags": "",
            "tagsList": [],
            "userData": USER_DATA,
            "vmId": stable_guid(plan.name, f"vm {node.name}"),
            "vmScaleSetName": name,
            "virtualMachineScaleSet": {"id": scale_set},
            "vmSize": "Standard_D2s_v5",
            "zone": "",
        },
        "network": {
            "interface": [
                {
                    "ipv4": {
                        "ipAddress": [{"privateIpAddress": node.address, "publicIpAddress": ""}],
                        "subnet": [{"address": "10.240.0.0", "prefix": "24"}],
                    },
                    "ipv6": {"ipAddress": []},
                    "macAddress": f"6045BD0000{node.index:02X}",
                }
            ]
        },
    }


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
            raise _faulty(429)
        self._served.append(now)
        self._under_way += 1
        try:
            yield
        finally:
            self._under_way -= 1


# ---- The service

SERVER = "IMDS/150.870.65.1854"


def _node_of(plan: Plan, source: str) -> NodePlan | None:
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
        node = _node_of(self._world.plan, request.source)
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
            raise ImdsError(401, "unknown_source", f"Unknown Source {request.source}")
        path = _path_of(request)
        identity = path == "identity" or path.startswith("identity/")
        _check_headers(request, identity=identity)
        limits = (IDENTITY_RATE, IDENTITY_AT_ONCE) if identity else (GENERAL_RATE,)
        quota = self._quotas.setdefault((node.name, identity), Quota(*limits))
        with quota.request(now):
            struck = await strike(
                self._world.weather, "imds", node.name, lambda status: _faulty(status).reply()
            )
            return struck or self._routed(request, node, path)

    def _routed(self, request: Request, node: NodePlan, path: str) -> Reply:
        endpoints: dict[str, Callable[[Request, NodePlan], Reply]] = {
            "identity/oauth2/token": self._tokens.answer,
            "identity/info": self._info,
            "versions": lambda _, __: Reply.json({"apiVersions": list(VERSIONS)}),
            "instance": self._instance,
        }
        answer = endpoints.get("instance" if path.lower() == "instance" else path)
        if answer is None:
            raise ImdsError(404, "Not found")
        if request.method != "GET":
            raise ImdsError(405, "method_not_allowed", "Use GET")
        return answer(request, node)

    def _info(self, request: Request, _: NodePlan) -> Reply:
        _check_identity_version(request)
        return Reply.json({"tenantId": self._world.plan.tenant_id})

    def _instance(self, request: Request, node: NodePlan) -> Reply:
        _check_version(request)
        if request.parameter("format").lower() not in ("", "json"):
            raise ImdsError(400, "Bad request. The sandbox has the document as JSON only")
        return Reply.json(_document(self._world.plan, node))
