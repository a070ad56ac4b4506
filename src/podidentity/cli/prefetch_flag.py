"""The agent's flag that says what is fetched for pods that are new on the node."""

from __future__ import annotations

import click

from podidentity.core.errors import InvalidRequest
from podidentity.wire.imds_server import parse_resource


class Audiences(click.ParamType[str | tuple[str, ...]]):
    """`auto`, `off`, or audiences with commas between them."""

    name = "audiences"

    def convert(
        self,
        value: str | tuple[str, ...],
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str | tuple[str, ...]:
        """Return `auto`, `off` or the audiences, each once."""
        if isinstance(value, tuple) or value in {"auto", "off"}:
            return value
        try:
            return tuple(dict.fromkeys(parse_resource(each) for each in value.split(",")))
        except InvalidRequest as error:
            self.fail(f"{value!r}: {error}", param, ctx)


prefetch_flag = click.option(
    "--prefetch",
    type=Audiences(),
    default="auto",
    show_default=True,
    metavar="auto|off|AUDIENCE,...",
    help="What is fetched for a pod that is new on the node, before it asks. auto: what pods of "
    "its identity asked for here, else the resource manager's and the vaults' tokens.",
)
