"""Flags of the agent that say which cloud it is in, and where identities' own accounts are."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from podidentity.core.authorities import CLOUDS, PUBLIC, Cloud
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.wire.azure_environment import STACK, parse_environment

_Decorated = Callable[..., Any]


def entra_flags(command: _Decorated) -> _Decorated:
    """Add the flags; their values are read by `chosen_cloud`."""
    for option in (
        click.option(
            "--cloud",
            default=PUBLIC.name,
            show_default=True,
            help="Azure's cloud: AzurePublicCloud, AzureUSGovernmentCloud, AzureChinaCloud, or "
            f"{STACK} with --azure-environment-file.",
        ),
        click.option(
            "--azure-environment-file",
            "environment_file",
            envvar="AZURE_ENVIRONMENT_FILEPATH",
            default="",
            help=f"JSON file that describes an Azure Stack Hub, for --cloud={STACK}.",
        ),
        click.option(
            "--identities-namespace",
            default=IDENTITIES_NAMESPACE,
            show_default=True,
            help="Namespace of the service accounts that stand for federated identities.",
        ),
    ):
        command = option(command)
    return command


def chosen_cloud(name: str, environment_file: str) -> Cloud:
    """Return the cloud of that name, in any case; raise UsageError."""
    folded = name.strip().lower()
    if folded != STACK.lower():
        if folded not in CLOUDS:
            names = ", ".join(sorted({cloud.name for cloud in CLOUDS.values()} | {STACK}))
            raise click.UsageError(f"--cloud must be one of {names}, not {name!r}.")
        return CLOUDS[folded]
    if not environment_file:
        raise click.UsageError(
            f"--cloud={STACK} needs --azure-environment-file (AZURE_ENVIRONMENT_FILEPATH)."
        )
    try:
        return parse_environment(Path(environment_file).read_bytes())
    except (OSError, ValueError) as error:
        raise click.UsageError(f"--azure-environment-file {environment_file}: {error}.") from error
