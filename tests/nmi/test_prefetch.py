"""What is fetched before a pod asks: little, for whom it is due, and at nobody's expense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.authorities import CLOUDS
from podidentity.core.decision import Authorization, Rules, Use
from podidentity.core.errors import NotReady, TokenRefused, TokenSourceDown
from podidentity.core.resources import (
    BINDING_LABEL,
    ClientId,
    Federation,
    IdentityType,
    ObjectRef,
    Origin,
    Phase,
    ResourceId,
)
from podidentity.nmi.sync.prefetch import MOST_PENDING, Choice, Prefetcher, PrefetchPolicy
from tests.fakes import (
    CLIENT,
    OTHER_CLIENT,
    RESOURCE_ID,
    VAULT,
    FakeClock,
    FakePermissions,
    FakeTokenSource,
    assigned,
    binding,
    cluster,
    grant,
    identity,
    pod,
)
from tests.principals import federated

ARM = "https://management.azure.com/"


class World:
    """A node on which pods appear."""

    def __init__(self, *objects: Any, synced: bool = True, **policy: Any) -> None:
        self.clock = FakeClock()
        self.cluster = cluster(self.clock, *objects) if synced else WatchedCluster(self.clock)
        self.source = FakeTokenSource()
        self.cache = TokenCache(dict.fromkeys(IdentityType, self.source), self.clock)
        self.permissions = FakePermissions()
        self.spared = asyncio.Event()
        self.spared.set()
        self.looked = 0
        self.prefetcher = Prefetcher(
            cluster=self.cluster,
            tokens=self.cache,
            permissions=self.permissions,
            spare=self.spare,
            clock=self.clock,
            policy=PrefetchPolicy(**policy),
        )
        self.cluster.follow(self.prefetcher.changed)

    async def spare(self) -> None:
        self.looked += 1
        await self.spared.wait()

    async def fetched(self) -> list[str]:
        """Return the audiences that were asked for, all that is due being done."""
        for _ in range(100):
            await asyncio.sleep(0)
        return [resource for _, resource, _ in self.source.asked]


@asynccontextmanager
async def running(*objects: Any, **policy: Any) -> AsyncIterator[World]:
    world = World(*(objects or (identity(), binding())), **policy)
    task = asyncio.create_task(world.prefetcher.run())
    try:
        yield world
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await world.cache.close()


async def test_a_new_pods_tokens_are_there_before_it_asks() -> None:
    async with running() as world:
        world.cluster.put_pod(pod(phase=Phase.PENDING, addresses=()))
        assert await world.fetched() == [ARM, VAULT]
        assert (await world.cache.fetch(grant(), VAULT))[1] is Origin.CACHE


@pytest.mark.parametrize(
    ("cloud", "expected"),
    [
        (
            "azureusgovernmentcloud",
            ["https://management.usgovcloudapi.net/", "https://vault.usgovcloudapi.net"],
        ),
        ("azurechinacloud", ["https://management.chinacloudapi.cn/", "https://vault.azure.cn"]),
        ("azuregermancloud", []),
    ],
)
async def test_each_cloud_has_its_own_audiences(cloud: str, expected: list[str]) -> None:
    async with running(cloud=CLOUDS[cloud]) as world:
        world.cluster.put_pod(pod())
        assert await world.fetched() == expected


async def test_of_many_identities_the_four_heaviest_are_fetched() -> None:
    named = [
        identity(f"i{n}", client_id=ClientId.parse(f"{n}" * 8 + OTHER_CLIENT[8:])) for n in range(6)
    ]
    bound = [binding(f"b{n}", identity=f"i{n}", weight=n) for n in range(6)]
    async with running(*named, *bound, choice=("a",)) as world:
        world.cluster.put_pod(pod())
        await world.fetched()
        asked = [each.identity.ref.name for each in world.source.grants]
    assert sorted(asked) == ["i2", "i3", "i4", "i5"]


@pytest.mark.parametrize(("age", "expected"), [(119, ["a"]), (120, [])])
async def test_a_pod_is_new_for_two_minutes(age: int, expected: list[str]) -> None:
    async with running(synced=False, choice=("a",)) as world:
        for each in (identity(), binding()):
            world.cluster.put(each)
        world.cluster.put_pod(pod(started=world.clock.time() - age))
        world.cluster.mark_synced()
        assert await world.fetched() == expected


async def test_what_pods_of_the_identity_asked_for_is_fetched_for_the_next_one() -> None:
    async with running() as world:
        await world.cache.fetch(grant(), "api://orders")
        world.clock.advance(86_399)
        world.cluster.put_pod(pod())
        assert await world.fetched() == ["api://orders"] * 2


async def test_what_was_only_fetched_ahead_was_not_asked_for() -> None:
    async with running() as world:
        world.cluster.put_pod(pod("a"))
        await world.fetched()
        assert world.cache.audiences(identity().ref) == []


@pytest.mark.parametrize(
    ("choice", "expected"), [("off", []), (("a", "b"), ["a", "b"])], ids=["off", "named"]
)
async def test_an_operator_says_what_is_fetched(choice: Choice, expected: list[str]) -> None:
    async with running(choice=choice) as world:
        world.cluster.put_pod(pod())
        assert await world.fetched() == expected


async def test_a_pod_is_looked_at_once_however_often_its_status_changes() -> None:
    async with running(choice=("a",)) as world:
        for number in range(10):
            world.cluster.put_pod(pod(addresses=(f"10.0.0.{number}",)))
            await world.fetched()
        assert world.looked == 1


async def test_a_pod_that_waits_to_be_looked_at_is_not_looked_at_twice() -> None:
    async with running(choice=("a",)) as world:
        for number in range(10):
            world.cluster.put_pod(pod(addresses=(f"10.0.0.{number}",)))
        await world.fetched()
        assert world.looked == 1


async def test_a_pod_that_waits_for_its_binding_is_looked_at_when_that_comes() -> None:
    async with running(identity(), choice=("a",)) as world:
        world.cluster.put_pod(pod())
        assert await world.fetched() == []
        world.cluster.put(binding())
        assert await world.fetched() == ["a"]


async def test_nothing_happens_for_what_changes_in_other_namespaces() -> None:
    async with running(identity(), choice=("a",)) as world:
        world.cluster.put_pod(pod())
        world.cluster.put(binding(ref=ObjectRef("bank", "b")))
        assert await world.fetched() == []


async def test_in_standard_mode_an_identity_on_its_way_is_waited_for() -> None:
    async with running(rules=Rules(standard=True)) as world:
        world.cluster.put_pod(pod())
        assert await world.fetched() == []
        world.cluster.put(assigned())
        assert await world.fetched() == [ARM, VAULT]


async def test_pods_that_run_for_long_have_asked_already() -> None:
    async with running(synced=False, choice=("a",)) as world:
        for each in (identity(), binding()):
            world.cluster.put(each)
        world.cluster.put_pod(pod("old", started=world.clock.time() - 1000))
        assert await world.fetched() == []
        world.cluster.mark_synced()
        assert await world.fetched() == []
        world.cluster.put_pod(pod("young"))
        assert await world.fetched() == ["a"]


async def test_a_pod_with_another_label_is_new_again() -> None:
    other = identity("bank", client_id=ClientId.parse(OTHER_CLIENT))
    bound = binding("bank-binding", identity="bank", selector="bank")
    async with running(identity(), binding(), other, bound, choice=("a",)) as world:
        world.cluster.put_pod(pod())
        world.cluster.put_pod(pod(labels={BINDING_LABEL: "bank"}))
        await world.fetched()
        world.cluster.put_pod(pod())
        await world.fetched()
        assert {asked.ref.name for asked, _, _ in world.source.asked} == {"orders", "bank"}


async def test_what_is_not_permitted_is_not_fetched() -> None:
    async with running() as world:
        world.permissions.default = False
        world.cluster.put_pod(pod())
        assert await world.fetched() == []


@pytest.mark.parametrize("choice", [Authorization.OBSERVE, Authorization.OFF])
async def test_where_permissions_refuse_nobody_nothing_is_asked_for_a_prefetch(
    choice: Authorization,
) -> None:
    async with running(authorization=choice) as world:
        world.permissions.default = False
        world.cluster.put_pod(pod())
        assert await world.fetched() == [ARM, VAULT]
        assert world.permissions.asked == []


@pytest.mark.parametrize("denied", [CLIENT, RESOURCE_ID.lower()])
async def test_each_permission_of_an_identity_is_needed_for_a_prefetch(denied: str) -> None:
    via = federated(Federation(via=ResourceId.parse(RESOURCE_ID)))
    async with running(via, binding()) as world:
        account = ObjectRef("shop", "default")
        world.permissions.allowed[Use(account, denied)] = False
        world.cluster.put_pod(pod())
        assert await world.fetched() == []
        assert Use(account, denied) not in world.permissions.asked, "it is known"


async def test_a_token_is_fetched_for_the_pod_and_the_identity_that_is_bound_to_it() -> None:
    async with running(choice=("a",)) as world:
        world.cluster.put_pod(pod("one"))
        world.cluster.put_pod(pod("other", ref=ObjectRef("bank", "other")))
        await world.fetched()
        asked = [(each.pod.ref, each.identity.ref.name) for each in world.source.grants]
        assert asked == [(ObjectRef("shop", "one"), "orders")]


async def test_imds_is_asked_only_when_it_has_something_to_spare() -> None:
    async with running(choice=("a",)) as world:
        world.spared.clear()
        world.cluster.put_pod(pod())
        assert await world.fetched() == []
        world.spared.set()
        assert await world.fetched() == ["a"]


async def test_what_signs_in_by_a_managed_identity_asks_imds_too() -> None:
    via = federated(Federation(via=ResourceId.parse(RESOURCE_ID)))
    async with running(via, binding(), choice=("a",)) as world:
        world.spared.clear()
        world.cluster.put_pod(pod())
        assert await world.fetched() == []


async def test_entra_is_asked_at_once() -> None:
    async with running(federated(), binding(), choice=("a",)) as world:
        world.spared.clear()
        world.cluster.put_pod(pod())
        assert await world.fetched() == ["a"]


async def test_no_more_than_two_are_fetched_at_once() -> None:
    others = [
        identity(f"i{n}", client_id=ClientId.parse(f"{n}" * 8 + OTHER_CLIENT[8:])) for n in range(5)
    ]
    bound = [binding(f"b{n}", identity=f"i{n}", selector=f"i{n}") for n in range(5)]
    async with running(*others, *bound, choice=("a",)) as world:
        world.source.open.clear()
        for number in range(5):
            world.cluster.put_pod(pod(f"p{number}", labels={BINDING_LABEL: f"i{number}"}))
        assert len(await world.fetched()) == 2
        world.source.open.set()
        assert len(await world.fetched()) == 5


async def test_a_node_full_of_pods_at_once_is_too_much_only_for_the_last_ones() -> None:
    async with running(choice=("a",)) as world:
        for number in range(2 * MOST_PENDING):
            world.cluster.put_pod(pod(f"p{number}"))
        for _ in range(MOST_PENDING):
            await world.fetched()
        assert world.looked == MOST_PENDING


@pytest.mark.parametrize(
    ("failure", "left"),
    [
        (TokenRefused("no", status=400, error="invalid_resource"), ["a", "b"]),
        (TokenSourceDown("away"), ["a"]),
    ],
    ids=["refused", "down"],
)
async def test_a_failure_ends_what_it_concerns_and_nothing_else(
    failure: TokenRefused | TokenSourceDown, left: list[str]
) -> None:
    async with running(choice=("a", "b")) as world:
        world.source.failures.append(failure)
        world.cluster.put_pod(pod())
        assert await world.fetched() == left
        world.clock.advance(100)
        world.cluster.put_pod(pod("another"))
        assert (await world.fetched())[len(left) :] in (["a"], ["a", "b"])


async def test_a_defect_costs_one_pod_its_start_and_not_the_agent() -> None:
    async with running(choice=("a",)) as world:
        world.source.failures.append(RuntimeError("nobody thought of this"))
        world.cluster.put_pod(pod())
        assert await world.fetched() == ["a"]
        world.cluster.put_pod(pod("another"))
        assert await world.fetched() == ["a", "a"]


async def test_an_api_server_that_is_away_stops_nothing() -> None:
    async with running(choice=("a",)) as world:
        world.permissions.failure = NotReady("away")
        world.cluster.put_pod(pod())
        assert await world.fetched() == []
        world.permissions.failure = None
        world.cluster.put_pod(pod("another"))
        assert await world.fetched() == ["a"]


async def test_it_costs_the_pod_nothing_of_its_budget() -> None:
    async with running(choice=tuple(f"r{n}" for n in range(30))) as world:
        world.cluster.put_pod(pod())
        await world.fetched()
        for number in range(10):
            assert (await world.cache.fetch(grant(), f"mine-{number}"))[1] is Origin.IMDS


async def test_pods_that_are_gone_are_forgotten() -> None:
    async with running(identity()) as world:
        for number in range(1000):
            world.cluster.put_pod(pod(f"p{number}"))
            await world.fetched()
            world.cluster.remove_pod(pod(f"p{number}").ref)
        assert not world.prefetcher._seen
        assert not world.prefetcher._waiting
