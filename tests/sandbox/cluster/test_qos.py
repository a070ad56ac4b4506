"""The class of service that a pod's resources come to.

https://kubernetes.io/docs/concepts/workloads/pods/pod-qos/
"""

from __future__ import annotations

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from tests.sandbox.cluster.settled import Settled

BOTH = {"cpu": "1", "memory": "1Gi"}


@pytest.mark.parametrize(
    ("resources", "expected"),
    [
        ([{}], "BestEffort"),
        ([{"limits": {"example.com/gpu": "1"}}], "BestEffort"),
        ([{"requests": {"cpu": "1"}}], "Burstable"),
        ([{"limits": {"cpu": "1"}}], "Burstable"),
        ([{"limits": BOTH}], "Guaranteed"),
        ([{"limits": BOTH, "requests": BOTH}], "Guaranteed"),
        ([{"limits": BOTH, "requests": {"cpu": "1", "memory": "1Mi"}}], "Burstable"),
        ([{"limits": BOTH}, {}], "Burstable"),
    ],
)
def test_limits_and_requests_of_all_containers_decide(
    world: Settled, resources: list[Obj], expected: str
) -> None:
    containers = [
        {"name": f"c{index}", "image": "x", "resources": each}
        for index, each in enumerate(resources)
    ]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": containers}})
    made = world.get("pods", "p")
    assert made is not None
    assert made.object["status"]["qosClass"] == expected


def test_what_is_limited_and_not_requested_is_requested(world: Settled) -> None:
    limits = {"cpu": "200m"}
    containers = [{"name": "c", "image": "x", "resources": {"limits": limits}}]
    world.create("pods", {"metadata": {"name": "p"}, "spec": {"containers": containers}})
    made = world.get("pods", "p")
    assert made is not None
    assert made.object["spec"]["containers"][0]["resources"]["requests"] == limits
