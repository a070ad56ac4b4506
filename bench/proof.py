"""What the proof of a new connection costs: by the real `net`, over its socket, on each network.

Alone: right after a pod has connected, so that both processes had been asleep, and the processor's
caches had been others'. In a row: on connections that were there already, one after the other. At
once: 200 of them.

The bars are ratios: how fast one process wakes another differs tenfold between machines. The
control is what cannot be had for less by two such processes: the proof itself, in one process, and
a packet from one event loop to another and back. It is measured in turn with the proofs.

And what the proof adds to a request as the pod sees it, which connects and asks: with it and
without, in turn. Here the control is the request without: it wakes two processes that slept, too,
on the same two processors, a moment before. A hop of its own does not do for that: it runs the same
few lines again and again, and its time says how fast this machine wakes a process, and nothing of
what it costs a process to run what has left the caches meanwhile.

Needs root and a cgroup tree of version 2. All packets stay in namespaces of its own.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator

from bench.bars import Bar, show, wants_json
from tests.kernel.agent import uid
from tests.kernel.topology import PODS, ROOT, pod_cgroups

_CONNECTIONS = 6000
_REQUESTS = 1000


def measure() -> Iterator[Bar]:
    """Prove connections in a world of each network; yield what a proof took."""
    if os.geteuid():
        sys.exit("only root may make the cgroups of pods")
    for network in ("bridge", "routed"):
        with pod_cgroups([uid(name) for name in PODS]) as cgroups:
            took = _took("proofs", network, str(cgroups), _CONNECTIONS)
            seen = _took("seen", network, str(cgroups), _REQUESTS)
        p50 = {name: statistics.median(each) for name, each in took.items()}
        seen_p50 = {name: statistics.median(each) for name, each in seen.items()}
        for name, each in (p50 | seen_p50).items():
            print(f"{network}, 110 pods, {name}: p50 {each:.1f} us", file=sys.stderr)
        for when, bar in (("alone", 1.6), ("in a row", 2.2)):
            control = p50[f"{when}, in one process"] + p50[f"{when}, hop of loops"]
            ratio = p50[f"{when}, through net"] / control
            yield Bar(f"{network}: p50 of a proof {when}, in controls", ratio, bar)
        ratio = p50["at once, through net"] / p50["at once, in one process"]
        yield Bar(f"{network}: processor time at once, of that in one process", ratio, 2.5)
        ratio = seen_p50["with the proof"] / seen_p50["without"]
        yield Bar(f"{network}: p50 of a request with the proof, of that without", ratio, 2.6)
        tail = statistics.quantiles(took["alone, through net"], n=100)[-1]
        yield Bar(f"{network}: p99 of a proof alone, us", tail, 1000)


def _took(stage: str, network: str, cgroups: str, count: int) -> dict[str, list[float]]:
    world = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    program = [sys.executable, "-m", f"bench.stage.{stage}", network, cgroups, str(count)]
    done = subprocess.run(
        [*world, *program], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=500, check=False
    )
    if done.returncode:
        sys.exit(f"the proofs could not be measured: exit status {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return] # what _main of it prints


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
