from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from podidentity_sandbox.node.spec import parse_pod
from podidentity_sandbox.node.status import (
    ContainerState,
    phase,
    pod_status,
    restart_delay,
)
from tests.sandbox.node.site import container, pod

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def waiting() -> ContainerState:
    return ContainerState()


def running(*, ready: bool = True) -> ContainerState:
    state = ContainerState()
    state.run("sandbox://1", NOW)
    state.ready = ready
    return state


def ended(code: int) -> ContainerState:
    state = running()
    state.end(code, NOW)
    return state


def crashing() -> ContainerState:
    state = ended(1)
    state.wait("CrashLoopBackOff", "back-off")
    return state


# https://kubernetes.io/docs/concepts/workloads/pods/pod-lifecycle/#pod-phase
@pytest.mark.parametrize(
    ("policy", "states", "expected"),
    [
        ("Always", [waiting()], "Pending"),
        ("Always", [running()], "Running"),
        ("Always", [running(), waiting()], "Running"),
        ("Always", [ended(0)], "Running"),
        ("Always", [crashing()], "Running"),
        ("OnFailure", [ended(0)], "Succeeded"),
        ("OnFailure", [ended(1)], "Running"),
        ("Never", [ended(0), ended(0)], "Succeeded"),
        ("Never", [ended(0), ended(3)], "Failed"),
        ("Never", [ended(3), running()], "Running"),
    ],
)
def test_the_phase_follows_from_what_the_containers_do(
    policy: str, states: list[ContainerState], expected: str
) -> None:
    assert phase(policy, states, initialized=True) == expected


def test_a_pod_whose_init_containers_have_not_ended_is_pending() -> None:
    assert phase("Always", [waiting()], initialized=False) == "Pending"


def test_restarts_come_at_once_and_then_after_ever_longer_up_to_five_minutes() -> None:
    delays = [restart_delay(number) for number in range(1, 9)]
    assert delays == [0, 10, 20, 40, 80, 160, 300, 300]


SPEC = parse_pod(pod("p", container(name="a"), container(name="b")))


def status_of(*states: ContainerState, **more: Any) -> dict[str, Any]:
    """Return the status of a pod of two containers in these states."""
    given = {"pod_address": "10.244.0.2", "initialized": True, "previous": {}, "now": NOW, **more}
    return pod_status(SPEC, [], states, host_address="10.240.0.4", started=NOW, **given)


def test_a_pod_is_ready_when_all_its_containers_are() -> None:
    status = status_of(running(), running())
    assert {each["status"] for each in status["conditions"]} == {"True"}
    assert status["podIP"] == "10.244.0.2"
    assert status["podIPs"] == [{"ip": "10.244.0.2"}]
    assert status["hostIP"] == "10.240.0.4"


def test_what_there_is_none_of_is_not_listed() -> None:
    status = status_of(waiting(), waiting(), pod_address="")
    assert [name for name, value in status.items() if value in ([], "")] == []
    assert (status["podIPs"], status["initContainerStatuses"]) == (None, None)


def test_an_unready_container_is_named() -> None:
    status = status_of(running(), running(ready=False))
    (ready,) = (c for c in status["conditions"] if c["type"] == "Ready")
    assert ready["status"] == "False"
    assert ready["reason"] == "ContainersNotReady"
    assert ready["message"] == "containers with unready status: [b]"


def test_a_condition_keeps_the_time_of_its_last_change() -> None:
    first = status_of(running(), waiting())
    later = NOW + timedelta(minutes=1)
    second = status_of(running(), running(), previous=first, now=later)
    times = {c["type"]: c["lastTransitionTime"] for c in second["conditions"]}
    assert times["PodScheduled"] == "2026-01-02T03:04:05Z"
    assert times["Ready"] == "2026-01-02T03:05:05Z"


def test_nothing_changed_makes_the_same_status() -> None:
    first = status_of(running(), waiting())
    later = NOW + timedelta(hours=1)
    assert status_of(running(), waiting(), previous=first, now=later) == first


def test_a_restarting_container_shows_how_it_ended_before() -> None:
    status = status_of(running(), crashing())
    shown = status["containerStatuses"][1]
    assert shown["state"] == {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}}
    assert shown["lastState"]["terminated"]["exitCode"] == 1
    assert shown["lastState"]["terminated"]["reason"] == "Error"
    assert shown["ready"] is False
