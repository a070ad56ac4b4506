"""What people read of an object; a reason is for programs too, and docs/reference/mic.md has it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from podidentity.core.decision import STRICT, Use
from podidentity.core.hosts import Host
from podidentity.core.permissions import IdentityPermission
from podidentity.core.resources import Malformed, ObjectRef
from podidentity.mic.calls import About, Condition, Failure, Fault, WriteCondition
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


def test_an_identity_without_its_condition_is_none_to_a_binding() -> None:
    bound = binding("blue", "b", "id", "app")
    assert of_binding(bound, identity("blue", "id"), None).reason == "NoIdentity"


def test_a_condition_that_is_being_written_is_not_written_once_more() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), None)
    assert isinstance(found.next(IDENTITY, 0.0), WriteCondition)
    assert found.next(IDENTITY, 0.0) is None
    found.take(IDENTITY, None, 0.0)
    assert found.next(IDENTITY, 0.0) is None


def test_a_condition_that_could_not_be_written_is_written_again_later() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), None)
    found.next(IDENTITY, 0.0)
    found.take(IDENTITY, Failure(kind=Fault.FAILED), 100.0)
    assert found.next(IDENTITY, 129.0) == 130.0
    assert isinstance(found.next(IDENTITY, 130.0), WriteCondition)
    found.take(IDENTITY, Failure(kind=Fault.THROTTLED, retry_after=60), 130.0)
    assert found.next(IDENTITY, 189.0) == 190.0
    found.lose(About.IDENTITY, IDENTITY.ref)
    found.see(About.IDENTITY, identity("blue", "id"), None)
    assert isinstance(found.next(IDENTITY, 131.0), WriteCondition)


def test_what_is_lacking_is_news_once_and_written_and_what_is_not_known_yet_is_neither() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), None)
    use = Use(ObjectRef("blue", "app"), "id")
    assert found.permit(IDENTITY.ref, IdentityPermission(decided=False))
    assert found.next(IDENTITY, 0.0) is None
    found.marked.clear()
    lacking = IdentityPermission(lacking=use)
    assert found.permit(IDENTITY.ref, lacking)
    assert [*found.marked] == [IDENTITY]
    assert not found.permit(IDENTITY.ref, lacking)
    call: Any = found.next(IDENTITY, 0.0)
    assert call.condition.message.startswith("Service account blue/app may not use the identity id")
    found.take(IDENTITY, None, 0.0)
    assert found.permit(IDENTITY.ref, IdentityPermission())
    assert found.next(IDENTITY, 0.0) == WriteCondition(*IDENTITY, READY)


def test_a_malformed_identity_and_its_binding_are_told() -> None:
    found = Conditions(STRICT)
    broken = Malformed(kind="AzureIdentity", ref=IDENTITY.ref, why="no type")
    found.see(About.IDENTITY, broken, None)
    found.see(About.BINDING, binding("blue", "b", "id", "app"), None)
    own: Any = found.next(IDENTITY, 0.0)
    assert (own.condition.reason, own.condition.message) == (
        "Malformed",
        "It cannot be used: no type.",
    )
    of_it: Any = found.next(BINDING, 0.0)
    assert of_it.condition.message == ("AzureIdentity id is not ready: It cannot be used: no type.")


def test_what_a_host_had_and_then_refused_is_in_doubt_until_one_has_it_again() -> None:
    found = conditions("Denied")
    found.prove(FOLDED)
    denied = Condition(holds=False, reason="Denied", message="m")
    assert found.refuse(FOLDED, HOST, denied)
    found.refuse(FOLDED, HOST, None)
    assert found.next(IDENTITY, 0.0) is None
    found.prove(FOLDED)
    assert isinstance(found.next(IDENTITY, 0.0), WriteCondition)


def test_of_several_hosts_that_refuse_the_first_by_name_is_told() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), READY)
    for name in ("z", "a", "m"):
        host = Host.parse(f"{HOST.resource_id.removesuffix('v')}{name}")
        found.refuse(FOLDED, host, Condition(holds=False, reason="Denied", message=name))
    call: Any = found.next(IDENTITY, 0.0)
    assert call.condition.message == "a"
