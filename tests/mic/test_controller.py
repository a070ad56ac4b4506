"""What the controller does call by call, in a world in which nothing fails but what a test says."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise
from random import Random
from typing import Any

import pytest

from podidentity.core.assignments import Assignments
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.resources import (
    BINDING_LABEL,
    Assignment,
    AzureIdentity,
    Malformed,
    ObjectRef,
)
from podidentity.mic.calls import (
    About,
    Accepted,
    Action,
    AskPermission,
    BindingSeen,
    Call,
    Condition,
    CreateRecord,
    DeleteRecord,
    Deposed,
    ExceptionSeen,
    Failure,
    Fault,
    HostList,
    IdentitySeen,
    InUse,
    Leading,
    LedgerList,
    ListHosts,
    ListLedgers,
    ListUse,
    LogLine,
    NodeGone,
    NodeSeen,
    ObjectGone,
    Obstacle,
    PatchHost,
    Pausing,
    PermissionsChanged,
    PodSeen,
    PollOperation,
    ReadHost,
    ReadRecord,
    Record,
    RecordGone,
    RecordSeen,
    Result,
    StoredLedger,
    StoredRecord,
    Synced,
    TellEvent,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.conditions import ConditionOf, Conditions
from podidentity.mic.controller import Assign, Controller, Settings, Timers, _Owner
from podidentity.mic.records import LATE, Records
from tests.core.objects import binding, exception, identity, principal, resource_id
from tests.core.objects import pod as a_pod
from tests.mic.simulator import (
    CLIENTS,
    FOLDED,
    HOSTS,
    IDS,
    ArmHost,
    Mic,
    Scenario,
    Step,
    World,
    provider_id,
    revision,
)

BOUND = (
    IdentitySeen(identity=identity("blue", "vm", resource_id=IDS[0]), revision=""),
    BindingSeen(binding=binding("blue", "b", "vm", "app"), revision=""),
    PodSeen(a_pod("blue", node="n0")),
)
"""A pod on the first node, and what it needs."""
RECORD_WRITES = (CreateRecord, UpdateRecord, DeleteRecord)
Answer = dict[type, Any]


class Course(World):
    """A world whose calls are kept, and may be answered by a test."""

    def __init__(self, *steps: Step, settings: dict[str, Any] | None = None, **facts: Any) -> None:
        self.calls: list[tuple[float, Action]] = []
        self.answers: Answer = {}
        more = settings or {}

        def make(given: Settings) -> Controller:
            return Controller(replace(given, **more))

        fields: dict[str, Any] = {"grace": 300.0, "mics": 1, "delay": 0.0, "operation": 1.0}
        super().__init__(Scenario(steps=steps, faults={}, **(fields | facts)), make)
        self.is_undisturbed = False
        for step in steps:
            self.at(step.at, self._step, step)
        self.at(0.5, self.start_mic)

    def _do(self, mic: Mic, action: Action) -> Result:
        self.calls.append((self.now, action))
        answer = self.answers.get(type(action))
        if answer is not None:
            found: Result = answer(action)
            return found
        return super()._do(mic, action)

    def of(self, *kinds: type) -> list[Any]:
        return [action for _, action in self.calls if isinstance(action, kinds)]

    def reports(self) -> list[str]:
        return [line.split("mic0 ", 1)[1] for line in self.journal if "mic0 " in line]


def cluster(*more: Step, hosts: int = 1) -> tuple[Step, ...]:
    """Return nodes n0, n1, … of as many hosts, and identity `id` bound to `app`."""
    return (
        *(Step(0.0, "node", (f"n{number}", number)) for number in range(hosts)),
        Step(0.0, "identity", ("blue", "id", 0)),
        Step(0.0, "binding", ("blue", "b", "id", "app")),
        *more,
    )


def pod(at: float, name: str = "web", node: str = "n0") -> Step:
    return Step(at, "pod", ("blue", name, "app", node))


def gone(at: float, name: str = "web") -> Step:
    return Step(at, "delete_pod", ("blue", name))


# What a pod's life costs.


def test_a_pod_whose_identity_is_there_costs_two_writes() -> None:
    world = Course(*cluster(pod(2.0, "first"), pod(9.0), gone(20.0)), foreign=((0, 0),))
    world.run_until(40.0)
    about = [each for each in world.of(*RECORD_WRITES) if "web" in str(each)]
    assert [type(each) for each in about] == [CreateRecord, DeleteRecord]
    assert about[0].record.state == "Assigned"
    assert world.of(PatchHost) == []


def test_a_pod_whose_identity_is_attached_soon_costs_two_writes() -> None:
    world = Course(*cluster(pod(2.0), gone(20.0)), settings={"assign": Assign("pods")})
    world.run_until(40.0)
    [created, deleted] = world.of(*RECORD_WRITES)
    assert (type(created), type(deleted)) == (CreateRecord, DeleteRecord)
    assert (created.record.state, created.since) == ("Assigned", 2.0)


def test_a_pod_whose_identity_is_attached_late_costs_three_writes() -> None:
    world = Course(*cluster(pod(2.0), gone(60.0)), operation=40.0)
    world.run_until(80.0)
    kinds = [type(each) for each in world.of(*RECORD_WRITES)]
    assert kinds == [CreateRecord, UpdateRecord, DeleteRecord]
    [created, updated, _] = world.of(*RECORD_WRITES)
    assert (created.record.state, updated.record.state) == ("Created", "Assigned")
    assert created.since == updated.since == 2.0
    [at] = [at for at, each in world.calls if each is created]
    assert at == pytest.approx(2.0 + LATE, abs=0.05)


def test_a_record_of_an_identity_that_is_there_is_written_at_once() -> None:
    world = Course(*cluster(pod(2.0, "first"), pod(9.0)), foreign=((0, 0),))
    world.run_until(20.0)
    [at] = [at for at, each in world.calls if isinstance(each, CreateRecord) and at > 8.0]
    assert at == pytest.approx(9.0, abs=0.02)


def test_pods_that_come_and_go_within_the_grace_cost_one_change_of_the_host() -> None:
    steps = [step for at in range(2, 200, 10) for step in (pod(float(at)), gone(at + 5.0))]
    world = Course(*cluster(*steps))
    world.run_until(400.0)
    assert len(world.of(PatchHost)) == 1
    world.run_until(600.0)
    [attached, detached] = world.of(PatchHost)
    assert (attached.change.attach, len(detached.change.detach)) == ((IDS[0].spelling,), 1)
    [at] = [at for at, each in world.calls if each is detached]
    assert at >= 197.0 + 300.0
    assert len(world.of(ListUse)) == 1


def test_a_host_costs_a_read_a_change_and_its_polls_however_many_pods_come_at_once() -> None:
    pods = [pod(2.0 + number / 1000, f"web-{number}") for number in range(200)]
    world = Course(*cluster(*pods))
    world.run_until(60.0)
    found = Counter(type(each).__name__ for _, each in world.calls)
    assert (found["ReadHost"], found["PatchHost"]) == (1, 1)
    assert not world.of(UpdateRecord)
    last = max(at for at, each in world.calls if isinstance(each, CreateRecord))
    assert last < 2.0 + 0.2 + 1.0 + 1.5


def test_nothing_is_called_when_nothing_changes_but_the_reads_that_reconcile() -> None:
    world = Course(*cluster(pod(2.0)))
    world.run_until(100.0)
    world.calls.clear()
    world.run_until(1000.0)
    kinds = {type(each) for _, each in world.calls}
    assert kinds == {ReadHost, ListLedgers}
    assert len(world.calls) == 2 * 5


def test_three_hosts_of_a_group_are_read_by_one_list() -> None:
    steps = [
        Step(0.0, "node", ("n3", 3)),
        Step(0.0, "node", ("n4", 4)),
        *(pod(0.0, f"web-{number}", f"n{number}") for number in (0, 3, 4)),
    ]
    world = Course(*cluster(*steps), hosts=5)
    world.run_until(300.0)
    assert len(world.of(ListHosts)) == 2
    # What the list showed is as good as a read, before the change.
    assert world.of(ReadHost) == []
    assert len(world.of(PatchHost)) == 3


@pytest.mark.parametrize("kind", [Fault.FORBIDDEN, Fault.NOT_FOUND])
def test_a_group_that_may_not_be_listed_is_read_host_by_host(kind: Fault) -> None:
    steps = [
        Step(0.0, "node", ("n3", 3)),
        Step(0.0, "node", ("n4", 4)),
        *(pod(0.0, f"web-{number}", f"n{number}") for number in (0, 3, 4)),
    ]
    world = Course(*cluster(*steps), hosts=5)
    world.answers[ListHosts] = lambda _: Failure(kind=kind)
    world.run_until(300.0)
    assert len(world.of(ListHosts)) == 1
    assert len(world.of(PatchHost)) == 3


@pytest.mark.parametrize("gone", ["delete_identity", "delete_binding"])
def test_an_identity_or_a_binding_that_is_deleted_takes_its_records_and_then_its_attachment(
    gone: str,
) -> None:
    name = "id" if gone == "delete_identity" else "b"
    world = Course(*cluster(pod(2.0), Step(20.0, gone, ("blue", name))), grace=10.0)
    world.run_until(19.0)
    assert world.of(DeleteRecord) == []
    world.run_until(21.0)
    assert len(world.of(DeleteRecord)) == 1
    world.run_until(60.0)
    assert world.arm[HOSTS[0]].listed == {}


def once(world: Course, kind: type, failure: Failure) -> None:
    """Have the first call of a kind fail."""

    def answer(_: Any) -> Result:
        del world.answers[kind]
        return failure

    world.answers[kind] = answer


def three_of_a_group() -> Course:
    nodes = (Step(0.0, "node", ("n3", 3)), Step(0.0, "node", ("n4", 4)))
    pods = (pod(0.0, f"web-{number}", f"n{number}") for number in (0, 3, 4))
    return Course(*cluster(*nodes, *pods), hosts=5)


def test_a_list_that_had_no_answer_is_made_again_when_hosts_are_read_next() -> None:
    world = three_of_a_group()
    once(world, ListHosts, Failure(kind=Fault.UNREACHABLE))
    world.run_until(170.0)
    # Pods do not wait for it.
    assert (len(world.of(ListHosts)), len(world.of(ReadHost))) == (1, 3)
    assert len(world.of(PatchHost)) == 3
    world.run_until(190.0)
    assert (len(world.of(ListHosts)), len(world.of(ReadHost))) == (2, 3)


def test_a_list_that_azure_refuses_for_now_is_made_when_it_may_and_no_host_is_read_instead() -> (
    None
):
    world = three_of_a_group()
    once(world, ListHosts, Failure(kind=Fault.THROTTLED, retry_after=7.0))
    world.run_until(60.0)
    first, second = (at for at, each in world.calls if isinstance(each, ListHosts))
    assert 7.0 <= second - first < 8.5
    assert world.of(ReadHost) == []
    assert len(world.of(PatchHost)) == 3


def test_a_list_of_ledgers_waits_as_long_as_the_api_server_asks_for() -> None:
    world = Course(*cluster(pod(2.0)))
    once(world, ListLedgers, Failure(kind=Fault.THROTTLED, retry_after=7.0))
    world.run_until(60.0)
    first, second = (at for at, each in world.calls if isinstance(each, ListLedgers))
    assert 7.0 <= second - first < 7.5
    assert len(world.of(PatchHost)) == 1


def test_a_leader_that_leads_again_does_not_wait_for_what_failed_before() -> None:
    world = Course(*cluster(pod(2.0)))
    left = 4

    def answer(action: Any) -> Result:
        nonlocal left
        left -= 1
        if left >= 0:
            return Failure(kind=Fault.UNREACHABLE)
        return World._do(world, world.mics[0], action)

    world.answers[ListLedgers] = answer
    world.run_until(60.0)
    mic = world.mics[0]
    mic.tell(Deposed())
    left, begun = 1, len(world.calls)
    mic.tell(Leading(mic.until))
    world.run_until(80.0)
    first, second = (at for at, each in world.calls[begun:] if isinstance(each, ListLedgers))
    assert second - first < 2.1


def test_who_is_deposed_while_ledgers_cannot_be_listed_asks_for_them_no_more() -> None:
    world = Course(*cluster(pod(2.0)))
    world.answers[ListLedgers] = lambda _: Failure(kind=Fault.THROTTLED, retry_after=7.0)
    world.run_until(3.0)
    world.mics[0].leads = False
    world.mics[0].tell(Deposed())
    asked = len(world.of(ListLedgers))
    world.lease = (None, 1e9)
    world.run_until(60.0)
    assert len(world.of(ListLedgers)) == asked == 1


def test_ledgers_that_cannot_be_listed_again_are_listed_when_hosts_are_read_next() -> None:
    world = Course(*cluster(pod(2.0)))
    world.run_until(100.0)
    once(world, ListLedgers, Failure(kind=Fault.UNREACHABLE))
    world.run_until(500.0)
    times = [at for at, each in world.calls if isinstance(each, ListLedgers)]
    assert [round(later - before) for before, later in pairwise(times)] == [180, 180]


@pytest.mark.parametrize("number", [0, 1], ids=["with a pod", "without one"])
def test_what_a_leader_of_before_writes_late_into_a_ledger_counts_when_ledgers_are_read_next(
    number: int,
) -> None:
    world = Course(*cluster(pod(2.0), hosts=2), hosts=2, grace=20.0)
    world.run_until(60.0)
    host, there = HOSTS[number], world.arm[HOSTS[number]]
    there.listed[FOLDED[1]] = IDS[1].spelling
    there.machines, there.ours[FOLDED[1]] = frozenset(there.listed), "mic"
    book = world.ledgers[host][0] if host in world.ledgers else Ledger(host=host)
    late = {FOLDED[1]: LedgerEntry(IDS[1].spelling, 50.0)}
    world.ledgers[host] = (replace(book, attached={**book.attached, **late}), 10**6)
    world.run_until(400.0)
    assert set(there.listed) == ({FOLDED[0]} if number == 0 else set())
    assert FOLDED[1] not in world.ledgers[host][0].attached


# The host.


def test_more_than_150_identities_are_attached_by_several_changes() -> None:
    controller = Controller(Settings(asks_permission=False))
    calls: list[Call] = []
    calls += controller.on_event(NodeSeen("n0", provider_id(0)), 0.0)
    for number in range(160):
        found = identity("blue", f"id-{number}", resource_id=resource_id(number))
        controller.on_event(IdentitySeen(identity=found, revision=""), 0.0)
        bound = binding("blue", f"b-{number}", found.ref.name, "app")
        controller.on_event(BindingSeen(binding=bound, revision=""), 0.0)
    controller.on_event(PodSeen(a_pod(node="n0")), 0.0)
    controller.on_event(Synced(), 0.0)
    sizes = _sizes_of_changes(controller)
    assert sizes == [150, 10]


def _sizes_of_changes(controller: Controller) -> list[int]:
    """Play a controller against a host that takes every change at once; return their sizes."""
    listed: dict[str, str] = {}
    sizes: list[int] = []
    versions = iter(range(1, 10**6))

    def answer(action: Action) -> Result:
        match action:
            case ListLedgers():
                return LedgerList({})
            case ReadHost():
                return HostIdentities(state="succeeded", user=dict(listed))
            case WriteLedger():
                return StoredLedger(action.ledger, str(next(versions)))
            case PatchHost():
                sizes.append(len(action.change.attach))
                listed.update({each.lower(): each for each in action.change.attach})
                return Accepted()
            case CreateRecord() | UpdateRecord():
                record, ref = action.record, (action.record or action).ref  # type: ignore[union-attr]
                version = str(next(versions))
                return StoredRecord(ref=ref, uid="u", version=version, record=record)
            case _:
                return None

    now = 1.0
    calls = controller.on_event(Leading(1e9), now)
    for _ in range(10_000):
        if calls:
            call = calls.pop()
            if not isinstance(call.action, LogLine):
                calls += controller.on_result(call.number, answer(call.action), now)
        elif now < 20.0:
            now += 0.1
            calls += controller.on_time(now)
        else:
            break
    return sizes


def test_one_bad_identity_that_azure_does_not_name_is_found_by_halves() -> None:
    steps = [
        step
        for number in range(1, 8)
        for step in (
            Step(0.0, "identity", ("blue", f"id-{number}", number)),
            Step(0.0, "binding", ("blue", f"b-{number}", f"id-{number}", "app")),
        )
    ]
    world = Course(*cluster(*steps, Step(0.0, "break", (5,)), pod(2.0)))

    def nameless(action: Any) -> Result:
        del world.answers[PatchHost]
        found = World._do(world, world.mics[0], action)
        world.answers[PatchHost] = nameless
        return replace(found, bad=()) if isinstance(found, Failure) else found

    world.answers[PatchHost] = nameless
    world.run_until(60.0)
    assert set(world.arm[HOSTS[0]].listed) == {FOLDED[n] for n in range(8) if n != 5}


def test_a_deny_assignment_is_final_and_names_the_type_that_needs_no_machine() -> None:
    world = Course(*cluster(pod(2.0)))
    denied = Failure(kind=Fault.DENIED, message="The node resource group is locked.")
    world.answers[PatchHost] = lambda _: denied
    world.run_until(3000.0)
    assert len(world.of(PatchHost)) == 1
    told = world.conditions[About.IDENTITY, ObjectRef("blue", "id")]
    assert (told.holds, told.reason) == (False, "Denied")
    assert "spec.type 3" in told.message
    assert "locked" in told.message
    bound = world.conditions[About.BINDING, ObjectRef("blue", "b")]
    assert (bound.holds, bound.reason) == (False, "IdentityNotReady")
    # Nothing is attached, and nothing is said to be.
    assert not world.ledgers[HOSTS[0]][0].unresolved
    world.run_until(4000.0)
    assert len(world.of(PatchHost)) == 2


def test_a_missing_right_to_read_a_host_is_told_until_it_is_there() -> None:
    world = Course(*cluster(pod(2.0)))
    missing = Failure(kind=Fault.FORBIDDEN, message="MIC lacks virtualMachineScaleSets/read.")
    world.answers[ReadHost] = lambda _: missing
    world.run_until(50.0)
    told = world.conditions[About.IDENTITY, ObjectRef("blue", "id")]
    assert (told.reason, told.holds) == ("Forbidden", False)
    assert "MIC lacks virtualMachineScaleSets/read." in told.message
    [created] = world.of(CreateRecord)
    assert created.record.state == "Created"
    del world.answers[ReadHost]
    world.run_until(200.0)
    assert world.conditions[About.IDENTITY, ObjectRef("blue", "id")].holds
    assert FOLDED[0] in world.arm[HOSTS[0]].machines


# Azure's patience, where hosts of a subscription wait for each other.


def three_hosts(*more: Step, at: tuple[float, ...]) -> Course:
    pods = (pod(when, f"web-{number}", f"n{number}") for number, when in enumerate(at))
    return Course(*cluster(*pods, *more, hosts=3), hosts=3)


@pytest.mark.parametrize("kind", [ReadHost, PatchHost, PollOperation])
@pytest.mark.parametrize(("told", "waits"), [(30.0, 30.0), (0.0, 10.0)], ids=["told", "untold"])
def test_who_is_refused_for_now_speaks_for_all_hosts_and_then_each_has_its_turn(
    kind: type, told: float, waits: float
) -> None:
    world = three_hosts(at=(2.0, 6.0, 6.2))
    once(world, kind, Failure(kind=Fault.THROTTLED, retry_after=told))
    world.run_until(60.0)
    first, *later = times(world, kind)
    assert min(later) >= first + waits
    # Then one goes after the other.
    assert len({*later}) == len(later) >= 3
    assert all(FOLDED[0] in world.arm[host].machines for host in HOSTS[:3])
    assert max(times(world, PatchHost)) < first + waits + 7.0


@pytest.mark.parametrize("kind", [Fault.UNREACHABLE, Fault.LOST])
def test_of_a_subscription_without_an_answer_one_host_at_a_time_is_asked(kind: Fault) -> None:
    world = three_hosts(at=(2.0, 2.1, 2.2))
    world.answers[ReadHost] = lambda _: Failure(kind=kind)
    world.run_until(300.0)
    asked = times(world, ReadHost)[3:]
    assert len({*asked}) == len(asked) > 3
    assert {each.host for each in world.of(ReadHost)[3:]} == {*HOSTS[:3]}
    [told] = world.mics[0].controller.troubles(world.now)
    assert told.obstacle is Obstacle.SILENT
    del world.answers[ReadHost]
    world.run_until(375.0)
    assert all(FOLDED[0] in world.arm[host].machines for host in HOSTS[:3])
    [first] = [at for at, each in world.calls if isinstance(each, PatchHost)][:1]
    assert max(times(world, PatchHost)) < first + 10.0


def test_an_answer_of_any_kind_shows_that_a_subscription_answers() -> None:
    world = Course(*cluster(pod(2.0)))
    silent, forbidden = Failure(kind=Fault.UNREACHABLE), Failure(kind=Fault.FORBIDDEN)
    left = iter([silent, silent, forbidden, silent, silent])
    world.answers[ReadHost] = lambda _: next(left, silent)
    while len(times(world, ReadHost)) < 5:
        world.run_until(world.now + 1.0)
    told = [each.obstacle for each in world.mics[0].controller.troubles(world.now)]
    assert Obstacle.SILENT not in told


def test_who_waits_for_its_turn_and_needs_nothing_any_more_keeps_nobody_waiting() -> None:
    world = three_hosts(gone(20.0, "web-1"), at=(2.0, 10.0, 10.2))
    once(world, PatchHost, Failure(kind=Fault.THROTTLED, retry_after=30.0))
    world.run_until(60.0)
    assert {each.host for each in world.of(PatchHost)} == {HOSTS[0], HOSTS[2]}
    assert FOLDED[0] in world.arm[HOSTS[2]].machines


def test_whose_time_to_lead_has_passed_lets_nobody_in() -> None:
    controller = Controller(Settings(asks_permission=False))
    standby(controller, *BOUND, until=20.0)
    calls = controller.on_result(1, LedgerList({}), 1.0)
    [read] = [each for each in calls if isinstance(each.action, ReadHost)]
    refused = Failure(kind=Fault.THROTTLED, retry_after=30.0)
    controller.on_result(read.number, refused, 2.0)
    # Its host waits until 32, and it leads until 20.
    for now in (10.0, 25.0, 32.0, 40.0):
        did = controller.on_time(now)
        assert not [each for each in did if isinstance(each.action, ReadHost)]
    due = controller.due()
    assert due is None or due > 40.0


def test_who_has_its_turn_and_needs_nothing_any_more_lets_the_next_one_go() -> None:
    """Here the pod goes while its host is read, whose turn to find out whether Azure answers."""
    world = Course(*cluster(pod(2.0), pod(20.0, "other", "n1"), hosts=2), hosts=2)
    world.answers[PatchHost] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.run_until(60.0)
    assert {each.host for each in world.of(PatchHost)} == {HOSTS[0], HOSTS[1]}
    at_last: list[tuple[float, Host]] = []

    def read(action: ReadHost) -> Result:
        del world.answers[ReadHost]
        at_last.append((world.now, action.host))
        world.drop("pod", ObjectRef("blue", "web" if action.host == HOSTS[0] else "other"))
        found: Result = World._do(world, world.mics[0], action)
        return found

    world.answers[ReadHost] = read
    world.run_until(170.0)
    [(at, gave_way)] = at_last
    tried = [when for when, each in world.calls if isinstance(each, PatchHost) and when > at]
    hosts = {each.host for when, each in world.calls if isinstance(each, PatchHost) and when > at}
    assert hosts == {HOSTS[0], HOSTS[1]} - {gave_way}
    assert min(tried) < at + 5.0


# Permissions.


def test_a_grant_that_is_told_is_acted_on_at_once() -> None:
    revoked, granted = Step(1.0, "revoke", ("blue", 0)), Step(20.0, "grant", ("blue", 0))
    world = Course(*cluster(revoked, pod(2.0), granted), foreign=((0, 0),))
    world.at(20.0, lambda: world.mics[0].tell(PermissionsChanged("blue")))
    world.run_until(19.9)
    assert world.of(CreateRecord) == []
    world.run_until(20.5)
    [created] = world.of(CreateRecord)
    assert created.record.state == "Assigned"


@pytest.mark.parametrize("namespace", ["blue", None])
def test_an_api_server_that_learns_of_a_grant_later_is_asked_again_soon(
    namespace: str | None,
) -> None:
    world = Course(*cluster(Step(1.0, "revoke", ("blue", 0)), pod(2.0)), foreign=((0, 0),))
    world.at(200.0, lambda: world.mics[0].tell(PermissionsChanged(namespace)))
    world.at(200.5, world.do_grant, "blue", 0)
    world.run_until(199.0)
    before = len(world.of(AskPermission))
    world.run_until(201.5)
    assert len(world.of(CreateRecord)) == 1
    world.run_until(300.0)
    assert len(world.of(AskPermission)) - before == 3


def test_a_missing_permission_is_told_with_the_next_step_until_it_is_granted() -> None:
    world = Course(*cluster(Step(1.0, "revoke", ("blue", 0)), pod(2.0)))
    world.run_until(10.0)
    identity_, binding_ = ObjectRef("blue", "id"), ObjectRef("blue", "b")
    told = world.conditions[About.IDENTITY, identity_]
    assert told is not None
    assert (told.holds, told.reason) == (False, "NotPermitted")
    assert "Service account blue/default may not use" in told.message
    assert f"podidentity grant --namespace blue --identity {CLIENTS[0]}" in told.message
    bound = world.conditions[About.BINDING, binding_]
    assert bound is not None
    assert (bound.holds, bound.reason) == (False, "IdentityNotReady")
    [event] = world.of(TellEvent)
    assert (event.ref, event.type, event.reason) == (binding_, "Warning", "binding apply error")
    assert "podidentity grant" in event.note
    world.at(11.0, world.do_grant, "blue", 0)
    world.run_until(300.0)
    for key in ((About.IDENTITY, identity_), (About.BINDING, binding_)):
        found = world.conditions[key]
        assert found is not None
        assert found.holds


def test_an_identity_is_ready_as_long_as_one_of_its_pods_may_use_it() -> None:
    controller = Controller(Settings(asks_permission=True))
    for event in (
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=identity("blue", "id", resource_id=resource_id(0)), revision=""),
        BindingSeen(binding=binding("blue", "b", "id", "app"), revision=""),
        PodSeen(a_pod(ref=ObjectRef("blue", "web"), node="n0", service_account="web")),
        PodSeen(a_pod(ref=ObjectRef("blue", "job"), node="n0", service_account="job")),
    ):
        controller.on_event(event, 0.0)
    calls = [*controller.on_event(Synced(), 0.0), *controller.on_event(Leading(1e9), 0.0)]
    asked = _questions(calls)
    # The answer about the other one is awaited.
    assert _conditions(controller.on_result(asked["job"], False, 1.0)) == {}
    written = _conditions(controller.on_result(asked["web"], True, 1.0))
    assert written[About.IDENTITY].holds


def test_the_next_leader_writes_no_condition_before_it_has_asked_itself() -> None:
    refused = Condition(holds=False, reason="NotPermitted", message="By an earlier MIC.")
    follows = Condition(holds=False, reason="IdentityNotReady", message="It is not ready.")
    controller = Controller(Settings(asks_permission=True))
    found = identity("blue", "id", resource_id=resource_id(0))
    bound = binding("blue", "b", "id", "app")
    for event in (
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=found, revision="", condition=refused),
        BindingSeen(binding=bound, revision="", condition=follows),
        PodSeen(a_pod(node="n0")),
    ):
        controller.on_event(event, 0.0)
    calls = [*controller.on_event(Synced(), 0.0), *controller.on_event(Leading(1e9), 0.0)]
    assert _conditions(calls) == {}
    written = _conditions(controller.on_result(_questions(calls)["default"], True, 1.0))
    assert {about: each.holds for about, each in written.items()} == {
        About.IDENTITY: True,
        About.BINDING: True,
    }


def _questions(calls: list[Call]) -> dict[str, int]:
    """Return the numbers of the questions, by the service account's name."""
    return {
        each.action.use.service_account.name: each.number
        for each in calls
        if isinstance(each.action, AskPermission)
    }


def _conditions(calls: list[Call]) -> dict[About, Condition]:
    found = [call.action for call in calls]
    return {each.about: each.condition for each in found if isinstance(each, WriteCondition)}


def test_where_nothing_is_attached_conditions_say_who_may_not_use_an_identity() -> None:
    steps = cluster(Step(1.0, "revoke", ("blue", 0)), pod(2.0))
    world = Course(*steps, settings={"assign": Assign.NONE})
    world.run_until(60.0)
    told = world.conditions[About.IDENTITY, ObjectRef("blue", "id")]
    assert told is not None
    assert told.reason == "NotPermitted"
    assert world.of(*RECORD_WRITES, PatchHost, ReadHost, ListLedgers) == []


def test_a_grant_of_another_namespace_costs_no_question() -> None:
    world = Course(*cluster(pod(2.0)))
    world.at(20.0, lambda: world.mics[0].tell(PermissionsChanged("green")))
    world.run_until(60.0)
    assert len(world.of(AskPermission)) == 1


def test_a_refused_identity_is_told_and_found_mended_without_an_event() -> None:
    world = Course(*cluster(pod(2.0), Step(1.0, "break", (0,)), Step(70.0, "mend", (0,))))
    world.run_until(60.0)
    ref = ObjectRef("blue", "id")
    assert world.conditions[About.IDENTITY, ref].reason == "RefusedByAzure"
    assert len(world.of(PatchHost)) <= 5
    world.run_until(200.0)
    assert world.conditions[About.IDENTITY, ref].holds
    assert world.conditions[About.BINDING, ObjectRef("blue", "b")].holds
    assert FOLDED[0] in world.arm[HOSTS[0]].machines


def test_what_a_leader_began_is_proved_by_the_next_one_as_soon_as_it_is_done() -> None:
    world = Course(*cluster(pod(2.0)), operation=80.0)
    world.run_until(10.0)
    [_] = world.of(PatchHost)
    world.kill(world.mics[0])
    world.run_until(80.0)
    # The second MIC leads, and the host lists what it does not have yet.
    assert FOLDED[0] in world.arm[HOSTS[0]].listed
    assert world.of(UpdateRecord) == []
    world.run_until(120.0)
    assert len(world.of(PatchHost)) == 1
    [at] = [at for at, each in world.calls if isinstance(each, UpdateRecord)]
    begun = next(at for at, each in world.calls if isinstance(each, PatchHost))
    assert begun + 80.0 <= at <= begun + 80.0 + 6.0


def test_a_host_that_another_changes_is_waited_for() -> None:
    world = Course(*cluster(pod(2.0)))
    there = world.arm[HOSTS[0]]
    there.state = "updating"
    world.run_until(60.0)
    assert world.of(PatchHost) == []
    there.state = "succeeded"
    world.run_until(70.0)
    assert len(world.of(PatchHost)) == 1


def test_what_pods_need_one_after_the_other_is_attached_by_one_change() -> None:
    steps = [
        step
        for number in range(1, 6)
        for step in (
            Step(0.0, "identity", ("blue", f"id{number}", number)),
            Step(0.0, "binding", ("blue", f"b{number}", f"id{number}", f"app{number}")),
            Step(2.0 + 0.3 * number, "pod", ("blue", f"web-{number}", f"app{number}", "n0")),
        )
    ]
    world = Course(*cluster(*steps))
    world.run_until(60.0)
    [change] = world.of(PatchHost)
    assert len(change.change.attach) == 5


@pytest.mark.parametrize("at", [0.0, 175.0], ids=["at first", "later"])
def test_nodes_of_which_no_pod_needs_an_identity_cost_no_call(at: float) -> None:
    nodes = [Step(at, "node", (f"m{number}", number)) for number in (0, 1, 3, 4)]
    plain = [
        Step(at, "pod", ("blue", f"plain-{number}", "none", f"m{number}"))
        for number in (0, 1, 3, 4)
    ]
    world = Course(*cluster(*nodes, *plain, hosts=0), hosts=5)
    world.run_until(400.0)
    assert world.of(ReadHost, ListHosts) == []


def test_what_a_pod_of_a_node_that_is_not_known_yet_may_need_is_not_detached() -> None:
    """The API server knows it already, and this MIC is not told yet."""
    node, away = Step(0.0, "node", ("n2", 2)), Step(20.0, "delete_node", ("n2",))
    world = Course(*cluster(node, pod(2.0, node="n2"), gone(20.0), away, hosts=0), hosts=3)

    def listed(_: ListUse) -> Result:
        new = a_pod(ref=ObjectRef("blue", "new"), node="unseen")
        return InUse(
            pods=(new,),
            identities=(world.objects["identity"][ObjectRef("blue", "id")].value,),
            bindings=(world.objects["binding"][ObjectRef("blue", "b")].value,),
        )

    world.answers[ListUse] = listed
    world.run_until(1000.0)
    assert world.of(ListUse)
    assert len(world.of(PatchHost)) == 1
    assert FOLDED[0] in world.arm[HOSTS[2]].machines


def test_a_host_that_is_gone_is_not_changed_and_its_ledger_goes_with_it() -> None:
    world = Course(*cluster(pod(2.0), Step(10.0, "delete_node", ("n0",))))
    world.run_until(9.0)
    assert not world.ledgers[HOSTS[0]][0].empty
    world.arm[HOSTS[0]].there = False
    world.run_until(900.0)
    assert HOSTS[0] not in world.ledgers
    assert len(world.of(PatchHost)) == 1


def test_a_lost_ledger_is_said_and_nothing_is_detached_any_more() -> None:
    world = Course(*cluster(pod(2.0), gone(20.0)))
    world.keeps_journal = True
    world.run_until(10.0)
    del world.ledgers[HOSTS[0]]
    world.run_until(1200.0)
    assert FOLDED[0] in world.arm[HOSTS[0]].machines
    assert any("The ledger of set0 is lost" in line for line in world.journal)


def test_a_ledger_that_cannot_be_read_counts_as_lost() -> None:
    world = Course(*cluster(gone(20.0)), foreign=((0, 0),))
    world.keeps_journal = True
    book = Ledger(host=HOSTS[0], attached={FOLDED[0]: LedgerEntry(IDS[0].spelling, 0.0)})
    world.ledgers[HOSTS[0]] = (book, 7)

    def broken(_: Any) -> Result:
        return LedgerList({HOSTS[0]: StoredLedger(None, "7", "spec.host is missing")})

    world.answers[ListLedgers] = broken
    world.run_until(1200.0)
    assert world.of(PatchHost) == []
    assert any("spec.host is missing" in line for line in world.journal)


@pytest.mark.parametrize("protected", [str(CLIENTS[0]), FOLDED[0]])
def test_an_immutable_identity_is_never_detached(protected: str) -> None:
    settings = {"protected": frozenset({protected})}
    world = Course(*cluster(pod(2.0), gone(20.0)), settings=settings)
    world.run_until(2000.0)
    assert len(world.of(PatchHost)) == 1
    assert FOLDED[0] in world.arm[HOSTS[0]].machines


@pytest.mark.parametrize("everywhere", [False, True])
def test_a_paused_host_is_not_changed_and_others_are(*, everywhere: bool) -> None:
    steps = (pod(2.0), pod(2.0, "job", "n1"))
    world = Course(*cluster(*steps, hosts=2))
    world.pausing = Pausing(everywhere=True) if everywhere else Pausing(hosts=frozenset({HOSTS[0]}))
    world.run_until(60.0)
    assert [each.host for each in world.of(PatchHost)] == ([] if everywhere else [HOSTS[1]])
    world.pausing, world.mics[0].is_paused = Pausing(), False
    world.mics[0].tell(world.pausing)
    world.run_until(70.0)
    assert {each.host for each in world.of(PatchHost)} == {HOSTS[0], HOSTS[1]}


# Modes.


def test_everywhere_each_host_gets_what_is_bound_and_there_are_no_records() -> None:
    new = Step(100.0, "node", ("n9", 2))
    world = Course(*cluster(new, hosts=2), hosts=3, settings={"assign": Assign("all-hosts")})
    world.run_until(50.0)
    listed = [FOLDED[0] in world.arm[host].machines for host in HOSTS[:3]]
    assert listed == [True, True, False]
    world.run_until(130.0)
    assert FOLDED[0] in world.arm[HOSTS[2]].machines
    assert world.of(*RECORD_WRITES) == []


def test_everywhere_a_second_pool_and_single_machines_get_it_with_their_first_node() -> None:
    """Node auto-provisioning makes a virtual machine for each node."""
    steps = (
        Step(50.0, "node", ("pool", 1)),
        Step(50.5, "node", ("single-a", 2)),
        Step(50.7, "node", ("single-b", 5)),
        Step(90.0, "node", ("pool-next", 1)),
    )
    world = Course(*cluster(*steps), hosts=6, settings={"assign": Assign.ALL_HOSTS})
    world.run_until(49.0)
    first = HOSTS[0]
    assert [host for host, there in world.arm.items() if there.machines] == [first]
    world.run_until(400.0)
    with_nodes = [first, HOSTS[1], HOSTS[2], HOSTS[5]]
    assert [host for host, there in world.arm.items() if FOLDED[0] in there.machines] == with_nodes
    assert Counter(each.host for each in world.of(PatchHost)) == dict.fromkeys(with_nodes, 1)
    last = max(at for at, each in world.calls if isinstance(each, PatchHost))
    assert last < 50.7 + 1.5


def test_everywhere_a_single_machine_that_goes_with_its_node_is_asked_for_no_more() -> None:
    steps = (
        Step(0.0, "node", ("single-a", 2)),
        Step(100.0, "delete_node", ("single-a",)),
        Step(101.0, "node", ("single-b", 5)),
    )
    world = Course(*cluster(*steps), hosts=6, settings={"assign": Assign.ALL_HOSTS})
    # The machine goes first, as where a spot machine is evicted.
    world.at(99.0, setattr, world.arm[HOSTS[2]], "there", False)
    world.run_until(3000.0)
    assert FOLDED[0] in world.arm[HOSTS[5]].machines
    about = [(at, each) for at, each in world.calls if "vm2" in str(each)]
    assert [at for at, each in about if isinstance(each, PatchHost) and at > 50.0] == []
    # Its ledger goes, and it is asked for no more.
    assert HOSTS[2] not in world.ledgers
    assert max(at for at, _ in about) < 100.0 + 300.0 + 200.0


def test_everywhere_a_scale_set_without_nodes_keeps_what_its_next_node_needs() -> None:
    steps = (Step(50.0, "delete_node", ("n0",)), Step(50.0, "delete_node", ("n2",)))
    nodes = (Step(0.0, "node", ("n2", 2)),)
    world = Course(*cluster(*nodes, *steps), hosts=3, settings={"assign": Assign.ALL_HOSTS})
    world.run_until(1500.0)
    assert FOLDED[0] in world.arm[HOSTS[0]].machines
    assert FOLDED[0] not in world.arm[HOSTS[2]].machines


def test_nowhere_only_conditions_are_written() -> None:
    world = Course(*cluster(pod(2.0)), settings={"assign": Assign("none")})
    world.run_until(50.0)
    assert {type(each) for _, each in world.calls} == {AskPermission, WriteCondition}
    assert len(world.calls) == 3


def test_a_standby_knows_all_and_writes_nothing() -> None:
    controller = Controller()
    assert not controller.leads
    calls: list[Call] = []
    calls += controller.on_event(NodeSeen("n0", provider_id(0)), 0.0)
    calls += controller.on_event(
        IdentitySeen(identity=principal("blue", "orders"), revision=""), 0.0
    )
    calls += controller.on_event(Synced(), 0.0)
    assert calls == []
    assert not controller.leads
    first = controller.on_event(Leading(10.0), 1.0)
    assert [type(each.action) for each in first] == [ListLedgers, WriteCondition]
    # After the lease has ended nothing goes out, whoever calls.
    late = controller.on_event(NodeSeen("n1", provider_id(0)), 10.0)
    assert late == []
    assert not controller.leads
    assert controller.on_result(first[0].number, Failure(kind=Fault.LOST), 12.0) == []


def test_no_pod_is_decided_on_before_all_objects_were_told(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decided: list[ObjectRef] = []
    decide = Assignments._decide

    def noted(state: Assignments, ref: ObjectRef) -> None:
        decided.append(ref)
        decide(state, ref)

    monkeypatch.setattr(Assignments, "_decide", noted)
    controller = Controller()
    controller.on_event(NodeSeen("n0", provider_id(0)), 0.0)
    for number in range(3):
        controller.on_event(PodSeen(a_pod(ref=ObjectRef("blue", f"web-{number}"))), 0.0)
        # Each concerns all of the pods.
        bound = binding("blue", f"b{number}", "orders", "app")
        controller.on_event(BindingSeen(binding=bound, revision=""), 0.0)
    assert decided == []
    controller.on_event(Synced(), 0.0)
    assert sorted(decided) == [ObjectRef("blue", f"web-{number}") for number in range(3)]


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> int:
    """Have few records looked at in one go, and return how many."""
    monkeypatch.setattr("podidentity.mic.controller.LOOKS", 4)
    return 4


@pytest.mark.parametrize("numbers", [(0, 1, 2), (0, 1, 3)], ids=["read", "listed"])
def test_a_new_leader_writes_what_is_missing_before_it_looks_at_all_that_is_there(
    monkeypatch: pytest.MonkeyPatch, few: int, numbers: tuple[int, ...]
) -> None:
    nodes = [Step(0.0, "node", (f"n{place}", number)) for place, number in enumerate(numbers)]
    crowd = [pod(2.0, f"web-{number}", f"n{number % 3}") for number in range(3 * few)]
    late = (Step(100.0, "kill"), pod(110.0, "late", "n2"))
    world = Course(*cluster(*nodes, *crowd, *late, hosts=0), hosts=4)
    world.at(0.6, world.start_mic)
    looked: list[ObjectRef] = []
    written: list[int] = []
    of_late = ObjectRef("blue", "late-blue-id")
    look = Records.next

    def noted(records: Records, ref: ObjectRef, now: float) -> Action | None:
        looked.append(ref)
        found = look(records, ref, now)
        if ref == of_late and found is not None:
            written.append(len(looked))
        return found

    world.run_until(120.0)
    monkeypatch.setattr(Records, "next", noted)
    world.run_until(170.0)
    (created,) = (each for each in world.of(CreateRecord) if each.record.ref == of_late)
    assert created.record.state is Assignment.ASSIGNED
    # Of its machine it comes first, and where one list shows all machines before the others'.
    others = {ObjectRef("blue", f"web-{each}-blue-id") for each in range(2, 3 * few, 3)}
    assert others.isdisjoint(looked[: written[0]])
    assert others <= {*looked}
    assert written[0] <= (few if numbers == (0, 1, 3) else 2 * few + 2)
    assert max(count for ref, count in Counter(looked).items() if ref != of_late) == 1
    assert len(set(looked)) == 3 * few + 1


def of_a_group(records: int, *, settings: Settings | None = None) -> tuple[Controller, list[Call]]:
    """Return a leader of three hosts of a group with so many records each, and a list's number.

    All records say Assigned already, and the list that shows the hosts is under way.
    """
    controller = Controller(settings or Settings(asks_permission=False))
    found = identity("blue", "vm", resource_id=IDS[0])
    events: list[Any] = [
        IdentitySeen(identity=found, revision=""),
        BindingSeen(binding=binding("blue", "b", "vm", "app"), revision=""),
    ]
    for place, number in enumerate((0, 1, 3)):
        events.append(NodeSeen(f"n{place}", provider_id(number)))
        for each in range(records):
            web = ObjectRef("blue", f"web-{place}-{each}")
            ref = ObjectRef("blue", f"{web.name}-blue-vm")
            events.append(PodSeen(a_pod(ref=web, node=f"n{place}")))
            there = Record(
                ref=ref,
                pod=web,
                identity=found.ref,
                binding=ObjectRef("blue", "b"),
                node=f"n{place}",
                state=Assignment.ASSIGNED,
                identity_revision="",
                binding_revision="",
            )
            events.append(RecordSeen(StoredRecord(ref=ref, uid="u", version="1", record=there)))
    standby(controller, *events)
    return controller, controller.on_result(1, LedgerList({}), 1.0)


SHOWN = HostList(
    {
        HOSTS[number]: HostIdentities(state="succeeded", user={FOLDED[0]: IDS[0].spelling})
        for number in (0, 1, 3)
    }
)


def test_hosts_with_more_records_than_one_look_takes_have_their_turn_one_after_the_other(
    few: int,
) -> None:
    controller, [listing] = of_a_group(few)
    assert isinstance(listing.action, ListHosts)
    left = []
    controller.on_result(listing.number, SHOWN, 2.0)
    while controller.due() == 2.0:
        left.append(len(controller._marks.hosts))
        controller.on_time(2.0)
    assert left == [2, 1]
    assert controller._marks.hosts == {}


def test_a_list_says_nothing_of_machines_of_another_group() -> None:
    controller = Controller(Settings(asks_permission=False))
    events: list[Any] = [*BOUND[:2]]
    for number in range(6):
        web, node = ObjectRef("blue", f"web-{number}"), f"n{number}"
        machine = f"group-{number % 2}/providers/Microsoft.Compute/virtualMachines/m{number}"
        events.append(NodeSeen(node, f"azure:///subscriptions/s/resourceGroups/{machine}"))
        events.append(PodSeen(a_pod(ref=web, node=node)))
    standby(controller, *events)
    lists = controller.on_result(1, LedgerList({}), 1.0)
    assert [type(each.action) for each in lists] == [ListHosts] * 2
    for each in lists:
        did = controller.on_result(each.number, HostList({}), 2.0)
        read = [call.action.host.group for call in did if isinstance(call.action, ReadHost)]
        assert isinstance(each.action, ListHosts)
        assert read == [each.action.group] * 3, "those that it should have shown"


def test_a_record_that_is_missing_is_written_as_soon_as_its_host_is_read() -> None:
    controller, [listing] = of_a_group(1)
    missing = ObjectRef("blue", "web-0-0-blue-vm")
    assert controller.on_event(RecordGone(missing, "u"), 1.5) == []
    more = PodSeen(a_pod(ref=ObjectRef("blue", "next"), node="n1"))
    assert controller.on_event(more, 1.6) == []
    did = [each.action for each in controller.on_result(listing.number, SHOWN, 2.0)]
    assert [each.record.ref.name for each in did if isinstance(each, CreateRecord)] == [
        missing.name,
        "next-blue-vm",
    ]


def test_a_leader_writes_the_record_of_the_oldest_pod_of_a_namespace_first() -> None:
    """The API server lists pods by name, and a burst may wait for a minute."""
    controller = Controller(Settings(asks_permission=False))
    events: list[Any] = [*BOUND[:2]]
    for node, number, name, started in (
        ("n0", 0, "a", 30.0),
        ("n1", 1, "b", 10.0),
        ("n2", 3, "c", 20.0),
    ):
        events.append(NodeSeen(node, provider_id(number)))
        web = a_pod(ref=ObjectRef("blue", name), uid=name, node=node, started=started)
        events.append(PodSeen(web))
    standby(controller, *events)
    [listing] = controller.on_result(1, LedgerList({}), 1.0)
    did = [each.action for each in controller.on_result(listing.number, SHOWN, 2.0)]
    created = [each.record.ref.name for each in did if isinstance(each, CreateRecord)]
    assert created == ["b-blue-vm", "c-blue-vm", "a-blue-vm"]


def test_how_long_a_record_was_missing_is_counted_from_when_this_leads() -> None:
    controller = Controller(Settings(asks_permission=False))
    standby(controller, *BOUND)
    [reading] = controller.on_result(1, LedgerList({}), 1.0)
    assert isinstance(reading.action, ReadHost)
    has_it = HostIdentities(state="succeeded", user={FOLDED[0]: IDS[0].spelling})
    did = controller.on_result(reading.number, has_it, 50.0)
    assert [each.action.since for each in did if isinstance(each.action, CreateRecord)] == [1.0]


def test_a_standby_does_not_collect_what_came_and_went() -> None:
    steps = [step for at in range(2, 40) for step in (pod(at, f"web-{at}"), gone(at + 5.0))]
    world = Course(*cluster(*steps))
    world.at(0.6, world.start_mic)
    world.run_until(60.0)
    leader, standby = (each.controller for each in world.mics)
    assert (leader.leads, standby.leads) == (True, False)
    assert standby._marks.waiting == 0


# What people are told.


def condition_of(event: Any) -> Condition | None:
    controller = Controller()
    controller.on_event(Synced(), 0.0)
    controller.on_event(event, 0.0)
    calls = controller.on_event(Leading(10.0), 0.0)
    found = [each.action for each in calls if isinstance(each.action, WriteCondition)]
    return found[0].condition if found else None


def test_an_exception_says_whether_it_has_effect() -> None:
    effective = condition_of(ExceptionSeen(exception=exception("kube-system", "e", {"a": "b"})))
    idle = condition_of(ExceptionSeen(exception=exception("blue", "e", {"a": "b"})))
    empty = condition_of(ExceptionSeen(exception=exception("kube-system", "e", {})))
    assert effective is not None
    assert idle is not None
    assert empty is not None
    assert (effective.holds, idle.holds, empty.holds) == (True, False, False)
    assert "--exception-namespaces=blue,kube-system" in idle.message


def test_a_malformed_identity_says_why() -> None:
    bad = Malformed(
        ref=ObjectRef("blue", "x"), kind="AzureIdentity", why="spec.clientID is missing"
    )
    told = condition_of(IdentitySeen(identity=bad, revision=""))
    assert told == Condition(
        holds=False, reason="Malformed", message="It cannot be used: spec.clientID is missing."
    )


def test_a_condition_that_is_there_is_not_written_again() -> None:
    found = principal("blue", "orders")
    told = condition_of(IdentitySeen(identity=found, revision=""))
    assert told is not None
    assert condition_of(IdentitySeen(identity=found, revision="", condition=told)) is None


def test_a_node_of_no_azure_machine_is_told() -> None:
    controller = Controller()
    [call] = controller.on_event(NodeSeen("n0", "kind://docker/kind/node"), 0.0)
    assert isinstance(call.action, LogLine)
    assert call.action.topic == "not-azure"
    assert "n0" in call.action.message
    assert controller.on_event(NodeSeen("n0", "kind://docker/kind/node"), 1.0) == []
    assert controller.on_event(NodeSeen("n1", ""), 0.0) == []
    # Another node of the same name, which has come since.
    assert controller.on_event(NodeGone("n0"), 2.0) == []
    [again] = controller.on_event(NodeSeen("n0", "kind://docker/kind/node"), 3.0)
    assert again.action == call.action


def test_hosts_compare_without_case() -> None:
    assert Host.parse(HOSTS[0].resource_id.upper()) == HOSTS[0]


# What is asked again, and when.


def times(world: Course, kind: type) -> list[float]:
    return [at for at, each in world.calls if isinstance(each, kind)]


def gaps(world: Course, kind: type) -> list[float]:
    return [later - earlier for earlier, later in pairwise(times(world, kind))]


def test_the_ledgers_are_asked_for_again_when_the_api_server_asks_for_it_and_later_each_time() -> (
    None
):
    world = Course(*cluster(pod(2.0)))
    world.answers[ListLedgers] = lambda _: Failure(kind=Fault.THROTTLED, retry_after=45.0)
    world.run_until(100.0)
    assert min(gaps(world, ListLedgers)) >= 45.0
    world.answers[ListLedgers] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.calls.clear()
    world.run_until(700.0)
    assert max(gaps(world, ListLedgers)) == pytest.approx(30.0, abs=0.1)
    assert world.of(PatchHost) == []
    fresh = Course(*cluster(pod(2.0)))
    fresh.answers[ListLedgers] = lambda _: Failure(kind=Fault.UNREACHABLE)
    fresh.run_until(60.0)
    assert gaps(fresh, ListLedgers)[:4] == pytest.approx([1.0, 2.0, 4.0, 8.0], abs=0.1)


def test_a_list_that_azure_throttles_waits_for_its_time() -> None:
    steps = [
        Step(0.0, "node", ("n3", 3)),
        Step(0.0, "node", ("n4", 4)),
        *(pod(0.0, f"web-{number}", f"n{number}") for number in (0, 3, 4)),
    ]
    world = Course(*cluster(*steps), hosts=5)
    world.answers[ListHosts] = lambda _: Failure(kind=Fault.THROTTLED, retry_after=50.0)
    world.run_until(LATE + 1.0)
    # Their records say that they wait.
    assert [each.record.state for each in world.of(CreateRecord)] == ["Created"] * 3
    world.run_until(170.0)
    assert min(gaps(world, ListHosts)) >= 50.0


@pytest.mark.parametrize(
    "failure",
    [Failure(kind=Fault.THROTTLED, retry_after=100.0), Failure(kind=Fault.UNREACHABLE)],
    ids=["throttled", "silent"],
)
def test_what_one_subscription_does_not_take_holds_up_no_other_and_nothing_that_is_there(
    failure: Failure,
) -> None:
    provider = provider_id(0).replace("/s1/", "/s2/")
    elsewhere = Host.of_node(provider)
    steps = (pod(2.0), pod(6.0, "there", "n1"), pod(6.0, "elsewhere", "n-elsewhere"))
    world = Course(*cluster(*steps, hosts=2), foreign=((1, 0),))
    world.arm[elsewhere] = ArmHost(elsewhere)
    world.put("node", "n-elsewhere", provider)
    world._lasts = lambda there: 1.0  # type: ignore[method-assign] # noqa: ARG005 - its name counts

    def patch(action: PatchHost) -> Result:
        if action.host != elsewhere:
            return failure
        found: Result = World._do(world, world.mics[0], action)
        return found

    world.answers[PatchHost] = patch
    world.run_until(16.0)
    states = {each.pod.name: str(each.state) for each in records(world)}
    assert states == {"web": "Created", "there": "Assigned", "elsewhere": "Assigned"}
    tries = [at for at, action in world.calls if isinstance(action, PatchHost)]
    assert len(tries) >= 2
    del world.answers[PatchHost]
    world.run_until(150.0)
    assert {str(each.state) for each in records(world)} == {"Assigned"}
    again = [at for at, action in world.calls if isinstance(action, PatchHost)][len(tries) :]
    assert len(again) == 1
    assert failure.kind is not Fault.THROTTLED or again[0] - tries[0] >= 100.0


def records(world: World) -> list[Any]:
    return [entry.value[0] for entry in world.objects["record"].values()]


def test_a_permission_that_nobody_answers_for_is_asked_for_later_each_time() -> None:
    world = Course(*cluster(pod(2.0)))
    world.answers[AskPermission] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.run_until(30.0)
    assert gaps(world, AskPermission)[:4] == pytest.approx([1.0, 2.0, 4.0, 8.0], abs=0.1)


@pytest.mark.parametrize("while_asked", [False, True])
def test_a_permission_that_was_not_needed_meanwhile_is_asked_for_anew(*, while_asked: bool) -> None:
    end = () if while_asked else (gone(10.0),)
    world = Course(*cluster(pod(2.0), *end, pod(30.0, "next")))

    def answer(_: AskPermission) -> Result:
        if while_asked and len(world.of(AskPermission)) == 4:
            world.drop("pod", ObjectRef("blue", "web"))
        return Failure(kind=Fault.UNREACHABLE)

    world.answers[AskPermission] = answer
    world.run_until(36.0)
    late = [at for at in times(world, AskPermission) if at >= 30.0]
    assert [at - late[0] for at in late] == pytest.approx([0.0, 1.0, 3.0], abs=0.1)


def test_what_is_permitted_is_asked_for_again_within_half_an_hour() -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.run_until(2000.0)
    assert all(0.9 * 1800 <= each <= 1800 for each in gaps(world, AskPermission))
    assert len(times(world, AskPermission)) == 2


def test_no_more_questions_are_under_way_than_the_operator_allows() -> None:
    apps = [
        step
        for number in range(4)
        for step in (
            Step(0.0, "identity", ("blue", f"id{number}", number)),
            Step(0.0, "binding", ("blue", f"b{number}", f"id{number}", f"app{number}")),
            Step(2.0, "pod", ("blue", f"web-{number}", f"app{number}", "n0")),
        )
    ]
    world = Course(Step(0.0, "node", ("n0", 0)), *apps, settings={"questions": 1})
    world.run_until(30.0)
    asked = times(world, AskPermission)
    assert len(asked) == len({*asked}) == 4


def test_an_identity_that_azure_refuses_is_tried_again_each_ten_minutes_at_last() -> None:
    world = Course(*cluster(pod(2.0), Step(1.0, "break", (0,))))
    world.run_until(5000.0)
    waited = gaps(world, PatchHost)
    assert waited[:2] == pytest.approx([5.0, 10.0], abs=0.9)
    assert waited[-1] == pytest.approx(600.0, abs=0.9)


def test_a_machine_that_azure_does_not_know_is_read_again_less_and_less_often() -> None:
    world = Course(*cluster(pod(2.0)))
    world.answers[ReadHost] = lambda _: Failure(kind=Fault.NOT_FOUND)
    world.run_until(2.5)
    world.calls.clear()
    # Reconciling reads it as well, each three minutes.
    world.run_until(170.0)
    assert times(world, ReadHost) == pytest.approx([62.5], abs=1.0)


def test_what_a_change_without_an_answer_attaches_late_is_detached_when_nobody_needs_it() -> None:
    world = Course(*cluster(pod(2.0), gone(4.0), Step(30.0, "attach", (0, 0))))

    def lost(_: PatchHost) -> Result:
        del world.answers[PatchHost]
        return Failure(kind=Fault.LOST)

    world.answers[PatchHost] = lost
    world.run_until(60.0)
    assert len(world.of(PatchHost)) == 1
    assert FOLDED[0] in world.arm[HOSTS[0]].machines
    world.run_until(1500.0)
    assert FOLDED[0] not in world.arm[HOSTS[0]].machines


def test_where_a_machine_may_not_be_changed_what_it_has_already_is_ready() -> None:
    other = (
        Step(0.0, "identity", ("blue", "other", 1)),
        Step(0.0, "binding", ("blue", "b1", "other", "app1")),
        Step(3.0, "pod", ("blue", "web-1", "app1", "n0")),
    )
    world = Course(*cluster(pod(2.0), *other), foreign=((0, 0),))
    world.answers[PatchHost] = lambda _: Failure(kind=Fault.DENIED, message="locked")
    world.run_until(60.0)
    assert world.conditions[About.IDENTITY, ObjectRef("blue", "id")].holds
    assert world.conditions[About.IDENTITY, ObjectRef("blue", "other")].reason == "Denied"


def test_a_binding_says_that_its_identity_has_gone() -> None:
    world = Course(*cluster(pod(2.0), Step(10.0, "delete_identity", ("blue", "id"))))
    world.run_until(30.0)
    assert world.conditions[About.BINDING, ObjectRef("blue", "b")].reason == "NoIdentity"


def test_what_azure_refuses_of_a_host_is_told_until_the_host_has_gone_and_another_has_it() -> None:
    later = (Step(40.0, "delete_node", ("n0",)), Step(60.0, "mend", (0,)), pod(60.0, node="n1"))
    world = Course(*cluster(pod(2.0), *later, hosts=2), hosts=2)
    world.broken.add(FOLDED[0])
    world.run_until(30.0)
    refused = world.conditions[About.IDENTITY, ObjectRef("blue", "id")]
    assert refused.reason == "RefusedByAzure"
    [told] = world.of(TellEvent)
    assert (told.type, told.ref) == ("Warning", ObjectRef("blue", "b"))
    world.run_until(100.0)
    assert world.conditions[About.IDENTITY, ObjectRef("blue", "id")].holds


def test_a_condition_that_could_not_be_written_is_written_later() -> None:
    world = Course(*cluster())
    world.answers[WriteCondition] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.run_until(20.0)
    refused = len(world.of(WriteCondition))
    del world.answers[WriteCondition]
    world.run_until(60.0)
    assert len(world.of(WriteCondition)) == 2 * refused
    assert world.conditions[About.IDENTITY, ObjectRef("blue", "id")].holds


# Time.


def test_a_ledger_that_another_has_written_meanwhile_is_found() -> None:
    world = Course(*cluster(pod(2.0)), hosts=2, grace=5.0)
    world.run_until(20.0)
    there = world.arm[HOSTS[1]]
    there.listed, there.ours = {FOLDED[1]: IDS[1].spelling}, {FOLDED[1]: "mic"}
    there.machines = frozenset(there.listed)
    book = Ledger(host=HOSTS[1], attached={FOLDED[1]: LedgerEntry(IDS[1].spelling, 0.0)})
    world.ledgers[HOSTS[1]] = (book, 1_000_000)
    world.run_until(400.0)
    assert there.listed == {}


def test_who_leads_again_begins_anew() -> None:
    controller = Controller(Settings(asks_permission=False, record_writes=1))
    events = (
        IdentitySeen(identity=principal("blue", "id"), revision=""),
        IdentitySeen(identity=identity("blue", "vm", resource_id=resource_id(0)), revision=""),
        BindingSeen(binding=binding("blue", "b", "id", "app"), revision=""),
        BindingSeen(binding=binding("blue", "c", "vm", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
    )
    standby(controller, *events)
    for now in (2.0, 4.0):
        controller.on_event(Deposed(), now)
        begun = controller.on_event(Leading(1e9), now)
        # A write is under way where there is one place, or its record is read: it may be done.
        assert {type(each.action) for each in begun} & {CreateRecord, ReadRecord}
        [listing] = [each for each in begun if each.action == ListLedgers()]
        follows = controller.on_result(listing.number, LedgerList({}), now + 1.0)
        assert ReadHost(HOSTS[0]) in [each.action for each in follows]


def created_by(calls: list[Call]) -> tuple[int, StoredRecord]:
    """Return the number of the only record's creation, and what is stored of it."""
    [(number, record)] = [
        (each.number, each.action.record) for each in calls if isinstance(each.action, CreateRecord)
    ]
    return number, StoredRecord(ref=record.ref, uid="u", version="1", record=record)


def told_by(calls: list[Call]) -> list[str]:
    """Return the reasons of the events."""
    return [each.action.reason for each in calls if isinstance(each.action, TellEvent)]


def asks(calls: list[Call]) -> list[int]:
    return [each.number for each in calls if isinstance(each.action, AskPermission)]


@pytest.mark.parametrize("is_told", [True, False], ids=["deposed", "late"])
def test_who_leads_no_more_asks_anew_what_had_no_answer_and_takes_no_old_one(
    *, is_told: bool
) -> None:
    controller = Controller(Settings(asks_permission=True))
    for event in (
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
        Leading(10.0),
    ):
        controller.on_event(event, 0.0)
    [number] = asks(controller.on_event(Synced(), 1.0))
    if is_told:
        [number] = asks(controller.on_event(Deposed(), 9.0))
    [again] = asks(controller.on_event(Leading(30.0), 20.0))
    assert controller.on_result(number, True, 20.1) == []
    did = [each.action for each in controller.on_result(again, True, 22.0)]
    assert [each for each in did if isinstance(each, CreateRecord)]


@pytest.mark.parametrize("then", ["deposed", "late", "leads again"])
def test_who_leads_no_more_or_knows_no_ledgers_yet_does_not_reconcile(then: str) -> None:
    controller = Controller(Settings(asks_permission=False))
    begun = standby(controller)
    assert begun == [ListLedgers()]
    controller.on_result(1, LedgerList({}), 1.0)
    due = controller.due()
    assert due == 1.0 + Settings().reconcile
    if then == "late":
        assert controller.on_event(Leading(due), 2.0) == []
    else:
        assert controller.on_event(Deposed(), 2.0) == []
    if then == "leads again":
        [listing] = controller.on_event(Leading(1e9), 3.0)
        assert listing.action == ListLedgers()
    assert controller.on_time(due) == []


def test_who_leads_again_does_not_wait_for_a_call_that_was_to_show_whether_azure_answers() -> None:
    controller = Controller(Settings(asks_permission=False))
    standby(controller, *BOUND)
    calls, now = controller.on_result(1, LedgerList({}), 1.0), 1.0
    for _ in range(3):
        [read] = [each for each in calls if isinstance(each.action, ReadHost)]
        calls = controller.on_result(read.number, Failure(kind=Fault.UNREACHABLE), now)
        while not [each for each in calls if isinstance(each.action, ReadHost)]:
            due = controller.due()
            assert due is not None
            now = due
            calls = controller.on_time(now)
    # A fourth is under way, which alone is to show it.
    controller.on_event(Deposed(), now)
    [listing] = controller.on_event(Leading(1e9), now)[:1]
    again = controller.on_result(listing.number, LedgerList({}), now + 1.0)
    assert ReadHost(HOSTS[0]) in [each.action for each in again]


def test_who_leads_again_writes_a_condition_of_which_it_has_no_answer() -> None:
    controller = Controller(Settings(asks_permission=False))
    did = standby(controller, IdentitySeen(identity=principal("blue", "app"), revision=""))
    [condition] = [each for each in did if isinstance(each, WriteCondition)]
    controller.on_event(Deposed(), 2.0)
    again = [each.action for each in controller.on_event(Leading(1e9), 3.0)]
    assert condition in again


@pytest.mark.parametrize("is_there", [True, False])
def test_an_identity_that_was_refused_is_ready_as_soon_as_a_host_has_it_and_not_before(
    *, is_there: bool
) -> None:
    """By the next leader, too, which has seen no refusal itself."""
    refused = Condition(holds=False, reason="RefusedByAzure", message="By an earlier MIC.")
    found = identity("blue", "vm", resource_id=IDS[0])
    controller = Controller(Settings(asks_permission=False))
    standby(
        controller,
        IdentitySeen(identity=found, revision="", condition=refused),
        BindingSeen(binding=binding("blue", "b", "vm", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
    )
    calls = controller.on_result(1, LedgerList({}), 1.0)
    [read] = [each.number for each in calls if isinstance(each.action, ReadHost)]
    user = {FOLDED[0]: IDS[0].spelling} if is_there else {}
    calls = controller.on_result(read, HostIdentities(state="succeeded", user=user), 2.0)
    written = _conditions(calls).get(About.IDENTITY)
    assert (written is not None and written.holds) is is_there


def left_by_another(found: AzureIdentity) -> Record:
    """Return the record of pod blue/web that a leader of before wrote by older objects."""
    web = ObjectRef("blue", "web")
    return Record(
        ref=ObjectRef("blue", f"web-blue-{found.ref.name}"),
        pod=web,
        identity=found.ref,
        binding=ObjectRef("blue", "b"),
        node="n0",
        state=Assignment.ASSIGNED,
        identity_revision="of before",
        binding_revision="of before",
    )


def test_the_next_leader_mends_at_once_a_record_that_waits_for_no_machine() -> None:
    found = principal("blue", "app")
    old = left_by_another(found)
    did = standby(
        Controller(Settings(asks_permission=False)),
        IdentitySeen(identity=found, revision="new"),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision="of before"),
        PodSeen(a_pod(ref=old.pod, node="n0")),
        RecordSeen(StoredRecord(ref=old.ref, uid="u", version="1", record=old)),
    )
    [updated] = [each for each in did if isinstance(each, UpdateRecord)]
    assert updated.record == replace(old, identity_revision="new")


def test_what_the_ledger_says_is_ours_goes_from_a_host_that_other_pods_need() -> None:
    world = Course(*cluster(pod(0.0)), foreign=((0, 0),), grace=20.0)
    there = world.arm[HOSTS[0]]
    there.listed[FOLDED[1]] = IDS[1].spelling
    there.machines, there.ours[FOLDED[1]] = frozenset(there.listed), "mic"
    book = Ledger(host=HOSTS[0], attached={FOLDED[1]: LedgerEntry(IDS[1].spelling, 0.0)})
    world.ledgers[HOSTS[0]] = (book, 7)
    world.run_until(100.0)
    assert set(there.listed) == {FOLDED[0]}
    assert len(world.of(ReadHost)) <= 3


def test_a_ledger_that_is_listed_after_its_host_was_read_has_the_host_read_again() -> None:
    controller = Controller(Settings(asks_permission=False))
    plain = HostIdentities(state="succeeded", user={FOLDED[0]: IDS[0].spelling})
    standby(controller, *BOUND)

    def play(calls: list[Call], now: float, *, late: StoredLedger | None = None) -> list[Action]:
        """Answer all, the list of ledgers last of all, and return what was called."""
        did: list[Action] = []
        while calls:
            calls.sort(key=lambda each: isinstance(each.action, ListLedgers))
            call = calls.pop(0)
            did.append(call.action)
            answer: Result = None
            match call.action:
                case ListLedgers():
                    answer = LedgerList({HOSTS[0]: late} if late else {})
                case ReadHost():
                    answer = plain
                case WriteLedger(ledger=ledger):
                    answer = StoredLedger(ledger, "8")
                case CreateRecord(record=record):
                    answer = StoredRecord(ref=record.ref, uid="u", version="1", record=record)
            if not isinstance(call.action, LogLine):
                calls += controller.on_result(call.number, answer, now)
        return did

    controller.on_event(Deposed(), 2.0)
    assert ReadHost(HOSTS[0]) in play(controller.on_event(Leading(1e9), 3.0), 3.0)
    while (due := controller.due()) is not None and due < 3.0 + 180.0:
        assert play(controller.on_time(due), due) == []
    assert due == 183.0
    book = Ledger(host=HOSTS[0], attached={FOLDED[1]: LedgerEntry(IDS[1].spelling, 0.0)})
    did = play(controller.on_time(due), due, late=StoredLedger(book, "7"))
    assert [each for each in did if isinstance(each, ReadHost | ListLedgers)] == [
        ReadHost(HOSTS[0]),
        ListLedgers(),
        ReadHost(HOSTS[0]),
    ]


def test_where_each_host_gets_all_identities_records_of_before_are_left_alone() -> None:
    controller = Controller(Settings(asks_permission=False, assign=Assign.ALL_HOSTS))
    found = identity("blue", "vm", resource_id=IDS[0])
    old = left_by_another(found)
    did = standby(
        controller,
        IdentitySeen(identity=found, revision="new"),
        BindingSeen(binding=binding("blue", "b", "vm", "app"), revision="new"),
        PodSeen(a_pod(ref=old.pod, node="n0")),
        RecordSeen(StoredRecord(ref=old.ref, uid="u", version="1", record=old)),
    )
    plain = HostIdentities(state="succeeded", user={FOLDED[0]: IDS[0].spelling})
    calls = controller.on_result(1, LedgerList({}), 1.0)
    [read] = [each.number for each in calls if isinstance(each.action, ReadHost)]
    calls += controller.on_result(read, plain, 1.1)
    did += [each.action for each in calls]
    assert not [each for each in did if isinstance(each, RECORD_WRITES)]


def test_who_leads_before_all_is_told_begins_when_it_is() -> None:
    controller = Controller()
    assert controller.on_event(Leading(1e9), 0.0) == []
    assert [each.action for each in controller.on_event(Synced(), 1.0)] == [ListLedgers()]


def test_a_timer_that_is_set_again_and_again_counts_once_and_none_is_lost() -> None:
    timers, chance = Timers(), Random(1)
    owners = [_Owner("host", number) for number in range(30)]
    last = dict.fromkeys(owners, 0.0)
    for _ in range(3000):
        owner = chance.choice(owners)
        last[owner] = chance.random()
        timers.set(owner, last[owner])
    assert len(timers._heap) <= 64 + 4 * len(owners)
    due = sorted(owners, key=last.__getitem__)
    assert timers.first() == last[due[0]]
    assert timers.passed(last[due[9]]) == due[:10]
    timers.set(due[10], None)
    assert timers.passed(1.0) == due[11:]
    assert timers.first() is None
    # Nothing is kept of what is over.
    assert (timers._times, timers._valid) == ({}, set())


def test_more_records_than_one_look_takes_are_looked_at_as_soon_as_others_had_their_turn(
    few: int,
) -> None:
    many = [a_pod(ref=ObjectRef("blue", f"web-{number}"), node="n0") for number in range(few)]
    controller = Controller(Settings(asks_permission=False, record_writes=2 * few))
    found = principal("blue", "id")
    standby(
        controller,
        IdentitySeen(identity=found, revision=""),
        BindingSeen(binding=binding("blue", "b", "id", "app"), revision=""),
        *map(PodSeen, many),
        PodSeen(a_pod(ref=ObjectRef("blue", "last"), node="n0")),
    )
    assert controller.due() == 1.0
    [late] = [each.action for each in controller.on_time(1.0)]
    assert isinstance(late, CreateRecord)
    assert late.record.pod == ObjectRef("blue", "last")
    due = controller.due()
    assert due is None or due > 1.0


# Records.


def test_a_record_that_changed_meanwhile_is_read_at_once_and_others_later_each_time() -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.answers[CreateRecord] = lambda _: Failure(kind=Fault.CONFLICT)
    world.run_until(4.0)
    assert times(world, ReadRecord)[0] - times(world, CreateRecord)[0] < 0.05
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.answers[CreateRecord] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.run_until(10.0)
    assert gaps(world, CreateRecord)[:4] == pytest.approx([0.2, 0.4, 0.8, 1.6], abs=0.05)


def test_a_copy_that_the_api_server_stores_in_part_is_written_once() -> None:
    """Its definition may be older than ours, and prune what it does not know."""
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))

    def pruned(action: CreateRecord) -> Result:
        record = replace(action.record, identity_revision="pruned")
        return World._do(world, world.mics[0], replace(action, record=record))

    world.answers[CreateRecord] = pruned
    world.run_until(200.0)
    assert len(world.of(CreateRecord)) == 1
    assert world.of(UpdateRecord) == []


@pytest.mark.parametrize("weight", [0, 5])
def test_a_binding_that_changes_is_copied_into_its_records_whatever_we_read_of_it(
    weight: int,
) -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.run_until(10.0)
    name = ObjectRef("blue", "b")
    changed = replace(world.objects["binding"][name].value, weight=weight)
    for _ in range(2):
        there = world.conditions[About.BINDING, name]
        world.mics[0].tell(BindingSeen(binding=changed, revision="changed", condition=there))
        world.run_until(world.now + 10.0)
    [updated] = world.of(UpdateRecord)
    assert updated.record.binding_revision == "changed"


def test_an_identity_that_is_spelled_anew_is_copied_into_its_records() -> None:
    anew = Step(10.0, "identity", ("blue", "id", 0, True))
    world = Course(*cluster(pod(2.0), anew), foreign=((0, 0),))
    world.run_until(20.0)
    [updated] = world.of(UpdateRecord)
    spelled = world.objects["identity"][ObjectRef("blue", "id")].value
    assert updated.record.identity_revision == revision(spelled)


def test_a_record_that_somebody_deletes_is_made_again() -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.run_until(10.0)
    world.drop("record", ObjectRef("blue", "web-blue-id"))
    world.run_until(11.0)
    assert [each.record.state for each in world.of(CreateRecord)] == ["Assigned", "Assigned"]


def test_records_say_what_they_said_while_a_new_leader_cannot_read_their_host() -> None:
    world = Course(*cluster(pod(2.0)))
    world.run_until(20.0)
    world.calls.clear()
    world.answers[ReadHost] = lambda _: Failure(kind=Fault.UNREACHABLE)
    [mic] = world.mics
    world.kill(mic)
    world.start_mic()
    world.run_until(120.0)
    assert world.of(ReadHost)
    assert world.of(*RECORD_WRITES) == []


def test_a_record_that_somebody_changes_is_written_again() -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.run_until(10.0)
    name = ObjectRef("blue", "web-blue-id")
    there, finalizers = world.objects["record"][name].value
    world.put("record", name, (replace(there, state=Assignment.CREATED), finalizers))
    world.run_until(11.0)
    [updated] = world.of(UpdateRecord)
    assert updated.record == there


EXCEPTED = exception("kube-system", "e", {BINDING_LABEL: "app"})


@pytest.mark.parametrize(
    "end",
    [
        ExceptionSeen(
            exception=Malformed(kind="AzurePodIdentityException", ref=EXCEPTED.ref, why="no labels")
        ),
        ObjectGone(About.EXCEPTION, EXCEPTED.ref),
    ],
    ids=["malformed", "gone"],
)
def test_an_exception_takes_the_identities_of_its_pods_until_it_is_none_any_more(
    end: ExceptionSeen | ObjectGone,
) -> None:
    controller = Controller(Settings(asks_permission=False))
    did = standby(
        controller,
        IdentitySeen(identity=principal("kube-system", "id"), revision=""),
        BindingSeen(binding=binding("kube-system", "b", "id", "app"), revision=""),
        PodSeen(a_pod("kube-system", node="n0")),
        ExceptionSeen(exception=EXCEPTED),
    )
    assert not [each for each in did if isinstance(each, CreateRecord)]
    calls = controller.on_event(end, 2.0)
    assert [each for each in calls if isinstance(each.action, CreateRecord)]


# What the next leader finds, and what is told.


def standby(controller: Controller, *events: Any, until: float = 1e9) -> list[Action]:
    """Tell a standby all that there is, have it lead, and return what it does first."""
    for event in (NodeSeen("n0", provider_id(0)), *events, Synced()):
        assert [each.action for each in controller.on_event(event, 0.0)] == []
    return [each.action for each in controller.on_event(Leading(until), 1.0)]


def test_the_next_leader_writes_what_waits_for_no_machine_at_once() -> None:
    found = principal("blue", "app")
    web = a_pod("blue", node="n0")
    did = standby(
        Controller(Settings(asks_permission=False)),
        IdentitySeen(identity=found, revision=""),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision=""),
        PodSeen(web),
    )
    [created] = [each for each in did if isinstance(each, CreateRecord)]
    assert (created.record.state, created.record.pod) == ("Assigned", web.ref)


def test_who_leads_again_reads_the_records_of_which_it_has_no_answer() -> None:
    """One that a pod needs, and one that none needs any more."""
    controller = Controller(Settings(asks_permission=False))
    ref = ObjectRef("blue", "old")
    left = Record(
        ref=ref,
        pod=ref,
        identity=ref,
        binding=ref,
        node="n0",
        state=Assignment.ASSIGNED,
        identity_revision="",
        binding_revision="",
    )
    did = standby(
        controller,
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
        RecordSeen(StoredRecord(ref=ref, uid="u", version="1", record=left)),
    )
    [created] = [each for each in did if isinstance(each, CreateRecord)]
    assert DeleteRecord(ref, "u") in did
    assert controller.on_event(Deposed(), 2.0) == []
    again = [each.action for each in controller.on_event(Leading(1e9), 3.0)]
    assert {ReadRecord(created.record.ref), ReadRecord(ref)} <= {*again}


@pytest.mark.parametrize("excepted", ["web", "other"])
def test_an_excepted_pod_has_no_record(excepted: str) -> None:
    did = standby(
        Controller(Settings(asks_permission=False)),
        IdentitySeen(identity=principal("kube-system", "app"), revision=""),
        BindingSeen(binding=binding("kube-system", "b", "app", "app"), revision=""),
        ExceptionSeen(exception=exception("kube-system", "e", {"name": excepted})),
        PodSeen(a_pod("kube-system", more={"name": "web"}, node="n0")),
    )
    assert any(isinstance(each, CreateRecord) for each in did) is (excepted != "web")


def test_a_record_goes_with_its_binding() -> None:
    world = Course(*cluster(pod(2.0), Step(20.0, "delete_binding", ("blue", "b"))))
    world.run_until(40.0)
    assert len(world.of(DeleteRecord)) == 1
    assert world.objects["record"] == {}


def test_a_binding_is_told_once_that_it_is_applied() -> None:
    world = Course(*cluster(pod(2.0), pod(9.0, "second")), foreign=((0, 0),))
    world.run_until(40.0)
    [told] = world.of(TellEvent)
    assert (told.type, told.reason, told.ref) == (
        "Normal",
        "binding applied",
        ObjectRef("blue", "b"),
    )
    assert "for pod web" in told.note


def test_a_binding_is_told_once_a_minute_however_many_bindings_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("podidentity.mic.controller._MOST_TOLD", 2)
    bound = [
        step
        for number in range(4)
        for step in (
            Step(0.0, "binding", ("blue", f"b{number}", "id", f"app{number}")),
            *(
                Step(at + number, "pod", ("blue", f"web{number}-{at:g}", f"app{number}", "n0"))
                for at in (2.0, 30.0, 70.0)
            ),
        )
    ]
    last = Step(200.0, "pod", ("blue", "last", "app0", "n0"))
    world = Course(*cluster(*bound, last), foreign=((0, 0),))
    world.run_until(60.0)
    assert sorted(each.ref.name for each in world.of(TellEvent)) == ["b0", "b1", "b2", "b3"]
    world.run_until(100.0)
    assert len(world.of(TellEvent)) == 8
    # What is over is not remembered for ever.
    world.run_until(201.0)
    assert [*world.mics[0].controller._told] == [ObjectRef("blue", "b0")]


@pytest.mark.parametrize("most", [1, 3])
def test_no_more_records_are_written_at_once_than_the_operator_allows(most: int) -> None:
    did = standby(
        Controller(Settings(asks_permission=False, record_writes=most)),
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision=""),
        *(PodSeen(a_pod(ref=ObjectRef("blue", f"web-{each}"), node="n0")) for each in range(5)),
    )
    assert len([each for each in did if isinstance(each, CreateRecord)]) == most


def test_what_a_standby_did_not_tell_keeps_it_from_telling_nothing_when_it_leads() -> None:
    controller = Controller(Settings())
    for event in (
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        BindingSeen(binding=binding("blue", "b", "app", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
    ):
        controller.on_event(event, 0.0)
    [asked] = asks(controller.on_event(Synced(), 0.0))
    assert controller.on_result(asked, False, 1.0) == []
    controller.on_event(Leading(1e9), 5.0)
    [again] = asks(controller.on_event(PermissionsChanged("blue"), 6.0))
    calls = controller.on_result(again, True, 7.0)
    number, stored = created_by(calls)
    assert told_by(controller.on_result(number, stored, 8.0)) == ["binding applied"]
    # Of another pod a minute later, and not before.
    for name, now, count in (("soon", 67.9, 0), ("late", 68.0, 1)):
        more = PodSeen(a_pod(ref=ObjectRef("blue", name), node="n0"))
        number, stored = created_by(controller.on_event(more, 60.0))
        assert len(told_by(controller.on_result(number, stored, now))) == count


def test_what_was_to_be_told_is_not_told_by_who_leads_again_later() -> None:
    controller = Controller(Settings())
    for number in range(10):
        bound = binding("blue", f"b-{number}", "app", "app")
        controller.on_event(BindingSeen(binding=bound, revision=""), 0.0)
    for event in (
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
        Leading(1e9),
    ):
        controller.on_event(event, 0.0)
    [asked] = asks(controller.on_event(Synced(), 0.0))
    assert not asks(controller.on_result(asked, False, 0.0))
    [asked] = asks(controller.on_time(5.0))
    told = [each.action for each in controller.on_result(asked, False, 5.0)]
    assert len([each for each in told if isinstance(each, TellEvent)]) == 5
    controller.on_event(Deposed(), 6.0)
    again = [each.action for each in controller.on_event(Leading(1e9), 500.0)]
    assert not [each for each in again if isinstance(each, TellEvent)]


def test_no_more_conditions_are_written_at_once_than_the_operator_allows() -> None:
    identities = (Step(0.0, "identity", ("blue", f"id{number}", number)) for number in range(4))
    world = Course(*identities, settings={"condition_writes": 1})
    world.run_until(30.0)
    written = times(world, WriteCondition)
    assert len(written) == len({*written}) == 4


def test_of_a_thousand_events_five_are_under_way_at_once_and_each_is_written() -> None:
    """As where an identity to which a thousand bindings lead is permitted no more."""
    controller = Controller(Settings())
    bindings = [binding("blue", f"b-{number}", "app", "app") for number in range(1000)]
    events: list[Any] = [BindingSeen(binding=each, revision="") for each in bindings]
    events += [
        NodeSeen("n0", provider_id(0)),
        IdentitySeen(identity=principal("blue", "app"), revision=""),
        PodSeen(a_pod("blue", node="n0")),
        Leading(1e9),
    ]
    for event in events:
        controller.on_event(event, 0.0)
    under_way = controller.on_event(Synced(), 0.0)
    told: list[ObjectRef] = []
    now = 0.0
    while under_way:
        assert len([each for each in under_way if isinstance(each.action, TellEvent)]) <= 5
        call = under_way.pop(0)
        if isinstance(call.action, TellEvent):
            told.append(call.action.ref)
        under_way += controller.on_result(call.number, _answer_of_refusal(call.action), now)
        if not under_way and now == 0.0:
            now = 5.0
            under_way += controller.on_time(now)
    assert sorted(told) == sorted(each.ref for each in bindings)


def _answer_of_refusal(action: Action) -> Result:
    """Return what a cluster answers in which nobody may use anything."""
    match action:
        case AskPermission():
            return False
        case ListLedgers():
            return LedgerList({})
        case _:
            return None


def test_a_read_that_fails_is_tried_again_later_each_time() -> None:
    world = Course(*cluster(pod(2.0)))
    world.answers[ReadHost] = lambda _: Failure(kind=Fault.UNREACHABLE)
    world.run_until(30.0)
    waited = gaps(world, ReadHost)
    assert waited[0] == pytest.approx(1.0, abs=0.3)
    assert waited[1] == pytest.approx(2.0, abs=0.3)


@pytest.mark.parametrize(("kind", "most"), [(Fault.INVALID, 300.0), (Fault.UNREACHABLE, 30.0)])
def test_a_record_that_cannot_be_written_is_tried_again_at_last_so_often(
    kind: Fault, most: float
) -> None:
    world = Course(*cluster(pod(2.0)), foreign=((0, 0),))
    world.answers[CreateRecord] = lambda _: Failure(kind=kind)
    world.run_until(1500.0)
    assert max(gaps(world, CreateRecord)) == pytest.approx(most, abs=0.1)


# What fails for ever.


@pytest.mark.parametrize(
    ("refused", "kind"),
    [
        (CreateRecord, Fault.FAILED),  # as by a quota of the tenant's own namespace
        (ListLedgers, Fault.FAILED),
        (ReadHost, Fault.UNREACHABLE),
    ],
)
def test_what_fails_a_thousand_times_ends_nobody(refused: type, kind: Fault) -> None:
    world = Course(*cluster(pod(2.0)))
    world.answers[refused] = lambda _: Failure(kind=kind, message="no")
    while len(world.of(refused)) < 1100:
        world.moments = 0
        world.run_until(world.now + 10_000.0)


def test_a_namespace_with_thousands_of_records_takes_turns_with_others() -> None:
    many = [Step(2.0, "pod", ("blue", f"web-{number}", "app", "n0")) for number in range(400)]
    world = Course(
        *cluster(*many),
        Step(0.0, "identity", ("red", "id", 0)),
        Step(0.0, "binding", ("red", "b", "id", "app")),
        Step(2.5, "pod", ("red", "one", "app", "n0")),
        settings={"record_writes": 2},
        foreign=((0, 0),),
    )
    world.run_until(20.0)
    order = [each.record.ref.namespace for each in world.of(CreateRecord)]
    assert len(order) == 401
    assert order.index("red") < 100


def test_a_namespace_with_thousands_of_conditions_takes_turns_with_others() -> None:
    """Whoever changes all his objects, again and again, keeps nobody from reading about his own."""
    many = [Step(2.0, "identity", ("blue", f"id-{number}", 0)) for number in range(400)]
    world = Course(
        *cluster(*many), Step(2.5, "identity", ("red", "id", 0)), settings={"condition_writes": 2}
    )
    world.run_until(30.0)
    order = [each.ref.namespace for each in world.of(WriteCondition)]
    assert len(order) > 400
    assert order.index("red") < 200


def test_a_condition_is_looked_at_a_few_times_however_many_wait(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looked: Counter[ConditionOf] = Counter()
    look = Conditions.next

    def counted(conditions: Conditions, subject: ConditionOf, now: float) -> Any:
        looked[subject] += 1
        return look(conditions, subject, now)

    monkeypatch.setattr(Conditions, "next", counted)
    many = [Step(2.0, "identity", ("blue", f"id-{number}", 0)) for number in range(100)]
    world = Course(*cluster(*many), settings={"condition_writes": 2})
    world.run_until(30.0)
    assert len(world.of(WriteCondition)) >= 100
    assert max(looked.values()) <= 4


def test_a_namespace_with_thousands_of_events_takes_turns_with_others() -> None:
    many = [
        step
        for number in range(200)
        for step in (
            Step(0.5, "identity", ("blue", f"id-{number}", 0)),
            Step(0.5, "binding", ("blue", f"b-{number}", f"id-{number}", "app")),
        )
    ]
    world = Course(
        *cluster(*many),
        Step(0.0, "identity", ("red", "id", 0)),
        Step(0.0, "binding", ("red", "b", "id", "app")),
        Step(2.0, "pod", ("blue", "web", "app", "n0")),
        Step(2.5, "pod", ("red", "one", "app", "n0")),
        settings={"event_writes": 1},
        foreign=((0, 0),),
    )
    world.run_until(60.0)
    order = [each.ref.namespace for each in world.of(TellEvent)]
    assert len(order) == 202
    assert order.index("red") < 100


def test_a_namespace_of_which_not_all_bindings_count_is_named_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its pods come and go, and may do so all day long."""
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 4)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (4, 2))
    course = [
        step
        for number in range(3)
        for step in (
            Step(0.5, "identity", ("blue", f"id-{number}", 0)),
            Step(0.5, "binding", ("blue", f"b-{number}", f"id-{number}", "app")),
        )
    ]
    course += [pod(2.0), pod(3.0, "other")]
    course += [step for at in range(4, 10) for step in (gone(at), pod(at + 0.5))]
    world = Course(*cluster(*course))
    world.keeps_journal = True
    world.run_until(60.0)
    said = [line for line in world.journal if " many-bindings: " in line]
    assert len(said) == 1
    assert "Namespace blue has so many pods" in said[0]
    assert "the heaviest 2 count" in said[0]


def test_a_namespace_of_which_not_all_bindings_count_is_named_again_behind_its_last_need(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What was said of a namespace is not remembered for ever: there may be any number of them."""
    monkeypatch.setattr("podidentity.core.shares.MOST_OF_NAMESPACE", 2)
    monkeypatch.setattr("podidentity.core.shares.SHARES", (4, 2))
    course = [
        step
        for number in range(3)
        for step in (
            Step(0.5, "identity", ("blue", f"id-{number}", 0)),
            Step(0.5, "binding", ("blue", f"b-{number}", f"id-{number}", "app")),
        )
    ]
    course += [pod(2.0), gone(10.0), pod(20.0)]
    world = Course(*cluster(*course))
    world.keeps_journal = True
    world.run_until(19.0)
    assert sum(" many-bindings: " in line for line in world.journal) == 1
    world.run_until(60.0)
    assert sum(" many-bindings: " in line for line in world.journal) == 2


class Checked(Course):
    """A world in which identity 0 is attached for its own client id alone."""

    def _do(self, mic: Mic, action: Action) -> Result:
        if isinstance(action, PatchHost):
            for identity, clients in action.change.clients:
                if str(CLIENTS[0]) not in clients:
                    self.calls.append((self.now, action))
                    bad = (identity.lower(),)
                    return Failure(kind=Fault.BAD_IDENTITIES, message="another's", bad=bad)
        return super()._do(mic, action)

    def assigned(self) -> list[ObjectRef]:
        """Return the pods of which a record says that they have their identity."""
        records = [each.record for each in self.of(CreateRecord, UpdateRecord)]
        return [each.pod for each in records if each and each.state is Assignment.ASSIGNED]


def test_an_identity_that_was_refused_for_one_client_id_is_attached_for_another() -> None:
    """Else a tenant who writes another's ARM id has it left out for its owner, too."""
    wrong = replace(
        identity("blue", "id", resource_id=IDS[0], object_id=None), client_id=CLIENTS[1]
    )
    world = Checked(
        Step(0.0, "node", ("n0", 0)),
        Step(0.0, "binding", ("blue", "b", "id", "app")),
        pod(2.0),
        Step(0.0, "identity", ("red", "id", 0)),
        Step(0.0, "binding", ("red", "b", "id", "app")),
        Step(200.0, "pod", ("red", "one", "app", "n0")),
    )
    world.put("identity", wrong.ref, wrong)
    world.run_until(199.0)
    assert len(world.of(PatchHost)) > 2
    assert world.assigned() == []
    world.run_until(210.0)
    assert ObjectRef("red", "one") in world.assigned()


def test_a_refusal_by_an_api_server_that_starts_deletes_no_record() -> None:
    revoked, granted = Step(30.0, "revoke", ("blue", 0)), Step(34.0, "grant", ("blue", 0))
    world = Course(*cluster(pod(2.0), revoked, granted))
    world.at(30.0, lambda: world.mics[0].tell(PermissionsChanged("blue")))
    world.run_until(120.0)
    assert len(world.of(AskPermission)) > 2
    assert not world.of(DeleteRecord)


def test_a_grant_that_is_gone_ends_records_5_s_later() -> None:
    world = Course(*cluster(pod(2.0), Step(30.0, "revoke", ("blue", 0))))
    world.at(30.0, lambda: world.mics[0].tell(PermissionsChanged("blue")))
    world.run_until(120.0)
    [deleted] = times(world, DeleteRecord)
    assert 35.0 <= deleted <= 36.0
