"""The options of `podidentity nodes`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples, output_option
from podidentity.cli.parameters import DURATION, agents_option


@click.command(
    hidden=True,
    epilog=examples(
        "helm test aad-pod-identity --namespace kube-system --logs",
        "podidentity nodes --namespace kube-system --token=https://vault.azure.net",
    ),
)
@agents_option
@click.option(
    "--probe-port",
    type=click.IntRange(1, 65535),
    default=8085,
    show_default=True,
    help="NMI's --http-probe-port.",
)
@click.option(
    "--token",
    "resource",
    metavar="AUDIENCE",
    help="Ask for a token, too, as any pod does. It is not printed.",
)
@click.option(
    "--timeout",
    type=DURATION,
    default="60s",
    show_default=True,
    help="How long to wait until all nodes are ready.",
)
@click.option("--in-pod", envvar="KUBERNETES_SERVICE_HOST", hidden=True)
@output_option("table", "json", "yaml", default="table")
@cluster_options
@click.pass_context
def nodes(ctx: click.Context, /, in_pod: str | None, **given: Any) -> None:
    """Say of each node whether pods' requests arrive at NMI.

    Each NMI is asked how its pods are connected (plane), what leads their requests to it (backend),
    how it proves callers, and where the last request from its probe pod ended. It is for a pod of
    the cluster, such as that of `helm test`: it asks NMI at the addresses of its nodes. Elsewhere
    it runs `podidentity check --probes`. Exit status 1 if a node is not ready.
    """
    if not in_pod:  # a kubelet sets the variable in each container
        if given["resource"]:
            raise click.UsageError("--token asks as a pod does: run it in a pod of the cluster.")
        from podidentity.cli.commands.check import check

        click.echo("Outside a pod this is podidentity check --probes.", err=True)
        shared = {each.name for each in check.params} & ctx.params.keys()
        ctx.invoke(check, probes=True, **{str(name): ctx.params[str(name)] for name in shared})
    from podidentity.cli.nodes import nodes as run

    run(**given)
