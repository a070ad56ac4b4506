"""The command `podidentity` and its subcommands, each imported when it runs.

This module loads click and no other library (`tests/cli/test_startup.py` checks that); NMI itself
is started without it (`programs`). The list of commands and their completion come of the table
below, so that neither imports a command.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import PurePath
from typing import TYPE_CHECKING

import click
from click.shell_completion import CompletionItem, ShellComplete, get_completion_class

from podidentity import __version__
from podidentity.cli import completing
from podidentity.cli.output import CommandError, examples, of_a_fault, report
from podidentity.core.errors import PodIdentityError

if TYPE_CHECKING:
    from podidentity.cli.programs import AgentPlan

_GROUPS: dict[str, dict[str, tuple[str, str]]] = {
    "Install": {
        "enable": ("enable", "Enable pod identity in a cluster, with NMI on every node."),
        "disable": ("enable", "Remove NMI, and MIC if it is there, from a cluster."),
        "mic": ("mic", "Pause MIC, the controller, or let it go on; alone, run it in its pod."),
        "node-unit": (
            "podidentity.cli.commands.node_unit:node_unit",
            "Print a systemd unit that keeps pods from IMDS until NMI is up.",
        ),
        "rights": ("rights", "Print the rights that commands need, in the cluster and in Azure."),
        "version": ("version", "Print the versions of this program, and of NMI and MIC."),
        "completion": ("podidentity.cli.main:completion", "Print the completion script for SHELL."),
    },
    "Identities": {
        "add": ("add", "Let the pods of a namespace use an identity of Azure."),
        "list": (
            "podidentity.cli.commands.list:list_identities",
            "List the identities of a cluster, with their selectors and pods.",
        ),
        "delete": ("delete", "Take an identity from the pods of a namespace."),
        "grant": ("grant", "Let the pods of a namespace use an identity."),
        "revoke": ("grant", "Revoke the permission of a namespace's pods to use an identity."),
        "exception": ("exceptions", "Let pods use the node's own identities."),
    },
    "Look": {
        "explain": ("explain", "Say why a pod gets a token, or why not."),
        "check": ("check", "Find what is wrong in a cluster, and say what to do."),
    },
    "Migrate": {"migrate": ("migrate", "Come from AAD Pod Identity.")},
    "Try": {
        "sandbox": (
            "podidentity_sandbox.cli:sandbox",
            "A cluster and an Azure on this machine, to try identities without a cloud.",
        )
    },
    "": {
        "nodes": ("nodes", ""),
        "nmi": ("podidentity.cli.nmi:nmi", ""),
        "net": ("podidentity.cli.nmi:net", ""),
        "serve": ("podidentity.cli.nmi:serve", ""),
    },
}
"""The sections of `--help`: each command's module or object, and the first sentence of its help.

Manifests and charts run the last ones in pods; no list shows these."""
_COMMANDS = {
    name: (at if ":" in at else f"podidentity.cli.commands.{at}:{name}", sentence)
    for group in _GROUPS.values()
    for name, (at, sentence) in group.items()
}
_AGENTS = {"nmi", "net", "serve", "mic"}
_ELSEWHERE = {"sandbox": "podidentity_sandbox"}
"""Commands of another distribution of ours, and its package. Their names stand here and in no entry
point: to read those takes longer than all the rest of `--help`."""


class LazyCommands(click.Group):
    """A group that imports a subcommand's module only when it runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - click's signature
        return [name for name in _COMMANDS if _is_here(name)]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        if cmd_name not in _COMMANDS:
            return None
        if not _is_here(cmd_name):
            return _failing(cmd_name, "it is not installed")
        try:
            return _imported(_COMMANDS[cmd_name][0])
        except ImportError as error:
            if cmd_name not in _ELSEWHERE:
                raise
            return _failing(cmd_name, str(error))

    def invoke(self, ctx: click.Context) -> object:
        """Run the command; an error that no command foresees becomes one sentence."""
        try:
            return super().invoke(ctx)
        except (
            click.ClickException,
            click.exceptions.Exit,
            click.Abort,
            PodIdentityError,
            OSError,
        ):
            raise
        except Exception as error:
            if ctx.invoked_subcommand in _AGENTS:
                raise  # an agent's traceback belongs into its log
            raise of_a_fault(error, debug=ctx.params["debug"]) from error

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Return the command that the arguments begin with; an error names similar ones."""
        if args[0] == "help":
            args = [*args[1:], "--help"]
            if len(args) == 1:
                click.echo(ctx.get_help())
                ctx.exit()
        try:
            return super().resolve_command(ctx, args)
        except click.NoSuchCommand as error:
            known = self.list_commands(ctx)
            raise click.NoSuchCommand(error.command_name, possibilities=known, ctx=ctx) from None

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        known = self.list_commands(ctx)
        for title, names in _GROUPS.items():
            if title and (rows := [(name, _COMMANDS[name][1]) for name in names if name in known]):
                with formatter.section(title):
                    formatter.write_dl(rows)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [
            *(
                CompletionItem(name, help=_COMMANDS[name][1])
                for name in self.list_commands(ctx)
                if name not in _GROUPS[""] and name.startswith(incomplete)
            ),
            *click.Command.shell_complete(self, ctx, incomplete),
        ]


def _is_here(name: str) -> bool:
    return name not in _ELSEWHERE or find_spec(_ELSEWHERE[name]) is not None


def _imported(target: str) -> click.Command:
    module, _, attribute = target.partition(":")
    command: click.Command = getattr(import_module(module), attribute)
    return command


def _failing(name: str, reason: str) -> click.Command:
    def fail(**_: object) -> None:
        raise CommandError(
            f"command {name!r} cannot be loaded: {reason}",
            f"Install what it needs: pip install podidentity-{name}.",
        )

    return click.Command(
        name,
        callback=fail,
        params=[click.Argument(["arguments"], nargs=-1, type=click.UNPROCESSED)],
        context_settings={"ignore_unknown_options": True},
        add_help_option=False,
    )


@click.group(
    cls=LazyCommands,
    epilog=examples(
        "podidentity enable",
        "podidentity add --namespace shop --name orders --identity-resource-id /subscriptions/…",
        "podidentity explain shop/orders-0",
    ),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.option("--kubeconfig", metavar="PATH", envvar="KUBECONFIG", help="As of each command.")
@click.option("--context", metavar="NAME", help="As of each command.")
@click.option("--debug", is_flag=True, help="Print the traceback of an unexpected error.")
@click.version_option(__version__, prog_name="podidentity", message="%(prog)s %(version)s")
def podidentity(**_: object) -> None:
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


def complete_for_kubectl() -> None:
    """Print what the arguments of this process may go on with, as kubectl asks its plug-ins.

    A line for each word, with its help behind a tab; then that no file is meant:
    https://github.com/kubernetes/kubernetes/pull/105867 and
    https://github.com/spf13/cobra/blob/main/site/content/completions/_index.md.
    """
    *before, begun = sys.argv[1:] or [""]
    made = ShellComplete(podidentity, {}, "kubectl podidentity", "")
    for each in made.get_completions(before, begun):
        if each.type == "plain":
            click.echo(f"{each.value}\t{each.help or ''}".rstrip())
    click.echo(":4")
    completing.leave()


def run(arguments: Sequence[str], prog_name: str = "podidentity") -> int:
    """Run one command line and return its exit code: 0 done, 1 failed, 2 wrong usage."""
    found = read(arguments, prog_name)
    if isinstance(found, int):
        return found
    from podidentity.cli import programs

    return programs.run(found)


def read(arguments: Sequence[str], prog_name: str = "podidentity") -> AgentPlan | int:
    """Run one command line, but return the plan of the agent's programs in place of running it."""
    # Colours are for terminals alone, and for nobody who wants none: https://no-color.org/
    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
    colour = False if plain else None
    try:
        found = podidentity.main(
            list(arguments), prog_name=prog_name, standalone_mode=False, color=colour
        )
    except PodIdentityError as error:
        return report(CommandError(str(error)))
    except (click.ClickException, click.Abort, KeyboardInterrupt, OSError) as error:
        return report(error)
    if found is None or isinstance(found, int):
        return found or 0
    plan: AgentPlan = found
    return plan


def main() -> None:
    called = PurePath(sys.argv[0]).name
    plugin = called == "kubectl-podidentity"
    try:
        sys.exit(run(sys.argv[1:], "kubectl podidentity" if plugin else "podidentity"))
    finally:
        completing.leave()
