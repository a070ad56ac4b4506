"""Everything that can happen in a small world: two hosts, two identities, two pods, two faults.

One pod comes on each host, needs one identity each, and goes; the grace is none, so each identity
is attached and detached. Every pair of faults is tried: the first at any call of the undisturbed
course, the second at any later call until faults stop. What is called about the two hosts is the
same but for their names, so the first fault is tried on one of them alone.

In two more worlds the pods stay, and their AzureIdentity or their binding goes for good in place
of them. Until then all is as in the first one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from podidentity.mic.calls import (
    Action,
    AskPermission,
    CreateRecord,
    DeleteRecord,
    ListLedgers,
    ListUse,
    PatchHost,
    PollOperation,
    ReadHost,
    ReadLedger,
    ReadRecord,
    UpdateRecord,
    WriteLedger,
)
from tests.mic.simulator import Mic, Scenario, Step, World

_READ = ("unreachable", "crash_after", "pause")
_WRITE = ("conflict", "lost", "late", "crash_before", "crash_after", "pause")
_CHANGE = (*_WRITE, "timeout", "throttle", "preempt", "broken")
KINDS: dict[type, tuple[str, ...]] = {
    PatchHost: _CHANGE,
    PollOperation: ("unreachable", "preempt", "broken", "crash_after", "pause"),
    **dict.fromkeys((WriteLedger, CreateRecord, UpdateRecord, DeleteRecord), _WRITE),
    **dict.fromkeys((ReadHost, ReadLedger, ListUse, ListLedgers, ReadRecord, AskPermission), _READ),
}
"""What can go wrong with each call; what comes to the same is named once. Conditions and events
change nothing else, so nothing goes wrong with them."""

GOES = 12.0
"""Seconds at which what a pod needs ends."""

SMALL = Scenario(
    steps=(
        *(
            step
            for number in (0, 1)
            for step in (
                Step(0.0, "node", (f"n{number}", number)),
                Step(0.0, "identity", ("blue", f"id-{number}", number)),
                Step(0.0, "binding", ("blue", f"b-{number}", f"id-{number}", f"app-{number}")),
                Step(1.0, "pod", ("blue", f"pod-{number}", f"app-{number}", f"n{number}")),
                Step(GOES, "delete_pod", ("blue", f"pod-{number}")),
            )
        ),
    ),
    faults={},
    grace=0.0,
    hosts=2,
    mics=2,
    operation=1.0,
    reconcile=600.0,
    rest=150.0,
    turns=False,
)


def _without_pods_going(what: str, prefix: str) -> Scenario:
    """Return the small world in which AzureIdentities or bindings go, and not the pods."""
    stays = (step for step in SMALL.steps if step.at < GOES)
    gone = (Step(GOES, f"delete_{what}", ("blue", f"{prefix}-{number}")) for number in (0, 1))
    return replace(SMALL, steps=(*stays, *gone))


IDENTITIES_GO = _without_pods_going("identity", "id")
BINDINGS_GO = _without_pods_going("binding", "b")

THREE_PODS = replace(
    SMALL,
    steps=(
        *SMALL.steps,
        Step(1.0, "pod", ("blue", "pod-2", "app-0", "n0")),
        Step(6.0, "delete_pod", ("blue", "pod-2")),
        Step(20.0, "pod", ("blue", "pod-2", "app-1", "n0")),
        Step(30.0, "delete_pod", ("blue", "pod-2")),
    ),
    reconcile=120.0,
    turns=True,
)
"""A third pod shares an identity with the first, goes before it, and comes again with the other.

Hosts and ledgers are read once more before faults stop.
"""

Placed = tuple[int, str]
"""A fault: the number of the call, and what goes wrong."""


class Watched(World):
    """A world that notes its calls until faults stop: later ones cannot fail."""

    def __init__(self, scenario: Scenario) -> None:
        super().__init__(scenario)
        self.calls: list[tuple[float, Action]] = []

    def _execute(self, mic: Mic, call: object) -> None:
        before = self.effects
        super()._execute(mic, call)  # type: ignore[arg-type]
        if self.effects != before and not self.calm:
            self.calls.append((self.now, call.action))  # type: ignore[attr-defined]


class Seen:
    """The states of small worlds: what the API server, Azure and each MIC have, without times."""

    def __init__(self) -> None:
        self.states: set[int] = set()
        self.calls = 0

    def __str__(self) -> str:
        return f"{len(self.states)} different states after {self.calls} calls"

    def note(self, world: World) -> None:
        """Count the state of a world."""
        self.calls += 1
        self.states.add(hash((_objects(world), _azure(world), _processes(world))))


def _objects(world: World) -> tuple[object, ...]:
    ledgers = (
        (host.name, *map(frozenset, (book.attached, book.attaching, book.detaching)))
        for host, (book, _) in world.ledgers.items()
    )
    records = ((ref, entry.value[0].state) for ref, entry in world.objects["record"].items())
    pods = ((ref, entry.value.node) for ref, entry in world.objects["pod"].items())
    return (*map(frozenset, (ledgers, records, pods)),)


def _azure(world: World) -> tuple[object, ...]:
    return tuple(
        (frozenset(there.listed), there.machines, there.state, bool(there.operation))
        for there in world.arm.values()
    )


def _processes(world: World) -> tuple[object, ...]:
    return tuple(
        (mic.number, mic.leads, mic.paused_until > world.now) for mic in world.mics if mic.alive
    )


class Counted(World):
    """A world of which the states are counted, after each call."""

    def __init__(self, scenario: Scenario, seen: Seen) -> None:
        super().__init__(scenario)
        self._states = seen

    def _execute(self, mic: Mic, call: object) -> None:
        super()._execute(mic, call)  # type: ignore[arg-type]
        self._states.note(self)


def _play(scenario: Scenario, seen: Seen | None) -> None:
    (World(scenario) if seen is None else Counted(scenario, seen)).run()


def watched(scenario: Scenario) -> list[tuple[float, Action]]:
    """Return the calls of a scenario in order, each with its time; raise Violation."""
    world = Watched(scenario)
    world.run()
    return world.calls


def is_of_second_host(action: Action) -> bool:
    """Whether a call is about the second host or its pod."""
    return "set1" in str(action) or "pod-1" in str(action)


def first_faults(world: Scenario = SMALL, since: float = 0.0) -> Iterator[Placed]:
    """Yield every single fault from that time on."""
    for number, (at, action) in enumerate(watched(world)):
        if at >= since and not is_of_second_host(action):
            yield from ((number, kind) for kind in KINDS.get(type(action), ()))


def second_faults(first: Placed, world: Scenario = SMALL) -> Iterator[Placed]:
    """Yield every fault that can follow `first`."""
    calls = watched(replace(world, faults=dict([first])))
    for number, (_, action) in enumerate(calls):
        if number > first[0]:
            yield from ((number, kind) for kind in KINDS.get(type(action), ()))


def singly(world: Scenario, seen: Seen | None = None) -> int:
    """Play a world with any one fault; return how many there are; raise Violation."""
    faults = [
        (number, kind)
        for number, (_, action) in enumerate(watched(world))
        for kind in KINDS.get(type(action), ())
    ]
    for fault in faults:
        _play(replace(world, faults=dict([fault])), seen)
    return len(faults)


def explored(firsts: Iterable[Placed], world: Scenario = SMALL, seen: Seen | None = None) -> int:
    """Play all pairs of faults with these first ones; return their number; raise Violation."""
    pairs = 0
    for first in firsts:
        for second in second_faults(first, world):
            pairs += 1
            try:
                _play(replace(world, faults=dict([first, second])), seen)
            except AssertionError as error:
                raise AssertionError(f"{first}, {second}: {error}") from error
    return pairs
