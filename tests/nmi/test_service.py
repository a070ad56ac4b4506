"""The rows of the decision: whose request it is, what it gets, and how long it waits."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    TokenRefused,
    TokenSourceDown,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.ids import ClientId, ObjectRef
from podidentity.core.ports import Origin, Verdict
from podidentity.core.refusals import Reason
from podidentity.core.resources import IdentityType, Malformed
from podidentity.core.selection import Ambiguity
from podidentity.core.tokens import TokenRequest
from podidentity.nmi.service import Caller, Outcome, Policy, TokenService
from podidentity.wire.imds_client import NotYetAttached
from tests.fakes import (
    ADDRESS,
    NOW,
    OTHER_CLIENT,
    VAULT,
    FakeAttestor,
    FakeClock,
    FakeTokenSource,
    binding,
    cluster,
    identity,
    pod,
)

REQUEST = TokenRequest(resource=VAULT)
OLD = NOW - 3600


class World:
    """A service with fakes behind all its ports."""

    def __init__(self, *objects: Any, **policy: Any) -> None:
        self.clock = FakeClock()
        self.cluster = cluster(self.clock, *objects)
        self.tokens = FakeTokenSource()
        self.attestor = FakeAttestor()
        self.policy = Policy(**policy)
        self.caller = Caller(ADDRESS, 40_000)

    def service(self, *, attested: bool = True) -> TokenService:
        return TokenService(
            cluster=self.cluster,
            tokens=self.tokens,
            attestor=self.attestor if attested else None,
            clock=self.clock,
            policy=self.policy,
        )

    async def ask(self, request: TokenRequest = REQUEST, *, attested: bool = True) -> Outcome:
        return await self.service(attested=attested).answer(self.caller, request)

    async def asking(self, request: TokenRequest = REQUEST) -> asyncio.Task[Outcome]:
        """Return a request that waits for something."""
        task = asyncio.create_task(self.ask(request))
        await self.clock.somebody_sleeps()
        return task


def reason(outcome: Outcome) -> Reason:
    assert isinstance(outcome.error, Refused), outcome.error
    return outcome.error.refusal.reason


async def test_a_bound_pod_gets_the_token_of_its_identity() -> None:
    world = World(pod(), identity(), binding())
    outcome = await world.ask()
    assert outcome.error is None
    assert outcome.token is not None
    assert (outcome.pod, outcome.identity, outcome.origin) == (pod(), identity(), Origin.IMDS)
    assert world.tokens.asked == [(identity(), VAULT, False)]


# Whose request is it?


@pytest.mark.parametrize(
    ("verdict", "uid", "error"),
    [
        (Verdict.PROVEN, "uid-orders-0", None),
        (Verdict.PROVEN, "", None),
        (Verdict.PROVEN, "uid-of-another", UnprovenCaller),
        (Verdict.FORGED, "", UnprovenCaller),
        (Verdict.FORGED, "uid-orders-0", UnprovenCaller),
        (Verdict.GONE, "", UnprovenCaller),
        (Verdict.UNKNOWN, "", NotReady),
    ],
)
async def test_only_a_connection_that_the_kernel_proves_gets_a_token(
    verdict: Verdict, uid: str, error: type[PodIdentityError] | None
) -> None:
    world = World(pod(), identity(), binding())
    world.attestor.verdict, world.attestor.uid = verdict, uid
    outcome = await world.ask()
    assert (type(outcome.error) if outcome.error else None) is error
    assert bool(world.tokens.asked) is (error is None)
    assert outcome.detail == "in cni-1234"


async def test_the_kernel_is_asked_about_the_connection_and_the_pods_that_have_its_address() -> (
    None
):
    world = World(pod(), identity(), binding())
    await world.ask()
    assert world.attestor.asked == [(ADDRESS, 40_000, [pod()])]


async def test_a_connection_is_proved_once_however_many_requests_it_carries() -> None:
    world = World(pod(), identity(), binding())
    await world.ask()
    await world.ask()
    assert len(world.attestor.asked) == 1


async def test_a_connection_of_a_pod_that_ended_is_proved_anew_for_the_next_with_its_address() -> (
    None
):
    world = World(pod(), identity(), binding())
    await world.ask()
    world.cluster.remove_pod(pod().ref)
    world.cluster.put_pod(pod("thief", labels={}))
    world.attestor.verdict = Verdict.FORGED
    assert isinstance((await world.ask()).error, UnprovenCaller)


async def test_of_two_pods_with_one_address_the_socket_decides() -> None:
    other = pod("b", labels={})
    world = World(pod("a"), other, identity(), binding())
    world.attestor.uid = "uid-b"
    assert (await world.ask()).pod == other
    world = World(pod("a"), other, identity(), binding())
    world.attestor.uid = "uid-a"
    assert (await world.ask()).token is not None


@pytest.mark.parametrize("attested", [True, False])
async def test_two_pods_with_one_address_that_nothing_tells_apart_get_nothing(
    attested: bool,
) -> None:
    world = World(pod("a"), pod("b"), identity(), binding())
    world.attestor.uid = ""
    assert isinstance((await world.ask(attested=attested)).error, UnprovenCaller)


async def test_a_pods_annotation_lowers_the_demand_for_that_pod_alone() -> None:
    lowered = pod(attestation="address")
    world = World(lowered, identity(), binding())
    world.attestor.verdict = Verdict.FORGED
    assert (await world.ask()).token is not None
    world = World(pod(attestation="ADDRESS"), identity(), binding())
    world.attestor.verdict = Verdict.FORGED
    assert isinstance((await world.ask()).error, UnprovenCaller)
    world = World(lowered, pod("strict"), identity(), binding())
    world.attestor.verdict = Verdict.FORGED
    assert isinstance((await world.ask()).error, UnprovenCaller)


async def test_without_an_attestor_the_address_is_believed() -> None:
    world = World(pod(), identity(), binding())
    assert (await world.ask(attested=False)).token is not None
    assert world.attestor.asked == []


async def test_an_unknown_address_waits_for_the_watch() -> None:
    world = World(identity(), binding())
    asking = await world.asking()
    assert world.clock.slept == [2.0]
    world.clock.advance(1.9)
    world.cluster.put_pod(pod())
    assert (await asking).token is not None


async def test_an_unknown_address_is_refused_after_two_seconds() -> None:
    world = World(identity(), binding())
    asking = await world.asking()
    world.clock.advance(2)
    outcome = await asking
    assert isinstance(outcome.error, UnknownCaller)
    assert world.attestor.asked == []


async def test_changes_elsewhere_do_not_make_an_unknown_address_wait_longer() -> None:
    world = World()
    asking = await world.asking()
    for _ in range(4):
        world.clock.advance(0.5)
        world.cluster.put_identity(identity(resource_id=None, object_id=None))
        world.cluster.remove_identity(identity().ref)
        await asyncio.sleep(0)
    assert isinstance((await asking).error, UnknownCaller)


async def test_before_the_cluster_has_been_read_nobody_is_refused_for_good() -> None:
    world = World()
    world.cluster = WatchedCluster(world.clock)
    asking = await world.asking()
    world.clock.advance(2)
    assert isinstance((await asking).error, NotReady)


# What does it get?


@pytest.mark.parametrize(
    ("objects", "expected"),
    [
        ([pod(labels={}, started=OLD), identity(), binding()], Reason.NO_LABEL),
        ([pod(started=OLD), identity()], Reason.NO_BINDING),
        (
            [pod(started=OLD), identity(), binding(ref=ObjectRef("other", "b"))],
            Reason.OTHER_NAMESPACE,
        ),
        ([pod(started=OLD), binding()], Reason.NO_IDENTITY),
        ([pod(started=OLD, host_network=True), identity(), binding()], Reason.HOST_NETWORK),
        (
            [pod(started=OLD), identity(type=IdentityType.SERVICE_PRINCIPAL), binding()],
            Reason.UNSERVED_TYPE,
        ),
    ],
    ids=lambda value: str(value) if isinstance(value, Reason) else "",
)
async def test_an_old_pod_that_nothing_has_changed_for_is_refused_at_once(
    objects: list[Any], expected: Reason
) -> None:
    world = World(*objects)
    assert reason(await world.ask()) is expected
    assert world.clock.slept == []
    assert world.tokens.asked == []


@pytest.mark.parametrize(
    "objects",
    [
        [pod(labels={}), identity(), binding()],
        [pod(host_network=True), identity(), binding()],
        [pod(), identity(type=IdentityType.FEDERATED), binding()],
    ],
    ids=["no label", "host network", "type"],
)
async def test_what_no_waiting_can_change_is_refused_at_once_for_a_young_pod_too(
    objects: list[Any],
) -> None:
    world = World(*objects)
    assert isinstance((await world.ask()).error, Refused)
    assert world.clock.slept == []


async def test_a_young_pod_is_held_until_its_binding_comes() -> None:
    world = World(pod(started=NOW - 3), identity())
    asking = await world.asking()
    assert world.clock.slept == [5.0], "8 s after its start"
    world.cluster.put_binding(binding())
    assert (await asking).token is not None


async def test_a_held_pod_is_refused_when_the_hold_is_over() -> None:
    world = World(pod(started=NOW - 3), identity())
    asking = await world.asking()
    world.clock.advance(5)
    assert reason(await asking) is Reason.NO_BINDING


async def test_a_change_in_its_namespace_holds_a_pod_from_then_on() -> None:
    world = World(pod(started=OLD), identity())
    world.cluster.put_binding(binding(selector="another"))
    world.clock.advance(3)
    asking = await world.asking()
    assert world.clock.slept == [5.0]
    world.cluster.put_binding(binding())
    assert (await asking).token is not None


async def test_a_change_in_another_namespace_holds_nobody_here() -> None:
    world = World(pod(started=OLD), identity())
    world.cluster.put_binding(binding(ref=ObjectRef("other", "b"), selector="x"))
    assert reason(await world.ask()) is Reason.NO_BINDING
    assert world.clock.slept == []


async def test_an_identity_that_is_corrected_within_the_hold_serves_the_held_request() -> None:
    world = World(pod(started=OLD), binding())
    bad = Malformed(ref=identity().ref, kind="AzureIdentity", why="spec.clientID is missing")
    world.cluster.put_identity(bad)
    asking = await world.asking()
    world.cluster.put_identity(identity())
    assert (await asking).identity == identity()


async def test_a_label_corrected_within_the_hold_serves_the_held_request() -> None:
    world = World(pod(labels={"aadpodidbinding": "typo"}), identity(), binding())
    asking = await world.asking()
    world.cluster.put_pod(pod())
    outcome = await asking
    assert (outcome.token is not None, outcome.pod) == (True, pod())


async def test_a_pod_that_ends_while_it_is_held_is_answered() -> None:
    world = World(pod(), identity())
    asking = await world.asking()
    world.cluster.remove_pod(pod().ref)
    assert isinstance((await asking).error, UnknownCaller)


async def test_a_hold_of_nothing_holds_nobody() -> None:
    world = World(pod(), identity(), hold=0)
    assert reason(await world.ask()) is Reason.NO_BINDING


async def test_an_id_that_is_not_among_the_pods_is_refused_at_once_with_what_is() -> None:
    world = World(pod(), identity(), binding())
    asked = TokenRequest(resource=VAULT, client_id=ClientId.parse(OTHER_CLIENT))
    outcome = await world.ask(asked)
    assert reason(outcome) is Reason.NOT_AMONG
    assert "orders (11111111-" in str(outcome.error)
    assert world.clock.slept == []
    assert world.tokens.asked == []


def two_identities() -> list[Any]:
    other = identity("other", client_id=ClientId.parse(OTHER_CLIENT))
    return [pod(), identity(), binding(), other, binding("b", identity="other", weight=5)]


async def test_of_several_identities_the_heaviest_answers_who_names_none() -> None:
    outcome = await World(*two_identities()).ask()
    assert outcome.identity is not None
    assert outcome.identity.ref.name == "other"


async def test_of_several_identities_none_answers_who_names_none_where_that_is_chosen() -> None:
    world = World(*two_identities(), ambiguity=Ambiguity.REJECT)
    assert reason(await world.ask()) is Reason.AMBIGUOUS


async def test_bypass_cache_reaches_the_source() -> None:
    world = World(pod(), identity(), binding())
    await world.ask(TokenRequest(resource=VAULT, bypass_cache=True))
    assert world.tokens.asked[0][2] is True


# When the source says no.


async def test_an_identity_attached_a_moment_ago_is_asked_for_again_within_the_hold() -> None:
    world = World(pod(), identity(), binding())
    absent = NotYetAttached("Identity not found", status=400, error="invalid_request")
    world.tokens.failures = [absent, absent]
    asking = await world.asking()
    world.clock.advance(1)
    await asyncio.sleep(0)
    await world.clock.somebody_sleeps()
    while len(world.tokens.asked) < 3:
        world.clock.advance(1)
        await asyncio.sleep(0)
    assert (await asking).token is not None
    assert set(world.clock.slept) == {1.0}


async def test_an_identity_that_is_not_attached_is_refused_when_the_hold_is_over() -> None:
    world = World(pod(started=OLD), identity(), binding())
    world.tokens.failures = [NotYetAttached("Identity not found", status=400, error="x")]
    outcome = await world.ask()
    assert isinstance(outcome.error, NotYetAttached)
    assert len(world.tokens.asked) == 1


@pytest.mark.parametrize(
    "failure", [TokenRefused("no", status=400, error="x"), TokenSourceDown("away")], ids=repr
)
async def test_other_failures_are_never_repeated(failure: Any) -> None:
    world = World(pod(), identity(), binding())
    world.tokens.failures = [failure]
    outcome = await world.ask()
    assert outcome.error is failure
    assert (outcome.pod, outcome.identity) == (pod(), identity())
    assert len(world.tokens.asked) == 1


async def test_a_client_that_leaves_ends_its_wait() -> None:
    world = World(pod(), identity())
    asking = await world.asking()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.sleep(0)
    assert world.clock._sleepers == []
