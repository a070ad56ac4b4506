"""What people read of an object; a reason is for programs too, and docs/reference/mic.md has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.decision import STRICT
from podidentity.core.hosts import Host
from podidentity.core.resources import Malformed, ObjectRef
from podidentity.mic.calls import About, Condition, WriteCondition
from podidentity.mic.conditions import (
    ConditionOf,
    Conditions,
    of_binding,
    of_exception,
    of_identity,
)
from tests.core.objects import binding, exception, identity, resource_id

FOLDED = resource_id(1).folded
HOST = Host.parse("/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines/v")
IDENTITY = ConditionOf(About.IDENTITY, ObjectRef("blue", "id"))
BINDING = ConditionOf(About.BINDING, ObjectRef("blue", "b"))
READY = of_identity(identity("blue", "id"), STRICT, None)


def test_each_state_of_an_object_has_its_reason() -> None:
    usable, bound = identity("blue", "id"), binding("blue", "b", "id", "app")
    broken = Malformed(kind="AzureIdentity", ref=usable.ref, why="no type")
    found = {
        "usable": READY,
        "no ARM id": of_identity(replace(usable, resource_id=None), STRICT, None),
        "malformed": of_identity(broken, STRICT, None),
        "bound": of_binding(bound, usable, READY),
        "no identity": of_binding(bound, None, None),
        "not ready": of_binding(bound, broken, of_identity(broken, STRICT, None)),
        "no labels": of_exception(exception("kube-system", "e", {}), STRICT),
        "effective": of_exception(exception("kube-system", "e", {"app": "x"}), STRICT),
    }
    assert {name: (each.holds, each.reason) for name, each in found.items()} == {
        "usable": (True, "Usable"),
        "no ARM id": (False, "NoResourceID"),
        "malformed": (False, "Malformed"),
        "bound": (True, "Usable"),
        "no identity": (False, "NoIdentity"),
        "not ready": (False, "IdentityNotReady"),
        "no labels": (False, "NoLabels"),
        "effective": (True, "Effective"),
    }


def conditions(reason: str) -> Conditions:
    """Return those of an identity and its binding of which an earlier MIC has written a refusal."""
    found = Conditions(STRICT)
    before = Condition(holds=False, reason=reason, message="m")
    found.see(About.IDENTITY, identity("blue", "id"), before)
    return found


@pytest.mark.parametrize("reason", ["Denied", "Forbidden", "RefusedByAzure"])
def test_what_azure_refused_an_earlier_mic_holds_again_when_a_host_has_it(reason: str) -> None:
    found = conditions(reason)
    assert found.next(IDENTITY, 0.0) is None
    found.prove(FOLDED)
    assert isinstance(found.next(IDENTITY, 0.0), WriteCondition)


def test_what_was_wrong_with_an_object_itself_is_looked_at_anew() -> None:
    assert isinstance(conditions("NoResourceID").next(IDENTITY, 0.0), WriteCondition)


def test_of_two_bindings_of_an_identity_the_one_that_is_left_is_told_of_its_end() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), READY)
    for name in ("a", "b"):
        bound = binding("blue", name, "id", "app")
        found.see(About.BINDING, bound, of_binding(bound, identity("blue", "id"), READY))
    found.lose(About.BINDING, ObjectRef("blue", "a"))
    found.marked.clear()
    found.lose(About.IDENTITY, ObjectRef("blue", "id"))
    assert BINDING in found.marked
    call: Any = found.next(BINDING, 0.0)
    assert call.condition.reason == "NoIdentity"


def test_a_refusal_on_one_host_is_told_and_ends_there() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), READY)
    denied = Condition(holds=False, reason="Denied", message="locked")
    assert found.refuse(FOLDED, HOST, denied)
    assert not found.refuse(FOLDED, HOST, denied)
    assert found.next(IDENTITY, 0.0) == WriteCondition(*IDENTITY, denied)
    assert found.refuse(FOLDED, HOST, None)
