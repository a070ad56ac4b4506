"""Commands that bring a sandbox up and take it down.

What they need of cryptography and HTTP is imported when they run: help is not to wait for it.
"""

from __future__ import annotations

import json
import re
import time
from pathlib import Path

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.cli.worlds import facts
from podidentity_sandbox.node.cri.containerd import names_in
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.node.cri.pause import SHELL
from podidentity_sandbox.plan import Network, Pool, PoolKind
from podidentity_sandbox.world.blueprint import MOST_NODES, Shape
from podidentity_sandbox.world.environment import built_images, runtime_tools
from podidentity_sandbox.world.folder import base_folder
from podidentity_sandbox.world.inspection import proof

_POOL = re.compile(
    r"(?P<kind>uniform|flexible|machines)=(?P<nodes>[1-9][0-9]*)"
    r"(?:,(?P<group>[\w().-]{1,90})(?:,(?P<subscription>[\w-]{1,64}))?)?",
    re.ASCII,
)


def _pools(_: click.Context, __: click.Parameter, given: tuple[str, ...]) -> tuple[Pool, ...]:
    """Return the pools that the option names; raise click.BadParameter."""
    pools: list[Pool] = []
    for text in given:
        found = _POOL.fullmatch(text)
        if found is None:
            raise click.BadParameter(f"{text!r} is not KIND=NODES[,GROUP[,SUBSCRIPTION]]")
        pools.append(
            Pool(
                kind=PoolKind(found["kind"]),
                nodes=int(found["nodes"]),
                group=found["group"] or "",
                subscription=found["subscription"] or "",
            )
        )
    if sum(pool.nodes for pool in pools) > MOST_NODES:
        raise click.BadParameter(f"a sandbox has at most {MOST_NODES} nodes")
    return tuple(pools)


@click.command(epilog="Example: podidentity sandbox up --nodes 3 --network bridge")
@options.name
@click.option(
    "--nodes", type=click.IntRange(1, MOST_NODES), default=2, show_default=True, help="How many."
)
@click.option(
    "--network",
    type=click.Choice([each.value for each in Network]),
    default=Network.ROUTED.value,
    show_default=True,
    help="How pods are joined to their node: each by a link and a route of its own, as Azure CNI"
    " and Calico do it, or all by one bridge, as kubenet does.",
)
@click.option("--rootless", is_flag=True, help="Use a user namespace, even as root.")
@click.option(
    "--runtime",
    type=click.Choice(["programs", "containerd"]),
    default="programs",
    show_default=True,
    help="What runs pods: this machine's programs, or containerd with images.",
)
@click.option(
    "--image",
    "images",
    multiple=True,
    metavar="ARCHIVE",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True),
    help="OCI archive for containerd; may be repeated.  [default: what ./scripts/image built]",
)
@click.option(
    "--kubernetes",
    type=click.Path(exists=True, file_okay=False, resolve_path=True),
    default=None,
    metavar="FOLDER",
    help="A folder of etcd and Kubernetes' programs, which are its control plane then.",
)
@click.option(
    "--real-nodes",
    is_flag=True,
    help="Let kubelets, containerd and kube-proxy of --kubernetes FOLDER be the nodes. Needs root.",
)
@click.option(
    "--node-init-taints",
    "init_taints",
    default="",
    metavar="KEY=VALUE:EFFECT,…",
    help="Taints with which nodes join the cluster the first time, as `az aks create` has them.",
)
@click.option(
    "--pool",
    "pools",
    multiple=True,
    metavar="KIND=NODES[,GROUP[,SUBSCRIPTION]]",
    callback=_pools,
    help="A pool of nodes, instead of --nodes; may be repeated. Its machines are instances of a"
    " `uniform` scale set, virtual machines of a `flexible` one, or `machines` alone; in the"
    " cluster's group and subscription, or in others of these names.",
)
@click.option(
    "--weather",
    "sky",
    default="calm",
    show_default=True,
    metavar="calm|real|storm|FILE",
    help="How long changes of Azure and of the cluster take, and which requests fail.",
)
@click.option("--weather-seed", "seed", metavar="SEED", help="Decides what befalls which request.")
@click.option("--json", "as_json", is_flag=True, help="Print what was made as JSON.")
def up(
    name: str,
    *,
    nodes: int,
    network: str,
    rootless: bool,
    runtime: str,
    images: tuple[str, ...],
    kubernetes: str | None,
    real_nodes: bool,
    init_taints: str,
    pools: tuple[Pool, ...],
    sky: str,
    seed: str | None,
    as_json: bool,
) -> None:
    """Bring a sandbox up; returns when all its nodes are Ready."""
    from podidentity_sandbox.cli.weathers import given as given_weather
    from podidentity_sandbox.kubernetes.nodes import TRUST
    from podidentity_sandbox.world.lifecycle import bring_up

    began = time.monotonic()
    progress = (lambda _: None) if as_json else (lambda line: click.echo(f"  {line}", err=True))
    given = None
    if real_nodes and kubernetes is None:
        raise click.UsageError("--real-nodes needs --kubernetes FOLDER, which has their programs")
    if runtime == "containerd" or real_nodes:
        if rootless:
            raise click.UsageError("containerd needs root: its containers have users of their own")
        given = RuntimeOptions(tools=str(runtime_tools()), images=images or built_images())
    try:
        shape = Shape(
            nodes=nodes,
            rootless=rootless,
            network=Network(network),
            kubernetes=kubernetes or "",
            real_nodes=real_nodes,
            init_taints=init_taints,
            pools=pools,
        )
        plan = bring_up(
            name,
            shape,
            runtime=given,
            weather=given_weather(sky, seed),
            progress=progress,
        )
    except KeyboardInterrupt:
        click.echo(f"Nothing of sandbox {name!r} remains.", err=True)
        raise
    seconds = time.monotonic() - began
    if as_json:
        click.echo(json.dumps({**facts(plan), "seconds": round(seconds, 3)}))
        return
    option = "" if name == "default" else f" --name {name}"
    known = (
        [SHELL, *(name for archive in given.images for name in _names(archive))] if given else []
    )
    enable = "podidentity enable" + (f" --image {known[-1]}" if known[1:] else "")
    enable += f" --proxy-secret {TRUST}" if real_nodes else ""
    shown = "This machine's programs stand in for every image; a pod without a command idles."
    if known:
        shown = f"containerd runs the pods; its images are {', '.join(known)}."
    following = (
        (f"podidentity sandbox shell{option}", "a shell for kubectl, az and podidentity"),
        (enable, "pod identity on every node"),
        (f"podidentity sandbox down{option}", "take all of it away"),
    )
    click.echo(f"Sandbox {name!r} is up after {seconds:.1f} s ({proof(plan)}).\n{shown}\n\nNext:")
    for command, why in following:
        click.echo(f"  {command:<50} # {why}")


def _names(archive: str) -> list[str]:
    return sorted(names_in(Path(archive)))


@click.command(epilog="Example: podidentity sandbox down --all")
@options.name
@click.option("--all", "everything", is_flag=True, help="Every sandbox of yours.")
def down(name: str, *, everything: bool) -> None:
    """End a sandbox and remove all of it, also what a crash left."""
    from podidentity_sandbox.world.lifecycle import Outcome, bring_down, names

    said = {
        Outcome.RUNNING: "is down",
        Outcome.REMAINS: "had crashed; its remains are removed",
        Outcome.NOTHING: "is not running; there was nothing to remove",
    }
    wanted = names(base_folder()) if everything else [name]
    for each in wanted:
        click.echo(f"Sandbox {each!r} {said[bring_down(each)]}.")
    if not wanted:
        click.echo("No sandbox is running.")
