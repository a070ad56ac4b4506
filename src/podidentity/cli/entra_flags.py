"""Flags of the agent that say which cloud it is in, whom it may tell a secret, and who signs in."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from podidentity.cli.parameters import TenantType
from podidentity.core.authorities import CLOUDS, KNOWN_AUTHORITIES, PUBLIC, Authority, Cloud
from podidentity.core.federation import IDENTITIES_NAMESPACE
from podidentity.core.ids import InvalidId
from podidentity.wire.azure_environment import STACK, parse_environment

_Decorated = Callable[..., Any]


class _Authorities(click.ParamType[frozenset[Authority]]):
    """Authorities, joined by commas."""

    name = "authorities"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> frozenset[Authority]:
        if not isinstance(value, str):
            return frozenset()
        try:
            return frozenset(Authority.parse(one) for one in value.split(",") if one.strip())
        except InvalidId as error:
            self.fail(str(error), param, ctx)


_OPTIONS = (
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
        "--authorities",
        type=_Authorities(),
        default="",
        metavar="URL,URL",
        help="More authorities that an AzureIdentity's adEndpoint may name, beside Microsoft's: "
        "secrets are sent there.",
    ),
    click.option(
        "--tenant-id",
        "tenant",
        type=TenantType(),
        default=None,
        help="Tenant of service accounts that are annotated with a client id and no tenant.",
    ),
    click.option(
        "--identities-namespace",
        default=IDENTITIES_NAMESPACE,
        show_default=True,
        help="Namespace of the service accounts that stand for federated identities.",
    ),
)


def entra_flags(command: _Decorated) -> _Decorated:
    """Add the flags; `entra_settings` makes settings of what is given."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def entra_settings(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the flags stand for, in their place; raise UsageError."""
    rest = dict(given)
    cloud = _cloud(rest.pop("cloud"), rest.pop("environment_file"))
    allowed = KNOWN_AUTHORITIES | {cloud.authority} | rest.pop("authorities")
    return {**rest, "cloud": cloud, "authorities": allowed}


def _cloud(name: str, environment_file: str) -> Cloud:
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
