"""Scenarios: others change our rules, under a constant stream of new connections."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any
from unittest import mock

from podidentity.kernel.interception import Interception
from podidentity.kernel.nftables import Nftables, NftablesError
from podidentity.kernel.routing import Routing
from podidentity.kernel.rules import LINK_LOCAL, Redirect, RedirectTable
from tests.fakes import FakeClock
from tests.kernel.agent import WallClock, Watched
from tests.kernel.topology import ANSWERED, PODS, Agent, Imds, ask, command

REMOVALS = (["nft", "flush", "ruleset"], ["nft", "delete", "table", "ip", "podid"])
_WORKERS = 12


@dataclass
class Stream:
    """New connections from all pods, one after the other by each of a few workers."""

    patience: float = ANSWERED
    """Seconds that each waits for its answer."""
    answered: Counter[str] = field(default_factory=Counter)
    """How many were answered by `agent`, `imds` or `nobody`."""
    _progress: asyncio.Event = field(default_factory=asyncio.Event)

    @property
    def total(self) -> int:
        return self.answered.total()

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        async with asyncio.TaskGroup() as group:
            workers = [
                group.create_task(self._work(list(PODS)[n % len(PODS)])) for n in range(_WORKERS)
            ]
            yield
            for worker in workers:
                worker.cancel()

    async def more(self, connections: int) -> None:
        """Return when so many more have been answered."""
        target = self.total + connections
        while self.total < target:
            self._progress.clear()
            await self._progress.wait()

    async def _work(self, pod: str) -> None:
        for number in itertools.count():
            answer = await ask(pod, f"/{pod}/{number}", patience=self.patience)
            self.answered[answer["who"]] += 1
            self._progress.set()


async def drift(*, removals: int, between: int, copy: bool = True) -> dict[str, Any]:
    """Another process takes the rules away, time and again, `between` connections apart."""
    # Without the copy a connection may lose its rules, and waits for nothing.
    imds, stream = Imds(), Stream(patience=ANSWERED if copy else 3)
    loop = asyncio.get_running_loop()
    repairs = 0
    async with imds.serving(), Agent.running(copy=copy) as agent, stream.flowing():
        await stream.more(between)
        began = loop.time()
        for number in range(removals):
            await command(*REMOVALS[number % len(REMOVALS)])
            repairs = await agent.tell(f"repairs {number + 1}")
            await stream.more(between)
        took = loop.time() - began
        problems = await agent.tell("problems")
        leaked, total = len(imds.seen), stream.total
    return {
        "connections": total,
        "answered": stream.answered,
        "leaked": leaked,
        "repairs": repairs,
        "problems": problems,
        "seconds": took,
    }


async def unguarded(*, connections: int) -> int:
    """Return how many of so many connections leak where nobody guards: that leaks are seen."""
    imds, stream = Imds(), Stream()
    async with imds.serving(), Agent.running(guard=False, copy=False), stream.flowing():
        await command("nft", "flush ruleset")
        await command("ip", "rule", "del", "pref", "3")
        await stream.more(connections)
    return len(imds.seen)


async def replaces(*, times: int, between: int) -> dict[str, Any]:
    """The agent replaces its own rules, time and again."""
    imds, stream = Imds(), Stream()
    async with imds.serving(), Agent.running() as agent, stream.flowing():
        for _ in range(times):
            await agent.tell("install")
            await stream.more(between)
        repairs = await agent.tell("repairs 0")
    return {"answered": stream.answered, "leaked": len(imds.seen), "repairs": repairs}


EDITS = {
    "a rule before ours": ["nft", "insert rule ip podid intercept accept"],
    "a table asleep": ["nft", "add table ip podid { flags dormant; }"],
    "a chain emptied": ["nft", "flush chain ip podid guard_local"],
    "a chain added": ["nft", "add chain ip podid more"],
    "everything flushed": ["nft", "flush ruleset"],
    "IMDS opened": ["ip", "rule", "del", "pref", "3"],
    "the node's own way barred": ["ip", "rule", "del", "pref", "2"],
    "the end of that way removed": ["ip", "rule", "del", "pref", "6"],
    "the way past netfilter opened": ["ip", "rule", "del", "pref", "1"],
    "the route of that way removed": ["ip", "route", "flush", "table", "2579"],
    "the address removed": ["ip", "addr", "del", f"{LINK_LOCAL}/32", "dev", "lo"],
}


async def edits() -> dict[str, Any]:
    """Another process changes something of ours; and something that is not ours."""
    found: dict[str, Any] = {}
    async with Agent.running() as agent:
        for number, (what, edit) in enumerate(EDITS.items(), 1):
            await command(*edit)
            repairs = await agent.tell(f"repairs {number}")
            problems = await agent.tell("problems")
            found[what] = {"repairs": repairs - number, "problems": problems}
        await command("nft", "add table ip other")
        await command("ip", "rule", "add", "pref", "7", "nop")
        await command("ip", "addr", "add", "10.250.0.1/32", "dev", "lo")
        await agent.tell("checked")
        found["repairs"] = await agent.tell("repairs 0") - len(EDITS)
        found["tables"] = await command("nft", "list tables")
        found["ip rule"] = await command("ip", "rule")
        found["addresses"] = await command("ip", "-br", "addr", "show", "dev", "lo")
    return found


async def unrepaired() -> dict[str, list[str]]:
    """Return what is found to differ after each edit, where nobody repairs it."""
    redirect = Redirect()
    table = RedirectTable(redirect, uplink="eth0")
    interception = Interception(redirect, WallClock())
    found = {}
    with Nftables() as nft, contextlib.closing(Routing(redirect)) as routing:

        def differences() -> list[str]:
            try:
                listed = nft.run(table.listing())
            except NftablesError as error:
                return [*routing.differences(), str(error)]
            return [*routing.differences(), *table.differences(listed)]

        for what, edit in EDITS.items():
            interception.install()
            found[f"before {what}"] = differences()
            await command(*edit)
            found[what] = differences()
    return found


async def rivals() -> dict[str, Any]:
    """Two agents guard one node, as in a rolling update, and the table is deleted."""
    async with Agent.running() as one, Agent.running(listen=False) as other:
        await command("nft", "delete table ip podid")
        # Each answers after what it was told of before; a quarrel would go on all the time.
        for _ in range(200):
            repairs = [await one.tell("repairs 0"), await other.tell("repairs 0")]
        return {"repairs": sum(repairs), "problems": await one.tell("problems")}


async def nameless() -> dict[str, Any]:
    """Install where no file names the protocols, as in the image; return what is said of it."""
    await command("mount", "--bind", "/dev/null", "/etc/protocols")
    interception = Interception(Redirect(), FakeClock(), copy=False)
    with contextlib.closing(interception):
        interception.install()
        return {"problems": interception.problems(), "warnings": interception.warnings()}


async def misread() -> dict[str, Any]:
    """What libnftables lists is never what was set; each try of the guard is noted."""
    clock = FakeClock()
    interception = Interception(Redirect(), clock, copy=False)
    found: dict[str, Any] = {"tries": []}
    interception.install()
    with (
        contextlib.closing(interception),
        mock.patch.object(RedirectTable, "differences", return_value=["printed in another way"]),
        mock.patch.object(Nftables, "run", autospec=True, side_effect=Nftables.run) as run,
    ):
        guard = asyncio.create_task(interception.guard())
        for number in (1, 2, 3):
            await clock.somebody_slept(1.0, number)
            # Its own changes are told of meanwhile, and may not bring the next try forward.
            await command("nft", "list", "tables")
            made = [each for each in run.call_args_list if '"delete"' in each.args[1]]
            found["tries"].append(len(made))
            found["problems"] = interception.problems()
            clock.advance(1.0)
        guard.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await guard
        found["repairs"] = interception.repairs
        interception.install()
        found["installed"] = interception.problems()
    return found


async def undone(*, edit: str, times: int) -> dict[str, Any]:
    """Another process undoes so many repairs, each between the repair and its reading back."""
    clock = FakeClock()
    interception = Watched(Redirect(), copy=False, clock=clock)
    found: dict[str, Any] = {}
    interception.install()
    left = Interception._left

    def undo(self: Interception) -> list[str]:
        if undoing.call_count <= times:
            subprocess.run(EDITS[edit], check=True)
        return left(self)

    with (
        contextlib.closing(interception),
        mock.patch.object(Interception, "_left", autospec=True, side_effect=undo) as undoing,
    ):
        guard = asyncio.create_task(interception.guard())
        await interception.checked()
        await command(*EDITS[edit])
        repaired = asyncio.create_task(interception.repaired(1))
        paused = asyncio.create_task(clock.somebody_slept(1.0, 1))
        await asyncio.wait({repaired, paused}, return_when=asyncio.FIRST_COMPLETED)
        found["undone"] = undoing.call_count - 1
        found["paused"] = clock.slept.count(1.0)
        found["problems"] = interception.problems()
        for each in (guard, repaired, paused):
            each.cancel()
        await asyncio.wait({guard, repaired, paused})
    return found


async def disputed() -> dict[str, Any]:
    """Two agents with other flags guard one node; then one of them ends."""
    found: dict[str, Any] = {}
    async with Agent.running() as one:
        async with Agent.running(listen=False, redirect={"listen_port": 2580}) as other:
            while not (problems := await one.tell("problems")):
                await one.tell("checked")
            found["problems"] = problems
            await other.kill()
        # It has seen all that the other did when it has seen and undone what comes after that.
        await command("nft", "add chain ip podid more")
        while "chain more" in await command("nft", "list table ip podid"):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
        found["agent"] = await ask("p1", "/agent")
    return found


_MORE = ["nft", "add chain ip podid more"]


async def undone_each_time(*, takes: float = 0.0, after: float = 0.0) -> dict[str, Any]:
    """Return how many repairs there are before the first pause of a second, and after each pause.

    A repair takes so many seconds, and is undone so many after it. Gives up at 60 repairs.
    """
    clock = FakeClock()
    interception = Watched(Redirect(), copy=False, clock=clock)
    found: dict[str, Any] = {"repairs": []}
    interception.install()
    repair, check = Interception._repair, Watched.check

    def slowly(self: Interception) -> tuple[list[str], list[str]]:
        clock.advance(takes)
        return repair(self)

    async def undone(self: Watched) -> bool:
        clock.advance(after)
        done = await check(self)
        await asyncio.to_thread(subprocess.run, _MORE, check=True)
        return done

    with (
        contextlib.closing(interception),
        mock.patch.object(Interception, "_repair", slowly),
        mock.patch.object(Watched, "check", undone),
    ):
        guard = asyncio.create_task(interception.guard())
        many = asyncio.create_task(interception.repaired(60))
        for number in (1, 2, 3):
            paused = asyncio.create_task(clock.somebody_slept(1.0, number))
            await asyncio.wait({paused, many}, return_when=asyncio.FIRST_COMPLETED)
            found["repairs"].append(interception.repairs)
            found["problems"] = interception.problems()
            clock.advance(1.0)
            paused.cancel()
        for each in (guard, many):
            each.cancel()
        await asyncio.wait({guard, many, paused})
    return found


_STORM = """
from podidentity.kernel.nftables import Nftables
nft = Nftables()
for _ in range(300):
    nft.run("flush ruleset")
"""


async def _are_back() -> None:
    """Return when our rules are there: the kernel may tell the agent of the last flush later."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(RuntimeError):
                await command("nft", "list table ip podid")
                return
            await asyncio.sleep(0.02)


async def storm(*, copy: bool) -> dict[str, Any]:
    """Another process flushes all rules in a loop, as fast as it can."""
    imds, stream = Imds(), Stream()
    answers = 0
    async with imds.serving(), Agent.running(copy=copy) as agent, stream.flowing():
        storming = asyncio.create_task(command(sys.executable, "-c", _STORM))
        while not storming.done():
            await agent.tell("repairs 0")
            answers += 1
        await storming
        repairs = await agent.tell("repairs 1")
        await _are_back()
        await agent.tell("healthy")
        problems = await agent.tell("problems")
    return {
        "answers": answers,
        "repairs": repairs,
        "problems": problems,
        "leaked": len(imds.seen),
    }
