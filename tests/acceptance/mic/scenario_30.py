"""`./scripts/scenario-30`: the archived suite's load, with real pods on real nodes. See `--help`.

CI has 200 pods on nodes without a kubelet, which is MIC's part of it (test_other_ways.py). Here
each node has its kubelet and its NMI (`net` and `serve`), each pod is a process in a network of its
own, and every one of them asks for a token: that takes minutes and gigabytes.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import click

from podidentity_sandbox.node.client import execute
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import NAMED, named
from podidentity_sandbox.world.blueprint import MOST_NODES
from tests.acceptance.mic.controlled import TOKEN, VAULTS, Controlled, controlled
from tests.acceptance.mic.load import Load

_IDENTITIES = 20
_NODE_PODS = 240
"""What a node has addresses for, beside those of NMI and MIC."""
_NODE_MIB, _POD_MIB, _SPARE_MIB = 100, 2.75, 600
"""Of memory, as measured (docs/performance.md): a node with its kubelet and NMI; a pod, with what
kubelet, API server and kernel hold of it; all else."""
_SPARE_NEIGHBOURS = 500
"""For nodes and for other sandboxes, beside a pod's gateway and its node's entry for the pod."""
_NEIGHBOURS = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
"""Most of them in the kernel, whose one table is that of all nodes here: arp(7)."""
_ASKING = 16
"""Pods that ask at the same time."""
_PATIENCE = 1_800
"""Seconds of a step, which only one that fails uses up."""
_TOLD_EVERY = 10
"""Seconds between two lines of a step that goes on."""
_ASK = (
    "curl -s -m 120 -w '\\n%{http_code} %{time_total}' -H Metadata:true"
    f" '{TOKEN}&resource={VAULTS}'"
)


@click.command()
@click.option("--nodes", default=30, show_default=True, type=click.IntRange(1, MOST_NODES))
@click.option("--pods", default=2_000, show_default=True, type=click.IntRange(1))
@click.option("--namespaces", default=100, show_default=True, type=click.IntRange(1))
@click.option(
    "--weather",
    default="real",
    show_default=True,
    type=click.Choice(sorted({*NAMED} - {"storm"})),
    help="How long Azure and the API server take; docs/reference/sandbox.md has the words.",
)
def main(*, nodes: int, pods: int, namespaces: int, weather: str) -> None:
    """Run scenario 30: many pods of many namespaces on many nodes, each of which gets its token.

    Brings a sandbox up with so many nodes, enables pod identity with MIC, makes the pods, waits
    until each runs and is Assigned, has every pod ask for a token, and takes all of it down. Prints
    what it measured, and before that what it is at. Exits with 1 where a pod got no token, or that
    of another identity.

    \b
    Examples:
      ./scripts/scenario-30 --nodes 3 --pods 100 --namespaces 10
      ./scripts/scenario-30 --nodes 30 --pods 2000 --weather calm
    """  # noqa: D301 - click's own mark
    if refusal := _too_much(nodes, pods):
        raise click.ClickException(refusal)
    # Whoever ends it, by whatever signal, ends the sandbox with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    told = Told(time.monotonic())
    there = _available()
    told.say(f"{nodes} nodes, {pods} pods: some {_mebibytes(nodes, pods):,.0f} of {there:,.0f} MiB")
    with told.step("nodes, NMI and MIC are ready"):
        world = controlled("scenario-30", nodes=nodes, weather=named(weather))
        place = world.__enter__()
    try:
        wrong = _run(place, pods, namespaces, told, there)
    finally:
        with told.step("all is taken down"):
            world.__exit__(None, None, None)
    click.echo("\n".join(f"{what:<64} {figure}" for what, figure in told.figures))
    sys.exit(1 if wrong else 0)


def _mebibytes(nodes: int, pods: int) -> float:
    return _SPARE_MIB + nodes * _NODE_MIB + pods * _POD_MIB


def _too_much(nodes: int, pods: int) -> str:
    """Return why this machine cannot carry so many, and what to do; "" where it can."""
    if pods > nodes * _NODE_PODS:
        return (
            f"{nodes} nodes have room for {nodes * _NODE_PODS} pods: say more --nodes, fewer --pods"
        )
    wanted, there = _mebibytes(nodes, pods), _available()
    if wanted > there:
        return (
            f"{nodes} nodes and {pods} pods take some {wanted:,.0f} MiB of memory, and {there:,.0f}"
            " MiB are available: say fewer --nodes or --pods"
        )
    neighbours, places = 2 * pods + _SPARE_NEIGHBOURS, _neighbours()
    if neighbours > places:
        return (
            f"the kernel has place for {places:,} neighbours (ARP) of all its networks, and {pods}"
            f" pods with their nodes may have {neighbours:,}: packets would be lost or wait for"
            " seconds. Say fewer --pods; or, for all of this machine until it restarts,"
            f" `sysctl net.ipv4.neigh.default.gc_thresh3={neighbours}`"
        )
    return ""


@dataclass
class Told:
    """What a person is told: what goes on, and in the end the figures."""

    began: float
    figures: list[tuple[str, str]] = field(default_factory=list)
    _counted: float = 0.0

    def say(self, line: str) -> None:
        """Say it now, with the seconds since the begin."""
        click.echo(f"{time.monotonic() - self.began:6.0f} s  {line}", err=True)

    def count(self, done: int, of: int, what: str) -> None:
        """Say from time to time how far a step is."""
        if time.monotonic() > self._counted + _TOLD_EVERY:
            self._counted = time.monotonic()
            self.say(f"{done} of {of} {what}")

    @contextmanager
    def step(self, what: str) -> Iterator[None]:
        """Measure what a step takes."""
        began = self._counted = time.monotonic()
        yield
        self.figures.append((f"{what}, s", f"{time.monotonic() - began:.1f}"))
        self.say(what)


def _run(place: Controlled, pods: int, namespaces: int, told: Told, free: float) -> int:
    """Make the pods, wait for them and have them ask; return how many did not get their token."""
    nodes = [each.name for each in place.sandbox.plan.nodes]
    named_so = [f"load-{number}" for number in range(_IDENTITIES)]
    with told.step("identities, namespaces, bindings and grants are there"):
        identities = [place.identity(name) for name in named_so]
        load = Load(
            place=place, pods=pods, namespaces=namespaces, nodes=nodes, identities=identities
        )
        load.bind()
        for each in identities:
            place.sandbox.until_granted("load-0", each.client_id)
    with told.step("pods: made to the last that runs and is Assigned"):
        with told.step("pods: made"):
            load.make(lambda made: told.count(made, pods, "pods made"))
        _wait(load, told)
    megabytes = {name: _proportional(place.sandbox.processes(name)) for name in ("serve", "net")}
    told.figures += [
        ("memory of an agent, mean, MB", f"{sum(megabytes.values()) / len(nodes):.1f}"),
        ("memory of MIC, MB", f"{_proportional(place.sandbox.processes('mic')):.1f}"),
        ("memory that all of it takes, and others meanwhile, MiB", f"{free - _available():,.0f}"),
    ]
    with told.step(f"every pod asks for a token, {_ASKING} at a time"):
        answers = place.loop.run(_ask_all(load, told))
    wrong = Counter(answer.fault for answer in answers if answer.fault)
    for fault, count in wrong.most_common(10):
        told.say(f"{count} pods: {fault}")
    served = sorted(answer.seconds for answer in answers)
    told.figures += [
        ("a first token, by the pod's clock, p50, s", f"{_of(served, 0.5):.3f}"),
        ("a first token, by the pod's clock, p99, s", f"{_of(served, 0.99):.3f}"),
        ("the slowest, s", f"{served[-1]:.3f}"),
        ("pods without a token, or with that of another identity", str(wrong.total())),
    ]
    return wrong.total()


def _wait(load: Load, told: Told) -> None:
    """Return when each pod runs and is Assigned; say how far it is."""
    ends = time.monotonic() + _PATIENCE
    while True:
        running, states = load.running(), Counter(load.states())
        if running == load.pods == states["Assigned"] == states.total():
            return
        what = f"pods run, {states['Assigned']} are Assigned"
        if time.monotonic() > ends:
            raise click.ClickException(
                f"{running} of {load.pods} {what} in the end\n{load.place.told()}"
            )
        told.count(running, load.pods, what)
        time.sleep(1)


@dataclass(frozen=True)
class Answer:
    """What a pod was answered."""

    seconds: float
    fault: str = ""
    """"" where it is a token of its identity."""


async def _ask_all(load: Load, told: Told) -> list[Answer]:
    """Have each pod ask once."""
    places, found = asyncio.Semaphore(_ASKING), list[Answer]()
    by_name = {each.name: each for each in load.place.sandbox.plan.nodes}

    async def one(number: int) -> None:
        async with places:
            there = replace(load.place.sandbox.plan, nodes=(by_name[load.node(number)],))
            found.append(await _ask(there, load, number))
        told.count(len(found), load.pods, "pods have asked")

    async with asyncio.TaskGroup() as group:
        for number in range(load.pods):
            group.create_task(one(number))
    return found


async def _ask(plan: Plan, load: Load, number: int) -> Answer:
    """Ask in one pod, with one request and no second try."""
    command = ("sh", "-c", _ASK)
    ran = await execute(plan, load.namespace(number), f"load-{number}", command, timeout=_PATIENCE)
    body, _, last = ran.stdout.decode().rpartition("\n")
    status, seconds = last.split()
    if status != "200":
        return Answer(float(seconds), f"{status} {body[:200]}")
    claims = json.loads(body)["access_token"].split(".")[1]
    got = json.loads(base64.urlsafe_b64decode(claims + "=="))["appid"]
    own = load.identity(number).client_id
    return Answer(float(seconds), "" if got == own else f"a token of {got}, not of {own}")


def _of(ordered: Sequence[float], share: float) -> float:
    """Return the least figure that this share of all does not exceed."""
    return ordered[math.ceil(len(ordered) * share) - 1]


def _neighbours() -> float:
    """Return how many the kernel has place for; where that is not shown none is too many."""
    return int(_NEIGHBOURS.read_text()) if _NEIGHBOURS.exists() else math.inf


def _available() -> float:
    """Return the memory that programs may still take, in MiB (proc_meminfo(5))."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    return next(int(each.split()[1]) / 1024 for each in lines if each.startswith("MemAvailable:"))


def _proportional(pids: list[int]) -> float:
    """Return the proportional set size of processes, in MB."""
    total = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        total += next(int(each.split()[1]) for each in lines if each.startswith("Pss:"))
    return total * 1024 / 1e6


if __name__ == "__main__":
    main(prog_name="./scripts/scenario-30")
