"""Conditions of an object's status, as they are and as they are said anew."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from podidentity.wire.conditions import Said, Word, parse_said, render_said
from tests.fakes import NOW
from tests.wire.manifests import JSON

META = {"uid": "u", "generation": 3, "resourceVersion": "7"}
NO = {
    "type": "Effective",
    "status": "False",
    "reason": "NamespaceNotAllowed",
    "message": "why",
    "observedGeneration": 3,
    "lastTransitionTime": "2020-01-01T00:00:00Z",
}
OTHER = {"type": "Other", "status": "True"}
NAY = Word(holds=False, reason="NamespaceNotAllowed", generation=3)
YEA = Word(holds=True, reason="NamespaceAllowed", generation=3)


def raw(*conditions: Any) -> bytes:
    return json.dumps({"metadata": META, "status": {"conditions": list(conditions)}}).encode()


def test_what_a_condition_says_is_read() -> None:
    assert parse_said(raw(OTHER, NO), "Effective") == Said(uid="u", generation=3, word=NAY)
    assert parse_said(raw(OTHER), "Effective") == Said(uid="u", generation=3)


@pytest.mark.parametrize(
    "change", [{"status": "Unknown"}, {"reason": 1}, {"observedGeneration": "3"}], ids=str
)
def test_a_condition_that_says_neither_yes_nor_no_says_nothing(change: dict[str, Any]) -> None:
    assert parse_said(raw(NO | change), "Effective").word is None


@given(JSON)
def test_a_status_of_any_shape_says_nothing_and_is_overwritten(status: Any) -> None:
    found = json.dumps({"metadata": META, "status": status}).encode()
    assert parse_said(found, "Effective") == Said(uid="u", generation=3)
    [*_, last] = render_said(found, "Effective", YEA, "so", NOW)["status"]["conditions"]
    assert (last["status"], last["lastTransitionTime"]) == ("True", "2026-11-25T09:46:40Z")


def test_what_is_no_object_says_nothing_and_is_not_written() -> None:
    assert parse_said(b"", "Effective") == Said()
    with pytest.raises(ValueError, match="not a Kubernetes object"):
        render_said(b"", "Effective", YEA, "so", NOW)


def test_the_other_conditions_stay_and_the_patch_is_for_this_version_only() -> None:
    patch = render_said(raw(NO, OTHER), "Effective", YEA, "so", NOW)
    assert patch["metadata"] == {"resourceVersion": "7"}
    assert [each["type"] for each in patch["status"]["conditions"]] == ["Other", "Effective"]


@pytest.mark.parametrize(
    ("word", "since"),
    [
        (Word(holds=False, reason="Malformed", generation=4), NO["lastTransitionTime"]),
        (YEA, "2026-11-25T09:46:40Z"),
    ],
    ids=["another reason", "another status"],
)
def test_the_time_of_transition_moves_with_the_status_alone(word: Word, since: str) -> None:
    [condition] = render_said(raw(NO), "Effective", word, "so", NOW)["status"]["conditions"]
    assert condition == {
        "type": "Effective",
        "status": str(word.holds),
        "reason": word.reason,
        "message": "so",
        "observedGeneration": word.generation,
        "lastTransitionTime": since,
    }
