"""Commands on one pod: a program inside it, and what it wrote."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlencode

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.node.client import ExecFailed, execute_attached, request_for
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import Api, Object


@click.command(epilog="Example: podidentity sandbox exec -n shop orders-0 -- ls /tmp")
@options.name
@options.namespace
@click.option("-c", "--container", help="Which container; the default one if not given.")
@click.option("-i", "--stdin", is_flag=True, help="Pass standard input on.")
@click.argument("pod")
@click.argument("command", nargs=-1, required=True)
@click.pass_context
def execute(
    ctx: click.Context,
    *,
    name: str,
    namespace: str,
    container: str | None,
    pod: str,
    command: tuple[str, ...],
    stdin: bool,
) -> None:
    """Run a program in a pod; its exit code is this command's.

    For a terminal: kubectl exec -it.
    """
    plan = options.plan_of(name)
    found = _pod(plan, namespace, pod)
    node = found["spec"].get("nodeName")
    if not node:
        raise SandboxError(f"pod {found['metadata']['name']} is on no node yet")
    try:
        request = request_for(namespace, found["metadata"]["name"], container, command)
        code = execute_attached(plan, plan.node(node), request, interactive=stdin)
    except ExecFailed as cause:
        raise SandboxError(str(cause)) from cause
    ctx.exit(code)


@click.command(epilog="Example: podidentity sandbox logs -n kube-system nmi-x7k2p --tail 20")
@options.name
@options.namespace
@click.option("-c", "--container", help="Which container; the default one if not given.")
@click.option("-f", "--follow", is_flag=True, help="Go on until interrupted.")
@click.option("--tail", type=click.IntRange(min=0), help="Only so many lines from the end.")
@click.option("--part", help="A part of the sandbox instead: cluster, azure, world or a node.")
@click.argument("pod", required=False)
def logs(
    *,
    name: str,
    namespace: str,
    container: str | None,
    tail: int | None,
    part: str | None,
    pod: str | None,
    follow: bool,
) -> None:
    """Print the output of a pod, or of a part of the sandbox."""
    if (part is None) == (pod is None):
        raise click.UsageError("name a pod, or a part with --part")
    plan = options.plan_of(name)
    if part is not None:
        _show_part(_part_log(plan, part), follow=follow, tail=tail)
        return
    word = str(pod).removeprefix("pod/")
    container = container or _default_container(_pod(plan, namespace, word))
    query = {"container": container, "tailLines": tail, "follow": "true" if follow else None}
    given = urlencode({key: value for key, value in query.items() if value is not None})
    for chunk in Api(plan).stream(f"/api/v1/namespaces/{namespace}/pods/{word}/log?{given}"):
        click.echo(chunk, nl=False)


def _show_part(log: Path, *, follow: bool, tail: int | None) -> None:
    lines = "+1" if tail is None else str(tail)
    import subprocess  # only here

    # tail(1) is told of new lines by the kernel; reading the file here would mean polling.
    command = ["tail", "-n", lines, *(["-f"] if follow else []), str(log)]
    subprocess.run(command, check=False, stdin=subprocess.DEVNULL)


def _pod(plan: Plan, namespace: str, word: str) -> Object:
    return Api(plan).request(
        "GET", f"/api/v1/namespaces/{namespace}/pods/{word.removeprefix('pod/')}"
    )


def _default_container(pod: Object) -> str:
    annotations = pod["metadata"].get("annotations") or {}
    first = pod["spec"]["containers"][0]["name"]
    return str(annotations.get("kubectl.kubernetes.io/default-container", first))


def _part_log(plan: Plan, part: str) -> Path:
    log = plan.logs / f"{part}.log"
    if not log.is_file():
        there = ", ".join(sorted(path.stem for path in plan.logs.glob("*.log")))
        raise SandboxError(f"no part {part!r}; there are {there}")
    return log
