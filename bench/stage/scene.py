"""A node with pods and identities, ready for the agent: what every benchmark of NMI begins with."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.bars import Bar, show, wants_json
from bench.stage.agent import Agent, on_other_core
from bench.stage.cluster import BenchCluster, Identity
from bench.stage.ground import BenchPod, Cgroups, add_pods, build, enter
from bench.stage.parts import parts
from podidentity_sandbox.plan import Plan

METRICS_PORT = 9090
_FEATURES = ("--audit-log={folder}/audit.jsonl", f"--prometheus-port={METRICS_PORT}")
"""Everything that writes something down is on."""

_FLUSHED = 0.2
"""Seconds by which everything is in the files."""


def say(line: str) -> None:
    """Tell the person who waits what goes on."""
    print(line, file=sys.stderr)


@dataclass(slots=True)
class Scene:
    """The node; `pods` are those that it has by now."""

    folder: Path
    plan: Plan
    cgroups: Cgroups
    cluster: BenchCluster
    identities: list[Identity] = field(default_factory=list)
    pods: list[BenchPod] = field(default_factory=list)

    async def bind(self, count: int) -> None:
        """Attach `count` identities to the node, and let the benchmark's namespace use them."""
        self.identities = await self.cluster.attach(count)
        await self.cluster.permit("use", [each.client_id for each in self.identities])
        await self.cluster.bind(self.identities)

    async def add_pods(
        self, numbers: Iterable[int], *, selector: str = "", accounts: str = "default"
    ) -> list[BenchPod]:
        """Start pods; without `selector` the identities go round."""
        wanted = list(numbers)
        names = [each.name for each in self.identities]
        labels = {each: selector or names[each % len(names)] for each in wanted}
        pods = await self.cluster.add_pods(wanted, labels, accounts=accounts)
        add_pods(pods)
        self.pods += pods
        return pods

    async def written(self) -> int:
        """Return how many lines both log and audit have got, and empty them: they are large."""
        await asyncio.sleep(_FLUSHED)
        counts = []
        for name in ("nmi.log", "audit.jsonl"):
            with (self.folder / name).open("rb+") as file:
                counts.append(
                    sum(chunk.count(b"\n") for chunk in iter(lambda: file.read(1 << 20), b""))
                )
                file.truncate(0)
        return min(counts)

    @contextlib.asynccontextmanager
    async def agent(
        self, *flags: str, mode: str = "managed", source: Path | None = None
    ) -> AsyncIterator[Agent]:
        """Run the agent with everything on that writes something down.

        `source`: the tree of another commit; None for this one.
        """
        agent = await self.start_agent(*flags, mode=mode, source=source)
        try:
            agent.await_ready()
            yield agent
        finally:
            agent.stop()

    async def start_agent(
        self,
        *flags: str,
        mode: str = "managed",
        source: Path | None = None,
        log: str = "nmi.log",
    ) -> Agent:
        """Start the agent and return at once; the caller stops it."""
        kubeconfig = await self.cluster.kubeconfig(self.folder)
        return Agent.start(
            self.folder,
            self.cgroups,
            node=self.cluster.node,
            kubeconfig=kubeconfig,
            flags=[f"--operation-mode={mode}", *_features(self.folder), *flags],
            source=source,
            log=log,
        )


def _features(folder: Path) -> Iterator[str]:
    told = subprocess.run(
        [sys.executable, "-m", "podidentity", "nmi", "--help"], capture_output=True, check=True
    )
    for flag in _FEATURES:
        name = flag.partition("=")[0]
        if name.encode() in told.stdout:
            yield flag.format(folder=folder)
        else:
            say(f"this agent has no {name}: measured without")


@contextlib.asynccontextmanager
async def scene(*, crowd: int = 0) -> AsyncIterator[Scene]:
    """Set up the node, with `crowd` identities of other nodes; take it down at the end."""
    on_other_core()
    build()
    with tempfile.TemporaryDirectory(prefix="podidentity-bench-") as name:
        folder = Path(name)
        with Cgroups.made() as cgroups, parts(folder) as plan:
            async with BenchCluster(plan) as cluster:
                await cluster.install()
                if crowd:
                    say(f"making {crowd} identities that are no concern of the node")
                    await cluster.crowd(crowd)
                yield Scene(folder=folder, plan=plan, cgroups=cgroups, cluster=cluster)


def show_in_namespaces(module: str, measure: Callable[[], Coroutine[Any, Any, list[Bar]]]) -> None:
    """Measure in namespaces of our own, print the table, and end with its exit status."""
    as_json = wants_json()
    enter(module)
    sys.exit(show(asyncio.run(measure()), as_json=as_json))
