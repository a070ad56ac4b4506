"""What pods get while the agent is killed, stopped, updated and robbed of its rules at random."""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import os
import re
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from itertools import pairwise
from math import inf
from pathlib import Path
from random import Random
from time import perf_counter

from bench.bars import Bar, show
from bench.stage.asking import Answer, ask_once
from bench.stage.cluster import GROUP, NAMESPACE
from bench.stage.ground import BenchPod, add_pods, enter, remove_pods
from bench.stage.scene import say, scene
from bench.stage.storm import STOOD, Blow, Storm, cause_of, complain, draw
from bench.stage.traffic import Failure, Traffic, send
from podidentity_sandbox.azure.client import AzureOperator

PODS, IDENTITIES, RATE = 40, 8, 150
SECONDS_CALM = 3.0
"""Before and after the storm."""
WATCHED = 0.5
"""Seconds after a write by which the agent must have seen it, unless it was stopped meanwhile."""
_CHANGING, _COMING = "changing", "coming"
"""Selector of pods whose identity is changed, and of those whose binding comes and goes."""
_FREEZES = ("worker stopped", "worker hung", "API server paused")
_RECOVERY = 120.0
"""Seconds after the last blow within which everything goes on."""
_HOUR = (
    "An hour in which a blow falls each 10 s, compressed: --minutes 12 --every 2, which are some "
    "360 blows. A kubelet would let a program that ends so often wait; here it starts at once."
)
MEMORY = 140
"""MB; as for the most that an attack reaches."""


@dataclass(slots=True)
class Held:
    """A client id that a selector stands for, or "" for none, and when it was written."""

    client_id: str
    began: float = -inf
    """Before the write."""
    written: float = -inf
    """After it."""


@dataclass(slots=True)
class Clients:
    """The pods of the node, what each may get, and what each got."""

    storm: Storm
    random: Random
    traffic: Traffic = field(default_factory=Traffic)
    selectors: dict[str, list[Held]] = field(default_factory=dict)
    """What each selector stood for, the last now."""
    of_pod: dict[str, str] = field(default_factory=dict)
    """The selector of each pod, by uid."""
    pods: dict[int, BenchPod] = field(default_factory=dict)
    """By number, and so by address."""
    wrong: list[str] = field(default_factory=list)
    """Tokens of an identity that the pod never had."""
    stale: list[str] = field(default_factory=list)
    """Tokens of an identity that it had before."""
    changes: Counter[str] = field(default_factory=Counter)
    _asking: dict[int, asyncio.Task[None]] = field(default_factory=dict)
    _leaving: set[str] = field(default_factory=set)
    _ended: bool = False

    async def prepare(self) -> None:
        """Bind what changes, and start the pods."""
        stage = self.storm.stage
        for name, identity in ((_CHANGING, stage.identities[0]), (_COMING, stage.identities[2])):
            spec = {"type": 0, "clientID": identity.client_id, "resourceID": identity.resource_id}
            await stage.cluster.bind_as(name, spec)
            self.selectors[name] = [Held(identity.client_id)]
        for each in stage.identities:
            self.selectors[each.name] = [Held(each.client_id)]
        for number in range(PODS):
            await self._come(number)

    def ask(self) -> None:
        """Let each pod ask from now on."""
        for number in self.pods:
            self._begin(number)

    async def end(self) -> None:
        """Let no pod ask any more."""
        self._ended = True
        await asyncio.gather(*self._asking.values())

    async def once(self) -> list[str]:
        """Ask once for each pod; return who does not get what it should."""
        pods, found = list(self.pods.values()), []
        cgroups = self.storm.stage.cgroups
        answers = await asyncio.gather(*(ask_once(cgroups, pod) for pod in pods))
        for pod, answer in zip(pods, answers, strict=True):
            wanted = self.selectors[self.of_pod[pod.uid]][-1].client_id
            if answer.status != 200 or _client_of(answer) != wanted:
                found.append(f"{pod.name}: {answer.status} {answer.body[:200]!r}")
        return found

    # What changes.

    async def change(self) -> None:
        """Let pods come and go, and identities and bindings change, until cancelled."""
        async with asyncio.TaskGroup() as group:
            while True:
                await asyncio.sleep(self.random.uniform(0.4, 1.6))
                what = self.random.choices(["pod", "identity", "binding"], [4, 2, 1])[0]
                if what == "pod":
                    free = [number for number in self.pods if number in self._asking]
                    group.create_task(self._replace(self.random.choice(free)))
                elif what == "identity":
                    await self._change_identity()
                else:
                    await self._change_binding()

    async def _replace(self, number: int) -> None:
        """End a pod; start another one with its name and its address."""
        pod, asking = self.pods[number], self._asking.pop(number)
        self._leaving.add(pod.uid)
        await asking
        del self.pods[number]
        async with self.storm.cluster:
            await self.storm.stage.cluster.remove_pods([pod])
            await asyncio.to_thread(remove_pods, [pod])
            await self._come(number)
        self._begin(number)
        self.changes["pods replaced"] += 1

    async def _come(self, number: int) -> None:
        selector = self.random.choice(sorted(self.selectors))
        [pod] = await self.storm.stage.cluster.add_pods([number], {number: selector})
        self.of_pod[pod.uid] = selector
        await asyncio.to_thread(add_pods, [pod])
        self.pods[number] = pod

    def _begin(self, number: int) -> None:
        pod = self.pods[number]
        self._asking[number] = asyncio.create_task(
            send(
                self.traffic,
                self.storm.stage.cgroups,
                pod,
                keep=number % 2 == 0,
                pace=PODS / RATE,
                goes_on=lambda: not self._ended and pod.uid not in self._leaving,
            )
        )

    async def _change_identity(self) -> None:
        history = self.selectors[_CHANGING]
        first, second = self.storm.stage.identities[:2]
        to = second if history[-1].client_id == first.client_id else first
        path = f"{GROUP}/namespaces/{NAMESPACE}/azureidentities/{_CHANGING}"
        spec = {"clientID": to.client_id, "resourceID": to.resource_id}
        async with self._written(_CHANGING, to.client_id):
            await self.storm.stage.cluster.patch(path, {"spec": spec})
        self.changes["identities changed"] += 1

    async def _change_binding(self) -> None:
        if self.selectors[_COMING][-1].client_id:
            path = f"{GROUP}/namespaces/{NAMESPACE}/azureidentitybindings/{_COMING}"
            async with self._written(_COMING, ""):
                await self.storm.stage.cluster.request("DELETE", path)
            self.changes["bindings deleted"] += 1
        else:
            await self.bound()

    async def bound(self) -> None:
        """Make the binding that comes and goes, where it is away."""
        if self.selectors[_COMING][-1].client_id:
            return
        path = f"{GROUP}/namespaces/{NAMESPACE}/azureidentitybindings"
        body = {
            "apiVersion": "aadpodidentity.k8s.io/v1",
            "kind": "AzureIdentityBinding",
            "metadata": {"name": _COMING},
            "spec": {"azureIdentity": _COMING, "selector": _COMING},
        }
        async with self._written(_COMING, self.storm.stage.identities[2].client_id):
            await self.storm.stage.cluster.request("POST", path, body)

    @asynccontextmanager
    async def _written(self, selector: str, client_id: str) -> AsyncIterator[None]:
        async with self.storm.cluster:
            held = Held(client_id, began=perf_counter(), written=inf)
            self.selectors[selector].append(held)
            yield
            held.written = perf_counter()

    # What was answered.

    def hear(self, pod: BenchPod, began: float, answer: Answer) -> None:
        """Note a token that the pod must not have; called for each answer."""
        if answer.status != 200:
            return
        selector, client_id = self.of_pod[pod.uid], _client_of(answer)
        what = f"{pod.name} ({selector}) got a token of {client_id}"
        if client_id not in {held.client_id for held in self.selectors[selector]}:
            self.wrong.append(what)
        elif client_id not in self._may_be(selector, began, perf_counter()):
            self.stale.append(what)

    def is_due(self, failure: Failure) -> bool:
        """Whether the pod was refused as it must be: nothing is bound to it."""
        may_be = self._may_be(self.of_pod[failure.pod.uid], failure.began, failure.ended)
        return cause_of(failure) == "404" and "" in may_be

    def _may_be(self, selector: str, began: float, ended: float) -> set[str]:
        """Return the client ids, or "", that a request of this time may have met."""
        history = self.selectors[selector]
        found = {history[-1].client_id} if history[-1].began <= ended else set()
        for held, following in pairwise(history):
            if held.began <= ended and began <= self._known(following.written):
                found.add(held.client_id)
        return found

    def _known(self, written: float) -> float:
        """Return by when the agent knows of a write, for all that it was stopped meanwhile."""
        known = written + WATCHED
        for window in self.storm.windows:
            if window.kind in _FREEZES and window.overlaps(written, known):
                known = max(known, window.end + WATCHED)
        return known


def _client_of(answer: Answer) -> str:
    """Return whose token it is."""
    part = json.loads(answer.body)["access_token"].split(".")[1]
    return str(json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))["appid"])


async def measure(seed: int, seconds: float, every: float) -> list[Bar]:
    """Let a storm rage for so long; count what it did."""
    async with scene() as stage, AzureOperator(stage.plan) as azure:
        await stage.bind(IDENTITIES)
        kubeconfig = await stage.cluster.kubeconfig(stage.folder)
        storm = Storm(stage, azure, kubeconfig)
        clients = Clients(storm, Random(seed))  # noqa: S311 - it is to be repeated
        clients.traffic.heard = clients.hear
        await clients.prepare()
        if not await _leaks_are_seen(clients, azure):
            sys.exit("without an agent no pod reaches IMDS: this measures nothing")
        storm.start().await_ready()
        await storm.ready()
        await azure.clear_imds_requests()
        await clients.once()
        before = _descriptors(storm)
        blows = draw(seed, seconds, every)
        say(f"seed {seed}: {len(blows)} blows in {seconds:g} s")
        await _rage(storm, clients, blows, seconds)
        unserved = await clients.once()
        leaked = await _leaked(azure)
        await asyncio.wait_for(storm.finish(), 120)
        bars = [*_bars(storm, clients, leaked), *await _settled(storm, unserved, before)]
        storm.serving.stop()
        return [*bars, Bar("processes of ours that were left behind", len(_left_behind()), 1)]


async def _rage(storm: Storm, clients: Clients, blows: Sequence[Blow], seconds: float) -> None:
    clients.ask()
    await asyncio.sleep(SECONDS_CALM)
    watches = storm.tend(), storm.watch(), storm.watch_ourselves()
    watching = [asyncio.create_task(each) for each in watches]
    changing = asyncio.create_task(clients.change())
    bound = asyncio.get_running_loop().call_later(seconds + _RECOVERY, _give_up)
    await storm.run(blows)
    changing.cancel()
    with suppress(asyncio.CancelledError):
        await changing
    await clients.bound()
    bound.cancel()
    await asyncio.sleep(SECONDS_CALM)
    await clients.end()
    for each in watching:
        each.cancel()


def _give_up() -> None:
    """Say what does not go on, and end."""
    for task in asyncio.all_tasks():
        task.print_stack(limit=6)
    os._exit(1)


def _bars(storm: Storm, clients: Clients, leaked: int) -> Iterator[Bar]:
    traffic = clients.traffic
    failed = [each for each in traffic.failures if not clients.is_due(each)]
    others = [each for each in failed if not storm.explains(each)]
    causes = Counter(cause_of(each) for each in failed)
    say(f"{traffic.requests} requests, slowest {traffic.slowest:.1f} s")
    say(f"failed, by cause: {_counted(causes)}")
    due = len(traffic.failures) - len(failed)
    say(f"refused as they must be, for no binding was there: {due}; "
        f"silent for too long: {sum(each.was_late for each in failed)}")  # fmt: skip
    say(f"all clients stood: {sum(each.kind == STOOD for each in storm.windows)} times")
    say(f"blows: {_counted(storm.struck)}; spared: {_counted(storm.spared)}")
    again = storm.log().count("the next is started")
    say(f"changes: {_counted(clients.changes)}; repairs: {storm.repairs()}; "
        f"agents started: {len(storm.agents)}; programs started again: "
        f"{_counted(storm.restarted)}; workers: {again}")  # fmt: skip
    complain(storm, others)
    for block in re.findall(r"Traceback.*?(?=^20\d\d-)", storm.log(), re.DOTALL | re.MULTILINE):
        say(block[-3000:])
    for each in [*clients.wrong, *clients.stale][:10]:
        say(f"  {each}")
    yield Bar("tokens of a wrong identity", len(clients.wrong), 1)
    yield Bar("tokens after their binding or identity went", len(clients.stale), 1)
    yield Bar("leaked to IMDS", leaked, 1)
    yield Bar("failed requests that no blow explains", len(others), 1)
    yield Bar("defects in the agents' logs", storm.log().count("Traceback"), 1)
    yield Bar("the most memory of an agent, all processes, PSS, MB", storm.memory, MEMORY)


async def _settled(storm: Storm, unserved: Sequence[str], before: dict[str, int]) -> list[Bar]:
    """Look at what is left when all is calm."""
    for each in unserved[:5]:
        say(f"  {each}")
    # Lines: their numbers tell of repairs just before, in the storm.
    repairs = storm.repair_lines()
    process = await asyncio.create_subprocess_exec("nft", "flush", "ruleset")
    await process.wait()
    ends = perf_counter() + 30
    while storm.repair_lines() == repairs and perf_counter() < ends:  # noqa: ASYNC110 - a log of others
        await asyncio.sleep(0.05)
    await asyncio.sleep(2)  # for a second agent that would repair them, too
    repaired, now = storm.repair_lines() - repairs, _descriptors(storm)
    say(f"rules that were flushed afterwards were repaired {repaired} times")
    say(f"descriptors at the beginning: {_counted(before)}; at the end: {_counted(now)}")
    more = max(now[name] - before[name] for name in before)
    files = [path.name for path in storm.stage.folder.glob("handover/**/*") if not path.is_dir()]
    say(f"in the hand-over folder: {' '.join(sorted(files))}")
    return [
        Bar("afterwards: pods that are not served as they must be", len(unserved), 1),
        Bar(
            "afterwards: agents that repair flushed rules, beside 1",
            abs(repaired - 1),
            1,
        ),
        Bar("afterwards: descriptors of a process more than before", more, 8),
        Bar("afterwards: files in the hand-over folder", len(files), 4),
        Bar("afterwards: processes that nobody waited for", len(_zombies(storm)), 1),
    ]


def _descriptors(storm: Storm) -> dict[str, int]:
    roles = storm.serving.roles()
    return {name: len(list(Path(f"/proc/{pid}/fd").iterdir())) for name, pid in roles.items()}


def _zombies(storm: Storm) -> list[int]:
    """Return ended processes that are children of the agent's, and still there."""
    ours, found = set(storm.serving.pids()), []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if state == "Z" and int(parent) in ours:
                found.append(int(stat.parent.name))
    return found


def _left_behind() -> list[int]:
    """Return the processes of agents that still run, and end them."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            words = path.read_bytes().split(b"\0")
            if b"podidentity" in words and {b"net", b"serve"} & set(words):
                found.append(int(path.parent.name))
    for pid in found:
        os.kill(pid, signal.SIGKILL)
    return found


async def _leaks_are_seen(clients: Clients, azure: AzureOperator) -> bool:
    with suppress(EOFError, OSError):
        await ask_once(clients.storm.stage.cgroups, clients.pods[0])
    return await _leaked(azure) > 0


async def _leaked(azure: AzureOperator) -> int:
    """Return how many requests of pods IMDS itself has seen."""
    return sum(each["source"].startswith("10.244.") for each in await azure.imds_requests())


def _counted(counts: dict[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items())) or "none"


def main() -> int:
    """Measure in namespaces of our own, and print the table."""
    parser = argparse.ArgumentParser(
        prog="scripts/bench nmi_storm", description=__doc__, epilog=_HOUR
    )
    parser.add_argument("--seed", type=int, default=1, help="the same seed draws the same storm")
    parser.add_argument("--minutes", type=float, default=3.0, help="how long (%(default)s)")
    parser.add_argument(
        "--every",
        type=float,
        default=1.15,
        metavar="SECONDS",
        help="from one blow to the next, in the mean (%(default)s)",
    )
    parser.add_argument("--json", action="store_true", help="print the bars as data")
    given = parser.parse_args()
    enter("bench.nmi_storm")
    return show(
        asyncio.run(measure(given.seed, given.minutes * 60, given.every)), as_json=given.json
    )


if __name__ == "__main__":
    sys.exit(main())
