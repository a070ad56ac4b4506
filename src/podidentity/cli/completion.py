"""`podidentity completion`: the script that lets a shell complete commands and options."""

from __future__ import annotations

import click
from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from podidentity.cli.output import examples

_SHELLS: dict[str, type[ShellComplete]] = {
    "bash": BashComplete,
    "zsh": ZshComplete,
    "fish": FishComplete,
}


@click.command(
    epilog=examples(
        "source <(podidentity completion bash)      # a line for ~/.bashrc",
        "source <(podidentity completion zsh)       # a line for ~/.zshrc",
        "podidentity completion fish > ~/.config/fish/completions/podidentity.fish",
    )
)
@click.argument("shell", type=click.Choice(list(_SHELLS)))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    root = ctx.find_root().command
    click.echo(_SHELLS[shell](root, {}, "podidentity", "_PODIDENTITY_COMPLETE").source())
