"""The row of a pod says what a real server's printers say of it.

https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers_test.go
"""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.cluster.tables import READY, cells


def container(state: str, ready: bool = False, **about: Any) -> dict[str, Any]:
    return {"state": {state: about}, "ready": ready, "restartCount": 1}


@pytest.mark.parametrize(
    ("status", "ready", "word"),
    [
        ({"phase": "Pending"}, "0/2", "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "0/2", "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [container("running", True)] * 2},
            "2/2",
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container("running", True),
                    container("waiting", reason="CrashLoopBackOff"),
                ],
            },
            "1/2",
            "CrashLoopBackOff",
        ),
        (
            {"phase": "Failed", "containerStatuses": [container("terminated", exitCode=3)]},
            "0/2",
            "ExitCode:3",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [container("terminated", exitCode=137, signal=9)],
            },
            "0/2",
            "Signal:9",
        ),
        (
            {
                "phase": "Running",
                "conditions": READY,
                "containerStatuses": [
                    container("terminated", exitCode=0, reason="Completed"),
                    container("running", True),
                ],
            },
            "1/2",
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container("terminated", exitCode=0, reason="Completed"),
                    container("running", True),
                ],
            },
            "1/2",
            "NotReady",
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [container("running")]},
            "0/2",
            "Init:0/1",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [container("terminated", exitCode=2, reason="Error")],
            },
            "0/2",
            "Init:Error",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}],
            },
            "0/2",
            "SchedulingGated",
        ),
    ],
)
def test_a_pod_is_summed_up_from_its_containers(
    status: dict[str, Any], ready: str, word: str
) -> None:
    spec: dict[str, Any] = {"containers": [{}, {}], "initContainers": [{}]}
    row = cells("pods", {"spec": spec, "status": status})
    assert (row["Ready"], row["Status"]) == (ready, word)


def test_a_pod_that_is_being_deleted_terminates_until_it_has_ended() -> None:
    metadata = {"name": "a", "deletionTimestamp": "2026-01-02T12:00:00Z"}
    running = {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
    assert cells("pods", running)["Status"] == "Terminating"
    ended = {"metadata": metadata, "spec": {}, "status": {"phase": "Succeeded"}}
    assert cells("pods", ended)["Status"] == "Succeeded"
    lost = {"metadata": metadata, "spec": {}, "status": {"phase": "Running", "reason": "NodeLost"}}
    assert cells("pods", lost)["Status"] == "Unknown"


def test_restarts_are_counted_and_the_last_is_dated() -> None:
    last = {"terminated": {"finishedAt": "2026-01-02T11:59:00Z"}}
    states = [{**container("running", True), "lastState": last}, container("running", True)]
    row = cells("pods", {"spec": {}, "status": {"phase": "Running", "containerStatuses": states}})
    assert row["Restarts"] == "2 (60s ago)"
