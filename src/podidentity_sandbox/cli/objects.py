"""Commands on the cluster's objects: apply, get. For more, kubectl is the tool."""

from __future__ import annotations

import json
from typing import Any, TextIO

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.world.api import Api, Object
from podidentity_sandbox.world.apply import Applier, Kind, Kinds, documents, why_not


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
@click.option("-o", "--output", type=click.Choice(["table", "yaml", "json", "name"]))
@click.argument("kind")
@click.argument("object_name", metavar="[NAME]", required=False)
def get(
    name: str,
    namespace: str,
    kind: str,
    object_name: str | None,
    output: str | None,
    *,
    all_namespaces: bool,
) -> None:
    """Print objects of a kind: pods, nodes, azureidentities and so on."""
    api = Api(options.plan_of(name))
    kind, object_name = _split(kind, object_name)
    found = Kinds(api).of_word(kind)
    where = None if all_namespaces and not object_name else namespace
    answer = api.request("GET", found.path(where, object_name or ""))
    if output in ("json", "yaml"):
        click.echo(_document(answer, output))
        return
    items = [answer] if object_name else answer["items"]
    if output == "name":
        rows = [found.label(item["metadata"]["name"]) for item in items]
    else:
        rows = _table(found, items)
    click.echo("\n".join(rows), nl=bool(rows))
    if not items:
        click.echo("No resources found", err=True)


def _split(kind: str, name: str | None) -> tuple[str, str | None]:
    """Accept `pod/x` for `pod x`, as kubectl does."""
    first, slash, second = kind.partition("/")
    return (first, second) if slash and name is None else (kind, name)


def _document(answer: Object, output: str) -> str:
    if output == "json":
        return json.dumps(answer, indent=2)
    import yaml  # a table needs none

    text: str = yaml.safe_dump(answer, sort_keys=False)
    return text.rstrip("\n")


def _table(kind: Kind, items: list[Object]) -> list[str]:
    columns, cells = {
        "Pod": (["READY", "STATUS", "RESTARTS", "IP", "NODE"], _of_pod),
        "Node": (["STATUS", "CREATED"], _of_node),
    }.get(kind.kind, (["CREATED"], _of_any))
    rows = [[*(["NAMESPACE"] if kind.namespaced else []), "NAME", *columns]]
    for item in items:
        meta = item["metadata"]
        row = [meta["namespace"]] if kind.namespaced else []
        rows.append([*row, meta["name"], *cells(item)])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    if not items:
        return []
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]


def _of_any(item: Object) -> list[str]:
    return [item["metadata"]["creationTimestamp"]]


def _of_node(node: Object) -> list[str]:
    conditions = node.get("status", {}).get("conditions") or []
    ready = any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)
    state = ["Ready" if ready else "NotReady"]
    state += ["SchedulingDisabled"] if node.get("spec", {}).get("unschedulable") else []
    return [",".join(state), *_of_any(node)]


def _of_pod(pod: Object) -> list[str]:
    status: dict[str, Any] = pod.get("status", {})
    containers = status.get("containerStatuses") or []
    is_ready = sum(bool(container.get("ready")) for container in containers)
    going = "Terminating" if "deletionTimestamp" in pod["metadata"] else why_not(pod).split(" ")[0]
    return [
        f"{is_ready}/{len(pod['spec']['containers'])}",
        going,
        str(sum(container.get("restartCount", 0) for container in containers)),
        status.get("podIP", ""),
        pod["spec"].get("nodeName", ""),
    ]
