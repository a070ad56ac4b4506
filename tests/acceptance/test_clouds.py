"""Tokens of other clouds and tenants, and of the machine itself, as `podidentity add` has it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.azure.tenants import Tenant
from tests.acceptance.directory import pod, secret
from tests.acceptance.sandbox import Sandbox, change_machines, opened
from tests.jwts import claims
from tests.sandboxes import own

NAME = own("clouds")
ASK = (
    "curl -s -G -m 60 -w '\\n%{http_code}' -H Metadata:true"
    " http://169.254.169.254/metadata/identity/oauth2/token -d api-version=2018-02-01"
)


class Town:
    """A sandbox in which pod identity is enabled, and the loop that its Azure is asked in."""

    def __init__(self, place: Sandbox, azure: AzureOperator, loop: asyncio.Runner) -> None:
        self.place, self.azure, self.loop = place, azure, loop

    def apply(self, *objects: str) -> None:
        self.place.apply(*objects)

    def add(self, name: str, *flags: str) -> None:
        self.place.add("default", name, *flags)

    def ask(self, name: str, **query: str) -> tuple[int, dict[str, Any]]:
        """Ask in the pod; return the status, and the token's claims or the error."""
        command = ASK + "".join(f" -d {key}={value}" for key, value in query.items())
        run = self.place.shell(command, pod=name)
        body, _, status = self.loop.run(run).stdout.decode().rpartition("\n")
        found = json.loads(body)
        return int(status), claims(found["access_token"]) if status == "200" else found

    def application(self, name: str, tenant: Tenant, **spec: Any) -> str:
        """Make an application with a secret, and a pod that is bound to it; return its id."""
        app = self.loop.run(self.azure.make_app(name, tenant=tenant, multi_tenant=True))
        made = self.loop.run(self.azure.add_secret(app))
        self.apply(secret(name, clientSecret=made.value.encode()))
        known = ("--client-id", app.client_id, "--tenant-id", tenant.id, "--secret", name)
        self.add(name, *known)
        patch = json.dumps({"spec": spec})
        self.place.run("kubectl", "patch", "azureidentity", name, "--type=merge", "-p", patch)
        self.apply(pod(name, label=name))
        return app.client_id


@pytest.fixture(scope="module")
def town() -> Iterator[Town]:
    with opened(NAME) as (place, azure, loop):
        place.run("podidentity", "enable")
        yield Town(place, azure, loop)


@pytest.mark.parametrize("cloud", ["government", "china"])
def test_an_identity_of_another_cloud_has_its_token_from_there(town: Town, cloud: str) -> None:
    tenant: Tenant = getattr(town.azure.tenants, cloud)
    client_id = town.application(cloud, tenant, adEndpoint=f"https://{tenant.cloud.logins[0]}/")
    vault = next(each for each in tenant.cloud.resources if "vault" in each)
    status, found = town.ask(cloud, resource=vault)
    assert status == 200, found
    assert (found["appid"], found["tid"]) == (client_id, tenant.id)
    assert found["iss"] == tenant.issuer


def test_another_tenant_of_an_identity_is_asked_for_by_authority(town: Town) -> None:
    home, partner = town.azure.tenants.home, town.azure.tenants.partner
    client_id = town.application("both", home, auxiliaryTenantIDs=[partner.id])
    principal = {"appId": client_id}
    town.loop.run(town.azure.graph("POST", "servicePrincipals", principal, tenant=partner))
    resource = "https://vault.azure.net"
    for tenant in (home, partner):
        status, found = town.ask(
            "both", resource=resource, authority=f"https://login.microsoftonline.com/{tenant.id}"
        )
        assert status == 200, found
        assert (found["appid"], found["tid"]) == (client_id, tenant.id)
    assert town.ask("both", resource=resource)[1]["tid"] == home.id
    foreign = f"https://login.microsoftonline.com/{town.azure.tenants.china.id}"
    status, found = town.ask("both", resource=resource, authority=foreign)
    assert (status, found["error"]) == (400, "invalid_request")


def test_the_machines_own_identity_is_had_by_whom_it_is_added_for(town: Town) -> None:
    scale_set = town.place.plan.scale_set_id
    both = {"identity": {"type": "SystemAssigned, UserAssigned"}}
    machine = town.loop.run(change_machines(town.azure, scale_set, both))["identity"]
    town.add("machine", "--system-assigned")
    town.apply(pod("machine", label="machine"))
    status, found = town.ask("machine", resource="https://vault.azure.net")
    assert status == 200, found
    assert found["oid"] == machine["principalId"]
