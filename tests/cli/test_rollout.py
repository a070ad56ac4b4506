"""When NMI is rolled out, and why a pod of it is not ready."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity.cli.rollout import last_warnings, ready, rollout, trouble


def daemon_set(**status: int) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "status": status}


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, False),
        ({"observedGeneration": 1, "desiredNumberScheduled": 0}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 0}, True),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 2}, False),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 1,
                "updatedNumberScheduled": 2,
            },
            False,
        ),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 2,
                "updatedNumberScheduled": 2,
            },
            True,
        ),
    ],
    ids=str,
)
def test_a_rollout_is_done_when_every_node_has_a_new_and_ready_pod(
    status: dict[str, int], done: bool
) -> None:
    assert rollout(daemon_set(**status)).done is done


def pod(*containers: dict[str, Any], **conditions: str) -> dict[str, Any]:
    listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {
        "metadata": {"name": "nmi-x"},
        "status": {"phase": "Running", "containerStatuses": list(containers), "conditions": listed},
    }


BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod({"state": {"waiting": BACK_OFF}}), f"CrashLoopBackOff: {BACK_OFF['message']}"),
        (pod({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}), "Error (exit code 1)"),
        (
            pod({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}),
            "ended (exit code 137)",
        ),
        (pod(PodScheduled="False"), "not PodScheduled"),
        (pod({"state": {"running": {}}}, Ready="False"), "not Ready"),
        ({"metadata": {"name": "nmi-x"}}, "phase unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pod_that_is_not_ready_has_a_reason(found: dict[str, Any], words: str) -> None:
    assert trouble(found) == words


def test_a_pod_that_is_about_to_go_is_not_ready() -> None:
    found = pod(Ready="True")
    assert ready(found)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not ready(found)


def warning(message: str, second: int, container: str = "net", **more: Any) -> dict[str, Any]:
    return {
        "type": "Warning",
        "message": message,
        "lastTimestamp": f"2026-11-26T10:00:{second:02}Z",
        "involvedObject": {"fieldPath": f"spec.containers{{{container}}}"} if container else {},
        **more,
    }


def test_of_each_container_the_last_warning_counts_whichever_event_was_the_first() -> None:
    """The repeated reason of `net` was hidden by what `serve` had said once, when it started."""
    events = [
        warning("give it CAP_NET_ADMIN", 30),
        warning("no such socket yet", 1),
        warning("connection refused", 5, "serve"),
        warning("pulled", 40, type="Normal"),
        warning("of NMI itself", 41, source={"component": "podidentity-nmi"}),
        warning("no volume", 2, ""),
    ]
    assert last_warnings(events) == ["no volume", "connection refused", "give it CAP_NET_ADMIN"]
    assert last_warnings([warning("twice", 1), warning("twice", 2, "serve")]) == ["twice"]
    assert last_warnings([{**warning("no time", 0), "lastTimestamp": None}]) == ["no time"]
