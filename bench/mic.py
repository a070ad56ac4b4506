"""What the controller's own decisions cost, and how soon a crowd of pods has its tokens.

decisions   the controller alone; a call is granted when it is made, and nothing is sent: what
            MIC adds to the time of Azure and of the API server. The archived controller
            computes all pods anew at each event; here one event must cost the same whatever
            the size of the cluster, which is measured as a ratio
fake clock  the controller alone, where Azure takes its minutes and has its quota
process     `podidentity mic` beside the sandbox's API server and Azure, without kubelets
sandbox     the whole system in calm weather, a change of a scale set taking 0.2 s
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence

from bench.bars import Bar, show, wants_json
from bench.stage import rollouts
from bench.stage.control_plane import ENTER
from bench.stage.crowd import IDENTITIES, PODS, crowd
from podidentity_sandbox.weather import CALM
from tests.acceptance.mic.controlled import controlled

_FEW, _MANY, _ASSIGNED = 400, 20_000, 5_000


def measure() -> Iterator[Bar]:
    """Yield what each part measures."""
    yield from _decisions()
    yield from _rollouts()
    yield from _processes()
    yield from crowds()


def _decisions() -> Iterator[Bar]:
    """Start a controller in a small and in a large cluster; yield what it took."""
    few, many = _run(_FEW, _FEW // 4), _run(_MANY, _ASSIGNED)
    print(
        f"{_MANY} pods: {many['patches']:.0f} changes of machines; one pod more, p50: "
        f"{many['p50']:.0f} us, with {_FEW} pods {few['p50']:.0f} us",
        file=sys.stderr,
    )
    yield Bar(f"{_MANY} pods, identity on the host: seen to call, p99, ms", many["p99"] / 1e3, 20)
    yield Bar(f"one event with {_MANY} pods, by one with {_FEW}, p50", many["p50"] / few["p50"], 3)
    yield Bar("API writes in the life of a pod whose identity is there", many["calls"], 2.01)
    yield Bar(f"start, {_MANY} pods, {_ASSIGNED} assignments: settled, s", many["settled"], 10)
    yield Bar("its peak memory, MiB", many["peak"], 250)


def _rollouts() -> Iterator[Bar]:
    """Yield what a fake clock says: the same each time."""
    alone, beside = rollouts.beside_a_slow_set()
    yield Bar("fake clock: a pod beside a set of 40 s, by one alone", beside / alone, 1.01)
    crowds = [rollouts.crowd(seed) for seed in range(5)]
    for each in crowds:
        print(f"2,000 pods in 2 s on 30 sets: {each}", file=sys.stderr)
    yield Bar("fake clock: 2,000 pods, ARM 40 s: the last, s", max(c.others for c in crowds), 60)
    yield Bar("fake clock: those on a set of 10 min, s", max(c.own for c in crowds), 660)
    found = [rollouts.machines(together=together) for together in (1, 50)]
    for machines in found:
        print(f"500 virtual machines in 60 s, 10 changes a second: {machines}", file=sys.stderr)
    yield Bar("fake clock: 500 new VMs in 60 s: the last, s", max(m.last for m in found), 90)
    yield Bar("fake clock: changes before a Retry-After ended", sum(m.early for m in found), 1)
    yield Bar("fake clock: 1,000 pods churning: changes an edge", rollouts.churn(), 1.01)
    single, many = rollouts.lives(1, 1), rollouts.lives(60, 20)
    print(f"API writes in the life of a pod, ARM first: {single}; of 60: {many}", file=sys.stderr)
    yield Bar("fake clock: API writes in a pod's life, ARM first", many.records, 3.01)
    yield Bar("fake clock: those of its machine's ledger, 60 pods", many.ledgers, 1)
    yield Bar("fake clock: reads for 100 sets of a group", rollouts.reconciled(), 2.01)


def _processes() -> Iterator[Bar]:
    """Start whole controllers; yield what they take."""
    few, many = (ran([*ENTER, *python("mic_processes", name)]) for name in ("few", "many"))
    beside = few["beside"] / few["alone"]
    yield Bar("process: a pod beside a set of 40 s, by one alone", beside, 1.5)
    yield Bar(f"process: memory with {PODS} pods, MB", few["memory"], 71)
    yield Bar(f"process: start, {_MANY} pods, {_ASSIGNED} assignments, s", many["settled"], 10)
    yield Bar("process: its peak memory, MB", many["peak"], 250)
    yield Bar(f"process: {_MANY} pods, made to record, p99, ms", many["p99"], 20)
    made = many["by_control"]
    yield Bar("process: that, p50, by two objects without a controller", made, 2)
    flat = many["event"] / few["event"]
    yield Bar(f"process: CPU of a pod among {_MANY}, by one among {PODS}", flat, 1.5)
    yield Bar("process: CPU when nothing changes, %", many["idle"], 0.5)
    yield from leaders(many)


def leaders(found: dict[str, float]) -> Iterator[Bar]:
    """Yield how soon another leader writes."""
    yield Bar("process: leader killed, first write after the lease, s", found["killed"], 2)
    yield Bar("process: leader updated, first write, s", found["updated"], 1)


def crowds() -> Iterator[Bar]:
    """Yield how soon a crowd of pods has its identities, and its tokens."""
    with controlled("bench-mic", weather=CALM) as place:
        found = crowd(place)
    print(f"a crowd: {found}", file=sys.stderr)
    what = f"{PODS} pods at once, {IDENTITIES} identities: the last"
    yield Bar(f"{what} Assigned, s", found.assigned, 3)
    yield Bar(f"{what} token, s", found.token, 3)


def _run(pods: int, assigned: int) -> dict[str, float]:
    return ran(python("mic", str(pods), str(assigned)))


def python(stage: str, *arguments: str) -> list[str]:
    """Return the words that start a stage."""
    return [sys.executable, "-m", f"bench.stage.{stage}", *arguments]


def ran(program: Sequence[str]) -> dict[str, float]:
    """Return what a stage prints."""
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=1500, check=False)
    if done.returncode:
        sys.exit(f"the controller could not be measured: exit status {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return] # what main of it prints


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
