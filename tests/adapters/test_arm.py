"""The client of Azure Resource Manager against the sandbox's, over loopback.

Both go by one clock, which turns only while the client sleeps.
"""

from __future__ import annotations

import asyncio
import email.utils
import json
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import pytest

from podidentity.adapters import arm as finding
from podidentity.adapters.arm import Arm
from podidentity.adapters.clock import SystemClock
from podidentity.core.hosts import Host
from podidentity.core.resources import ResourceId
from podidentity.wire.arm import LONGEST_ANSWER, ArmError
from podidentity_sandbox import weather
from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.client import App, AzureOperator
from podidentity_sandbox.azure.journal import FILE
from podidentity_sandbox.azure.state import IdentityBlock, ScaleSet, UserAssignedIdentity
from podidentity_sandbox.weather import CALM, changed
from tests.cli.ids import IDENTITY
from tests.sandbox.azure.conftest import Azure, folder, running
from tests.sandbox.azure.plans import Clock

__all__ = ["folder"]


class SleepingClock:
    """Azure's clock as the client's: it turns while the client sleeps, and remembers that."""

    def __init__(self, azures: Clock) -> None:
        self._azures = azures
        self.slept: list[float] = []

    def time(self) -> float:
        return self._azures.now

    def monotonic(self) -> float:
        return self._azures.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self._azures.now += seconds


class SignedIn:
    """An application that signs in at Entra by its secret."""

    def __init__(self, cloud: Azure, client_id: str, secret: str) -> None:
        self._cloud = cloud
        self._form = {"client_id": client_id, "client_secret": secret}
        self.tokens: dict[str, str] = {}
        """By scope."""

    async def token(self, scope: str) -> str:
        if scope not in self.tokens:
            form = {"grant_type": "client_credentials", "scope": scope, **self._form}
            tenant = self._cloud.plan.tenant_id
            url = f"https://login.microsoftonline.com/{tenant}/oauth2/v2.0/token"
            async with httpx2.AsyncClient(transport=network(self._cloud)) as client:
                answer = await client.post(url, data=form)
            self.tokens[scope] = answer.json()["access_token"]
        return self.tokens[scope]


def network(cloud: Azure) -> httpx2.AsyncHTTPTransport:
    return httpx2.AsyncHTTPTransport(verify=cloud.trust, proxy=cloud.proxy, trust_env=False)


class OnTheWay(httpx2.AsyncBaseTransport):
    """The way to Azure: it sees all that is sent, and a test may do something there."""

    def __init__(self, cloud: Azure) -> None:
        self._network = network(cloud)
        self.requests: list[tuple[str, str, Any]] = []
        self.before_patch: Callable[[], None] = lambda: None
        """What happens between the client's look at the host and its change."""
        self.change: Callable[[httpx2.Response], None] = lambda _: None
        """What becomes of an answer."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        body = json.loads(await request.aread() or b"null")
        self.requests.append((request.method, str(request.url), body))
        request.extensions.pop("timeout", None)  # ten seconds to connect, on a machine of any load
        if request.method == "PATCH":
            self.before_patch()
        answer = await self._network.handle_async_request(request)
        self.change(answer)
        return answer

    async def aclose(self) -> None:
        await self._network.aclose()

    def patches(self) -> list[Any]:
        return [body for method, _, body in self.requests if method == "PATCH"]


def without(header: str) -> Callable[[httpx2.Response], None]:
    """Return a change of an answer that takes a header away."""

    def change(answer: httpx2.Response) -> None:
        if header in answer.headers:
            del answer.headers[header]

    return change


@dataclass
class Scene:
    """The client, its Azure, and an identity that is not attached."""

    cloud: Azure
    arm: Arm
    way: OnTheWay
    clock: SleepingClock
    login: SignedIn
    identity: UserAssignedIdentity

    @property
    def host(self) -> Host:
        return Host.of_node(f"azure://{self.cloud.plan.scale_set_id}/virtualMachines/0")

    @property
    def wanted(self) -> ResourceId:
        return ResourceId.parse(self.identity.id)

    def weather(self, *settings: str) -> None:
        weather.write(self.cloud.plan.path, changed(CALM, settings))

    async def attach(self, *, wait: bool = True) -> bool:
        return await self.arm.attach(self.host, self.wanted, wait=wait, progress=None)

    def attached(self) -> set[str]:
        """Return the ids that the machines have now, in lower case."""
        return {each.id.lower() for each in self.scale_set.in_force(self.clock.time()).user}

    @property
    def kubelet(self) -> str:
        """Id of the identity that is attached."""
        (found,) = self.cloud.world.all(ManagedCluster)
        return found.kubelet_id.lower()

    @property
    def both(self) -> set[str]:
        return {self.kubelet, self.identity.id.lower()}

    def somebody_attaches_it(self, *, seconds: float = 0.0, fails: bool = False) -> None:
        """Let another client change the scale set, for so long from now on."""
        now = self.scale_set
        block = IdentityBlock(user=(*now.identity.user, self.identity))
        self.cloud.world.put(
            replace(now, identity=block, settled_at=self.clock.time() + seconds, failed=fails)
        )

    def somebody_changes_the_host(self, *, seconds: float) -> None:
        until = self.clock.time() + seconds
        self.cloud.world.put(replace(self.scale_set, settled_at=until))

    @property
    def scale_set(self) -> ScaleSet:
        found = self.cloud.world.find(ScaleSet, self.cloud.plan.scale_set_id)
        assert found is not None
        return found


@dataclass(frozen=True)
class Seeded:
    """An Azure that ran and left its state: each test begins with a copy of it."""

    state: Path
    identity: str
    """Id of an identity that is not attached."""
    stranger: App
    """An application without any role."""
    stranger_secret: str = field(repr=False)


@pytest.fixture(scope="module")
def seeded(tmp_path_factory: pytest.TempPathFactory) -> Seeded:
    async def seed(folder: Path) -> Seeded:
        async with running(folder) as cloud, AzureOperator(cloud.plan) as operator:
            await operator.create_group("shop")
            made = await operator.create_identity("shop", "orders")
            stranger = await operator.make_app("stranger")
            secret = await operator.add_secret(stranger)
        return Seeded(folder / FILE, made["id"], stranger, secret.value)

    return asyncio.run(seed(tmp_path_factory.mktemp("a")))


@pytest.fixture
async def scene(folder: Path, seeded: Seeded) -> AsyncIterator[Scene]:
    shutil.copy(seeded.state, folder)
    async with running(folder) as cloud:
        identity = cloud.world.find(UserAssignedIdentity, seeded.identity)
        assert identity is not None
        clock, way = SleepingClock(cloud.clock), OnTheWay(cloud)
        login = SignedIn(cloud, cloud.plan.operator_id, cloud.plan.operator_secret)
        async with Arm(login, clock, transport=way) as arm:
            scene = Scene(cloud, arm, way, clock, login, identity)
            yield scene


async def test_an_identity_is_looked_up_by_its_id(scene: Scene) -> None:
    found = await scene.arm.identity(scene.wanted)
    assert str(found.client_id) == scene.identity.client_id
    assert str(found.object_id) == scene.identity.principal_id
    url = f"https://management.azure.com{scene.identity.id}?api-version=2024-11-30"
    assert scene.way.requests == [("GET", url, None)]
    assert set(scene.login.tokens) == {"https://management.azure.com/.default"}


async def test_attaching_sends_the_difference_alone(scene: Scene) -> None:
    assert await scene.attach()
    assert scene.attached() == scene.both
    block = {"type": "UserAssigned", "userAssignedIdentities": {scene.identity.id: {}}}
    assert scene.way.patches() == [{"identity": block}]


async def test_what_is_attached_already_is_not_sent(scene: Scene) -> None:
    scene.somebody_attaches_it()
    wanted = ResourceId.parse(scene.identity.id.upper())
    assert not await scene.arm.attach(scene.host, wanted, progress=None)
    assert scene.way.patches() == []


async def test_detaching_leaves_the_others(scene: Scene) -> None:
    scene.somebody_attaches_it()
    assert await scene.arm.detach(scene.host, scene.wanted, progress=None)
    assert not await scene.arm.detach(scene.host, scene.wanted, progress=None)
    assert scene.attached() == {scene.kubelet}


async def test_a_long_operation_is_asked_for_as_often_as_azure_allows(scene: Scene) -> None:
    scene.weather("scale-sets=23")
    seen: list[float] = []
    assert await scene.arm.attach(scene.host, scene.wanted, progress=seen.append)
    assert scene.clock.slept == [10, 10, 3]
    assert seen == [10, 20]
    asked = [url for _, url, _ in scene.way.requests if "/operations/" in url]
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert scene.attached() == scene.both


async def test_where_azure_does_not_say_how_often_it_is_asked_every_five_seconds(
    scene: Scene,
) -> None:
    scene.weather("scale-sets=12")
    scene.way.change = without("Retry-After")
    assert await scene.attach()
    assert scene.clock.slept == [5, 5, 5]


async def test_a_long_operation_may_be_known_by_its_location(scene: Scene) -> None:
    scene.weather("scale-sets=12")
    scene.way.change = without("Azure-AsyncOperation")
    assert await scene.attach()
    assert scene.clock.slept == [10, 2]
    assert scene.attached() == scene.both


async def test_an_operation_that_ends_with_an_error_has_not_succeeded(scene: Scene) -> None:
    """Its location answers with 200 all the same."""
    failed = json.dumps({"error": {"code": "Preempted", "message": "another one came"}}).encode()

    def ended_badly(answer: httpx2.Response) -> None:
        without("Azure-AsyncOperation")(answer)
        if "/operations/" in scene.way.requests[-1][1] and answer.status_code != 202:
            answer.status_code, answer.stream = 200, httpx2.ByteStream(failed)
            answer.headers = httpx2.Headers({"Content-Length": str(len(failed))})

    scene.weather("scale-sets=12")
    scene.way.change = ended_badly
    with pytest.raises(ArmError, match="Preempted: another one came"):
        await scene.attach()


async def test_without_waiting_it_is_enough_that_azure_accepts(scene: Scene) -> None:
    scene.weather("scale-sets=40")
    assert await scene.attach(wait=False)
    assert scene.clock.slept == []
    assert scene.attached() == {scene.kubelet}, "the machines get it later"


async def test_an_operation_that_never_ends_is_given_up(scene: Scene) -> None:
    scene.weather("scale-sets=100000")
    with pytest.raises(ArmError, match=r"Timeout: Azure is not done after 910 s"):
        await scene.attach()


async def test_whoever_waits_for_less_is_told_so_and_azure_goes_on(scene: Scene) -> None:
    scene.weather("scale-sets=60")
    scene.arm.longest = 25
    with pytest.raises(ArmError, match=r"Timeout: Azure is not done after 30 s"):
        await scene.attach()
    await scene.attach()
    assert scene.attached() == scene.both


async def test_an_operation_that_fails_again_and_again_raises_azures_reason(scene: Scene) -> None:
    scene.weather("failing=1")
    with pytest.raises(ArmError, match=r"InternalExecutionError: An internal execution error"):
        await scene.attach()
    assert len(scene.way.patches()) == 4


async def test_an_identity_that_does_not_exist_is_not_sent_twice(scene: Scene) -> None:
    nobody = ResourceId.parse(f"{scene.identity.id}-not")
    with pytest.raises(ArmError, match=r"FailedIdentityOperation: .*orders-not' was not found"):
        await scene.arm.attach(scene.host, nobody, progress=None)
    assert len(scene.way.patches()) == 1


@pytest.mark.parametrize(
    "target",
    [
        "https://evil.example.com/operations/1",
        "http://management.azure.com/operations/1",
        "https://evilmanagement.azure.com/operations/1",
    ],
)
async def test_the_token_goes_to_no_other_machine(scene: Scene, target: str) -> None:
    def lead_away(answer: httpx2.Response) -> None:
        if answer.status_code == 202:
            answer.headers["Azure-AsyncOperation"] = target

    scene.way.change = lead_away
    with pytest.raises(ArmError, match=r"BadAnswer"):
        await scene.attach()
    asked = [url for _, url, _ in scene.way.requests]
    assert len(asked) == 2
    assert all(url.startswith("https://management.azure.com/") for url in asked)


async def test_when_somebody_else_changes_the_host_it_looks_again(scene: Scene) -> None:
    def once() -> None:
        scene.way.before_patch = lambda: None
        scene.somebody_changes_the_host(seconds=12)

    scene.way.before_patch = once
    assert await scene.attach()
    assert len(scene.way.patches()) == 2
    assert scene.clock.slept[:3] == [5, 5, 5], "until the other change is done"
    assert scene.attached() == scene.both


async def test_a_conflict_that_stays_is_given_up(scene: Scene) -> None:
    scene.way.before_patch = lambda: scene.somebody_changes_the_host(seconds=3)
    with pytest.raises(ArmError, match=r"Conflict: The request failed due to conflict"):
        await scene.attach()
    assert len(scene.way.patches()) == 4


@pytest.mark.parametrize("as_date", [False, True], ids=["seconds", "date"])
async def test_a_short_throttle_is_waited_for(scene: Scene, as_date: bool) -> None:
    def dated(answer: httpx2.Response) -> None:
        if answer.status_code == 429:
            until = scene.clock.time() + float(answer.headers["Retry-After"])
            answer.headers["Retry-After"] = email.utils.formatdate(until, usegmt=True)

    scene.cloud.clock.now = float(int(scene.cloud.clock.now))  # a date has no fractions
    scene.weather("scale-sets=0", "arm=[{effect: 429, first: 1, seconds: 30}]")
    scene.way.change = dated if as_date else lambda _: None
    assert await scene.attach()
    assert scene.clock.slept == [30]


async def test_a_long_throttle_is_an_error_at_once(scene: Scene) -> None:
    scene.weather("arm=[{effect: 429, seconds: 1200}]")
    with pytest.raises(ArmError, match=r"OperationNotAllowed: The server rejected") as caught:
        await scene.attach()
    assert caught.value.status == 429
    assert scene.clock.slept == []
    assert len(scene.way.requests) == 1


async def test_a_refusal_is_not_repeated(scene: Scene, seeded: Seeded) -> None:
    nobody = SignedIn(scene.cloud, seeded.stranger.client_id, seeded.stranger_secret)
    way = OnTheWay(scene.cloud)
    async with Arm(nobody, scene.clock, transport=way) as arm:
        with pytest.raises(ArmError, match=r"AuthorizationFailed: The client") as caught:
            await arm.attach(scene.host, scene.wanted, progress=None)
    assert caught.value.status == 403
    assert len(way.requests) == 1
    (token,) = nobody.tokens.values()
    assert token not in repr(caught.value)


async def test_an_azure_that_cannot_be_reached_is_named(scene: Scene) -> None:
    closed = httpx2.AsyncHTTPTransport(proxy="http://127.0.0.1:9", trust_env=False)
    async with Arm(scene.login, scene.clock, transport=closed) as arm:
        with pytest.raises(
            ArmError, match=r"Unreachable: management.azure.com cannot be asked: .+"
        ) as caught:
            await arm.identity(scene.wanted)
    (token,) = scene.login.tokens.values()
    assert token not in repr(caught.value)
    assert scene.clock.slept == []


@pytest.mark.parametrize("effect", ["500", "html", "503", "504"])
async def test_azures_own_failure_is_waited_for(scene: Scene, effect: str) -> None:
    """`html` is the 502 of a proxy on the way."""
    once = f"{{effect: {effect}, first: 1}}, {{effect: {effect}, kind: PATCH *, first: 1}}"
    scene.weather("scale-sets=0", f"arm=[{once}]")
    assert await scene.attach()
    assert scene.clock.slept == [5, 5]
    assert len(scene.way.patches()) == 2


async def test_azures_own_failure_is_waited_for_as_long_as_azure_says(scene: Scene) -> None:
    scene.weather("scale-sets=0", "arm=[{effect: 503, first: 1, seconds: 7}]")
    assert await scene.attach()
    assert scene.clock.slept == [7]


async def test_a_failure_that_lasts_is_told(scene: Scene) -> None:
    scene.weather("arm=[{effect: 500}]")
    with pytest.raises(ArmError, match=r"InternalServerError: Encountered internal server error"):
        await scene.attach()
    assert len(scene.way.requests) == 4


async def test_a_connection_that_breaks_is_made_again(scene: Scene) -> None:
    scene.weather("arm=[{effect: reset, kind: PATCH *, first: 1}]")
    assert await scene.attach()
    assert (scene.attached(), len(scene.way.patches())) == (scene.both, 2)


async def test_what_a_failed_change_lists_is_sent_again(scene: Scene) -> None:
    """The machines lack it, although the scale set names it."""
    scene.somebody_attaches_it(fails=True)
    assert scene.attached() == {scene.kubelet}
    assert await scene.attach()
    assert len(scene.way.patches()) == 1
    assert scene.attached() == scene.both


@pytest.mark.parametrize("chance", ["failing", "preempted"])
async def test_a_change_that_fails_after_it_was_accepted_is_sent_again(
    scene: Scene, chance: str
) -> None:
    """What was preempted ends Canceled."""
    turns = (changed(CALM, [f"{chance}=0.5", f"seed={seed}"]) for seed in count())
    once = next(each for each in turns if each.outcome(1).error and not each.outcome(2).error)
    weather.write(scene.cloud.plan.path, once)
    assert await scene.attach()
    assert len(scene.way.patches()) == 2
    assert scene.attached() == scene.both


async def test_a_change_that_is_under_way_is_waited_for_and_not_preempted(scene: Scene) -> None:
    scene.somebody_attaches_it(seconds=12)
    assert not await scene.attach(), "somebody else attached it"
    assert (scene.way.patches(), scene.clock.slept) == ([], [5, 5, 5])


async def test_a_host_that_is_being_deleted_is_told_at_once(scene: Scene) -> None:
    gone_at = scene.clock.time() + 30
    scene.cloud.world.put(replace(scene.scale_set, gone_at=gone_at))
    for change in (scene.arm.attach, scene.arm.detach):
        with pytest.raises(ArmError, match=r"BeingDeleted: Azure is deleting it") as caught:
            await change(scene.host, scene.wanted, progress=None)
        assert caught.value.gone
    assert (scene.way.patches(), scene.clock.slept) == ([], [])


async def test_a_lock_is_told_and_not_tried_again(scene: Scene) -> None:
    scene.weather("arm=[{effect: locked}]")
    with pytest.raises(ArmError, match=r"ScopeLocked: .*Please remove the lock and try again"):
        await scene.attach()
    assert len(scene.way.patches()) == 1
    assert scene.attached() == {scene.kubelet}


# An Azure that sends without end, or whatever stands in its place


class AnySignIn:
    async def token(self, scope: str) -> str:
        return f"for {scope}"


def answering(**answer: Any) -> Arm:
    """Return the client of an Azure that always answers so."""
    transport = httpx2.MockTransport(lambda _: httpx2.Response(200, **answer))
    return Arm(AnySignIn(), SystemClock(), transport=transport)


async def test_an_answer_that_does_not_end_is_read_no_further_and_not_asked_for_again() -> None:
    sent = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal sent
        while True:
            sent += 1
            yield b" " * LONGEST_ANSWER

    async with answering(content=endless()) as arm:
        with pytest.raises(ArmError) as raised:
            await arm.identity(ResourceId.parse(IDENTITY))
    assert str(raised.value) == "BadAnswer: management.azure.com sent more than 32 MiB"
    assert (sent, raised.value.sent) == (2, True)


async def test_a_list_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "_MOST_PAGES", 3)
    async with answering(json={"value": [], "nextLink": "/more"}) as arm:
        with pytest.raises(ArmError, match="list of the roles at /subscriptions/1 does not end"):
            await arm.roles("/subscriptions/1", "somebody")
