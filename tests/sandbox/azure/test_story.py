"""The story of the walk-through, as far as Azure alone can tell it, through real sockets."""

from __future__ import annotations

import aiohttp

from podidentity_sandbox.azure.client import AzureOperator
from tests.sandbox.azure.conftest import Azure


async def test_an_attached_identity_reads_the_secret_that_the_vault_grants_it(
    cloud: Azure, operator: AzureOperator
) -> None:
    operator.weather("scale-sets=0", "operations=0")
    await operator.create_group("demo")
    identity = await operator.create_identity("demo", "demo-identity")
    await operator.create_vault("demo", "demo-kv", readers=[identity["principalId"]])
    await operator.put_secret("demo-kv", "demo-secret", "MySuperSecretDemoPassword")
    await operator.arm(
        "PATCH",
        cloud.plan.scale_set_id,
        {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}},
    )
    query = "api-version=2018-02-01&resource=https://vault.azure.net"
    url = f"{cloud.imds}/metadata/identity/oauth2/token?{query}&client_id={identity['clientId']}"
    async with aiohttp.ClientSession() as session:
        async with session.get(url, headers={"Metadata": "true"}) as response:
            assert response.status == 200, await response.text()
            token = await response.json()
        secret = "https://demo-kv.vault.azure.net/secrets/demo-secret?api-version=2016-10-01"
        bearer = {"Authorization": f"Bearer {token['access_token']}"}
        async with session.get(
            secret, headers=bearer, proxy=cloud.proxy, ssl=cloud.trust
        ) as response:
            assert (await response.json())["value"] == "MySuperSecretDemoPassword"
    (seen,) = await operator.imds_requests()
    assert (seen["node"], seen["status"]) == ("node-0", 200)
