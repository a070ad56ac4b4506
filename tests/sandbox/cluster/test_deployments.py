"""A Deployment has as many pods as it wants, of its present template.

How many there are in the middle of a rollout only a real control plane shows.
"""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj
from tests.sandbox.cluster.conftest import pod
from tests.sandbox.cluster.settled import Settled

KEY = "deployments.apps"


def deployment() -> Obj:
    template = {"metadata": {"labels": {"app": "mic"}}, "spec": pod()["spec"]}
    spec = {"replicas": 2, "selector": {"matchLabels": {"app": "mic"}}, "template": template}
    return {"metadata": {"name": "mic"}, "spec": spec}


def run_all(world: Settled) -> set[str]:
    for name in world.pods():
        world.run(name)
    return set(world.pods())


def test_old_pods_go_once_all_new_ones_are_ready(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment())
    old = run_all(world)
    assert len(old) == 2
    assert world.the(KEY, "mic").object["status"]["availableReplicas"] == 2
    world.patch(KEY, "mic", {"spec": {"template": {"metadata": {"labels": {"v": "2"}}}}})
    assert len(world.pods()) == 4
    new = run_all(world)
    assert len(new) == 2
    assert not new & old
    state = world.the(KEY, "mic").object["status"]
    assert (state["updatedReplicas"], state["observedGeneration"]) == (2, 2)
    assert {each["type"]: each["status"] for each in state["conditions"]} == {
        "Available": "True",
        "Progressing": "True",
    }


def test_a_set_has_as_many_pods_as_it_wants_and_replaces_one_that_is_gone(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment())
    gone = run_all(world).pop()
    world.delete("pods", gone, grace_seconds=0)
    assert len(world.pods()) == 2
    world.patch(KEY, "mic", {"spec": {"replicas": 1}})
    assert len(world.pods()) == 1
    world.delete(KEY, "mic")
    assert world.pods() == {}
