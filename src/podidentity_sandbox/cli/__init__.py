"""`podidentity sandbox …`: the commands; each module is imported when its command is called."""

from __future__ import annotations

from importlib import import_module
from typing import Any

import click

from podidentity_sandbox.world import SandboxError

_COMMANDS = {
    "up": ("lifecycle:up", "Bring a sandbox up; returns when all its nodes are Ready."),
    "status": ("worlds:status", "Say whether a sandbox runs, what its parts do, and where it is."),
    "shell": (
        "shells:shell",
        "Open a shell in which az and kubectl find the sandbox; leave it with `exit`.",
    ),
    "env": (
        "shells:env",
        "Print the environment in which a shell, az and kubectl find the sandbox.",
    ),
    "principal": (
        "principals:principal",
        "Make a service principal that has no rights, and print its environment.",
    ),
    "role": (
        "principals:role",
        "Make a custom role of Azure, and assign it at each scope where it is assignable.",
    ),
    "apply": ("objects:apply", "Create the objects of a manifest, or change those that are there."),
    "get": ("objects:get", "Print objects of a kind: pods, nodes, azureidentities and so on."),
    "exec": ("pods:execute", "Run a program in a pod; its exit code is this command's."),
    "logs": ("pods:logs", "Print the output of a pod, or of a part of the sandbox."),
    "part": ("worlds:part", "Take a part away and bring it back: cluster, azure or a node."),
    "weather": (
        "weathers:weather",
        "Show the weather of a running sandbox, or put another in force from now on.",
    ),
    "csi": ("csi:csi", "Install the Secrets Store CSI driver with the Azure Key Vault provider."),
    "demo": (
        "demo:demo",
        "Bring a sandbox up, tell the whole story in it, and take it down.",
    ),
    "prepare": (
        "demo:prepare",
        "Make the Azure of the walk-through: a managed identity, and a vault it may read.",
    ),
    "down": ("lifecycle:down", "End a sandbox and remove all of it, also what a crash left."),
}
"""Of each command its module and object, and the first sentence of its help."""


class Commands(click.Group):
    """Imports a command when it runs, and words the sandbox's own errors.

    Its list of commands and their completion come of the table: neither imports a command.
    """

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return list(_COMMANDS)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with, imported."""
        name, command, rest = super().resolve_command(ctx, args)
        if name in _COMMANDS:
            module, _, attribute = _COMMANDS[name][0].partition(":")
            command = getattr(import_module(f"{__name__}.{module}"), attribute)
        return name, command, rest

    def invoke(self, ctx: click.Context) -> Any:  # noqa: ANN401 - click's signature
        """Run the command; a SandboxError ends it with exit code 1 and its words on stderr."""
        try:
            return super().invoke(ctx)
        except SandboxError as error:
            raise click.ClickException(str(error)) from error


@click.group(
    cls=Commands,
    commands={name: click.Command(name, short_help=said) for name, (_, said) in _COMMANDS.items()},
    epilog="\n".join(
        [
            "\b",
            "Examples:",
            "  podidentity sandbox up",
            '  eval "$(podidentity sandbox env)"',
            "  podidentity sandbox down",
        ]
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
def sandbox() -> None:
    """A cluster and an Azure on this machine, to try identities without a cloud.

    A Kubernetes API server, nodes and pods in network namespaces, and an Azure with Entra, Resource
    Manager, IMDS and Key Vault. Nothing of it touches a real cloud or this machine's network.
    """
