"""The API server in bad weather: throttled, cut off, late with what it has heard of."""

from __future__ import annotations

import asyncio
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import httpx2
import pytest

from podidentity_sandbox.cluster.admission_policies import BINDINGS, POLICIES
from podidentity_sandbox.cluster.authentication import User
from podidentity_sandbox.cluster.paths import request_info
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Journal
from podidentity_sandbox.plan import OWN_AGENT
from podidentity_sandbox.weather import CALM, changed, write
from tests.sandbox.cluster.conftest import (
    MAPS,
    PODS,
    Client,
    Served,
    binding,
    role,
    rule,
    seen,
    watching,
)
from tests.sandbox.cluster.settled import Settled


def grant(world: Settled) -> None:
    """Let ann list pods."""
    world.create("clusterroles.rbac.authorization.k8s.io", role("r", rule("list", "pods")))
    given = binding("readers", "r", subject={"kind": "User", "name": "ann"})
    world.create("clusterrolebindings.rbac.authorization.k8s.io", given)


def may(world: Settled) -> bool:
    """Whether ann may list pods, as far as the authorizer has heard."""
    asked = request_info("GET", PODS, {})
    return world.cluster.authorizer.decide(User("ann"), asked).allowed


def set_weather(served: Served, *settings: str) -> None:
    served.cluster.weather.set(changed(CALM, settings))


@pytest.mark.parametrize(
    ("effect", "status", "text"),
    [
        ("429", 429, "Too many requests, please try again later.\n"),
        ("503", 503, "the server is currently unable to handle the request"),
        ("500", 500, "etcdserver: request timed out"),
        ("html", 502, "502 Bad Gateway"),
    ],
)
async def test_a_request_is_refused_and_told_when_to_come_again(
    served: Served, api: Client, effect: str, status: int, text: str
) -> None:
    set_weather(served, f"apiserver=[{{effect: {effect}, seconds: 2}}]")
    found = await api.get(PODS)
    assert (found.status_code, text in found.text) == (status, True)
    assert found.headers.get("Retry-After") == ("2" if status in {429, 503} else None)
    assert (await api.get("/readyz")).status_code == 200, "health is asked of no queue"


async def test_a_reset_cuts_the_connection(served: Served, api: Client) -> None:
    set_weather(served, "apiserver=[{effect: reset, first: 1}]")
    with pytest.raises(httpx2.TransportError):
        await api.get(PODS)
    assert (await api.get(PODS)).status_code == 200


async def test_the_sandboxs_own_commands_and_kubelets_meet_no_weather(served: Served) -> None:
    set_weather(served, "apiserver=[{effect: 429}]")
    async with served.client() as own:
        assert (await own.get(PODS, headers={"User-Agent": OWN_AGENT})).status_code == 200
    async with served.client("node-0-token") as kubelet:
        assert (await kubelet.get("/api/v1/nodes/node-0")).status_code in {200, 404}


async def test_principals_of_entra_are_one_kind_so_that_a_seed_replays_what_befalls_them(
    served: Served,
) -> None:
    set_weather(served, "apiserver=[{effect: 429, kind: principal list pods, first: 2}]")
    found = []
    for number in (1, 2, 3):
        name = f"00000000-0000-4000-8000-00000000000{number}"
        async with served.client(served.plan.person_token(name)) as principal:
            found.append((await principal.get(PODS)).status_code)
    assert found == [429, 429, 403]
    async with served.client() as admin:
        assert (await admin.get(PODS)).status_code == 200


async def test_a_watch_ends_before_its_client_wants_it_to(served: Served, api: Client) -> None:
    set_weather(served, "watches=0.05")
    async with watching(api, PODS, timeoutSeconds="600") as events:
        assert [seen(event) async for event in events] == []


async def test_the_sandboxs_own_client_hears_of_all_though_watches_end(
    served: Served, api: Client
) -> None:
    set_weather(served, "watches=0.05")
    wanted = {"one", "two", "three"}

    def heard() -> set[str]:
        names = (each["metadata"]["name"] for _, each in served.own.follow(MAPS, 60))
        return {next(name for name in names if name in wanted) for _ in wanted}

    hearing = asyncio.create_task(asyncio.to_thread(heard))
    for name in wanted:
        await asyncio.sleep(0.2)  # meanwhile a watch has ended
        assert (await api.post(MAPS, json={"metadata": {"name": name}})).status_code == 201
    assert await hearing == wanted


def test_a_role_counts_once_the_server_has_heard_of_it(folder: Path) -> None:
    world = Settled(folder)
    world.cluster.weather.set(changed(CALM, ["rbac=5"]))
    grant(world)
    assert not may(world)
    world.late = timedelta(seconds=5)
    assert may(world)
    world.delete("clusterrolebindings.rbac.authorization.k8s.io", "readers", "")
    assert may(world), "what was taken away still counts"
    world.late = timedelta(seconds=10)
    assert not may(world)


def test_an_admission_policy_counts_once_the_server_has_heard_of_it(folder: Path) -> None:
    world = Settled(folder)
    world.cluster.weather.set(changed(CALM, ["policies=1"]))
    user, asked = User("ann"), request_info("POST", MAPS, {})
    body = {"metadata": {"name": "m", "namespace": "default"}}
    rule = {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"]}
    spec = {
        "matchConstraints": {"resourceRules": [{**rule, "resources": ["configmaps"]}]},
        "validations": [{"expression": "false"}],
    }
    world.create(POLICIES, {"metadata": {"name": "p"}, "spec": spec})
    bound = {"policyName": "p", "validationActions": ["Deny"]}
    world.create(BINDINGS, {"metadata": {"name": "b"}, "spec": bound})
    world.cluster.policies.check(user, asked, body, None)
    world.late = timedelta(seconds=2)
    with pytest.raises(StatusError):
        world.cluster.policies.check(user, asked, body, None)
    world.delete(BINDINGS, "b", "")
    with pytest.raises(StatusError):
        world.cluster.policies.check(user, asked, body, None)
    world.late = timedelta(seconds=4)
    world.cluster.policies.check(user, asked, body, None)


def test_roles_of_before_a_restart_count_at_once(folder: Path) -> None:
    with closing(Journal(folder / "journal")) as journal:
        grant(Settled(folder, journal))
    write(folder, changed(CALM, ["rbac=5"]))
    try:
        with closing(Journal(folder / "journal")) as journal:
            assert may(Settled(folder, journal))
    finally:
        # The folder is that of all tests.
        write(folder, CALM)
        (folder / "journal").unlink()


async def test_what_lost_its_owner_goes_when_the_collector_comes(
    served: Served, api: Client
) -> None:
    owner = (await api.post(MAPS, json={"metadata": {"name": "owner"}})).json()
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner"}
    owned = {"name": "owned", "ownerReferences": [{**reference, "uid": owner["metadata"]["uid"]}]}
    await api.post(MAPS, json={"metadata": owned})
    set_weather(served, "garbage=0.2")
    await api.delete(f"{MAPS}/owner")
    assert (await api.get(f"{MAPS}/owned")).status_code == 200
    async with watching(api, MAPS) as events:
        async for event in events:
            if seen(event) == ("DELETED", "owned"):
                return
