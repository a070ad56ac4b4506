"""Options that the commands share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.folder import NAME_VARIABLE, Folder
from podidentity_sandbox.world.inspection import running_plan

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

name: Decorator = click.option(
    "--name",
    default="default",
    show_default=True,
    envvar=NAME_VARIABLE,
    show_envvar=True,
    metavar="NAME",
    help="Which sandbox.",
)

namespace: Decorator = click.option(
    "-n", "--namespace", default="default", show_default=True, help="Namespace of the object."
)


def plan_of(name: str) -> Plan:
    """Return the plan of the living sandbox `name`; raise SandboxError."""
    return running_plan(Folder.of(name))
