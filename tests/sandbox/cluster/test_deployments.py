"""Deployments replace their pods set by set, and say how far they are.

https://kubernetes.io/docs/concepts/workloads/controllers/deployment/
"""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.controllers.deployments import (
    SetState,
    new_size,
    old_sizes,
)
from podidentity_sandbox.cluster.controllers.sets import Bounds
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.conftest import Client
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


def condition(world: Settled, kind: str) -> tuple[str, str]:
    for each in world.the(KEY, "web").object["status"]["conditions"]:
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


@pytest.fixture
def running(world: Settled) -> Settled:
    """A cluster with a node, and a Deployment of three pods that run."""
    world.node("a")
    world.create(KEY, deployment())
    assert run_new(world) == 3
    return world


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


def test_only_as_many_old_sets_are_kept_as_the_history_is_long(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment(revisionHistoryLimit=1, replicas=1))
    run_new(world)
    for number in range(2, 6):
        change(world, f"web:{number}")
        while run_new(world):
            end_deleted(world)
    assert sizes(world) == {"web:4": 0, "web:5": 1}


def test_a_pod_that_goes_is_replaced(running: Settled) -> None:
    name = next(iter(running.pods()))
    running.delete("pods", name)
    assert len(images(running)) == 3
    assert running.the(KEY, "web").object["status"]["unavailableReplicas"] == 1


# ---- Deployments that get nowhere say why, and go on when they can.


def test_pods_that_could_not_be_made_are_told_of_and_made_when_their_account_comes(
    world: Settled,
) -> None:
    body = deployment()
    body["spec"]["template"]["spec"]["serviceAccountName"] = "x"
    world.create(KEY, body)
    assert not images(world)
    assert condition(world, "ReplicaFailure") == ("True", "FailedCreate")
    world.patch(SETS, world.cluster.storage.all(SETS)[0].name, {"metadata": {"labels": {"n": "1"}}})
    events = [event.object for event in world.cluster.storage.all("events")]
    (again,) = [event for event in events if event["reason"] == "FailedCreate"]
    assert again["count"] > 1
    world.create("serviceaccounts", {"metadata": {"name": "x"}})
    assert len(images(world)) == 3
    with pytest.raises(AssertionError, match="no condition"):
        condition(world, "ReplicaFailure")


# ---- What a Deployment must be to be taken.
#
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/apps/validation/validation.go


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"selector": None}, "spec.selector: Required value"),
        ({"replicas": -1}, "spec.replicas: Invalid value: -1: must be greater than or equal to 0"),
        (
            {"strategy": {"type": "Canary"}},
            'spec.strategy.type: Unsupported value: "Canary": supported values: "Recreate", '
            '"RollingUpdate"',
        ),
        (
            {"strategy": {"type": "Recreate"}},
            "spec.strategy.type: Forbidden: the sandbox knows RollingUpdate alone",
        ),
        ({"paused": True}, "spec.paused: Forbidden: the sandbox goes on with every rollout"),
        (
            {"strategy": {"rollingUpdate": {"maxSurge": 0, "maxUnavailable": 0}}},
            "spec.strategy.rollingUpdate.maxUnavailable: Invalid value: 0: may not be 0 when "
            "`maxSurge` is 0",
        ),
    ],
)
def test_a_deployment_that_makes_no_sense_is_refused(
    world: Settled, spec: Obj, message: str
) -> None:
    said = world.refused(KEY, deployment(**spec))
    assert said == f'Deployment.apps "web" is invalid: {message}'


def test_the_selector_never_changes(world: Settled) -> None:
    world.create(KEY, deployment())
    with pytest.raises(StatusError, match="field is immutable"):
        world.patch(KEY, "web", {"spec": {"selector": {"matchLabels": {"also": "x"}}}})


# ---- The steps of a rollout: never too few pods, never too many, and to the end.
#
# The expected numbers of the table are those of
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/controller/deployment/rolling_test.go


def rollout_running(size: int) -> SetState:
    return SetState(wanted=size, pods=size, available=size)


@pytest.mark.parametrize(
    ("wanted", "surge", "unavailable", "expected"),
    [
        (3, "25%", "25%", Bounds(surge=1, unavailable=0)),
        (10, "25%", "25%", Bounds(surge=3, unavailable=2)),
        (10, 0, "5%", Bounds(surge=0, unavailable=1)),
        (2, 1, 5, Bounds(surge=1, unavailable=2)),
        (0, "25%", "25%", Bounds(surge=0, unavailable=0)),
    ],
)
def test_shares_are_rounded_up_for_more_and_down_for_fewer(
    wanted: int, surge: int | str, unavailable: int | str, expected: Bounds
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    assert Bounds.of(rolling, wanted, up=False) == expected


@pytest.mark.parametrize(
    ("wanted", "surge", "new", "old", "expected"),
    [
        (10, 0, 0, 10, 0),
        (10, 2, 0, 10, 2),
        (10, 2, 5, 0, 10),
        (10, 2, 10, 2, 10),
        (10, 2, 20, 2, 10),
    ],
)
def test_the_new_set_grows_as_far_as_there_is_room(
    wanted: int, surge: int, new: int, old: int, expected: int
) -> None:
    limits = Bounds(surge=surge, unavailable=0)
    assert new_size(wanted, limits, rollout_running(new), [rollout_running(old)]) == expected


@pytest.mark.parametrize(
    ("wanted", "unavailable", "new", "old", "expected"),
    [
        (10, 0, (0, 0), (10, 10), 10),
        (10, 2, (0, 0), (10, 10), 8),
        (10, 2, (2, 0), (8, 8), 8),
        (10, 0, (1, 1), (10, 10), 9),
        (10, 0, (10, 0), (10, 8), 10),
        (10, 2, (2, 2), (8, 2), 6),
    ],
)
def test_the_old_set_shrinks_as_far_as_it_can_be_spared(
    wanted: int, unavailable: int, new: tuple[int, int], old: tuple[int, int], expected: int
) -> None:
    first, second = (SetState(wanted=w, pods=w, available=a) for w, a in (new, old))
    limits = Bounds(surge=0, unavailable=unavailable)
    assert old_sizes(wanted, limits, first, [second]) == [expected]


@given(
    wanted=st.integers(0, 12),
    surge=st.one_of(st.integers(0, 6), st.sampled_from(["0%", "25%", "100%"])),
    unavailable=st.one_of(st.integers(0, 6), st.sampled_from(["0%", "25%", "100%"])),
    old=st.lists(st.integers(0, 6), min_size=1, max_size=3),
)
def test_a_rollout_ends_and_keeps_its_bounds_on_the_way(
    wanted: int, surge: int | str, unavailable: int | str, old: list[int]
) -> None:
    rolling = {"maxSurge": surge, "maxUnavailable": unavailable}
    limits = Bounds.of(rolling, wanted, up=False)
    new, olds = 0, list(old)
    least = min(wanted - limits.unavailable, sum(olds))
    most = max(wanted + limits.surge, sum(olds))
    for _ in range(40):  # every pod becomes ready between two steps
        grown = new_size(wanted, limits, rollout_running(new), [rollout_running(o) for o in olds])
        if grown != new:
            new = grown
        else:
            olds = old_sizes(
                wanted, limits, rollout_running(new), [rollout_running(o) for o in olds]
            )
        assert least <= new + sum(olds) <= most
    assert (new, sum(olds)) == (wanted, 0)


# ---- The subresource scale: the number of a set's pods.
#
# https://kubernetes.io/docs/reference/kubernetes-api/autoscaling-resources/scale-v1/

PATH = "/apis/apps/v1/namespaces/default/deployments"


async def test_an_older_state_is_not_scaled(api: Client) -> None:
    assert (await api.post(PATH, json=deployment())).status_code == 201
    scale = (await api.get(f"{PATH}/web/scale")).json()
    await api.put(f"{PATH}/web/scale", json={**scale, "spec": {"replicas": 4}})
    late = await api.put(f"{PATH}/web/scale", json={**scale, "spec": {"replicas": 1}})
    assert late.status_code == 409
