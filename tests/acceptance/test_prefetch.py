"""A pod that is new on its node finds its first token fetched."""

from __future__ import annotations

import asyncio

from podidentity_sandbox.azure.client import AzureOperator
from tests.acceptance.sandbox import PATIENCE, Sandbox, one_node

ASK = (
    *("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", "Metadata:true"),
    "http://169.254.169.254/metadata/identity/oauth2/token?api-version=2018-02-01"
    "&resource=https://graph.microsoft.com&msi_res_id=",
)


async def until_imds_knows(place: Sandbox, identity: str) -> None:
    """Return when the node's IMDS has an identity that is attached: it looks now and then."""
    *command, url = ASK
    async with asyncio.timeout(PATIENCE):
        while place.on_node(*command, f"{url}{identity}") != "200":  # noqa: ASYNC110 - IMDS tells nobody
            await asyncio.sleep(1)


async def until_fetched(azure: AzureOperator, resource: str) -> None:
    """Return when IMDS has given a token for the resource."""
    async with asyncio.timeout(PATIENCE):
        while not any(  # noqa: ASYNC110 - a journal
            each["status"] == 200 and resource in each["target"]
            for each in await azure.imds_requests()
        ):
            await asyncio.sleep(0.2)


async def test_a_new_pods_first_token_is_there_even_when_imds_is_away_by_then() -> None:
    async with one_node("prefetch") as place, AzureOperator(place.plan) as azure:
        identity = await place.bind_by("podidentity", "enable", "--nmi-arg=--prefetch=auto")
        await until_imds_knows(place, identity)
        place.start_pod()
        await until_fetched(azure, "vault.azure.net")
        azure.weather("imds=[{effect: reset}]")
        status, body, _ = await place.ask()
        assert (status, body["resource"]) == (200, "https://vault.azure.net")
        # What nobody could foresee does need IMDS.
        assert (await place.ask(resource="https://unforeseen.example"))[0] == 503
