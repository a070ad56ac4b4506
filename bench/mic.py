"""What the controller's own decisions cost, and how soon a crowd of pods has its identities.

In the first part nothing is sent: a call is granted when it is made. So this is what MIC adds to
the time of Azure and of the API server. The archived controller computes all pods anew at each
event; here one event must cost the same whatever the size of the cluster, which is measured as a
ratio. The second part is the whole system in a sandbox in calm weather, a change of a scale set
taking 0.2 s.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

from bench.bars import Bar, show, wants_json
from podidentity_sandbox.weather import CALM
from podidentity_sandbox.world.api import Api
from tests.acceptance.directory import pod
from tests.acceptance.mic.controlled import Controlled, controlled

_CROWD, _IDENTITIES = 200, 20
_FEW, _MANY, _ASSIGNED = 400, 20_000, 5_000


def measure() -> Iterator[Bar]:
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
    with controlled("bench-mic", weather=CALM) as place:
        for number in range(_IDENTITIES):
            name = f"identity-{number}"
            place.bind(name, place.identity(name))
        took = _crowd(place)
    yield Bar(f"{_CROWD} pods at once, {_IDENTITIES} identities: the last Assigned, s", took, 3)


def _crowd(place: Controlled) -> float:
    """Make the pods; return the seconds from the first one to the last that is Assigned.

    They are on nodes without a kubelet: to start 200 processes takes longer than all else.
    """
    api = Api(place.sandbox.plan)
    for number in (0, 1):
        provider = f"azure://{place.sandbox.plan.scale_set_id}/virtualMachines/{90 + number}"
        node = {"metadata": {"name": f"hollow-{number}"}, "spec": {"providerID": provider}}
        api.request("POST", "/api/v1/nodes", node)

    def make(number: int) -> None:
        body = json.loads(pod(f"pod-{number}", label=f"identity-{number % _IDENTITIES}"))
        body["spec"]["nodeName"] = f"hollow-{number % 2}"
        api.request("POST", "/api/v1/namespaces/default/pods", body)

    began = time.monotonic()
    with ThreadPoolExecutor(20) as threads:
        list(threads.map(make, range(_CROWD)))
    made = time.monotonic() - began
    place.until(lambda: place.states() == ["Assigned"] * _CROWD, "not all pods are Assigned")
    print(f"{_CROWD} pods were made in {made:.1f} s", file=sys.stderr)
    return time.monotonic() - began


def _run(pods: int, assigned: int) -> dict[str, float]:
    program = [sys.executable, "-m", "bench.stage.mic", str(pods), str(assigned)]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, timeout=500, check=False)
    if done.returncode:
        sys.exit(f"the controller could not be measured: exit status {done.returncode}")
    return json.loads(done.stdout)  # type: ignore[no-any-return] # what main of it prints


if __name__ == "__main__":
    raise SystemExit(show(measure(), as_json=wants_json()))
