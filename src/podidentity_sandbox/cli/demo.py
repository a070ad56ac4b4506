"""`podidentity sandbox demo`: brings a sandbox up, tells the whole story in it, takes it down.

The exit status is 0 only if every step showed what it must. `--json` gives one object a step.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.cli.shells import prepared
from podidentity_sandbox.demo import steps
from podidentity_sandbox.demo.prepare import prepare as prepare_azure
from podidentity_sandbox.demo.shell import Shell
from podidentity_sandbox.demo.story import (
    Printer,
    Step,
    StepResult,
    StoryContext,
    run_step,
    summary,
)
from podidentity_sandbox.plan import Network, Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.environment import (
    BROUGHT_BY,
    find_azure_cli,
    not_here,
    search_path,
)
from podidentity_sandbox.world.folder import NAME_VARIABLE
from podidentity_sandbox.world.lifecycle import bring_down, bring_up

Story = Sequence[tuple[str, Sequence[Step]]]


async def _run_story(
    plan: Plan, environment: Mapping[str, str], story: Story, printer: Printer | None
) -> list[StepResult]:
    shell = ["bash", "--noprofile", "--norc"]
    context = StoryContext(
        plan=plan, environment=environment, operator=await Shell.open(shell, environment)
    )
    try:
        results: list[StepResult] = []
        for title, chapter in story:
            if printer:
                printer.chapter(title)
            for step in chapter:
                if printer:
                    printer.begin(step)
                results.append(await run_step(context, step))
                if printer:
                    printer.end(results[-1])
        return results
    finally:
        for opened in (context.pod, context.operator):
            if opened is not None:
                await opened.close()


@click.command(
    epilog="Example: podidentity sandbox demo --keep",
)
@click.option("--name", default="demo", show_default=True, help="Name of the sandbox to bring up.")
@click.option("--rootless", is_flag=True, help="Use user namespaces even as root.")
@click.option("--keep", is_flag=True, help="Leave the sandbox up, and say how to look around.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object a step.")
@click.option(
    "--az",
    "with_az",
    is_flag=True,
    help="With the real az and kubectl: the whole walk-through.",
)
@click.option(
    "--kubernetes",
    metavar="FOLDER",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    help="A folder of etcd and Kubernetes' programs, which are its control plane then.",
)
def demo(
    name: str, *, rootless: bool, keep: bool, as_json: bool, with_az: bool, kubernetes: str | None
) -> None:
    """Bring a sandbox up, tell the whole story in it, and take it down.

    The exit status is 0 only if every step showed what it must. With --json each step is an object.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # it ends the sandbox as Ctrl-C does
    began = time.monotonic()
    printer = None if as_json else Printer()
    progress = (lambda _line: None) if as_json else click.echo
    if with_az:
        path = search_path(find_azure_cli(), ":".join(os.get_exec_path()))
        lacking = [name for name in BROUGHT_BY if shutil.which(name, path=path) is None]
        if lacking:
            raise SandboxError("\n".join(map(not_here, lacking)))
    # On a bridge, where a pod could speak with its neighbour's address: it is shown that none can.
    shape = Shape(rootless=rootless, network=Network.BRIDGE, kubernetes=kubernetes or "")
    plan = bring_up(name, shape, progress=progress)
    try:
        if with_az:
            folder = steps.find_walkthrough()
            os.chdir(folder.parents[1])  # its commands start where a person's do
            environment, story = {**os.environ, **prepared(plan)}, steps.read(folder / "steps")
        else:
            path = search_path("", ":".join(os.get_exec_path()))
            environment = {**os.environ, "PATH": path, NAME_VARIABLE: plan.name}
            story = steps.read(steps.STORY)
        results = asyncio.run(_run_story(plan, environment, story, printer))
    finally:
        if not keep:
            bring_down(name)
    if as_json:
        for result in results:
            click.echo(json.dumps(asdict(result)))
    else:
        summary(results, time.monotonic() - began, plan, keep=keep)
    sys.exit(0 if all(result.ok for result in results) else 1)


@click.command(epilog='Example: eval "$(podidentity sandbox prepare)"')
@options.name
def prepare(name: str) -> None:
    """Make the Azure of the walk-through: a managed identity, and a vault it may read.

    Prints the identity's ids as shell exports. It stands in for `az group create`, `az identity
    create`, `az keyvault create`, `secret set` and `set-policy`; a second run changes nothing.
    """
    made = asyncio.run(prepare_azure(options.plan_of(name)))
    click.echo(f"export IDENTITY_ID={shlex.quote(made.identity_id)}")
    click.echo(f"export IDENTITY_CLIENT_ID={shlex.quote(made.client_id)}")
