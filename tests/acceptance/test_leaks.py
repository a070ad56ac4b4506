"""No request of a pod reaches the real IMDS: seen by a nonce that NMI never passes on."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Network
from tests.acceptance.sandbox import ASK, Sandbox, one_node

REQUESTS = 300


async def leaked(azure: AzureOperator, nonce: str) -> int:
    """Return how many requests with that nonce IMDS has seen."""
    seen = [entry["headers"].get("x-nonce", "") for entry in await azure.imds_requests()]
    return sum(each == nonce for each in seen)


async def stream(place: Sandbox, nonce: str, requests: int = REQUESTS) -> str:
    """Ask so many times from the pod, each on a connection of its own; return the statuses."""
    one = ASK.format(seconds=1, nonce=nonce, resource="https://vault.azure.net")
    loop = f"for i in $(seq {requests}); do {one} -o /dev/null; done"
    return (await place.shell(loop, seconds=100)).stdout.decode()


@pytest.mark.parametrize("network", Network)
async def test_nothing_leaks_whether_nmi_runs_is_killed_or_is_stopped(network: Network) -> None:
    async with (
        one_node(f"leaks-{network}", network) as place,
        AzureOperator(place.plan) as azure,
    ):
        place.start_pod()
        nonce = secrets.token_hex(8)
        await stream(place, nonce, 3)
        assert await leaked(azure, nonce) == 3, "without rules a leak must be seen"

        await place.bind()
        nonce = secrets.token_hex(8)
        assert "200" in await stream(place, nonce)
        assert await leaked(azure, nonce) == 0, "while NMI runs"

        nonce = secrets.token_hex(8)
        streaming = asyncio.create_task(stream(place, nonce))
        os.kill(place.nmi(), signal.SIGKILL)
        statuses = await streaming
        assert "000" in statuses, "the kill came in between"
        assert await leaked(azure, nonce) == 0, "while NMI is killed and started again"
        await place.nmi_ready()
        assert (await place.ask())[0] == 200

        nonce = secrets.token_hex(8)
        streaming = asyncio.create_task(stream(place, nonce))
        await asyncio.to_thread(place.run, "podidentity", "disable")
        await streaming
        assert await leaked(azure, nonce) == 0, "while and after NMI is stopped"
        assert (await place.ask())[0] == 0
