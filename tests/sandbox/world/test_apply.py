"""What `apply` reads, and when it leaves an object alone."""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.apply import documents, says, why_not

LIVE = {"metadata": {"name": "x", "uid": "1"}, "spec": {"list": [{"a": 1, "b": 2}], "n": None}}


@pytest.mark.parametrize(
    ("wanted", "same"),
    [
        ({}, True),
        ({"metadata": {"name": "x"}}, True),
        ({"metadata": {"name": "y"}}, False),
        ({"spec": {"list": [{"a": 1}]}}, True),
        ({"spec": {"list": [{"a": 2}]}}, False),
        ({"spec": {"list": []}}, False),
        ({"spec": {"list": [{"a": 1}, {"a": 1}]}}, False),
        ({"spec": {"list": {"a": 1}}}, False),
        ({"spec": {"new": 1}}, False),
        ({"spec": {"n": None}}, True),
        ({"spec": {"absent": None}}, True),
        ({"spec": {"list": None}}, False),
        ({"metadata": {"name": {"deeper": 1}}}, False),
    ],
)
def test_an_object_that_says_it_all_is_left_alone(wanted: dict[str, Any], same: bool) -> None:
    assert says(LIVE, wanted) is same


ONE = "{apiVersion: v1, kind: Pod, metadata: {name: one}}"
TWO = "{apiVersion: v1, kind: Pod, metadata: {name: two}}"


@pytest.mark.parametrize(
    "text",
    [
        f"{ONE}\n---\n{TWO}",
        f"---\n{ONE}\n---\n---\n{TWO}\n---\n",
        f"kind: List\nitems: [{ONE}, {TWO}]",
    ],
)
def test_documents_and_lists_are_taken_one_by_one(text: str) -> None:
    assert [found["metadata"]["name"] for found in documents(text)] == ["one", "two"]


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("kind: Pod", "no apiVersion and no metadata"),
        ("just text", "no apiVersion and no kind"),
        ("- a\n- b", "no apiVersion"),
        ("a: b: c", "no YAML"),
        ("a: !!python/object:os.system {}", "no YAML"),
        (f"kind: List\nitems: [{ONE}, 5]", "no apiVersion"),
    ],
)
def test_other_texts_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(SandboxError, match=reason):
        list(documents(text))


@pytest.mark.parametrize(
    ("pod", "word"),
    [
        (None, "gone"),
        ({}, "Unknown"),
        ({"status": {"phase": "Pending"}}, "Pending"),
        (
            {
                "status": {
                    "phase": "Running",
                    "containerStatuses": [
                        {"state": {"running": {}}},
                        {"state": {"waiting": {"reason": "CrashLoopBackOff", "message": "wait"}}},
                    ],
                }
            },
            "CrashLoopBackOff wait",
        ),
        (
            {"status": {"containerStatuses": [{"state": {"terminated": {"reason": "Error"}}}]}},
            "Error",
        ),
    ],
)
def test_a_pods_state_is_the_reason_of_its_container(pod: dict[str, Any] | None, word: str) -> None:
    assert why_not(pod) == word
