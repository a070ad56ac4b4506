"""Deployments replace their pods set by set, and say how far they are.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.storage import Record
from tests.sandbox.cluster.settled import Settled

KEY, SETS = "deployments.apps", "replicasets.apps"


def deployment(image: str = "web:1", **spec: Any) -> Obj:
    template = {
        "metadata": {"labels": {"app": "web"}},
        "spec": {"containers": [{"name": "web", "image": image}]},
    }
    return {
        "metadata": {"name": "web"},
        "spec": {
            "replicas": 3,
            "selector": {"matchLabels": {"app": "web"}},
            "template": template,
            **spec,
        },
    }


def change(world: Settled, image: str) -> None:
    containers = [{"name": "web", "image": image}]
    world.patch(KEY, "web", {"spec": {"template": {"spec": {"containers": containers}}}})


def found(world: Settled) -> Record:
    record = world.get(KEY, "web")
    assert record is not None
    return record


def condition(world: Settled, kind: str) -> tuple[str, str]:
    for each in found(world).object["status"]["conditions"]:
        if each["type"] == kind:
            return each["status"], each["reason"]
    raise AssertionError(f"no condition {kind}")


def sizes(world: Settled) -> dict[str, int]:
    """How many pods each template's set is to have, by its image."""
    return {
        s.object["spec"]["template"]["spec"]["containers"][0]["image"]: s.object["spec"]["replicas"]
        for s in world.cluster.storage.all(SETS)
    }


def images(world: Settled) -> list[str]:
    return sorted(
        pod.object["spec"]["containers"][0]["image"]
        for pod in world.cluster.storage.all("pods")
        if not pod.deleted
    )


def run_new(world: Settled) -> int:
    """Let every pod that does not run yet become ready; returns how many there were."""
    waiting = [
        pod.name
        for pod in world.cluster.storage.all("pods")
        if not pod.deleted and pod.object["status"]["phase"] == "Pending"
    ]
    for name in waiting:
        world.run(name)
    return len(waiting)


def end_deleted(world: Settled) -> None:
    """Let the pods that are being deleted end, as their kubelet does."""
    for pod in world.cluster.storage.all("pods"):
        if pod.deleted:
            world.delete("pods", pod.name, grace_seconds=0)


def events(world: Settled, reason: str) -> list[str]:
    every = world.cluster.storage.all("events")
    ordered = sorted(every, key=lambda event: event.revision)
    return [e.object["message"] for e in ordered if e.object["reason"] == reason]


@pytest.fixture
def running(world: Settled) -> Settled:
    """A cluster with a node, and a Deployment of three pods that run."""
    world.node("a")
    world.create(KEY, deployment())
    assert run_new(world) == 3
    return world


def test_pods_carry_the_hash_and_the_name_of_their_set(running: Settled) -> None:
    (made,) = running.cluster.storage.all(SETS)
    name = made.metadata["labels"]["pod-template-hash"]
    assert made.name == f"web-{name}"
    for pod in running.cluster.storage.all("pods"):
        assert pod.name.startswith(f"web-{name}-")
        assert pod.metadata["labels"] == {"app": "web", "pod-template-hash": name}
        assert pod.metadata["ownerReferences"][0]["name"] == made.name


def test_the_status_counts_and_says_that_it_is_done(running: Settled) -> None:
    status = found(running).object["status"]
    counts = {key: value for key, value in status.items() if key != "conditions"}
    assert counts == {
        "observedGeneration": 1,
        "replicas": 3,
        "updatedReplicas": 3,
        "readyReplicas": 3,
        "availableReplicas": 3,
    }
    assert condition(running, "Available") == ("True", "MinimumReplicasAvailable")
    assert condition(running, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_a_rolling_update_never_has_too_few_or_too_many(running: Settled) -> None:
    change(running, "web:2")
    # 25 % of 3: one more, none fewer.
    assert sizes(running) == {"web:1": 3, "web:2": 1}
    steps = [sizes(running)]
    while run_new(running):
        end_deleted(running)
        steps.append(sizes(running))
        assert 3 <= sum(steps[-1].values()) <= 4
    assert steps[-1] == {"web:1": 0, "web:2": 3}
    assert len(steps) > 2, "it went in steps"
    assert images(running) == ["web:2"] * 3
    assert condition(running, "Progressing") == ("True", "NewReplicaSetAvailable")


def test_recreate_waits_for_the_end_of_the_last_old_pod(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment(strategy={"type": "Recreate"}))
    run_new(world)
    change(world, "web:2")
    assert sizes(world) == {"web:1": 0}
    end_deleted(world)
    assert sizes(world) == {"web:1": 0, "web:2": 3}
    assert images(world) == ["web:2"] * 3


def test_a_template_that_comes_back_gets_its_old_set_and_a_new_revision(running: Settled) -> None:
    change(running, "web:2")
    change(running, "web:1")
    assert len(running.cluster.storage.all(SETS)) == 2
    note = "deployment.kubernetes.io/revision"
    assert found(running).metadata["annotations"][note] == "3"
    revisions = sorted(s.metadata["annotations"][note] for s in running.cluster.storage.all(SETS))
    assert revisions == ["2", "3"]


def test_only_as_many_old_sets_are_kept_as_the_history_is_long(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment(revisionHistoryLimit=1, replicas=1))
    run_new(world)
    for number in range(2, 6):
        change(world, f"web:{number}")
        while run_new(world):
            end_deleted(world)
    assert sizes(world) == {"web:4": 0, "web:5": 1}


def test_scaling_changes_the_set_and_no_template(running: Settled) -> None:
    running.patch(KEY, "web", {"spec": {"replicas": 1}})
    assert sizes(running) == {"web:1": 1}
    assert len(images(running)) == 1
    running.patch(KEY, "web", {"spec": {"replicas": 4}})
    assert len(images(running)) == 4


def test_a_paused_deployment_is_scaled_and_not_rolled_out(running: Settled) -> None:
    running.patch(KEY, "web", {"spec": {"paused": True}})
    change(running, "web:2")
    running.patch(KEY, "web", {"spec": {"replicas": 2}})
    assert sizes(running) == {"web:1": 2}
    assert condition(running, "Progressing") == ("Unknown", "DeploymentPaused")
    running.patch(KEY, "web", {"spec": {"paused": False}})
    assert "web:2" in sizes(running)


def test_a_pod_that_goes_is_replaced(running: Settled) -> None:
    name = next(iter(running.pods()))
    running.delete("pods", name)
    assert len(images(running)) == 3
    assert found(running).object["status"]["unavailableReplicas"] == 1


def test_events_tell_of_sets_and_pods(running: Settled) -> None:
    (made,) = running.cluster.storage.all(SETS)
    assert events(running, "ScalingReplicaSet") == [
        f"Scaled up replica set {made.name} from 0 to 3"
    ]
    names = {f"Created pod: {name}" for name in running.pods()}
    assert set(events(running, "SuccessfulCreate")) == names
    bound = {f"Successfully assigned default/{name} to a" for name in running.pods()}
    assert set(events(running, "Scheduled")) == bound


def test_deleting_a_deployment_takes_its_sets_and_pods_along(running: Settled) -> None:
    running.delete(KEY, "web")
    assert not running.cluster.storage.all(SETS)
    assert not images(running)
