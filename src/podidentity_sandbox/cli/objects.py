"""Commands on the cluster's objects: apply, get. For more, kubectl is the tool."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TextIO

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.world.api import TABLE, Api, Object
from podidentity_sandbox.world.apply import Applier, Kinds, documents


@click.command(epilog="Example: podidentity sandbox apply --wait -f pod.yaml")
@options.name
@options.namespace
@click.option("-f", "--filename", type=click.File(), required=True, help="A file, or - for stdin.")
@click.option("--wait", is_flag=True, help="Wait until the applied pods are Ready.")
@click.option("--timeout", default=180.0, show_default=True, help="Seconds to wait.")
def apply(name: str, namespace: str, filename: TextIO, *, wait: bool, timeout: float) -> None:
    """Create the objects of a manifest, or change those that are there."""
    applier = Applier(Api(options.plan_of(name)), namespace)
    for document in documents(filename.read()):
        click.echo(applier.apply(document))
    if wait:
        applier.wait_for_pods(timeout)


@click.command(epilog="Example: podidentity sandbox get pods -A")
@options.name
@options.namespace
@click.option("-A", "--all-namespaces", is_flag=True)
@click.option(
    "-o", "--output", type=click.Choice(["table", "yaml", "json", "name"]), default="table"
)
@click.argument("kind")
@click.argument("object_name", metavar="[NAME]", required=False)
def get(
    name: str,
    namespace: str,
    kind: str,
    object_name: str | None,
    output: str,
    *,
    all_namespaces: bool,
) -> None:
    """Print objects of a kind: pods, nodes, azureidentities and so on."""
    api = Api(options.plan_of(name))
    if object_name is None:  # `pod/x` is `pod x`, as kubectl has it
        kind, _, object_name = kind.partition("/")
    found = Kinds(api).of_word(kind)
    everywhere = all_namespaces and not object_name
    path = found.path(None if everywhere else namespace, object_name or "")
    if output == "table":
        rows = list(_rows(api.request("GET", path, accept=TABLE), with_namespace=everywhere))
        click.echo("\n".join(rows), nl=bool(rows))
        if not rows:
            click.echo("No resources found", err=True)
        return
    answer = api.request("GET", path)
    if output == "name":
        for item in [answer] if object_name else answer["items"]:
            click.echo(found.label(item["metadata"]["name"]))
        return
    if output == "json":
        click.echo(json.dumps(answer, indent=2))
        return
    import yaml  # a table needs none

    click.echo(yaml.safe_dump(answer, sort_keys=False), nl=False)


def _rows(table: Object, *, with_namespace: bool) -> Iterator[str]:
    """Yield the lines of a table that the API server made; none where it has no row."""
    shown = [at for at, each in enumerate(table["columnDefinitions"]) if not each["priority"]]
    rows = [[table["columnDefinitions"][at]["name"].upper() for at in shown]]
    rows += [[str(row["cells"][at]) for at in shown] for row in table["rows"]]
    if with_namespace:
        spaces = [row["object"]["metadata"].get("namespace", "") for row in table["rows"]]
        rows = [[space, *row] for space, row in zip(["NAMESPACE", *spaces], rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows if table["rows"] else ():
        line = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        yield "   ".join(line).rstrip()
