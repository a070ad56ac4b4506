"""The command `podidentity` and its subcommands, each imported when it runs.

This module loads click and no other library (`tests/cli/test_main.py` checks that); NMI itself is
started without it (`programs`). Other packages add commands by the entry-point group
`podidentity.commands`; a command that cannot be imported says why when it runs, and the others
still work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from pathlib import PurePath
from typing import TYPE_CHECKING

import click
from click.shell_completion import get_completion_class

from podidentity import __version__
from podidentity.cli.output import CommandError, examples, report
from podidentity.core.errors import PodIdentityError

if TYPE_CHECKING:
    from podidentity.cli.programs import AgentPlan

_COMMANDS = {
    "enable": "podidentity.cli.enable:enable",
    "disable": "podidentity.cli.enable:disable",
    "add": "podidentity.cli.add:add",
    "list": "podidentity.cli.list:list_identities",
    "delete": "podidentity.cli.delete:delete",
    "grant": "podidentity.cli.grant:grant",
    "revoke": "podidentity.cli.grant:revoke",
    "explain": "podidentity.cli.explain:explain",
    "check": "podidentity.cli.check:check",
    "migrate": "podidentity.cli.migrate:migrate",
    "nodes": "podidentity.cli.nodes:nodes",
    "rights": "podidentity.cli.rights:rights",
    "node-unit": "podidentity.cli.node_unit:node_unit",
    "nmi": "podidentity.cli.nmi:nmi",
    "net": "podidentity.cli.nmi:net",
    "serve": "podidentity.cli.nmi:serve",
    "mic": "podidentity.cli.mic:mic",
    "completion": "podidentity.cli.main:completion",
    "version": "podidentity.cli.version:version",
}
PLUGINS = "podidentity.commands"
_ELSEWHERE = frozenset({"sandbox"})
"""Commands of other distributions of ours, which people type without having them."""


class LazyCommands(click.Group):
    """A group that imports a subcommand's module only when it is needed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        """Return all names: our own in the order of their use, then those of plug-ins."""
        return [*_COMMANDS, *sorted(set(_plugins()) - set(_COMMANDS))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Return the command of that name, or None."""
        if cmd_name in _COMMANDS:
            return _imported(_COMMANDS[cmd_name])
        plugin = _plugins().get(cmd_name)
        if plugin is not None:
            return _load(cmd_name, plugin)
        if cmd_name in _ELSEWHERE:
            return _failing(cmd_name, "it is not installed")
        return None


def _plugins() -> dict[str, str]:
    from importlib.metadata import entry_points  # 20 ms, and NMI needs no plug-in

    return {found.name: found.value for found in entry_points(group=PLUGINS)}


def _imported(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command = getattr(import_module(module), attribute)
    if not isinstance(command, click.Command):
        raise TypeError(f"{target} is no command")
    return command


def _load(name: str, target: str) -> click.Command:
    """Return the command of a plug-in, or a command that says why it cannot be imported."""
    try:
        return _imported(target)
    except (ImportError, AttributeError, TypeError) as error:
        return _failing(name, str(error))


def _failing(name: str, reason: str) -> click.Command:
    """Return a command that says why it cannot be run."""

    def fail(**_: object) -> None:
        raise CommandError(
            f"command {name!r} cannot be loaded: {reason}",
            f"Install what it needs: pip install podidentity-{name}.",
        )

    return click.Command(
        name,
        callback=fail,
        short_help=f"(cannot be loaded: {reason})",
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )


@click.group(
    cls=LazyCommands,
    epilog=examples(
        "podidentity enable",
        "podidentity add --namespace shop --name orders --identity-resource-id /subscriptions/…",
        "podidentity explain pod shop/orders-0",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="podidentity", message="%(prog)s %(version)s")
def podidentity() -> None:
    """Identity for pods on Azure, without secrets and without changing a line of the pod."""


@click.command(
    epilog=examples(
        "source <(podidentity completion bash)      # a line for ~/.bashrc",
        "source <(podidentity completion zsh)       # a line for ~/.zshrc",
        "podidentity completion fish > ~/.config/fish/completions/podidentity.fish",
    )
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
@click.pass_context
def completion(ctx: click.Context, shell: str) -> None:
    """Print the completion script for SHELL."""
    made = get_completion_class(shell)
    assert made is not None  # noqa: S101 - click has one for each choice
    root = ctx.find_root().command
    click.echo(made(root, {}, "podidentity", "_PODIDENTITY_COMPLETE").source())


def run(arguments: Sequence[str], prog_name: str = "podidentity") -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    found = read(arguments, prog_name)
    if isinstance(found, int):
        return found
    from podidentity.cli import programs

    return programs.run(found)


def read(arguments: Sequence[str], prog_name: str = "podidentity") -> AgentPlan | int:
    """Run one command line, but return the plan of the agent's programs in place of running it."""
    try:
        found = podidentity.main(list(arguments), prog_name=prog_name, standalone_mode=False)
    except PodIdentityError as error:
        return report(CommandError(str(error)))
    except (click.ClickException, click.Abort, KeyboardInterrupt, OSError) as error:
        return report(error)
    if found is None or isinstance(found, int):
        return found or 0
    plan: AgentPlan = found
    return plan


def main() -> None:
    """Run the command line of this process, also for `kubectl podidentity`."""
    called = PurePath(sys.argv[0]).name
    plugin = called == "kubectl-podidentity"
    sys.exit(run(sys.argv[1:], "kubectl podidentity" if plugin else "podidentity"))
