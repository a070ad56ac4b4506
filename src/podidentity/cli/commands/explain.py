"""The options of `podidentity explain`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import (
    FORMATS,
    examples,
    output_option,
)
from podidentity.cli.parameters import PodRef, agents_option, cloud_options


@click.group(epilog=examples("podidentity explain pod shop/orders-0"))
def explain() -> None:
    """Explain why something gets a token, or why not."""


@explain.command(
    epilog=examples(
        "podidentity explain pod shop/orders-0",
        "podidentity explain pod shop/orders-0 --azure",
        "podidentity explain pod shop/orders-0 -o json | jq -r .reason",
    )
)
@click.argument("ref", metavar="NAMESPACE/NAME", type=PodRef(), shell_complete=completing.pods)
@click.option(
    "--azure", "ask", is_flag=True, help="Ask Azure for the identities of the node's machine."
)
@agents_option
@output_option(*FORMATS, default="table")
@cloud_options
@cluster_options
@click.pass_context
def pod(ctx: click.Context, /, **given: Any) -> None:
    """Follow a pod's chain: label → binding → identity → permission → machine or secret → NMI.

    Exit code 0: the pod can get a token; 1: it cannot, and the output shows the broken link.
    """
    from podidentity.cli.explain import pod as run

    run(ctx, **given)
