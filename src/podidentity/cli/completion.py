"""`podidentity completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    r"""Print the completion script for SHELL.

    \b
    Examples:
      source <(podidentity completion bash)      # add it to ~/.bashrc
      source <(podidentity completion zsh)       # add it to ~/.zshrc
      podidentity completion fish > ~/.config/fish/completions/podidentity.fish
    """
    root = ctx.find_root().command
    click.echo(_SHELLS[shell](root, {}, "podidentity", "_PODIDENTITY_COMPLETE").source())
