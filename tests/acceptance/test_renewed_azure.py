"""A pod's tokens and secrets while Azure renews its keys, restarts, and decides by roles."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import jwt
import pytest

from podidentity_sandbox.azure.arm.roles import ROLES
from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.demo.prepare import GROUP, IDENTITY, SECRET, SECRET_VALUE, VAULT
from podidentity_sandbox.plan import stable_guid
from tests.acceptance.sandbox import PATIENCE, Sandbox, opened
from tests.sandboxes import own

VAULTS = "https://vault.azure.net"
ARM, GRAPH = "https://management.azure.com", "https://graph.microsoft.com"
ANEW = f"{VAULTS}&bypass_cache=true"
"""What asks for a token of vaults that no cache has."""


class Place:
    """A sandbox with a bound pod, and the hands of its Azure's owner."""

    def __init__(self, sandbox: Sandbox, azure: AzureOperator, loop: asyncio.Runner) -> None:
        self.sandbox = sandbox
        self.azure = azure
        self.run = loop.run

    def token(self, resource: str = VAULTS) -> str:
        """Return a token that the pod asked for."""
        status, body, _ = self.run(self.sandbox.ask(resource=resource))
        assert status == 200, body
        return str(body["access_token"])

    async def reads(self, token: str, vault: str = VAULT) -> tuple[int, Any]:
        """Read a secret in the pod; return the status, and the value or the refusal."""
        said = await self.sandbox.shell(
            f"curl -s -m 60 -w '\n%{{http_code}}' -H 'Authorization: Bearer {token}'"
            f" 'https://{vault}.vault.azure.net/secrets/{SECRET}?api-version=7.4'"
        )
        body, _, status = said.stdout.decode().rpartition("\n")
        answer = json.loads(body)
        return int(status), answer.get("value", answer.get("error"))

    def part(self, what: str) -> None:
        """Kill or start the sandbox's Azure."""
        self.sandbox.run("podidentity", "sandbox", "part", what, "azure")


def key_of(token: str) -> str:
    return str(jwt.get_unverified_header(token)["kid"])


async def until(holds: Callable[[], Awaitable[bool]]) -> None:
    """Return when it holds: a role counts within a minute."""
    ends = time.monotonic() + PATIENCE
    while not await holds():
        assert time.monotonic() < ends
        await asyncio.sleep(0.5)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(own("renewed")) as (sandbox, azure, loop):
        loop.run(sandbox.bind())
        sandbox.start_pod()
        yield Place(sandbox, azure, loop)


def test_tokens_go_on_while_entra_changes_its_keys(place: Place) -> None:
    before = place.token()
    place.run(place.azure.roll_keys())
    assert place.token() == before, "the cache's, whose key is published still"
    assert place.run(place.reads(before)) == (200, SECRET_VALUE)
    assert key_of(place.token(GRAPH)) != key_of(before)
    place.run(place.azure.withdraw_old_keys())
    status, refusal = place.run(place.reads(before))
    assert (status, refusal["code"]) == (401, "Unauthorized")
    anew = place.token(ANEW)
    assert key_of(anew) != key_of(before)
    assert place.run(place.reads(anew)) == (200, SECRET_VALUE)
    assert place.token() == anew, "what was fetched past the cache is in it now"


def test_tokens_go_on_over_a_restart_of_azure(place: Place) -> None:
    before = place.token(ANEW)
    place.part("kill")
    try:
        assert place.token() == before, "the cache's"
        status, body, _ = place.run(place.sandbox.ask(resource=ARM))
        assert (status, body["error"]) == (503, "service_unavailable"), "and not nothing"
    finally:
        place.part("start")
    assert place.run(place.reads(before)) == (200, SECRET_VALUE), "signed before the restart"

    async def asked_again() -> bool:
        return (await place.sandbox.ask(resource=ARM))[0] == 200

    place.run(until(asked_again))  # a failure is repeated for a second
    claims = jwt.decode(place.token(ARM), options={"verify_signature": False})
    assert claims["xms_mirid"].endswith(f"/{IDENTITY}")
    assert place.run(place.reads(place.token(ANEW))) == (200, SECRET_VALUE)


def test_a_vault_that_decides_by_roles_opens_with_the_role(place: Place) -> None:
    plan, azure = place.sandbox.plan, place.azure
    group = f"{azure.subscription}/resourceGroups/{GROUP}"
    vault = f"{group}/providers/Microsoft.KeyVault/vaults/renewed-roles-kv"
    identity = f"{group}/providers/Microsoft.ManagedIdentity/userAssignedIdentities/{IDENTITY}"

    async def make() -> str:
        properties = {
            "tenantId": plan.tenant_id,
            "sku": {"family": "A", "name": "standard"},
            "enableRbacAuthorization": True,
        }
        await azure.arm("PUT", vault, {"location": plan.location, "properties": properties})
        await give("Key Vault Secrets Officer", operator_object_id(plan))
        await until(filled)
        return str((await azure.arm("GET", identity))["properties"]["principalId"])

    async def give(role: str, who: str) -> None:
        (found,) = (one for one in ROLES if one.name == role)
        name = stable_guid(vault, who)
        path = f"{vault}/providers/Microsoft.Authorization/roleAssignments/{name}"
        properties = {"roleDefinitionId": found.id, "principalId": who}
        await azure.arm("PUT", path, {"properties": properties})

    async def filled() -> bool:
        try:
            await azure.put_secret("renewed-roles-kv", SECRET, "by role")
        except AzureError as error:
            if error.code != "Forbidden":
                raise
            return False
        return True

    principal = place.run(make())
    token = place.token(ANEW)
    status, refusal = place.run(place.reads(token, "renewed-roles-kv"))
    assert (status, refusal["innererror"]) == (403, {"code": "ForbiddenByRbac"})
    place.run(give("Key Vault Secrets User", principal))

    async def opened_up() -> bool:
        return await place.reads(token, "renewed-roles-kv") == (200, "by role")

    place.run(until(opened_up))
