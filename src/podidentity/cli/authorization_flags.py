"""The node agent's flags of who may use which identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from podidentity.cli.parameters import Duration

_Command = Callable[..., Any]


def authorization_flags(command: _Command) -> _Command:
    """Give `command` the flags."""
    for option in (
        click.option(
            "--authorization-outlives",
            type=Duration(),
            default="12h",
            show_default=True,
            help="How long the last answer stands while the API server cannot be asked.",
        ),
        click.option(
            "--authorization",
            type=click.Choice(["rbac", "observe", "off"]),
            default="rbac",
            show_default=True,
            help="What a missing permission to use an identity does. rbac: it refuses; observe: it "
            "is only told; off: nobody asks, and whoever may create an AzureIdentity may use any.",
        ),
    ):
        command = option(command)
    return command
