"""Scenarios from seeds, and the smallest one of those that fail."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from random import Random

from tests.mic.simulator import (
    FAULTS,
    Scenario,
    Step,
    Violation,
    World,
    few_collections,
    journal,
)

SEEDS = 1_000
"""Seeds in the suite; each planted bug (`bugs`) is found by one of the first hundred."""
LEAST_PODS, LEAST_CALLS = 12, 100
"""What a seed is at least: pods that are there from the beginning, and calls that are done."""
NAMESPACES = ("blue", "green")
SELECTORS = ("app", "job", "etl")
NODES = ("n0", "n1", "n2", "n3", "n4")
PODS = (*(f"web-{number}" for number in range(8)), "web-1-blue-stock", "long-" * 47 + "name")
"""The two last make names of records that another has, or that are too long."""
IDENTITIES = ("orders", "stock")


def scenario(seed: int) -> Scenario:
    """Return a scenario: 3 hosts, 12 pods at least and 32 on average, faults in some calls."""
    chance = Random(seed)
    steps = [Step(0.0, "node", (node, number % 3)) for number, node in enumerate(NODES)]
    for namespace in NAMESPACES:
        for number, name in enumerate(IDENTITIES):
            upper = chance.random() < 0.3
            steps.append(
                Step(0.0, "identity", (namespace, name, number + chance.randrange(2), upper))
            )
            steps += [
                Step(0.0, "binding", (namespace, f"{name}-{selector}", name, selector))
                for selector in chance.sample(SELECTORS, 2)
            ]
    if chance.random() < 0.3:
        steps.append(Step(0.0, "identity", ("blue", "stock-blue-orders", 4)))
        steps.append(Step(0.0, "binding", ("blue", "both", "stock-blue-orders", "app")))
    if chance.random() < 0.3:
        steps.append(Step(0.0, "record", ("blue", "old", "Assigned", True)))
    names = [(namespace, name) for namespace in NAMESPACES for name in PODS]
    steps += [
        Step(0.2, "pod", (*each, chance.choice(SELECTORS), chance.choice(NODES)))
        for each in chance.sample(names, LEAST_PODS + chance.randrange(3))
    ]
    time = 1.0
    for _ in range(chance.randrange(18, 30)):
        time += chance.choice((0.0, 0.1, 0.6, 2.0, 9.0, 21.0, 35.0))
        steps += _event(chance, time)
    calm = chance.random() < 0.25
    if calm:
        steps = [step for step in steps if step.at == 0.0 or step.what not in _DISTURBING]
    rate = 0.0 if calm else chance.choice((0.0, 0.03, 0.06, 0.12))
    faults = {number: chance.choice(FAULTS) for number in range(5, 260) if chance.random() < rate}
    if sum(kind.startswith("crash") for number, kind in faults.items() if number < 60) > 1:
        # MIC was away for most of it: all pods come once more when it is there.
        steps += [
            Step(time + 130.0, "pod", (*each, chance.choice(SELECTORS), chance.choice(NODES)))
            for each in names
        ]
    changes = {
        number: chance.choice(_OF_CHANGES) for number in range(40) if chance.random() < 1.5 * rate
    }
    grace, mics = chance.choice((0.0, 5.0, 20.0, 20.0, 60.0)), chance.choice((1, 2))
    if chance.random() < 0.15:
        # A leader sleeps before it changes a host, and wakes when another leads and pods are back.
        grace, mics, faults = chance.choice((0.0, 5.0)), 2, {}
        changes = {number: "pause" for number in range(40) if chance.random() < 0.4}
        for begin in (time + 10.0, time + 300.0):
            host = chance.randrange(3)
            steps.append(Step(begin, "empty", (host,)))
            steps += [
                Step(begin + chance.uniform(70.0, 95.0), "pod", (*_pod(chance, 0.0).args[:3], node))
                for node in NODES[host::3] * 3
            ]
    return Scenario(
        steps=tuple(steps),
        faults=faults,
        changes=changes,
        seed=seed,
        grace=grace,
        mics=mics,
        delay=chance.choice((0.02, 0.05, 0.5, 3.0)),
        operation=chance.choice((0.5, 3.0, 8.0, 20.0)),
        foreign=tuple((host, chance.randrange(5)) for host in range(3) if chance.random() < 0.6),
        protected=(chance.randrange(4),) if chance.random() < 0.2 else (),
    )


def _pod(chance: Random, time: float) -> Step:
    args = (
        chance.choice(NAMESPACES),
        chance.choice(PODS),
        chance.choice(SELECTORS),
        chance.choice(NODES),
    )
    return Step(time, "pod", args)


def _event(chance: Random, time: float) -> list[Step]:
    what = chance.choices(tuple(_EVENTS), tuple(_WEIGHTS.values()))[0]
    namespace, pod = chance.choice(NAMESPACES), chance.choice(PODS)
    number, identity = chance.randrange(4), chance.choice(IDENTITIES)
    selector = chance.choice(SELECTORS)
    match what:
        case "pods":
            return [_pod(chance, time) for _ in range(chance.randrange(1, 5))]
        case "leave":
            return [Step(time, "delete_pod", (namespace, name)) for name in chance.sample(PODS, 4)]
        case "empty":
            host = chance.randrange(3)
            return [
                Step(time, "empty", (host,)),
                Step(time + chance.choice((0.1, 1.0, 15.0)), "kill"),
            ]
        case "end":
            return [Step(time, "end", (namespace, pod))]
        case "label":
            return [Step(time, "label", (namespace, pod, selector))]
        case "edit":
            return [Step(time, "identity", (namespace, identity, number, chance.random() < 0.3))]
        case "lose_identity":
            gone = [Step(time, "delete_identity", (namespace, identity))]
            if chance.random() < 0.5:
                gone.append(Step(time + 11.0, "identity", (namespace, identity, number)))
            return gone
        case "lose_binding":
            name = f"{identity}-{selector}"
            gone = [Step(time, "delete_binding", (namespace, name))]
            if again := chance.choice((0.05, 1.0, 30.0, None)):
                args = (namespace, name, identity, selector)
                gone.append(Step(time + again, "binding", args))
            return gone
        case "node":
            node = chance.choice(("n2", *NODES))
            gone = [Step(time, "delete_node", (node,))]
            if chance.random() < 0.6:
                gone.append(Step(time + 15.0, "node", (node, NODES.index(node) % 3)))
            return gone
        case "attach" | "detach":
            return [Step(time, what, (chance.randrange(3), number))]
        case "break":
            broken = [Step(time, "break", (number,)), _pod(chance, time), _pod(chance, time)]
            if chance.random() < 0.4:
                broken.append(Step(time + 10.0, "mend", (number,)))
            return broken
        case "revoke":
            return [
                Step(time, "revoke", (namespace, number)),
                Step(time + chance.choice((5.0, 70.0)), "grant", (namespace, number)),
            ]
        case "pausing":
            return [
                Step(time, "pausing", (True,)),
                _pod(chance, time),
                Step(time + 12.0, "pausing", (False,)),
            ]
        case _:
            return [Step(time, "kill")]


_WEIGHTS = {
    "pods": 8,
    "leave": 7,
    "empty": 1,
    "end": 2,
    "label": 2,
    "edit": 2,
    "lose_identity": 1,
    "lose_binding": 2,
    "node": 1,
    "attach": 2,
    "detach": 2,
    "break": 1,
    "revoke": 1,
    "pausing": 1,
    "kill": 1,
}
_OF_CHANGES = ("pause", "late", "lost", "crash_after", "crash_before", "preempt", "broken")
_EVENTS = tuple(_WEIGHTS)
_DISTURBING = {"break", "pausing", "kill", "attach", "detach", "node", "delete_node", "revoke"}


def _without(faults: Mapping[int, str], number: int) -> dict[int, str]:
    return {key: each for key, each in faults.items() if key != number}


def shrunk(failing: Scenario, fails: Callable[[Scenario], bool]) -> Scenario:
    """Return a smaller scenario that still fails: fewer faults, then fewer steps, again."""
    changed = True
    while changed:
        changed = False
        for number in sorted(failing.faults, reverse=True):
            smaller = replace(failing, faults=_without(failing.faults, number))
            if fails(smaller):
                failing, changed = smaller, True
        for number in sorted(failing.changes, reverse=True):
            smaller = replace(failing, changes=_without(failing.changes, number))
            if fails(smaller):
                failing, changed = smaller, True
        index = len(failing.steps)
        size = max(1, index // 4)
        while size:
            index = len(failing.steps)
            while index > 0:
                index -= size
                steps = (*failing.steps[: max(0, index)], *failing.steps[max(0, index) + size :])
                smaller = replace(failing, steps=steps)
                if len(steps) < len(failing.steps) and fails(smaller):
                    failing, changed = smaller, True
            size //= 2
    return failing


def fails(candidate: Scenario) -> bool:
    """Whether an invariant does not hold in this scenario."""
    try:
        World(candidate).run()
    except Violation:
        return True
    return False


def replayed(failing: Scenario) -> str:
    """Return the smallest scenario that fails as this one does, and what happens in it."""
    small = shrunk(failing, fails)
    return "\n".join([repr(small), *journal(small)])


def failing(seeds: Iterable[int]) -> str:
    """Return the replay of the first seed that fails, or in which too little happens; "": none."""
    with few_collections():
        for seed in seeds:
            found = scenario(seed)
            world = World(found)
            try:
                world.run()
            except Violation:
                return f"seed {seed}:\n{replayed(found)}"
            if world.effects < LEAST_CALLS:
                return f"seed {seed} has {world.effects} calls only"
    return ""
