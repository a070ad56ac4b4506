"""A storm: what befalls an agent and its node at random, drawn from a seed, and what each may cost.

The agent is two programs, as in its manifest; what ends is started again at once, as a kubelet
starts a container that has run for a while.

A failed request is expected only where the agent says itself that it cannot serve, or where its
connection had been accepted by a process that was killed (`hands`). Some of the blows may cost
nothing at all.
"""

from __future__ import annotations

import asyncio
import re
import signal
import socket
import subprocess
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from random import Random
from time import perf_counter

from bench.stage.agent import PROBE_PORT, Agent, runtime_of
from bench.stage.hands import Hands, seize, send, state
from bench.stage.parts import process_of
from bench.stage.scene import Scene, say
from bench.stage.traffic import Failure
from podidentity.supervisor.main import PROBE_SECONDS, PROBE_SOCKET
from podidentity_sandbox.azure.client import AzureOperator

TARGET = "169.254.25.79"
CHANGES_AT_ONCE = 3
_FIRST, _SHORTEST_GAP = 2.0, 0.3
_HANGS = 6.0
"""Seconds for which a worker is stopped so that its supervisor takes it for hung."""
_READY_SECONDS = 60.0
_TENDED = 0.01
_PROBED = 1.2
"""Seconds by which `/readyz` tells what is now: an answer is given again for one."""
_FAILED_BEFORE = 4.0
"""Seconds for which failures of IMDS are remembered, and some more."""
_LOG_REPAIRS = re.compile(
    r"interception repaired.*?(?:\((\d+) more just before\))?[^(]*$", re.MULTILINE
)

_PRIORITIES_OF_THE_KERNEL = ("0", "32766", "32767")

_AWAY = frozenset({"503", "unreachable"})
"""Callers cannot be proved; a new pod with an address that another had is not let through."""
_GAP = frozenset({"reset", "refused", "503", "timeout", "unreachable"})
"""Nobody is there."""


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of blow."""

    weight: int
    expected: frozenset[str] = frozenset()
    """Causes of failures that it explains, until the agent is ready again."""
    longest: float = 0.0
    """Seconds, where it lasts; half a second at least."""


KINDS = {
    "worker killed": Kind(5),
    "worker stopped": Kind(3, longest=2.0),
    "worker hung": Kind(1),
    "net killed": Kind(2, _AWAY),
    "net stopped": Kind(2, _AWAY, longest=3.0),
    "supervisor stopped": Kind(2, longest=3.0),
    "serve killed": Kind(1, _GAP),
    "serve restarted": Kind(1, _GAP),
    "ruleset flushed": Kind(4),
    "tables deleted": Kind(3),
    "routing rules removed": Kind(3),
    "address removed": Kind(3),
    "agent restarted": Kind(1, _GAP),
    "agent killed": Kind(1, _GAP),
    "agent updated": Kind(3),
    "update killed": Kind(2),
    "API server paused": Kind(3, longest=3.0),
    "IMDS slow": Kind(1, frozenset({"503", "429", "timeout"}), longest=3.0),
    "IMDS fails": Kind(1, frozenset({"503", "429", "500"}), longest=3.0),
}
_RULES_AWAY_UNREPAIRED = "rules away, and nobody to repair them"
"""An answer under way has the wrong source address then, and its client waits in vain."""
_NOTHING_KNOWN = "API server paused, worker new"
"""It cannot read the cluster."""
STOOD = "all clients stood"
"""This process did not run, whatever for: that alone explains no failure."""
_STANDS, _LOOKS = 1.0, 0.1
"""Seconds for which it must have stood to be told, and between two looks."""
_MORE = {
    STOOD: frozenset[str](),
    _RULES_AWAY_UNREPAIRED: frozenset({"timeout", "reset"}),
    _NOTHING_KNOWN: frozenset({"503", "404", "timeout"}),
}
_NET_AWAY = ("net killed", "net stopped", "agent restarted", "agent killed")
_WORKER_NEW = (
    "worker killed",
    "worker hung",
    "serve killed",
    "serve restarted",
    "agent restarted",
    "agent killed",
    "agent updated",
)


@dataclass(frozen=True, slots=True)
class Blow:
    """Something that befalls the agent."""

    at: float
    """Seconds from the beginning of the storm."""
    kind: str
    seconds: float
    """How long it lasts, where it does."""


def draw(seed: int, seconds: float, every: float) -> list[Blow]:
    """Return the blows of a storm that lasts so long, `every` seconds apart in the mean.

    Always the same for one seed.
    """
    random, now, blows = Random(seed), _FIRST, []  # noqa: S311 - it is to be repeated
    weights = [kind.weight for kind in KINDS.values()]
    while now < seconds:
        [name] = random.choices(list(KINDS), weights)
        lasts = random.uniform(0.5, max(0.5, KINDS[name].longest))
        blows.append(Blow(now, name, _HANGS if name == "worker hung" else lasts))
        now += random.uniform(_SHORTEST_GAP, 2 * every - _SHORTEST_GAP)
    return blows


@dataclass(slots=True)
class Window:
    """When a blow, and what it explains, was felt; in `perf_counter` seconds."""

    kind: str
    begin: float
    end: float = inf

    def overlaps(self, begin: float, end: float) -> bool:
        """Whether any of it lies between."""
        return self.begin <= end and begin <= self.end


def cause_of(failure: Failure) -> str:
    """Return a word for why a request failed."""
    word = failure.why.split()[0]
    if word == "status":
        return failure.why.split()[1].rstrip(":")
    if "[Errno 113]" in failure.why:
        return "unreachable"
    names = {"ConnectionRefusedError": "refused", "TimeoutError": "timeout"}
    return "reset" if failure.is_reset else names.get(word, word)


@dataclass(slots=True)
class Storm:
    """The agents of one node, and what befalls them."""

    stage: Scene
    azure: AzureOperator
    kubeconfig: Path
    flags: Sequence[str] = ()
    agents: list[Agent] = field(default_factory=list)
    windows: list[Window] = field(default_factory=list)
    hands: list[Hands] = field(default_factory=list)
    """Of each process that was killed."""
    restarted: Counter[str] = field(default_factory=Counter)
    """How often each program was started again."""
    struck: Counter[str] = field(default_factory=Counter)
    spared: Counter[str] = field(default_factory=Counter)
    """Blows that would have been two at once, where one at a time is promised to be harmless."""
    cluster: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(CHANGES_AT_ONCE))
    """To be held while something is written to the API server."""
    memory: float = 0.0
    """The most that one agent had, in MB."""
    _tended: list[Agent] = field(default_factory=list)
    """Agents whose programs are started again when they end."""
    _ending: list[asyncio.Task[None]] = field(default_factory=list)
    _agent: asyncio.Lock = field(default_factory=asyncio.Lock)
    _busy: set[str] = field(default_factory=set)

    @property
    def serving(self) -> Agent:
        """The agent that pods are served by, or will be."""
        return self.agents[-1]

    # The agents.

    def start(self) -> Agent:
        """Start one, beside the one that serves if there is one."""
        folder, number = self.stage.folder, len(self.agents)
        handover = folder / "handover"
        handover.mkdir(mode=0o700, exist_ok=True)
        agent = Agent.start(
            folder,
            self.stage.cgroups,
            node=self.stage.cluster.node,
            kubeconfig=self.kubeconfig,
            flags=[
                "--operation-mode=managed",
                f"--audit-log={folder}/audit-{number}.jsonl",
                "--prometheus-port=9090",
                f"--handover-dir={handover}",
                *self.flags,
            ],
            log=f"nmi-{number}.log",
        )
        self.agents.append(agent)
        self._tended.append(agent)
        return agent

    async def tend(self) -> None:
        """Start again each program that ends, until cancelled."""
        while True:
            for agent in self._tended:
                self.restarted.update(agent.start_what_ended())
            await asyncio.sleep(_TENDED)

    async def ready(self) -> None:
        """Return when the agent says that pods are served."""
        end = perf_counter() + _READY_SECONDS
        while not await _readyz():
            if perf_counter() > end:
                raise TimeoutError(f"not ready after {_READY_SECONDS:g} s: {self.log()[-3000:]}")
            await asyncio.sleep(0.05)

    async def watch(self) -> None:
        """Note the most memory that an agent has, until cancelled."""
        while True:
            for agent in self.agents:
                if any(each.poll() is None for each in agent.processes):
                    self.memory = max(self.memory, await asyncio.to_thread(agent.pss))
            await asyncio.sleep(1)

    async def watch_ourselves(self) -> None:
        """Note when this process, and so each client, stands, until cancelled."""
        while True:
            before = perf_counter()
            await asyncio.sleep(_LOOKS)
            if perf_counter() - before >= _LOOKS + _STANDS:
                self.windows.append(Window(STOOD, before, perf_counter()))

    async def finish(self) -> None:
        """Return when every agent but the one that serves has ended."""
        await asyncio.gather(*self._ending)

    def log(self) -> str:
        """Return what all agents logged."""
        return "".join(agent.log.read_text() for agent in self.agents)

    def repairs(self) -> int:
        """Return how often rules, routes or address were put right."""
        return sum(1 + int(more or 0) for more in _LOG_REPAIRS.findall(self.log()))

    def repair_lines(self) -> int:
        """Return in how many lines of their logs agents say that they put something right."""
        return len(_LOG_REPAIRS.findall(self.log()))

    # The blows.

    async def run(self, blows: Sequence[Blow]) -> None:
        """Let all of them fall; return when the agent has recovered from the last."""
        began = perf_counter()
        async with asyncio.TaskGroup() as group:
            for blow in blows:
                await asyncio.sleep(began + blow.at - perf_counter())
                group.create_task(self._strike(blow))

    async def _strike(self, blow: Blow) -> None:
        if blow.kind in self._busy:
            self.spared[blow.kind] += 1
            return
        self._busy.add(blow.kind)
        try:
            fall: Callable[[Blow], Awaitable[bool]] = {
                "worker killed": self._kill,
                "net killed": self._kill,
                "worker stopped": self._stop,
                "worker hung": self._stop,
                "net stopped": self._stop,
                "supervisor stopped": self._stop,
                "serve killed": self._end_serve,
                "serve restarted": self._end_serve,
                "ruleset flushed": self._take_rules,
                "tables deleted": self._take_rules,
                "routing rules removed": self._take_routes,
                "address removed": self._take_routes,
                "agent restarted": self._restart,
                "agent killed": self._restart,
                "agent updated": self._update,
                "update killed": self._update,
                "API server paused": self._pause,
                "IMDS slow": self._spoil,
                "IMDS fails": self._spoil,
            }[blow.kind]
            (self.struck if await fall(blow) else self.spared)[blow.kind] += 1
        finally:
            self._busy.discard(blow.kind)

    @asynccontextmanager
    async def felt(self, kind: str) -> AsyncIterator[Window]:
        """Note that a blow is felt until the agent is ready again."""
        window = Window(kind, perf_counter())
        self.windows.append(window)
        yield window
        await asyncio.sleep(_PROBED)
        await self.ready()
        window.end = perf_counter()

    async def _kill(self, blow: Blow) -> bool:
        role = blow.kind.split()[0]
        pid = self.serving.roles().get(role)
        if pid is None:
            return False
        if role == "net":
            async with self.felt(blow.kind):
                await _killed([pid])
            return True
        # The next one accepts what waits at once: only what this one had may fail.
        window = Window(blow.kind, perf_counter())
        self.windows.append(window)
        self.hands.append(await seize([pid]))
        await _killed([pid])
        window.end = perf_counter()
        return True

    async def _stop(self, blow: Blow) -> bool:
        pid = self.serving.roles().get(blow.kind.split()[0])
        if pid is None or state(pid) == "T":
            return False
        async with self.felt(blow.kind):
            found = await seize([pid])
            if blow.kind == "worker hung":
                self.hands.append(found)
            await asyncio.sleep(blow.seconds)
            send(pid, signal.SIGCONT)
        return True

    async def _end_serve(self, blow: Blow) -> bool:
        """End the container `serve` alone; all that runs in it goes with its first process."""
        program = self.serving.processes[1]
        if program.poll() is not None:
            return False
        async with self.felt(blow.kind):
            if blow.kind == "serve killed":
                await _killed(self.serving.pids_below(program.pid))
            else:
                program.terminate()
                while _lives(program.pid):  # noqa: ASYNC110 - a program is waited for by who tends
                    await asyncio.sleep(0.001)
        return True

    async def _take_rules(self, blow: Blow) -> bool:
        if not _routes_stand():
            return False
        commands = ["flush ruleset"]
        if blow.kind == "tables deleted":
            commands = [f"delete {each}" for each in _tables()]
        await self._take([["nft", each] for each in commands], blow)
        return True

    async def _take_routes(self, blow: Blow) -> bool:
        if not _rules_stand():
            return False
        commands = [["ip", "address", "delete", f"{TARGET}/32", "dev", "lo"]]
        if blow.kind == "routing rules removed":
            commands = [["ip", "rule", "delete", "priority", each] for each in _priorities()]
        await self._take(commands, blow)
        return True

    async def _take(self, commands: Sequence[Sequence[str]], blow: Blow) -> None:
        """Take rules away, as another program of the node does; some may be gone already."""
        now = perf_counter()
        away = any(each.kind in _NET_AWAY and each.overlaps(now, now) for each in self.windows)
        window = Window(_RULES_AWAY_UNREPAIRED if away else blow.kind, now)
        self.windows.append(window)
        for command in commands:
            _run(*command)
        if away:
            await asyncio.sleep(_PROBED)
        await self.ready()
        window.end = perf_counter()

    async def _restart(self, blow: Blow) -> bool:
        if self._agent.locked():
            return False
        async with self._agent, self.felt(blow.kind):
            agent = self.serving
            self._tended.remove(agent)
            # A supervisor that is stopped cannot end until it goes on.
            await asyncio.to_thread(agent.stop, kill=blow.kind == "agent killed")
            self.start()
        return True

    async def _update(self, blow: Blow) -> bool:
        if self._agent.locked():
            return False
        async with self._agent:
            before, following = self.serving, self.start()
            if blow.kind == "update killed":
                await asyncio.sleep(blow.seconds * 3)
                async with self.felt(blow.kind):
                    self._tended.remove(following)
                    self.hands.append(await seize(following.pids()))
                    await asyncio.to_thread(following.stop, kill=True)
                    self.agents.remove(following)
                    self.agents.insert(0, following)
                return True
            window = Window(blow.kind, perf_counter())
            self.windows.append(window)
            # As a DaemonSet with surge: the old pod is told to end when the new one is ready.
            await self._serves(following)
            self._tended.remove(before)
            self._ending.append(asyncio.create_task(asyncio.to_thread(before.stop)))
            window.end = perf_counter()
        return True

    async def _serves(self, agent: Agent) -> None:
        """Ask as the kubelet does, until it is ready."""
        path = runtime_of(agent.log) / PROBE_SOCKET
        end = perf_counter() + _READY_SECONDS
        while not await asyncio.to_thread(_probed, path):
            if perf_counter() > end:
                raise RuntimeError(
                    f"the next agent does not serve: {agent.log.read_text()[-3000:]}"
                )
            await asyncio.sleep(0.02)

    async def _pause(self, blow: Blow) -> bool:
        pid = process_of("podidentity_sandbox.cluster")
        for _ in range(CHANGES_AT_ONCE):
            await self.cluster.acquire()
        try:
            # What was written before is known by then.
            await asyncio.sleep(0.5)
            began = perf_counter()
            async with self.felt(blow.kind):
                send(pid, signal.SIGSTOP)
                await asyncio.sleep(blow.seconds)
                send(pid, signal.SIGCONT)
        finally:
            for _ in range(CHANGES_AT_ONCE):
                self.cluster.release()
        now = perf_counter()
        if any(each.kind in _WORKER_NEW and each.overlaps(began, now) for each in self.windows):
            self.windows.append(Window(_NOTHING_KNOWN, began, now))
        return True

    async def _spoil(self, blow: Blow) -> bool:
        if len(self._busy & {"IMDS slow", "IMDS fails"}) > 1:
            return False
        async with self.felt(blow.kind):
            effect = "slow, seconds: 2" if blow.kind == "IMDS slow" else "500"
            self.azure.weather(f"imds=[{{effect: {effect}}}]")
            await asyncio.sleep(blow.seconds)
            self.azure.weather("imds=[]")
            await asyncio.sleep(_FAILED_BEFORE)
        return True

    # What came of them.

    def explains(self, failure: Failure) -> bool:
        """Whether a blow, or its client, is expected to make a request fail so."""
        cause = cause_of(failure)
        if failure.was_late and failure.is_reset:
            return True
        return failure.was_in(self.hands) or any(
            cause in self._expected(window.kind) and window.overlaps(failure.began, failure.ended)
            for window in self.windows
        )

    @staticmethod
    def _expected(kind: str) -> frozenset[str]:
        return _MORE[kind] if kind in _MORE else KINDS[kind].expected

    def around(self, failure: Failure) -> list[str]:
        """Return what befell the agent shortly before and during a request."""
        return [
            f"{window.kind} {window.begin - failure.began:+.2f} to "
            f"{window.end - failure.began:+.2f} s"
            for window in self.windows
            if window.overlaps(failure.began - 3, failure.ended)
        ]


async def _readyz() -> bool:
    try:
        async with asyncio.timeout(0.5):
            reader, writer = await asyncio.open_connection("127.0.0.1", PROBE_PORT)
            try:
                writer.write(b"GET /readyz HTTP/1.1\r\nHost: n\r\nConnection: close\r\n\r\n")
                return b" 200 " in await reader.readline()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return False


def _probed(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking, suppress(OSError):
        asking.settimeout(PROBE_SECONDS + 1)
        asking.connect(str(path))
        asking.send(b"ready")
        return asking.recv(100).startswith(b"ok")
    return False


async def _killed(pids: Sequence[int]) -> None:
    """Kill processes, and return when they have ended."""
    for pid in pids:
        send(pid, signal.SIGKILL)
    while any(_lives(pid) for pid in pids):  # noqa: ASYNC110 - who waits for it is its parent
        await asyncio.sleep(0.001)


def _lives(pid: int) -> bool:
    return state(pid) not in {"Z", "X", ""}


def _run(*command: str) -> str:
    """Run a program of the node; return what it prints, whatever its status."""
    return subprocess.run(command, capture_output=True, check=False).stdout.decode()


def _rules_stand() -> bool:
    """Whether pods are redirected, or refused, by nf_tables."""
    listed = _run("nft", "list", "table", "ip", "podid")
    return "reject with tcp reset" in listed and "dnat to" in listed


def _routes_stand() -> bool:
    """Whether the routing rules keep pods from IMDS."""
    listed = _run("ip", "rule")
    return "169.254.169.254 blackhole" in listed and "goto" in listed


def _tables() -> list[str]:
    """Return our tables as nft calls them."""
    return [line for line in _run("nft", "list", "tables").splitlines() if " podid" in line]


def _priorities() -> list[str]:
    """Return the priorities of our routing rules."""
    found = [line.partition(":")[0] for line in _run("ip", "rule").splitlines()]
    return [each for each in found if each not in _PRIORITIES_OF_THE_KERNEL]


def complain(storm: Storm, failures: Sequence[Failure]) -> None:
    """Tell of failures, one of each kind with what befell the agent then."""
    alike: dict[str, list[Failure]] = {}
    for failure in failures:
        alike.setdefault(re.sub(r"'[^']*'|\d+\.\d+\S*", "…", failure.why), []).append(failure)
    for each in alike.values():
        first = each[0]
        say(f"  {len(each)} times, such as {first.pod.name} after "
            f"{first.ended - first.began:.2f} s: {first.why}")  # fmt: skip
        for line in storm.around(first):
            say(f"    {line}")
