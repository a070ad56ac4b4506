"""Who may use which identity, asked of the cluster: when, how often, and what if it is away."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from podidentity.adapters.permission_cache import RbacPermissions
from podidentity.core.decision import Authorization, Rules, Use
from podidentity.core.errors import NotReady
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity, ClientId, ObjectRef, TokenRequest
from podidentity.nmi.request.decision import Granted
from tests.fakes import (
    CLIENT,
    OTHER_CLIENT,
    VAULT,
    FakeKubeApi,
    FakePermissions,
    assigned,
    binding,
    identity,
    pod,
)
from tests.nmi.worlds import World, error_of, reason

USE = Use(ObjectRef("shop", "default"), CLIENT)
OTHER_USE = Use(ObjectRef("shop", "default"), OTHER_CLIENT)


def world(**policy: Any) -> World:
    return World(pod(), identity(), binding(), **policy)


def two() -> World:
    second = identity("second", client_id=ClientId.parse(OTHER_CLIENT))
    return World(pod(), identity(), binding(), second, binding("b2", identity="second", weight=5))


async def test_an_entitled_pod_without_the_permission_gets_no_token() -> None:
    denied = world()
    denied.permissions.default = False
    outcome = await denied.ask()
    assert reason(outcome) is Reason.NOT_PERMITTED
    assert outcome.identity == identity(), "the audit says which one"
    assert denied.permissions.asked == [USE]
    assert denied.tokens.asked == []
    assert denied.clock.slept == []


async def test_what_is_known_is_not_asked_again() -> None:
    known = world()
    await known.ask()
    await known.ask()
    assert known.permissions.asked == [USE]


async def test_of_several_each_is_asked_for_until_one_is_permitted() -> None:
    some = two()
    some.permissions.allowed[OTHER_USE] = False
    outcome = await some.ask()
    assert outcome.identity == identity()
    assert some.permissions.asked == [USE]


async def test_what_was_not_asked_for_is_not_asked_about() -> None:
    some = two()
    await some.ask(TokenRequest(resource=VAULT, client_id=ClientId.parse(CLIENT)))
    assert some.permissions.asked == [USE]


async def test_where_nobody_can_say_there_is_no_token_and_it_is_not_a_no() -> None:
    away = world()
    away.permissions.failure = NotReady("the API server cannot be asked")
    outcome = await away.ask()
    assert isinstance(error_of(outcome), NotReady)
    assert away.tokens.asked == []


async def test_observing_gives_tokens_and_tells_what_it_would_refuse() -> None:
    observing = world(authorization=Authorization.OBSERVE)
    observing.permissions.default = False
    outcome = await observing.ask()
    assert isinstance(outcome, Granted)
    assert outcome.observed is not None
    assert outcome.observed.reason is Reason.NOT_PERMITTED


async def test_observing_refuses_nobody_because_the_api_server_is_away() -> None:
    observing = world(authorization=Authorization.OBSERVE)
    observing.permissions.failure = NotReady("away")
    outcome = await observing.ask()
    assert isinstance(outcome, Granted)
    assert outcome.observed is None


async def test_off_asks_nobody() -> None:
    off = world(authorization=Authorization.OFF)
    off.permissions.default = False
    assert isinstance(await off.ask(), Granted)
    assert off.permissions.asked == []


class Slow:
    """An RBAC that answers when the test says so."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()
        self.answer: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self.revision = 0

    def known(self, use: Use, since: float) -> bool | None:
        del use, since
        return None

    async def ask(self, use: Use, since: float, patience: float = 0.0) -> bool:
        del use, since, patience
        self.asked.set()
        return await self.answer


async def test_what_changes_while_the_cluster_is_asked_counts() -> None:
    changed = world()
    changed.permissions = slow = Slow()  # type: ignore[assignment]
    asking = asyncio.create_task(changed.ask())
    await slow.asked.wait()
    changed.cluster.put(binding(identity="another"))
    changed.cluster.put(identity("another", client_id=ClientId.parse(OTHER_CLIENT)))
    slow.answer.set_result(True)
    outcome = await asking
    assert outcome.identity is not None
    assert outcome.identity.ref.name == "another"


async def test_a_change_while_the_cluster_is_asked_is_no_reason_to_wait_for_the_next() -> None:
    changed = world(rules=Rules(standard=True))
    changed.permissions = slow = Slow()  # type: ignore[assignment]
    asking = asyncio.create_task(changed.ask())
    await slow.asked.wait()
    changed.cluster.put(assigned())
    slow.answer.set_result(True)
    assert isinstance(await asking, Granted)
    assert changed.clock.slept == []


class Granting(FakeKubeApi):
    """Permits everything; counts the questions."""

    def __init__(self) -> None:
        self.asked = 0
        self.answers = asyncio.Event()
        self.answers.set()

    async def ask(self, path: str, question: Mapping[str, Any]) -> bytes:
        del path, question
        self.asked += 1
        await self.answers.wait()
        return b'{"status": {"allowed": true}}'


async def test_a_permission_is_not_asked_for_again_by_a_request_that_waited_for_its_record() -> (
    None
):
    held, server = world(rules=Rules(standard=True)), Granting()
    held.permissions = RbacPermissions(server, held.clock)  # type: ignore[assignment]
    asking = await held.asking()
    for state in ("Created", "Assigned"):
        held.clock.advance(1)
        held.cluster.put(assigned(state=state))
        for _ in range(20):
            await asyncio.sleep(0)
    assert isinstance(await asking, Granted)
    assert server.asked == 1


# What changes while a token is fetched.


async def fetching(held: World) -> asyncio.Task[Any]:
    held.tokens.open.clear()
    asking = asyncio.create_task(held.ask())
    await held.tokens.begun.wait()
    return asking


async def test_a_request_that_waited_for_a_binding_waits_for_its_grant_which_comes_last() -> None:
    held = World(pod(started=1.0), identity(), binding())
    held.permissions.default = False
    held.cluster.remove("AzureIdentityBinding", binding().ref)
    asking = await held.asking()
    held.cluster.put(binding())
    await held.clock.somebody_slept(0.5, 1)
    assert not asking.done()
    held.permissions.allowed[USE] = True
    held.clock.advance(0.5)
    assert isinstance(await asking, Granted)


async def test_a_request_that_waited_for_a_binding_that_nobody_grants_is_refused_in_the_end() -> (
    None
):
    held = World(pod(started=1.0), identity(), binding())
    held.permissions.default = False
    held.cluster.remove("AzureIdentityBinding", binding().ref)
    asking = await held.asking()
    held.cluster.put(binding())
    for _ in range(8 * 4):
        for _ in range(20):
            await asyncio.sleep(0)
        assert not asking.done()
        held.clock.advance(0.25)
    assert reason(await asking) is Reason.NOT_PERMITTED


async def test_it_asks_for_a_permission_of_since_its_pod_came_and_after_a_wait_of_now() -> None:
    """A refusal from before the pod, or from before the grant that it waits for, is none."""
    held = just_bound()
    times: list[float] = []

    class Unknown(FakePermissions):
        def known(self, *_: object) -> None:
            pass

        async def ask(self, _: Use, since: float, patience: float = 0.0) -> bool:  # noqa: ARG002
            times.append(since)
            return False

    held.permissions = Unknown()
    asking = await held.asking()
    came = held.cluster.seen_at(pod(started=1.0))
    assert times == [came]
    held.clock.advance(0.5)
    await held.clock.somebody_slept(0.5, 2)
    assert times == [came, held.clock.monotonic()]
    asking.cancel()
    await asyncio.wait({asking})


@pytest.mark.parametrize(("standard", "longest"), [(True, 80.0), (False, 8.0)])
@pytest.mark.parametrize("comes", [True, False], ids=["comes", "does not come"])
async def test_a_request_waits_for_its_permission_as_long_as_for_its_record(
    *, standard: bool, longest: float, comes: bool
) -> None:
    """In managed mode there is no record: the request waits as long as for a binding."""
    slow = world(rules=Rules(standard=standard))
    slow.cluster.put(assigned())
    server = Granting()
    server.answers.clear()
    permissions = RbacPermissions(server, slow.clock)
    slow.permissions = permissions  # type: ignore[assignment]
    asking = await slow.asking()
    while slow.clock.monotonic() < longest - 1:
        slow.clock.advance(1.0)
        for _ in range(10):
            await asyncio.sleep(0)
        assert not asking.done()
    if comes:
        server.answers.set()
    else:
        slow.clock.advance(1.0)
    outcome = await asking
    assert comes is isinstance(outcome, Granted)
    assert comes or isinstance(error_of(outcome), NotReady)
    await permissions.close()


def just_bound() -> World:
    """Return a world in which a binding came a second ago, and nobody may use the identity."""
    found = World(pod(started=1.0), identity(), binding())
    found.permissions.default = False
    found.cluster.remove("AzureIdentityBinding", binding().ref)
    found.clock.advance(60.0)
    found.cluster.put(binding())
    found.clock.advance(1.0)
    return found


async def test_a_request_between_a_binding_and_its_grant_waits_for_the_grant() -> None:
    world = just_bound()
    asking = await world.asking()
    world.permissions.allowed[USE] = True
    world.clock.advance(0.5)
    assert isinstance(await asking, Granted)


async def test_two_seconds_behind_a_binding_no_grant_is_awaited_any_more() -> None:
    world = just_bound()
    asking = await world.asking()
    world.clock.advance(0.5)
    await world.clock.somebody_slept(0.5, 2)
    assert not asking.done()
    world.clock.advance(0.5)
    assert reason(await asking) is Reason.NOT_PERMITTED
    slept = list(world.clock.slept)
    assert reason(await world.ask()) is Reason.NOT_PERMITTED
    assert world.clock.slept == slept, "and at once from then on"


async def test_a_token_that_was_fetched_for_a_binding_that_went_is_given_to_nobody() -> None:
    held = World(pod(started=1.0), identity(), binding())
    asking = await fetching(held)
    held.cluster.remove("AzureIdentityBinding", binding().ref)
    held.tokens.open.set()
    await held.clock.somebody_sleeps()
    held.clock.advance(8)
    outcome = await asking
    assert reason(outcome) is Reason.NO_BINDING


async def test_a_token_that_was_fetched_for_a_permission_that_went_is_given_to_nobody() -> None:
    held = world()
    asking = await fetching(held)
    held.permissions.allowed[USE] = False
    held.permissions.revision += 1
    held.tokens.open.set()
    assert reason(await asking) is Reason.NOT_PERMITTED


async def test_an_identity_that_was_edited_meanwhile_is_fetched_for_anew() -> None:
    held = world()
    asking = await fetching(held)
    edited: AzureIdentity = identity(client_id=ClientId.parse(OTHER_CLIENT))
    held.cluster.put(edited)
    held.tokens.open.set()
    assert (await asking).identity == edited
    assert [each[0] for each in held.tokens.asked] == [identity(), edited]


async def test_what_concerns_others_changes_nothing() -> None:
    held = world()
    asking = await fetching(held)
    held.cluster.put(identity("unrelated"))
    held.tokens.open.set()
    assert isinstance(await asking, Granted)
    assert len(held.tokens.asked) == 1
