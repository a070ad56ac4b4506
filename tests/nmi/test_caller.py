"""Whose request it is: the first rows of the decision."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from podidentity.adapters.cluster import WatchedCluster
from podidentity.core.attestation import AttestationMode, Proof, Trust, Verdict
from podidentity.core.errors import (
    NotReady,
    PodIdentityError,
    Refused,
    UnknownCaller,
    UnprovenCaller,
)
from podidentity.core.refusals import Reason
from podidentity.core.resources import ObjectRef, Origin, Phase, Pod
from podidentity.nmi.request.caller import PROOF_SECONDS
from podidentity.nmi.request.decision import Granted, Outcome, Rejected, Subject
from podidentity.nmi.request.hold import HoldTimes
from tests.fakes import (
    ADDRESS,
    VAULT,
    FakeAttestor,
    binding,
    identity,
    pod,
)
from tests.nmi.worlds import OLD, World, error_of, reason


async def test_a_bound_pod_gets_the_token_of_its_identity() -> None:
    world = World(pod(), identity(), binding())
    outcome = await world.ask()
    assert isinstance(outcome, Granted)
    assert (outcome.pod, outcome.identity, outcome.fetched.origin) == (
        pod(),
        identity(),
        Origin.IMDS,
    )
    assert world.tokens.asked == [(identity(), VAULT, False)]


@pytest.mark.parametrize(
    ("verdict", "uid", "error"),
    [
        (Verdict.PROVEN, "uid-orders-0", None),
        (Verdict.PROVEN, "", None),
        (Verdict.PROVEN, "uid-of-another", UnprovenCaller),
        (Verdict.FORGED, "", UnprovenCaller),
        (Verdict.FORGED, "uid-orders-0", UnprovenCaller),
        (Verdict.FORGED, "uid-of-another", UnprovenCaller),
        (Verdict.GONE, "", NotReady),
        (Verdict.UNKNOWN, "", NotReady),
    ],
)
async def test_only_a_connection_that_the_kernel_proves_gets_a_token(
    verdict: Verdict, uid: str, error: type[PodIdentityError] | None
) -> None:
    another = pod("another", uid="uid-of-another", addresses=("10.244.0.3",))
    world = World(pod(), another, identity(), binding())
    world.attestor.verdict, world.attestor.uid = verdict, uid
    outcome = await world.ask()
    found = None if isinstance(outcome, Granted) else type(outcome.error)
    assert found is error
    assert bool(world.tokens.asked) is (error is None)
    assert outcome.evidence.detail == "in cni-1234"


async def test_the_kernel_is_asked_about_the_connection_and_the_pods_that_have_its_address() -> (
    None
):
    world = World(pod(), identity(), binding())
    await world.ask()
    assert world.attestor.asked == [(ADDRESS, 40_000, [pod()])]


async def test_a_connection_is_proved_once_a_second_however_many_requests_it_carries() -> None:
    world = World(pod(), identity(), binding())
    for seconds, asked in ((0, 1), (0, 1), (PROOF_SECONDS / 2, 1), (PROOF_SECONDS / 2, 2), (0, 2)):
        world.clock.advance(seconds)
        assert isinstance(await world.ask(), Granted)
        assert len(world.attestor.asked) == asked


async def test_a_kept_connection_whose_pod_ended_without_a_word_is_soon_nobodys() -> None:
    """The watch still names that pod, and the next with its address speaks into the connection."""
    world = World(pod(), identity(), binding())
    assert isinstance(await world.ask(), Granted)
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, ""
    world.clock.advance(PROOF_SECONDS)
    for _ in range(2):
        assert isinstance(error_of(await world.ask()), UnprovenCaller)
        assert world.caller.proven == ""


async def test_a_connection_of_a_pod_that_ended_is_proved_anew_for_the_next_with_its_address() -> (
    None
):
    world = World(pod(), identity(), binding())
    await world.ask()
    world.cluster.remove_pod(pod().ref)
    world.cluster.put_pod(pod("thief", labels={}))
    world.attestor.verdict = Verdict.FORGED
    assert isinstance(error_of(await world.ask()), UnprovenCaller)


async def test_of_two_pods_with_one_address_the_socket_decides() -> None:
    other = pod("b", labels={})
    world = World(pod("a"), other, identity(), binding())
    world.attestor.uid = "uid-b"
    assert (await world.ask()).pod == other
    world = World(pod("a"), other, identity(), binding())
    world.attestor.uid = "uid-a"
    assert isinstance(await world.ask(), Granted)


@pytest.mark.parametrize("attested", [True, False])
async def test_two_pods_with_one_address_that_nothing_tells_apart_get_nothing(
    attested: bool,
) -> None:
    world = World(pod("a"), pod("b"), identity(), binding())
    world.attestor.uid = ""
    assert isinstance(error_of(await world.ask(attested=attested)), UnprovenCaller)


async def test_a_pods_annotation_lowers_the_demand_for_that_pod_alone() -> None:
    lowered = pod(attestation="address")
    world = World(lowered, identity(), binding())
    world.attestor.verdict, world.attestor.unseen = Verdict.FORGED, True
    world.attestor.uid = ""
    assert isinstance(await world.ask(), Granted)
    world = World(pod(attestation="ADDRESS"), identity(), binding())
    world.attestor.verdict = Verdict.FORGED
    assert isinstance(error_of(await world.ask()), UnprovenCaller)
    world = World(lowered, pod("strict"), identity(), binding())
    world.attestor.verdict = Verdict.FORGED
    assert isinstance(error_of(await world.ask()), UnprovenCaller)


@pytest.mark.parametrize("uid", ["uid-orders-0", "uid-new-to-the-watch", ""])
async def test_a_pod_that_lowers_the_demand_takes_no_connection_of_another(uid: str) -> None:
    """Else a tenant whose pod says that it has my address would have me speak with his identity."""
    tenants = pod("tenants", ref=ObjectRef("tenant", "tenants"), attestation="address")
    mine = pod(addresses=())
    his = (identity(ref=ObjectRef("tenant", "orders")), binding(ref=ObjectRef("tenant", "b")))
    world = World(tenants, *his, mine, hold=HoldTimes(change=0))
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, uid
    asking = asyncio.create_task(world.ask())
    if uid == "uid-new-to-the-watch":
        await world.clock.somebody_sleeps()
        world.clock.advance(2)
    outcome = await asking
    assert not isinstance(outcome, Granted)
    assert outcome.pod in {None, mine}


async def test_where_the_kernel_cannot_be_asked_a_lowered_demand_is_not_met_either() -> None:
    world = World(pod(attestation="address"), identity(), binding())
    world.attestor.verdict, world.attestor.uid = Verdict.UNKNOWN, ""
    assert isinstance(error_of(await world.ask()), NotReady)


async def test_without_an_attestor_the_address_is_believed() -> None:
    world = World(pod(), identity(), binding())
    assert isinstance(await world.ask(attested=False), Granted)
    assert world.attestor.asked == []


async def test_an_unknown_address_waits_for_the_watch() -> None:
    world = World(identity(), binding())
    asking = await world.asking()
    assert world.clock.slept == [2.0]
    world.clock.advance(1.9)
    world.cluster.put_pod(pod())
    assert isinstance(await asking, Granted)


async def test_an_unknown_address_is_refused_after_two_seconds() -> None:
    world = World(identity(), binding())
    asking = await world.asking()
    world.clock.advance(2)
    outcome = await asking
    assert isinstance(error_of(outcome), UnknownCaller)
    assert outcome.pod is None


async def test_changes_elsewhere_do_not_make_an_unknown_address_wait_longer() -> None:
    world = World()
    asking = await world.asking()
    for _ in range(4):
        world.clock.advance(0.5)
        world.cluster.put(identity(resource_id=None, object_id=None))
        world.cluster.remove("AzureIdentity", identity().ref)
        await asyncio.sleep(0)
    assert isinstance(error_of(await asking), UnknownCaller)


async def test_changes_elsewhere_do_not_make_an_unknown_address_wait_for_less() -> None:
    world = World()
    asking = await world.asking()
    world.clock.advance(1.5)
    world.cluster.put(identity())
    await world.clock.somebody_slept(0.5, 1)
    world.clock.advance(0.25)
    world.cluster.put(binding())
    world.cluster.put_pod(pod())
    assert isinstance(await asking, Granted)


@pytest.mark.parametrize("address", ["10.244.0.9", "fd00::9"])
async def test_a_pod_is_known_by_each_of_its_addresses(address: str) -> None:
    world = World(pod(addresses=("10.244.0.9", "fd00::9")), identity(), binding())
    world.caller.address = address
    assert isinstance(await world.ask(), Granted)


async def test_before_the_cluster_has_been_read_nobody_is_refused_for_good() -> None:
    world = World()
    world.cluster = WatchedCluster(world.clock)
    asking = await world.asking()
    world.clock.advance(2)
    assert isinstance(error_of(await asking), NotReady)


async def unread(world: World) -> asyncio.Task[Outcome]:
    """Return a request of a pod that is known, as one of its two bindings is, and no more."""
    world.cluster = WatchedCluster(world.clock)
    world.cluster.put_pod(pod(started=OLD))
    world.cluster.put(identity("first"))
    world.cluster.put(binding("first", identity="first"))
    return await world.asking()


async def test_nothing_is_decided_before_all_lists_have_been_read() -> None:
    world = World()
    asking = await unread(world)
    world.cluster.put(identity("heavier"))
    world.cluster.put(binding("heavier", identity="heavier", weight=2))
    world.cluster.mark_synced()
    outcome = await asking
    assert isinstance(outcome, Granted)
    assert outcome.identity == identity("heavier")


async def test_what_has_not_been_read_in_time_is_no_refusal() -> None:
    world = World()
    asking = await unread(world)
    world.clock.advance(8)
    assert isinstance(error_of(await asking), NotReady)
    assert world.tokens.asked == []


# The kernel knows a pod before the watch does.

NEW = pod("new", addresses=())


async def test_a_pod_whose_status_has_no_address_yet_is_served_by_the_kernels_word() -> None:
    world = World(NEW, identity(), binding())
    world.attestor.verdict, world.attestor.uid = Verdict.UNKNOWN, NEW.uid
    outcome = await world.ask()
    assert (outcome.pod, outcome.evidence.verdict) == (NEW, Verdict.PROVEN)
    assert isinstance(outcome, Granted)
    assert world.clock.slept == []


async def test_an_address_used_again_within_a_second_is_the_new_pods() -> None:
    world = World(pod("old"), NEW, identity(), binding())
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, NEW.uid
    assert (await world.ask()).pod == NEW


async def test_a_new_pod_with_an_old_ones_address_is_waited_for_until_the_watch_knows_it() -> None:
    world = World(pod("old"), identity(), binding())
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, NEW.uid
    asking = await world.asking()
    assert world.clock.slept == [2.0]
    world.cluster.put_pod(NEW)
    assert (await asking).pod == NEW


async def test_what_the_kernel_names_and_the_watch_never_does_is_refused_after_two_seconds() -> (
    None
):
    world = World(pod("old"), identity(), binding())
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, NEW.uid
    asking = await world.asking()
    world.clock.advance(2)
    outcome = await asking
    assert isinstance(error_of(outcome), UnprovenCaller)
    assert isinstance(outcome, Rejected)
    assert outcome.claimed == (pod("old"),)
    assert outcome.evidence.verdict is Verdict.FORGED


@pytest.mark.parametrize(
    "other",
    [pod("b", addresses=("10.244.0.9",)), pod("b", addresses=(), phase=Phase.FAILED)],
    ids=["has another address", "has ended"],
)
async def test_a_pod_that_is_not_new_gets_nothing_by_a_foreign_address(other: Pod) -> None:
    for others in ([other], [pod("a"), other]):
        world = World(*others, identity(), binding())
        world.attestor.verdict, world.attestor.uid = Verdict.FORGED, other.uid
        assert isinstance(error_of(await world.ask()), UnprovenCaller)
        assert world.clock.slept == []


class TellingAttestor(FakeAttestor):
    """Asks the kernel for so long that the watch tells of a change meanwhile."""

    def __init__(self, *changes: Callable[[], None]) -> None:
        super().__init__()
        self._changes = iter(changes)

    def proof(self, address: str, port: int, candidates: Sequence[Pod]) -> Proof:
        for change in self._changes:
            change()
            break
        return super().proof(address, port, candidates)


@pytest.mark.parametrize("before", [(), (pod("old"),)], ids=["nobody has it", "another has it"])
async def test_a_pod_that_is_listed_while_it_is_proved_is_served_at_once(
    before: tuple[Pod, ...],
) -> None:
    world = World(*before, identity(), binding())
    world.attestor = TellingAttestor(lambda: world.cluster.put_pod(pod("new")))
    world.attestor.uid = pod("new").uid
    outcome = await world.ask()
    assert (outcome.pod, outcome.evidence.verdict) == (pod("new"), Verdict.PROVEN)
    assert [asked[2] for asked in world.attestor.asked] == [[*before], [*before, pod("new")]]
    assert world.clock.slept == []


async def test_a_pod_that_is_listed_during_a_proof_of_three_seconds_is_proved_once_more() -> None:
    """A worker that starts on a starved node: it lists pods while `net` is asked."""
    world = World(identity(), binding())

    def listed_late() -> None:
        world.cluster.put_pod(pod())
        world.clock.advance(3)

    world.attestor = TellingAttestor(listed_late)
    assert isinstance(await world.ask(), Granted)


async def test_a_proof_is_worth_nothing_to_a_pod_that_lost_its_address_meanwhile() -> None:
    world = World(pod("old"), identity(), binding())
    world.attestor = TellingAttestor(
        lambda: world.cluster.remove_pod(pod("old").ref),
        lambda: world.cluster.put_pod(pod("new", labels={})),
    )
    # By namespace alone: whoever is the only one to have the address is proved.
    world.attestor.uid = ""
    outcome = await world.ask()
    assert outcome.pod == pod("new", labels={})
    assert not isinstance(outcome, Granted)


async def test_the_address_of_a_pod_that_has_ended_is_nobodys() -> None:
    world = World(pod("old", phase=Phase.SUCCEEDED), identity(), binding())
    asking = await world.asking()
    world.cluster.put_pod(pod("new"))
    assert (await asking).pod == pod("new")


async def test_a_pod_without_a_uid_is_proved_for_each_request() -> None:
    world = World(pod(uid=""), identity(), binding())
    await world.ask()
    world.attestor.verdict = Verdict.FORGED
    assert isinstance(error_of(await world.ask()), UnprovenCaller)


# A mesh's proxy makes the connection.

ZTUNNEL = pod(
    "ztunnel-x",
    ref=ObjectRef("istio-system", "ztunnel-x"),
    service_account="ztunnel",
    addresses=("10.244.0.9",),
)
MESH = Trust(proxies=(ObjectRef("istio-system", "ztunnel"),))


def behind_proxy(*objects: Any, trust: Trust = MESH, holders: int = 1) -> World:
    """Return a world in which ztunnel made the connection of shop/orders-0."""
    world = World(*objects, identity(), binding())
    world.trust = trust
    world.attestor.verdict, world.attestor.uid = Verdict.PROXIED, pod().uid
    world.attestor.proxy, world.attestor.holders = ZTUNNEL.uid, holders
    return world


async def test_by_default_what_a_proxy_made_is_refused_and_the_proxy_named_to_the_operator() -> (
    None
):
    outcome = await behind_proxy(pod(), ZTUNNEL, trust=Trust()).ask()
    error = error_of(outcome)
    assert isinstance(error, Refused)
    assert error.refusal.reason is Reason.MADE_BY_PROXY
    assert error.refusal.message == (
        "The connection was made by a proxy istio-system/ztunnel in the pod's network namespace."
    )
    assert "istio-system" not in str(error)
    assert isinstance(outcome, Rejected)
    assert (outcome.pod, outcome.claimed) == (None, (pod(),))


async def test_a_trusted_proxy_is_in_the_evidence_of_each_request_of_its_connection() -> None:
    world = behind_proxy(pod(), ZTUNNEL)
    for _ in range(2):
        outcome = await world.ask()
        assert isinstance(outcome, Granted)
        assert (outcome.pod, outcome.subject.evidence.proxy) == (pod(), ZTUNNEL.ref)
        assert outcome.subject.evidence.verdict is Verdict.PROVEN
    assert len(world.attestor.asked) == 1
    assert world.caller.proven == "", "its answers are not remembered with those of the pod's own"


@pytest.mark.parametrize(
    "proxy",
    [
        replace(ZTUNNEL, ref=ObjectRef("tenant", "ztunnel-x")),
        replace(ZTUNNEL, service_account="default"),
        replace(ZTUNNEL, phase=Phase.FAILED),
    ],
    ids=["of another namespace", "of another account", "has ended"],
)
async def test_a_proxy_is_trusted_by_what_the_api_server_says_of_the_pod_that_the_kernel_names(
    proxy: Pod,
) -> None:
    assert reason(await behind_proxy(pod(), proxy).ask()) is Reason.MADE_BY_PROXY


async def test_what_a_trusted_proxy_made_is_not_the_next_pods_with_that_address() -> None:
    world = behind_proxy(pod(), ZTUNNEL)
    assert isinstance(await world.ask(), Granted)
    world.cluster.remove_pod(pod().ref)
    world.cluster.put_pod(pod("next"))
    asking = await world.asking()
    assert len(world.attestor.asked) == 2
    world.clock.advance(2)
    assert isinstance(error_of(await asking), UnprovenCaller)


async def test_a_proxy_that_the_watch_does_not_know_is_waited_for_and_then_refused() -> None:
    world = behind_proxy(pod())
    asking = await world.asking()
    world.cluster.put_pod(ZTUNNEL)
    assert isinstance(await asking, Granted)
    world = behind_proxy(pod())
    asking = await world.asking()
    world.clock.advance(2)
    assert isinstance(error_of(await asking), UnprovenCaller)


async def test_two_holders_of_the_address_get_nothing_through_a_trusted_proxy() -> None:
    outcome = await behind_proxy(pod(), ZTUNNEL, holders=2).ask()
    assert reason(outcome) is Reason.ADDRESS_CONTESTED


async def test_who_took_the_address_of_another_gets_nothing_through_a_trusted_proxy() -> None:
    thief = pod("thief", addresses=("10.244.0.7",))
    world = behind_proxy(pod(), thief, ZTUNNEL)
    world.attestor.verdict, world.attestor.uid = Verdict.FORGED, thief.uid
    assert isinstance(error_of(await world.ask()), UnprovenCaller)


@pytest.mark.parametrize("before", [(), (pod("old"),)], ids=["nobody has it", "another has it"])
async def test_a_new_pod_is_served_through_a_trusted_proxy_before_its_status_has_an_address(
    before: tuple[Pod, ...],
) -> None:
    for trust in (MESH, Trust()):
        world = behind_proxy(*before, NEW, ZTUNNEL, trust=trust)
        world.attestor.verdict, world.attestor.uid = Verdict.UNKNOWN, NEW.uid
        outcome = await world.ask()
        if trust is MESH:
            assert isinstance(outcome, Granted)
            assert outcome.pod == NEW
        else:
            assert reason(outcome) is Reason.MADE_BY_PROXY


# Pods with a kernel of their own.

KATA = pod(runtime_class="kata")
BY_CLASS = Trust(by_class={"kata": AttestationMode.NAMESPACE, "gvisor": AttestationMode.ADDRESS})


def unseen(*pods: Pod, guarded: bool = True, holders: int = 1) -> World:
    """Return a world in which nobody has a socket of the connection."""
    world = World(*pods, identity(), binding())
    world.trust = BY_CLASS
    world.attestor.verdict, world.attestor.unseen = Verdict.FORGED, True
    world.attestor.uid = ""
    world.attestor.guarded, world.attestor.holders = guarded, holders
    return world


async def test_a_pod_of_a_class_is_proved_by_its_namespace_once_for_its_connection() -> None:
    world = unseen(KATA)
    for _ in range(2):
        outcome = await world.ask()
        assert isinstance(outcome, Granted)
        assert outcome.evidence.verdict is Verdict.PROVEN
    assert len(world.attestor.asked) == 1


@pytest.mark.parametrize(
    ("world", "expected"),
    [
        (unseen(KATA, holders=2), Reason.ADDRESS_CONTESTED),
        (unseen(KATA, holders=0), Reason.ADDRESS_CONTESTED),
        (unseen(pod(runtime_class="runc")), Reason.RUNTIME_CLASS),
    ],
    ids=["two hold its address", "none holds it", "another class"],
)
async def test_a_pod_of_a_class_is_refused_where_its_namespace_proves_nothing(
    world: World, expected: Reason
) -> None:
    outcome = await world.ask()
    assert reason(outcome) is expected
    assert "shop" not in str(error_of(outcome)), "whoever asks may be another"


async def test_while_sources_are_not_guarded_a_pod_of_a_class_is_not_proved() -> None:
    assert isinstance(error_of(await unseen(KATA, guarded=False).ask()), NotReady)


async def test_a_class_lowers_nothing_for_others_and_nothing_where_somebody_has_the_socket() -> (
    None
):
    assert isinstance(error_of(await unseen(pod()).ask()), UnprovenCaller)
    assert isinstance(error_of(await unseen(KATA, pod("b")).ask()), UnprovenCaller)
    thief = pod("thief", addresses=("10.244.0.7",))
    for uid in ("", thief.uid):
        world = unseen(KATA, thief)
        world.attestor.unseen, world.attestor.uid = False, uid
        assert isinstance(error_of(await world.ask()), UnprovenCaller)


async def test_a_class_that_is_believed_is_taken_at_its_address_each_time() -> None:
    world = unseen(pod(runtime_class="gvisor"), guarded=False, holders=0)
    for _ in range(2):
        assert isinstance(await world.ask(), Granted)
    assert len(world.attestor.asked) == 2


# What is asked ahead of a request, and behind its answer.


def named(uid: str) -> World:
    """Return a world in which the kernel names a pod for the connection."""
    world = World(pod(), identity(), binding())
    world.attestor.uid = uid
    return world


@pytest.mark.parametrize(
    ("world", "uid", "by_proxy"),
    [
        (World(pod(), identity(), binding()), pod().uid, False),
        (behind_proxy(pod(), ZTUNNEL), "", True),
        (unseen(KATA), KATA.uid, False),
        (unseen(pod(runtime_class="gvisor"), guarded=False, holders=0), "", False),
        (behind_proxy(pod(), ZTUNNEL, trust=Trust()), "", False),
        (unseen(pod()), "", False),
        (World(identity(), binding()), "", False),
        (named("nobody-knows"), "", False),
    ],
    ids=["proved", "proxied", "namespace", "believed", "proxy", "forged", "unknown", "unnamed"],
)
async def test_ahead_of_its_request_a_connection_is_a_pods_only_if_that_is_proved(
    world: World, uid: str, *, by_proxy: bool
) -> None:
    """What is waited for, refused or merely believed is left to the request."""
    counted: list[str] = []
    asked = asyncio.Event()
    world.caller.attributed = counted.append
    assert world.callers().prove(world.caller, asked.set)
    assert not asked.is_set()
    await asked.wait()
    assert world.caller.proven == uid
    assert (world.caller.proxied is not None) is by_proxy
    known = bool(uid) or by_proxy
    assert counted == ([pod().uid] if known else [])
    (about,) = world.attestor.asked
    assert about[:2] == (ADDRESS, 40_000)
    if known:
        await world.ask()
        assert len(world.attestor.asked) == 1


async def test_a_proof_ahead_of_a_request_holds_from_when_it_was_asked_for() -> None:
    world = World(pod(), identity(), binding())
    asked = asyncio.Event()
    world.caller.proven = "of before"
    assert world.callers().prove(world.caller, asked.set)
    assert world.caller.proven == ""
    world.clock.advance(0.75)
    await asked.wait()
    assert isinstance(await world.ask(), Granted)
    assert len(world.attestor.asked) == 1
    world.clock.advance(0.25)
    assert isinstance(await world.ask(), Granted)
    assert len(world.attestor.asked) == 2


async def test_where_nobody_can_be_asked_ahead_nobody_is() -> None:
    world = World(pod(), identity(), binding())
    told: list[bool] = []
    assert not world.callers(attested=False).prove(world.caller, lambda: told.append(True))
    world.attestor.asks = False
    assert not world.callers().prove(world.caller, lambda: told.append(True))
    await asyncio.sleep(0)
    assert told == []


@pytest.mark.parametrize("by_proxy", [False, True])
async def test_an_answer_that_took_longer_than_a_proof_holds_has_it_made_anew(
    *, by_proxy: bool
) -> None:
    world = behind_proxy(pod(), ZTUNNEL) if by_proxy else World(pod(), identity(), binding())
    callers = world.callers()
    subject = await callers.identify(world.caller)
    assert isinstance(subject, Subject)
    world.clock.advance(PROOF_SECONDS - 0.25)
    assert await callers.still(world.caller, subject) is subject
    assert len(world.attestor.asked) == 1
    world.clock.advance(0.25)
    again = await callers.still(world.caller, subject)
    assert isinstance(again, Subject)
    assert again.pod == subject.pod
    assert len(world.attestor.asked) == 2
    world.clock.advance(PROOF_SECONDS)
    world.attestor.verdict = Verdict.FORGED
    refused = await callers.still(world.caller, subject)
    assert isinstance(refused, Rejected)


async def test_an_answer_of_a_connection_that_was_believed_is_not_held_up() -> None:
    world = unseen(pod(runtime_class="gvisor"), guarded=False, holders=0)
    callers = world.callers()
    subject = await callers.identify(world.caller)
    assert isinstance(subject, Subject)
    world.clock.advance(PROOF_SECONDS)
    assert await callers.still(world.caller, subject) is subject
    assert len(world.attestor.asked) == 1


async def test_an_answer_goes_to_no_other_pod_that_has_the_connection_meanwhile() -> None:
    other = pod("b", labels={})
    world = World(pod("a"), other, identity(), binding())
    world.attestor.uid = "uid-a"
    callers = world.callers()
    subject = await callers.identify(world.caller)
    assert isinstance(subject, Subject)
    world.attestor.uid = "uid-b"
    world.clock.advance(PROOF_SECONDS)
    refused = await callers.still(world.caller, subject)
    assert isinstance(refused, Rejected)
    assert str(refused.error) == "the connection belongs to another pod"
    assert refused.evidence.verdict is Verdict.PROVEN
