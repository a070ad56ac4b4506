"""The cells of a row, as a real server prints them: pods, ages, services, nodes, events."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.tables import COLUMNS, selector, since
from tests.sandbox.cluster.settled import NOW, READY, cells

MINUTE, HOUR, DAY = 60, 3600, 86400


# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/duration/duration_test.go
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 1, "2m1s"),
        (10 * MINUTE - 1, "9m59s"),
        (10 * MINUTE + 1, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + MINUTE, "3h1m"),
        (8 * HOUR - 1, "7h59m"),
        (8 * HOUR + MINUTE, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + HOUR, "2d1h"),
        (8 * DAY - 1, "7d23h"),
        (8 * DAY + HOUR, "8d"),
        (2 * 365 * DAY - 1, "729d"),
        (2 * 365 * DAY, "2y"),
        (2 * 365 * DAY + 23 * HOUR, "2y"),
        (2 * 365 * DAY + DAY, "2y1d"),
        (8 * 365 * DAY, "8y"),
        (8 * 365 * DAY + 364 * DAY, "8y"),
    ],
)
def test_an_age_is_worded_as_a_real_server_words_it(seconds: int, words: str) -> None:
    stamp = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert since(stamp, NOW) == words


def test_an_age_that_cannot_be_told_says_so() -> None:
    assert since(None, NOW) == "<unknown>"
    assert since("yesterday", NOW) == "<invalid>"


def test_a_node_shows_its_state_and_its_roles() -> None:
    labels = {"node-role.kubernetes.io/b": "", "node-role.kubernetes.io/a": ""}
    node = {
        "metadata": {"name": "n", "labels": labels},
        "spec": {"unschedulable": True},
        "status": {"conditions": READY},
    }
    row = cells("nodes", node)
    assert (row["Status"], row["Roles"]) == ("Ready,SchedulingDisabled", "a,b")
    assert cells("nodes", {"spec": {}, "status": {}})["Status"] == "Unknown"


def test_an_event_shows_when_it_was_last_seen() -> None:
    event = {"eventTime": "2026-01-02T11:00:00.000000Z", "involvedObject": {"kind": "Node"}}
    row = cells("events", event)
    assert (row["Last Seen"], row["Object"]) == ("60m", "node")
    series = {**event, "series": {"count": 5, "lastObservedTime": "2026-01-02T11:59:50.000000Z"}}
    assert cells("events", series)["Last Seen"] == "10s"


def test_a_selector_is_shown_in_the_order_of_its_keys() -> None:
    rules = [
        {"key": "c", "operator": "NotIn", "values": ["y", "x"]},
        {"key": "a", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    shown = selector({"matchLabels": {"b": "1"}, "matchExpressions": rules})
    assert shown == "a,b=1,c notin (x,y),!d"
    assert selector({}) == selector(None) == "<none>"
    again = selector({"matchLabels": {"a": "1"}, "matchExpressions": [*rules, rules[1]]})
    assert again == "a=1,a,a,c notin (x,y),!d"


def test_every_kind_with_columns_is_served() -> None:
    assert set(COLUMNS) <= {kind.key for kind in BUILT_IN}


# ---- The row of a pod says what a real server's printers say of it.
#
# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers_test.go


def container(state: str, ready: bool = False, **about: Any) -> dict[str, Any]:
    return {"state": {state: about}, "ready": ready, "restartCount": 1}


UP = container("running", True)
DONE = container("terminated", exitCode=0, reason="Completed")
LOOPING = container("waiting", reason="CrashLoopBackOff")
ENDED, FAILED = (
    container("terminated", exitCode=3),
    container("terminated", exitCode=2, reason="Error"),
)


@pytest.mark.parametrize(
    ("phase", "states", "ready", "word"),
    [
        ("Pending", {}, "0/2", "Pending"),
        ("Failed", {"reason": "Evicted"}, "0/2", "Evicted"),
        ("Running", {"containerStatuses": [UP, UP]}, "2/2", "Running"),
        ("Running", {"containerStatuses": [UP, LOOPING]}, "1/2", "CrashLoopBackOff"),
        ("Failed", {"containerStatuses": [ENDED]}, "0/2", "ExitCode:3"),
        ("Running", {"containerStatuses": [DONE, UP], "conditions": READY}, "1/2", "Running"),
        ("Running", {"containerStatuses": [DONE, UP]}, "1/2", "NotReady"),
        ("Pending", {"initContainerStatuses": [container("running")]}, "0/2", "Init:0/1"),
        ("Pending", {"initContainerStatuses": [FAILED]}, "0/2", "Init:Error"),
    ],
)
def test_a_pod_is_summed_up_from_its_containers(
    phase: str, states: dict[str, Any], ready: str, word: str
) -> None:
    spec: dict[str, Any] = {"containers": [{}, {}], "initContainers": [{}]}
    row = cells("pods", {"spec": spec, "status": {"phase": phase, **states}})
    assert (row["Ready"], row["Status"]) == (ready, word)


def test_a_pod_that_is_being_deleted_terminates_until_it_has_ended() -> None:
    metadata = {"name": "a", "deletionTimestamp": "2026-01-02T12:00:00Z"}
    running = {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
    assert cells("pods", running)["Status"] == "Terminating"
    ended = {"metadata": metadata, "spec": {}, "status": {"phase": "Succeeded"}}
    assert cells("pods", ended)["Status"] == "Succeeded"


def test_restarts_are_counted_and_the_last_is_dated() -> None:
    last = {"terminated": {"finishedAt": "2026-01-02T11:59:00Z"}}
    states = [{**container("running", True), "lastState": last}, container("running", True)]
    row = cells("pods", {"spec": {}, "status": {"phase": "Running", "containerStatuses": states}})
    assert row["Restarts"] == "2 (60s ago)"
