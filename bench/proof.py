"""What the proof of a new connection costs: by the real `net`, over its socket, on each network.

The bar is a ratio: how fast one process wakes another differs tenfold between machines. The control
is what cannot be had for less: the proof itself, in one process, and a packet to another process
and back.

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

_CONNECTIONS = 3000
_HOP = "bare hop"


def measure() -> Iterator[Bar]:
    """Prove connections in a world of each network; yield what a proof took."""
    if os.geteuid():
        sys.exit("only root may make the cgroups of pods")
    for network in ("bridge", "routed"):
        with pod_cgroups([uid(name) for name in PODS]) as cgroups:
            took = _took(network, str(cgroups))
        where = f"{network}, 110 pods"
        asked = took["through net"]
        through, alone, hop = map(statistics.median, (asked, took["in one process"], took[_HOP]))
        print(
            f"{where}, us: through net {through:.1f}, in one process {alone:.1f}, a bare hop to "
            f"another process and back {hop:.1f}",
            file=sys.stderr,
        )
        yield Bar(
            f"{where}: p50 through net, in proofs and bare hops", through / (alone + hop), 2.5
        )
        yield Bar(f"{where}: p99 through net, us", statistics.quantiles(asked, n=100)[-1], 1000)


def _took(network: str, cgroups: str) -> dict[str, list[float]]:
    world = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    program = [sys.executable, "-m", "bench.stage.proofs", network, cgroups, str(_CONNECTIONS)]
    done = subprocess.run(
        [*world, *program], cwd=ROOT, stdout=subprocess.PIPE, text=True, timeout=500, check=False
    )
    if done.returncode:
        sys.exit(f"the proofs could not be measured: exit status {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return] # what _main of it prints


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
