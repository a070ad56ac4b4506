"""`podidentity sandbox …`: the commands; each module is imported when its command is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from podidentity_sandbox.world import SandboxError

_COMMANDS = {
    "up": "podidentity_sandbox.cli.worlds:up",
    "status": "podidentity_sandbox.cli.worlds:status",
    "shell": "podidentity_sandbox.cli.shells:shell",
    "env": "podidentity_sandbox.cli.shells:env",
    "principal": "podidentity_sandbox.cli.principals:principal",
    "role": "podidentity_sandbox.cli.principals:role",
    "apply": "podidentity_sandbox.cli.objects:apply",
    "get": "podidentity_sandbox.cli.objects:get",
    "delete": "podidentity_sandbox.cli.objects:delete",
    "exec": "podidentity_sandbox.cli.pods:execute",
    "logs": "podidentity_sandbox.cli.pods:logs",
    "part": "podidentity_sandbox.cli.worlds:part",
    "weather": "podidentity_sandbox.cli.weathers:weather",
    "csi": "podidentity_sandbox.cli.csi:csi",
    "demo": "podidentity_sandbox.cli.demo:demo",
    "prepare": "podidentity_sandbox.cli.demo:prepare",
    "down": "podidentity_sandbox.cli.worlds:down",
}


class Commands(click.Group):
    """Imports a command when it is asked for, and words the sandbox's own errors."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return the names in the order in which a person needs them."""
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of that name, or None."""
        if cmd_name not in _COMMANDS:
            return None
        module, _, attribute = _COMMANDS[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), attribute)
        return command

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command; a SandboxError ends it with exit code 1 and its words on stderr."""
        try:
            return super().invoke(ctx)
        except SandboxError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def sandbox() -> None:
    r"""A cluster and an Azure on this machine, to try identities without a cloud.

    A Kubernetes API server, nodes and pods in network namespaces, and an Azure with Entra, Resource
    Manager, IMDS and Key Vault. Nothing of it touches a real cloud or this machine's network.

    \b
    Examples:
      podidentity sandbox up
      eval "$(podidentity sandbox env)"
      podidentity sandbox down
    """
