from __future__ import annotations

import pytest

from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    Accepted,
    Action,
    CreateRecord,
    DeleteRecord,
    Failure,
    Fault,
    LogLine,
    PatchHost,
    PollOperation,
    Progress,
    ReadHost,
    Record,
    Result,
    StoredRecord,
    UpdateRecord,
)
from podidentity.mic.metrics import OVER, MicMetrics, add_state
from podidentity.telemetry.metrics import Registry, render
from tests.fakes import NOW

COMPUTE = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
SET = Host.parse(f"{COMPUTE}/virtualMachineScaleSets/pool")
MACHINE = Host.parse(f"{COMPUTE}/virtualMachines/one")
CHANGE = HostChange()
REF = ObjectRef("shop", "r")


class Scene:
    def __init__(self) -> None:
        self.time = 0.0
        self.registry = Registry()
        self.metrics = MicMetrics(self.registry, lambda: self.time)

    def done(self, action: Action, result: Result, seconds: float = 0.0) -> None:
        self.metrics.begun(action)
        self.time += seconds
        self.metrics.ended(action, result, seconds, NOW)

    def value(self, series: str) -> str:
        (line,) = [
            each for each in render(self.registry).splitlines() if each.startswith(f"{series} ")
        ]
        return line.rpartition(" ")[2]


def stored(state: Assignment) -> StoredRecord:
    record = Record(
        ref=REF,
        pod=ObjectRef("shop", "p"),
        identity=ObjectRef("shop", "i"),
        binding=ObjectRef("shop", "b"),
        node="n",
        state=state,
        identity_revision="1",
        binding_revision="2",
    )
    return StoredRecord(ref=REF, uid="u", version="1", record=record)


def test_records_are_counted_by_the_old_names() -> None:
    scene = Scene()
    created, assigned = stored(Assignment.CREATED), stored(Assignment.ASSIGNED)
    assert created.record
    assert assigned.record
    scene.done(CreateRecord(created.record, NOW - 2), created)
    scene.done(UpdateRecord(REF, assigned.record, "u", "1", NOW - 2), assigned)
    scene.done(DeleteRecord(REF, "u"), None)
    scene.done(DeleteRecord(REF, "u"), Failure(kind=Fault.CONFLICT))
    for word in ("addition", "update", "deletion"):
        assert scene.value(f"aadpodidentity_assigned_identity_{word}_count") == "1"
    failed = "aadpodidentity_kubernetes_api_operations_errors_count"
    kind = '{operation_type="assigned_identity_deletion"}'
    assert scene.value(f"{failed}{kind}") == "1"


def test_the_time_until_assigned_is_that_since_the_pod_began_to_need_it() -> None:
    scene = Scene()
    created, assigned = stored(Assignment.CREATED), stored(Assignment.ASSIGNED)
    assert created.record
    assert assigned.record
    scene.done(CreateRecord(created.record, NOW - 2), created)
    assert scene.value("podidentity_mic_assigned_seconds_count") == "0"
    scene.done(UpdateRecord(REF, assigned.record, "u", "1", NOW - 2), assigned)
    scene.done(UpdateRecord(REF, None, "u", "1", NOW - 2), assigned)
    assert scene.value("podidentity_mic_assigned_seconds_count") == "1"
    assert scene.value("podidentity_mic_assigned_seconds_sum") == "2"


def test_a_change_lasts_until_azure_says_that_it_is_done() -> None:
    scene = Scene()
    scene.done(PatchHost(SET, CHANGE, ""), Accepted("op"), 1)
    scene.done(PollOperation(SET, "op"), Progress(done=False), 10)
    scene.done(PollOperation(SET, "op"), Progress(done=True), 10)
    scene.done(PatchHost(MACHINE, CHANGE, ""), Accepted(), 3)
    seconds = "aadpodidentity_cloud_provider_operations_duration_seconds_sum"
    assert scene.value(f'{seconds}{{operation_type="vmss_update"}}') == "21"
    assert scene.value(f'{seconds}{{operation_type="vm_update"}}') == "3"


def test_azures_calls_are_counted_by_result() -> None:
    scene = Scene()
    scene.done(ReadHost(SET), HostIdentities(), 1)
    scene.done(ReadHost(MACHINE), Failure(kind=Fault.THROTTLED), 1)
    calls = "podidentity_mic_arm_calls_total"
    assert scene.value(f'{calls}{{call="read_host",result="ok"}}') == "1"
    assert scene.value(f'{calls}{{call="read_host",result="throttled"}}') == "1"
    errors = "aadpodidentity_cloud_provider_operations_errors_count"
    assert scene.value(f'{errors}{{operation_type="vm_get"}}') == "1"


def test_the_depth_of_the_queue_is_what_has_no_result_yet() -> None:
    scene = Scene()
    scene.metrics.begun(ReadHost(SET))
    scene.metrics.begun(ReadHost(MACHINE))
    assert scene.value('podidentity_mic_queue_depth{call="read_host"}') == "2"
    assert scene.value("aadpodidentity_mic_cycle_count") == "0"
    for host in (SET, MACHINE):
        scene.metrics.ended(ReadHost(host), HostIdentities(), 0, NOW)
    assert scene.value('podidentity_mic_queue_depth{call="read_host"}') == "0"
    assert scene.value("aadpodidentity_mic_cycle_count") == "1"


def test_calls_that_are_given_up_are_not_under_way_and_the_next_cycle_is_counted() -> None:
    scene = Scene()
    for action in (ReadHost(SET), PatchHost(MACHINE, CHANGE, "")):
        scene.metrics.begun(action)
        scene.metrics.given_up(action)
    assert scene.value('podidentity_mic_queue_depth{call="read_host"}') == "0"
    assert scene.value("aadpodidentity_mic_cycle_count") == "0"
    scene.done(ReadHost(SET), HostIdentities(), 1)
    assert scene.value("aadpodidentity_mic_cycle_count") == "1"


def test_what_the_controller_says_is_counted_and_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    scene.metrics.report(LogLine("throttled", "Azure wants to be left alone.", "Wait.", SET))
    assert scene.value('podidentity_mic_reports_total{topic="throttled"}') == "1"
    text = caplog.text
    assert f"{SET.resource_id}: Azure wants to be left alone. Wait." in text


def test_the_state_is_shown() -> None:
    scene = Scene()
    add_state(
        scene.registry,
        leading=lambda: True,
        elections=lambda: 3,
        paused=lambda: (True, 2),
        watched=lambda: [("pods", True), ("nodes", False)],
    )
    assert scene.value("podidentity_mic_leading") == "1"
    assert scene.value("aadpodidentity_mic_new_leader_election_count") == "3"
    assert scene.value('podidentity_mic_paused{what="hosts"}') == "2"
    assert scene.value('podidentity_watch_up{resource="nodes"}') == "0"


def test_what_azure_does_not_do_is_logged_once_and_shown_until_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    scene = Scene()
    throttled = Failure(kind=Fault.THROTTLED, message="too many requests", retry_after=30)
    for _ in range(3):
        scene.done(PatchHost(SET, CHANGE, ""), throttled)
    line = f"{SET.resource_id}: Azure, patch_host: throttled, for 30 s: too many requests"
    assert caplog.text.count(line) == 1
    (shown,) = scene.metrics.troubles()
    assert shown == f"{SET.resource_id}: patch_host: throttled, for 30 s"
    scene.done(PatchHost(SET, CHANGE, ""), Accepted())
    assert scene.metrics.troubles() == []


def test_what_azure_did_not_do_is_over_where_nobody_asks_for_it_again() -> None:
    """As of a machine that is gone."""
    scene = Scene()
    scene.done(ReadHost(MACHINE), Failure(kind=Fault.NOT_FOUND))
    scene.time = OVER - 1
    assert scene.metrics.troubles() == [f"{MACHINE.resource_id}: read_host: not-found"]
    scene.time = OVER
    assert scene.metrics.troubles() == []
