"""Deployments that get nowhere say why, and go on when they can."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.sandbox.cluster.settled import Settled
from tests.sandbox.cluster.test_deployments import (
    KEY,
    SETS,
    change,
    condition,
    deployment,
    images,
    run_new,
)


def test_an_event_that_comes_again_is_counted(world: Settled) -> None:
    spec = deployment()["spec"]["template"]["spec"]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {**spec, "serviceAccountName": "x"}}
    world.create(KEY, deployment(template=template))
    world.patch(SETS, world.cluster.storage.all(SETS)[0].name, {"metadata": {"labels": {"n": "1"}}})
    (event,) = [
        e.object
        for e in world.cluster.storage.all("events")
        if e.object["reason"] == "FailedCreate"
    ]
    assert event["count"] > 1
    assert (
        'error looking up service account default/x: serviceaccount "x" not found'
        in (event["message"])
    )


def test_pods_that_could_not_be_made_are_made_when_their_account_comes(world: Settled) -> None:
    spec = deployment()["spec"]["template"]["spec"]
    template = {"metadata": {"labels": {"app": "web"}}, "spec": {**spec, "serviceAccountName": "x"}}
    world.create(KEY, deployment(template=template))
    assert not images(world)
    assert condition(world, "ReplicaFailure") == ("True", "FailedCreate")
    world.create("serviceaccounts", {"metadata": {"name": "x"}})
    assert len(images(world)) == 3
    with pytest.raises(AssertionError, match="no condition"):
        condition(world, "ReplicaFailure")


def test_without_progress_until_its_deadline_a_rollout_has_failed(world: Settled) -> None:
    world.node("a")
    world.create(KEY, deployment())
    run_new(world)
    world.patch(KEY, "web", {"spec": {"progressDeadlineSeconds": 60}})
    change(world, "web:2")
    assert condition(world, "Progressing")[1] == "ReplicaSetUpdated"
    world.late = timedelta(seconds=61)
    world.patch(KEY, "web", {"metadata": {"labels": {"look": "again"}}})
    assert condition(world, "Progressing") == ("False", "ProgressDeadlineExceeded")
