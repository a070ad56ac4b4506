"""Which of Azure's clouds a command or the agent is in: a name, or an Azure Stack Hub's file."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from podidentity.core.authorities import CLOUDS, Cloud
from podidentity.wire.azure_environment import STACK, parse_environment


def cloud_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give `command` the options, and call it with `cloud`; None where nothing was said."""

    @click.option(
        "--cloud",
        metavar="NAME",
        envvar="AZURE_ENVIRONMENT",
        help="Azure's cloud. [default: the one that NMI is in]",
    )
    @click.option(
        "--azure-environment-file",
        "environment_file",
        metavar="PATH",
        envvar="AZURE_ENVIRONMENT_FILEPATH",
        default="",
        help=f"JSON file that describes an Azure Stack Hub, for --cloud={STACK}.",
    )
    @functools.wraps(command)
    def with_cloud(cloud: str | None, environment_file: str, **rest: Any) -> None:  # noqa: ANN401 - click's
        command(cloud=cloud_of(cloud, environment_file) if cloud else None, **rest)

    return with_cloud


def cloud_of(name: str, environment_file: str) -> Cloud:
    """Return the cloud of that name, in any case; raise click.UsageError."""
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
