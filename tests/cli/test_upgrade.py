"""Pods that an older release served are still served; later identities need a grant."""

from __future__ import annotations

import uuid
from collections.abc import Callable

import pytest

from tests.cli.conftest import DAEMON_SET, Ran
from tests.cli.ids import IDENTITY
from tests.cli.test_grants import may
from tests.cli.world import World

Run = Callable[..., Ran]
RECORD = "/api/v1/namespaces/kube-system/configmaps/podidentity-grants"


@pytest.fixture
def ns(world: World, ns: str) -> str:
    """A namespace of a cluster to which podidentity has not come yet."""
    if world.get(RECORD):
        world.send("DELETE", RECORD)
    return ns


def made(world: World, ns: str, name: str, *, selector: str = "s", client: str = "") -> str:
    """Make an identity and its binding, as people and old charts do; return its client id."""
    client = client or str(uuid.uuid4())
    world.custom(ns, "azureidentities", name, {"clientID": client, "resourceID": IDENTITY})
    if selector:
        spec = {"azureIdentity": name, "selector": selector}
        world.custom(ns, "azureidentitybindings", name, spec)
    return client


def test_what_is_bound_is_granted_once_and_nothing_later(
    world: World, ns: str, podidentity: Run
) -> None:
    bound, unbound = made(world, ns, "bound"), made(world, ns, "unbound", selector="")
    made(world, ns, "broken", client="no-guid")
    ran = podidentity("enable", "--no-wait")
    assert ran.code == 0, ran.err
    assert f"podidentity-use-{bound}:{ns} created" in ran.out
    assert "configmap/podidentity-grants created" in ran.out
    assert [may(world, ns, "web", client) for client in (bound, unbound)] == [True, False]
    assert not may(world, "default", "web", bound)
    later = made(world, ns, "later")
    world.send("DELETE", DAEMON_SET)
    assert podidentity("enable", "--no-wait").code == 0
    assert not may(world, ns, "web", later)


def test_nothing_is_granted_where_that_is_not_wanted_and_not_later_either(
    world: World, ns: str, podidentity: Run
) -> None:
    client = made(world, ns, "bound")
    assert podidentity("enable", "--no-wait", "--no-grants").code == 0
    assert podidentity("enable", "--no-wait").code == 0
    assert not may(world, ns, "web", client)


def test_delete_takes_back_what_enable_granted(world: World, ns: str, podidentity: Run) -> None:
    client = made(world, ns, "bound")
    podidentity("enable", "--no-wait")
    assert podidentity("delete", "-n", ns, "--name", "bound").code == 0
    assert not may(world, ns, "web", client)
