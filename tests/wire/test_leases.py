from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity.wire.leases import (
    OLD_LOCK,
    Lock,
    NotALock,
    parse_lease,
    parse_old_lock,
    released,
    render_lease,
    taken,
)

SPEC: dict[str, Any] = {
    "holderIdentity": "mic-1",
    "leaseDurationSeconds": 15,
    "acquireTime": "2026-11-27T12:00:00.000000Z",
    "renewTime": "2026-11-27T12:00:05.123456Z",
    "leaseTransitions": 4,
}


def lease(**spec: Any) -> bytes:
    return json.dumps({"metadata": {"resourceVersion": "7"}, "spec": spec}).encode()


def endpoints(annotation: str | None) -> bytes:
    annotations = None if annotation is None else {OLD_LOCK: annotation}
    return json.dumps({"metadata": {"resourceVersion": "9", "annotations": annotations}}).encode()


def test_a_lease_is_read_as_client_go_writes_it() -> None:
    assert parse_lease(lease(**SPEC)) == Lock(
        version="7",
        holder="mic-1",
        seconds=15,
        acquired=SPEC["acquireTime"],
        renewed=SPEC["renewTime"],
        transitions=4,
    )


def test_a_lease_without_a_holder_is_nobodys() -> None:
    assert parse_lease(lease(holderIdentity=None)) == Lock(version="7")
    assert parse_lease(b'{"metadata":{}}') == Lock()


@pytest.mark.parametrize(("seconds", "counts"), [(-1, 0), (0, 0), (10**9, 3600)])
def test_no_lease_counts_for_days(seconds: int, counts: int) -> None:
    assert parse_lease(lease(holderIdentity="x", leaseDurationSeconds=seconds)).seconds == counts


@pytest.mark.parametrize("body", [b"", b"[]", b'{"spec":1}', b'{"metadata":{},"spec":{"a":'])
def test_what_is_no_lease_is_told(body: bytes) -> None:
    with pytest.raises(NotALock, match="no Lease"):
        parse_lease(body)


def test_the_archived_controllers_record_is_read_from_its_annotation() -> None:
    record = {
        "holderIdentity": "mic-77f8",
        "leaseDurationSeconds": 15,
        "acquireTime": "2026-11-27T11:59:00Z",
        "renewTime": "2026-11-27T12:00:00Z",
        "leaderTransitions": 2,
    }
    found = parse_old_lock(endpoints(json.dumps(record)))
    assert (found.holder, found.seconds, found.transitions) == ("mic-77f8", 15, 2)


def test_endpoints_without_the_annotation_are_nobodys_lock() -> None:
    assert parse_old_lock(endpoints(None)).holder == ""
    assert parse_old_lock(b'{"metadata":{}}').holder == ""


def test_an_annotation_that_is_no_record_is_told_by_its_name() -> None:
    with pytest.raises(NotALock, match="control-plane"):
        parse_old_lock(endpoints("yes"))


def test_a_holder_renews_without_a_transition_and_another_takes_over_with_one() -> None:
    before = parse_lease(lease(**SPEC))
    mine = taken(before, "mic-1", 15, 1_795_600_000.5)
    assert mine == {
        "holderIdentity": "mic-1",
        "leaseDurationSeconds": 15,
        "acquireTime": SPEC["acquireTime"],
        "renewTime": "2026-11-25T09:46:40.500000Z",
        "leaseTransitions": 4,
    }
    other = taken(before, "mic-2", 20, 1_795_600_000.5)
    assert (other["leaseTransitions"], other["acquireTime"]) == (5, other["renewTime"])


def test_what_is_released_can_be_taken_at_once() -> None:
    spec = released(parse_lease(lease(**SPEC)), 1_795_600_000.0)
    found = parse_lease(lease(**spec))
    assert (found.holder, found.seconds, found.transitions) == ("", 1, 4)


def test_each_change_of_a_holder_shows() -> None:
    before = parse_lease(lease(**SPEC))
    renewed = parse_lease(lease(**taken(before, "mic-1", 15, 1_795_600_001.0)))
    assert renewed.mark != before.mark
    assert parse_lease(lease(**SPEC)).mark == before.mark


def test_an_update_names_its_version_and_keeps_what_others_wrote() -> None:
    body = json.loads(lease(**SPEC))
    body["metadata"] |= {"labels": {"team": "a"}, "managedFields": [{"manager": "kubectl"}]}
    body = render_lease("default", "mic", {"a": 1}, parse_lease(json.dumps(body).encode()))
    assert body["metadata"] == {
        "namespace": "default",
        "name": "mic",
        "resourceVersion": "7",
        "labels": {"team": "a"},
    }
