"""Commands on a running sandbox as a whole: status, part."""

from __future__ import annotations

import json

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.inspection import Status, ask, memory_limits, proof
from podidentity_sandbox.world.inspection import status as look


@click.command(epilog="Example: podidentity sandbox status -o json")
@options.name
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def status(name: str, output: str) -> None:
    """Say whether a sandbox runs, what its parts do, and where it is."""
    found = look(Folder.of(name))
    if output == "json":
        parts = {"supervisor": found.supervisor, "parts": found.parts}
        click.echo(json.dumps({**facts(found.plan), **parts}, indent=2))
    else:
        click.echo("\n".join(_told(found)))


def _told(found: Status) -> list[str]:
    from podidentity_sandbox import weather

    plan = found.plan
    rows = [("PART", "STATE", "PID", "MEMORY")]
    for part in found.parts:
        ended = "" if part["exit"] is None else f" ({part['exit']})"
        memory = part["memory_kib"]
        shown = "-" if memory is None else f"{memory / 1024:.0f} MiB"
        rows.append((part["name"], part["state"] + ended, str(part["pid"] or "-"), shown))
    return [
        f"Sandbox {plan.name!r} is running (process {found.supervisor}).",
        f"{proof(plan)}.",
        f"{memory_limits(plan)}.",
        f"{str(weather.read(plan.path)).capitalize()}.",
        f"API server 127.0.0.1:{plan.apiserver_port}, "
        f"proxy to Azure 127.0.0.1:{plan.azure_proxy_port}, folder {plan.folder}",
        "",
        *(f"{row[0]:<36} {row[1]:<12} {row[2]:>8} {row[3]:>8}" for row in rows),
    ]


@click.command(epilog="Example: podidentity sandbox part pause cluster")
@options.name
@click.argument("order", type=click.Choice(["pause", "resume", "kill", "start"]))
@click.argument("part")
def part(name: str, order: str, part: str) -> None:
    """Take a part away and bring it back: cluster, azure or a node.

    A paused part lets callers wait and loses nothing. A killed cluster keeps its objects, a killed
    Azure its resources and keys; a killed node's pods end, and it starts as a machine that was
    switched on.
    """
    plan = options.plan_of(name)
    done = ask(Folder(plan.name, plan.path.parent).control, {"op": order, "part": part})
    click.echo(f"{part} is {done['state']}")


def facts(plan: Plan) -> dict[str, object]:
    """Return what `up` and `status` say of a sandbox as data."""
    from podidentity_sandbox import weather  # not for `part`, which tells none

    limited_by = "v2" if plan.memory_root == plan.cgroup_root else "v1"
    return {
        "name": plan.name,
        "folder": plan.folder,
        "rootless": plan.rootless,
        "memory_limits": limited_by if plan.memory_root else None,
        "kubeconfig": str(plan.kubeconfig),
        "apiserver_port": plan.apiserver_port,
        "azure_proxy_port": plan.azure_proxy_port,
        "nodes": [node.name for node in plan.nodes],
        "network": plan.nodes[0].network,
        "weather": weather.as_json(weather.read(plan.path)),
    }
