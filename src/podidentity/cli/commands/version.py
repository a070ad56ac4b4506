"""The options of `podidentity version`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples, output_option


@click.command(
    epilog=examples(
        "podidentity version",
        "podidentity version --client",
        "podidentity version -o json | jq -r '.cluster.programs[].version'",
    )
)
@click.option("--client", is_flag=True, help="Ask no cluster.")
@output_option("table", "json", "yaml", default="table")
@cluster_options
@click.pass_context
def version(ctx: click.Context, /, **given: Any) -> None:
    """Print the versions of this program, and of NMI and MIC.

    With commit and build, where they are known. Exit code 1 if the cluster cannot be asked; the
    version of this program is printed first.
    """
    from podidentity.cli.version import version as run

    run(ctx, **given)
