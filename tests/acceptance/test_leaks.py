"""No request of a pod reaches the real IMDS: seen by a nonce that NMI never passes on."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Network
from podidentity_sandbox.weather import CALM
from tests.acceptance.sandbox import ANSWERED, ASK, Sandbox, leaked, one_node

REQUESTS = 300
BY_ONE = 10
"""Requests that one curl makes while something is done: its start costs as much as they do."""
SLOW = "https://of-a-slow-answer.example"


def one(nonce: str, resource: str) -> str:
    return ASK.format(seconds=ANSWERED, nonce=nonce, resource=resource) + " -o /dev/null"


def several(nonce: str, requests: int) -> str:
    """Return the command that asks so often, one after the other, on a connection for each."""
    vault = "https://vault.azure.net"
    ask, _, url = ASK.format(seconds=ANSWERED, nonce=nonce, resource=vault).rpartition(" '")
    url = url.removesuffix("'")
    told = (
        f"""for n in $(seq {requests}); do printf 'url = "{url}"\\noutput = /dev/null\\n'; done"""
    )
    return f"{told} | {ask} -H 'Connection: close' -K -"


async def stream(place: Sandbox, nonce: str, requests: int) -> list[str]:
    """Ask so many times from the pod; return the statuses."""
    return (await place.shell(several(nonce, requests))).stdout.decode().split()


@asynccontextmanager
async def streaming(place: Sandbox, nonce: str) -> AsyncIterator[list[str]]:
    """Ask from before to after what is done meanwhile, and often; the statuses come at the end.

    Each time has files of its own: those of an earlier one would say that this one has begun.
    """
    begun, over = f"/begun-{nonce}", f"/over-{nonce}"
    loop = (
        f"i=0; until test -e {over} && test $i -ge {REQUESTS};"
        f" do {several(nonce, BY_ONE)}; i=$((i + {BY_ONE})); touch {begun}; done"
    )
    statuses: list[str] = []
    asking = asyncio.create_task(place.shell(loop))
    await place.shell(f"until test -e {begun}; do sleep 0.02; done")
    yield statuses
    await place.shell(f"touch {over}")
    statuses += (await asking).stdout.decode().split()


async def _reached(azure: AzureOperator, resource: str) -> bool:
    host = resource.removeprefix("https://")
    return any(host in each["target"] for each in await azure.imds_requests())


@asynccontextmanager
async def in_nmis_hands(
    place: Sandbox, azure: AzureOperator, nonce: str
) -> AsyncIterator[list[str]]:
    """Let NMI wait for IMDS on a pod's behalf meanwhile; the request's status comes at the end."""
    azure.weather("imds=[{effect: hang}]")
    asking = asyncio.create_task(place.shell(one(nonce, SLOW)))
    while not await _reached(azure, SLOW):  # noqa: ASYNC110 - nothing tells of it
        await asyncio.sleep(0.02)
    status: list[str] = []
    yield status
    status += (await asking).stdout.decode().split()
    azure.weather("imds=[]")


@pytest.mark.parametrize("network", Network)
async def test_nothing_leaks_whether_nmi_runs_is_killed_or_is_stopped(network: Network) -> None:
    # Calm: the subject is the way of packets on the node, which no delay of Azure changes.
    async with (
        one_node(f"leaks-{network}", network, weather=CALM) as place,
        AzureOperator(place.plan) as azure,
    ):
        place.start_pod()
        nonce = secrets.token_hex(8)
        await stream(place, nonce, 3)
        assert await leaked(azure, nonce) == 3, "without rules a leak must be seen"

        await place.bind()
        nonce = secrets.token_hex(8)
        assert await stream(place, nonce, REQUESTS) == ["200"] * REQUESTS
        assert await leaked(azure, nonce) == 0, "while NMI runs"

        nonce = secrets.token_hex(8)
        async with (
            streaming(place, nonce) as statuses,
            in_nmis_hands(place, azure, nonce) as of_the_waiting,
        ):
            os.kill(place.nmi(), signal.SIGKILL)
        assert of_the_waiting == ["000"], "its connection broke"
        assert statuses[0] == "200", "before the kill"
        assert "000" in statuses, "after it"
        assert await leaked(azure, nonce) == 0, "while NMI is killed and started again"
        await place.nmi_ready()
        assert (await place.ask())[0] == 200

        nonce = secrets.token_hex(8)
        async with streaming(place, nonce) as statuses:
            await asyncio.to_thread(place.run, "podidentity", "disable")
        assert statuses[0] == "200", "before it is stopped"
        assert statuses[-1] == "000", "afterwards"
        assert await leaked(azure, nonce) == 0, "while and after NMI is stopped"
        assert (await place.ask())[0] == 0
