"""A pod that is new on its node finds its first token fetched."""

from __future__ import annotations

import asyncio

from podidentity_sandbox.azure.client import AzureOperator
from tests.acceptance.sandbox import one_node

METRICS = "http://127.0.0.1:9090/metrics"


async def test_a_new_pods_first_token_is_there_even_when_imds_is_away_by_then() -> None:
    async with one_node("prefetch") as place, AzureOperator(place.plan) as azure:
        await place.bind("--prefetch=auto")
        place.start_pod()
        has_both = "podidentity_cache_tokens 2\n"
        while has_both not in place.on_node("curl", "-s", METRICS):  # noqa: ASYNC110 - a metric
            await asyncio.sleep(0.1)
        azure.weather("imds=[{effect: reset}]")
        status, body, _ = await place.ask()
        assert (status, body["resource"]) == (200, "https://vault.azure.net")
        # What nobody could foresee does need IMDS.
        assert (await place.ask(resource="https://unforeseen.example"))[0] == 503
