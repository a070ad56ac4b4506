"""Which of Azure's clouds a command or the agent is in: a name, or an Azure Stack Hub's file."""

from __future__ import annotations

from pathlib import Path

import click

from podidentity.core.authorities import CLOUDS, Cloud
from podidentity.wire.azure_environment import STACK, parse_environment


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
