"""The options of `podidentity explain`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import FORMATS, examples, output_option
from podidentity.cli.parameters import POD, agents_option, cloud_options


class _WithoutPod(click.Command):
    """A command that takes `explain pod NAMESPACE/NAME`, too, the name that it had first."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Leave the word `pod` out: it is no pod's name, which has a slash."""
        return super().parse_args(ctx, args[1:] if args[:1] == ["pod"] else args)


@click.command(
    cls=_WithoutPod,
    epilog=examples(
        "podidentity explain shop/orders-0",
        "podidentity explain shop/orders-0 --azure",
        "podidentity explain shop/orders-0 -o json | jq -r .verdict",
    ),
)
@click.argument("ref", metavar="NAMESPACE/NAME", type=POD, shell_complete=completing.pods)
@click.option(
    "--azure", "ask", is_flag=True, help="Ask Azure for the identities of the node's machine."
)
@agents_option
@output_option(*FORMATS, default="table")
@cloud_options
@cluster_options
@click.pass_context
def explain(ctx: click.Context, /, **given: Any) -> None:
    """Say why a pod gets a token, or why not.

    It follows the chain label → binding → identity → permission → machine or secret → NMI, has NMI
    probe the path from the pod's network, and reads what NMI answered the pod last, as far as you
    may. Exit code 0: the pod was served, or nothing in the cluster stands against a token; 1: its
    requests fail, or are refused, and the output shows the broken link.
    """
    from podidentity.cli.explain import explain as run

    run(ctx, **given)
