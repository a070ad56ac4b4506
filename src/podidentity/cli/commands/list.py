"""The options of `podidentity list`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples, output_option
from podidentity.cli.parameters import namespace_option


@click.command(
    name="list",
    epilog=examples(
        "podidentity list",
        "podidentity list -o wide            # client ids, and all names of a cell",
        "podidentity list --namespace shop -o json | jq '.identities[].clientID'",
        "podidentity list --grants",
    ),
)
@namespace_option("Only this namespace.")
@click.option("-A", "--all-namespaces", is_flag=True, help="All namespaces (the default).")
@click.option(
    "--grants", is_flag=True, help="Who may use which identity, and with what that ends, instead."
)
@output_option("table", "wide", "json", "yaml", default="table")
@cluster_options
def list_identities(**given: Any) -> None:
    """List the identities of a cluster, with their selectors and pods."""
    from podidentity.cli.list import list_identities as run

    run(**given)
