"""`podidentity sandbox delay`: lets Azure take its time, to see how clients cope with that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import MappingProxyType

import aiohttp
import click

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.cli import options
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError

_Setting = Callable[[AzureOperator, float], Awaitable[None]]
_SETTINGS = MappingProxyType(
    {
        "scale-sets": AzureOperator.arm_delay,
        "roles": AzureOperator.role_delay,
        "identities": AzureOperator.identity_cache,
        "credentials": AzureOperator.credential_delay,
    }
)


@click.command(epilog="Example: podidentity sandbox delay roles 120")
@options.name
@click.argument("what", type=click.Choice(list(_SETTINGS)))
@click.argument("seconds", type=click.FloatRange(min=0))
def delay(name: str, what: str, seconds: float) -> None:
    """Let Azure take SECONDS for something that is quick here and takes minutes there.

    `scale-sets`: a change until the machines have it. `roles`: an assignment until it holds.
    `identities`: how long a node's IMDS goes on with those that it saw last. `credentials`: until
    Entra knows a federated credential.
    """
    try:
        asyncio.run(_set(options.plan_of(name), _SETTINGS[what], seconds))
    except aiohttp.ClientError as error:
        start = "podidentity sandbox part start azure"
        raise SandboxError(f"the sandbox's Azure does not answer: try {start}") from error
    click.echo(f"{what}: {seconds:g} s")


async def _set(plan: Plan, setting: _Setting, seconds: float) -> None:
    async with AzureOperator(plan) as azure:
        await setting(azure, seconds)
