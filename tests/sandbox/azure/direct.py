"""Azure's services without sockets, for tables of many cases."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import jwt

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.arm.roles import ROLES
from podidentity_sandbox.azure.arm.service import Arm
from podidentity_sandbox.azure.arm.versions import ResourceType, newest, type_of
from podidentity_sandbox.azure.entra.issuers import PublishedKeys
from podidentity_sandbox.azure.entra.service import Entra
from podidentity_sandbox.azure.graph import Graph
from podidentity_sandbox.azure.imds import Imds
from podidentity_sandbox.azure.keyvault import KeyVault
from podidentity_sandbox.azure.messages import Reply, Request
from podidentity_sandbox.azure.seed import operator_object_id, seed
from podidentity_sandbox.azure.state import Principal, UserAssignedIdentity, World
from podidentity_sandbox.azure.tenants import tenants_of
from podidentity_sandbox.azure.tokens import Grant, Issuer, Issuers, Key, KeyRing, new_rings
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import changed
from tests.sandbox.azure.plans import Clock, make_plan

TOKEN = "/metadata/identity/oauth2/token"
ASK = "api-version=2018-02-01&resource=https://vault.azure.net"
METADATA = {"metadata": "true"}


def claims_of(token: str) -> dict[str, Any]:
    """Return the claims of a token, proved or not."""
    return jwt.decode(token, options={"verify_signature": False})


async def ask(direct: Direct, target: str, **more: Any) -> tuple[Reply, Any]:
    facts = {"method": "GET", "source": "127.0.0.7", "headers": METADATA, **more}
    reply = await direct.imds.handle(Request(target=target, **facts))
    return reply, json.loads(reply.body)


Form = Mapping[str, str] | Sequence[tuple[str, str]]

NOWHERE = "https://127.0.0.1:9"
"""Where nothing listens."""


@cache
def _keys() -> dict[str, Key]:
    """Return the keys of the clouds, the same for every test of a process: they take long."""
    rings = new_rings(tenants_of(make_plan(Path())))
    return {name: ring.keys[0] for name, ring in rings.items()}


def _type_of(path: str) -> ResourceType | None:
    try:
        return type_of(path)
    except ArmError:
        return None


class Direct:
    """The same services without sockets: a request in, a reply out."""

    def __init__(
        self, folder: Path, published: PublishedKeys | None = None, plan: Plan | None = None
    ) -> None:
        self.plan = plan or make_plan(folder)
        self.clock = Clock()
        self.world = World(self.plan, self.clock)
        seed(self.world)
        rings = {name: KeyRing([key]) for name, key in _keys().items()}
        self.issuers = Issuers(self.world.tenants, rings)
        self.issuer = self.issuers.home
        self.imds = Imds(self.world, self.issuer)
        self._arm = Arm(self.world, self.issuer)
        self.graph = Graph(self.world, self.issuers)
        unreachable = PublishedKeys(NOWHERE, ssl.create_default_context, self.clock)
        self.entra = Entra(self.world, self.issuers, published or unreachable)
        self.vaults = KeyVault(self.world, self.issuer)

    def weather(self, *settings: str) -> None:
        """Change the weather, as a person sets it."""
        self.world.weather.set(changed(self.world.weather.now, settings))

    def token(self, audience: str, principal: Principal | None = None, **more: Any) -> str:
        """Sign a token of `principal`, the operator's by default."""
        who = principal or self.world.principals[operator_object_id(self.plan)]
        when = {"now": self.clock.now, "lifetime": 3600, **more}
        signer: Issuer = when.pop("issuer", self.issuer)
        return signer.mint(Grant(principal=who, audience=audience), **when)

    def stranger(self) -> Issuer:
        """Return somebody who signs in the tenant's name with a key that nobody published."""
        return Issuer(self.world.tenants.home)

    def of_another_tenant(self) -> Issuer:
        """Return who signs with this tenant's published keys in another one's name."""
        issuer = Issuer(self.world.tenants.home, self.issuers.rings["AzurePublicCloud"])
        issuer.issuer = "https://sts.windows.net/other/"
        return issuer

    def sign_in(
        self,
        form: Form,
        path: str = "oauth2/v2.0/token",
        *,
        tenant: str = "",
        kind: str = "application/x-www-form-urlencoded",
    ) -> tuple[Reply, Any]:
        """Ask Entra for a token, in the home tenant by default; return the answer and its body."""
        where = self.world.tenants.find(tenant or self.plan.tenant_id)
        host = where.cloud.logins[0] if where else "login.microsoftonline.com"
        request = Request(
            method="POST",
            target=f"/{tenant or self.plan.tenant_id}/{path}",
            host=host,
            headers={"content-type": kind},
            body=urlencode(form).encode(),
        )
        reply = self.signed_in(request)
        return reply, json.loads(reply.body) if reply.body else None

    def signed_in(self, request: Request) -> Reply:
        """Call Entra, which fetches nothing here: foreign issuers are out of reach."""
        return asyncio.run(self.entra.handle(request))

    def arm(
        self,
        method: str,
        path: str,
        body: object = None,
        *,
        principal: Principal | None = None,
        headers: Mapping[str, str] | None = None,
        ended: bool = True,
    ) -> tuple[int, Any, Mapping[str, str]]:
        """Call ARM; `path` is below the subscription unless it starts with a slash.

        A call that is not `ended` is still under way at the next one.
        """
        where = path if path.startswith("/") else f"{self.world.subscription}/{path}"
        target = where if "?" in where else f"{where}?api-version={newest(_type_of(where))}"
        if headers is None:
            token = self.token("https://management.azure.com/", principal)
            headers = {"authorization": f"Bearer {token}"}
        sent = json.dumps(body).encode() if body is not None else b""
        request = Request(method=method, target=target, headers=headers, body=sent)
        reply = self._arm.handle(request)
        if ended:
            reply.ends()
        return reply.status, json.loads(reply.body) if reply.body else None, reply.headers

    def made(self, method: str, path: str, body: object = None) -> Any:
        """Call ARM as the operator and return the body of what must succeed."""
        status, answer, _ = self.arm(method, path, body)
        assert status < 300, answer
        return answer

    def refused(
        self, method: str, path: str, body: object = None, *, principal: Principal | None = None
    ) -> tuple[int, str]:
        """Call ARM; return status and code of what must be refused."""
        status, answer, _ = self.arm(method, path, body, principal=principal)
        return status, answer["error"]["code"]

    def principal_of(self, identity: UserAssignedIdentity) -> Principal:
        """Return by whom an identity acts."""
        return self.world.principals[identity.principal_id]

    def identity(self, name: str, group: str = "") -> UserAssignedIdentity:
        """Make a user-assigned identity, in the node group by default."""
        kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
        path = f"resourceGroups/{group or self.plan.node_group}/providers/{kind}/{name}"
        made = self.made("PUT", path, {"location": "westeurope"})
        found = self.world.find(UserAssignedIdentity, made["id"])
        assert found is not None
        return found

    def grant(self, role: str, principal_id: str, scope: str) -> None:
        """Assign a role, by its name."""
        role_id = next(one.id for one in ROLES if one.name == role)
        path = f"{scope}/providers/Microsoft.Authorization/roleAssignments/{uuid.uuid4()}"
        properties = {"roleDefinitionId": f"/x/roleDefinitions/{role_id}"}
        self.made("PUT", path, {"properties": {**properties, "principalId": principal_id}})

    def attach(self, *identities: UserAssignedIdentity) -> None:
        """Attach identities to the nodes, at once."""
        self.weather("scale-sets=0")
        named: dict[str, object] = {identity.id: {} for identity in identities}
        body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": named}}
        self.made("PATCH", self.plan.scale_set_id, body)
