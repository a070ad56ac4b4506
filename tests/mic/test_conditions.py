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
from tests.core.objects import binding, exception, identity, principal, resource_id

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
        "another's secret": of_identity(
            principal("blue", "id", secret=ObjectRef("red", "s")), STRICT, None
        ),
        "bound": of_binding(bound, READY),
        "no identity": of_binding(bound, None),
        "not ready": of_binding(bound, of_identity(broken, STRICT, None)),
        "malformed binding": of_binding(broken, None),
        "malformed exception": of_exception(broken, STRICT),
        "no labels": of_exception(exception("kube-system", "e", {}), STRICT),
        "effective": of_exception(exception("kube-system", "e", {"app": "x"}), STRICT),
    }
    assert {name: (each.holds, each.reason) for name, each in found.items()} == {
        "usable": (True, "Usable"),
        "no ARM id": (False, "NoResourceID"),
        "malformed": (False, "Malformed"),
        "another's secret": (False, "ForeignSecret"),
        "bound": (True, "Usable"),
        "no identity": (False, "NoIdentity"),
        "not ready": (False, "IdentityNotReady"),
        "malformed binding": (False, "Malformed"),
        "malformed exception": (False, "Malformed"),
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
        found.see(About.BINDING, bound, of_binding(bound, READY))
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


def test_a_long_refusal_is_told_once_and_short() -> None:
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), READY)
    found.refuse(FOLDED, HOST, Condition(holds=False, reason="Denied", message="m" * 5_000))
    call: Any = found.next(IDENTITY, 0.0)
    assert len(call.condition.message) == 1_000
    found.take(IDENTITY, None, 0.0)
    found.see(About.IDENTITY, identity("blue", "id"), call.condition)
    assert found.next(IDENTITY, 0.0) is None


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


# What is looked at, and when.


def wanted(found: Conditions, subject: ConditionOf) -> str:
    call = found.next(subject, 0.0)
    assert isinstance(call, WriteCondition)
    return call.condition.reason


def seen() -> Conditions:
    """Return those of an identity and its binding, which are new and were looked at."""
    found = Conditions(STRICT)
    found.see(About.IDENTITY, identity("blue", "id"), None)
    found.see(About.BINDING, binding("blue", "b", "id", "app"), None)
    found.marked.clear()
    return found


def test_an_object_that_was_edited_has_the_condition_of_what_it_is_now() -> None:
    found = seen()
    bare = replace(identity("blue", "id"), resource_id=None)
    for edited, reason in ((bare, "NoResourceID"), (identity("blue", "id"), "Usable")):
        found.see(About.IDENTITY, edited, None)
        assert {*found.marked} == {IDENTITY, BINDING}
        assert wanted(found, IDENTITY) == reason
        found.take(IDENTITY, Failure(kind=Fault.FAILED), -99.0)
    broken = Malformed(kind="AzureIdentityBinding", ref=BINDING.ref, why="no selector")
    found.see(About.BINDING, broken, None)
    assert wanted(found, BINDING) == "Malformed"


def test_what_concerns_an_identity_concerns_the_objects_that_name_it_now() -> None:
    found, other = seen(), resource_id(2).folded
    denied = Condition(holds=False, reason="Denied", message="m")
    found.see(About.IDENTITY, identity("blue", "id", 2), None)
    found.see(About.BINDING, binding("blue", "b", "another", "app"), None)
    looked = {}
    for about in (FOLDED, other):
        found.marked.clear()
        found.refuse(about, HOST, denied)
        looked[about] = [*found.marked]
    assert looked == {FOLDED: [], other: [IDENTITY]}
    found.marked.clear()
    found.lose(About.IDENTITY, ObjectRef("blue", "another"))
    assert BINDING in found.marked


def test_nothing_concerns_what_is_gone() -> None:
    found = seen()
    found.lose(About.BINDING, BINDING.ref)
    found.lose(About.IDENTITY, IDENTITY.ref)
    found.marked.clear()
    found.refuse(FOLDED, HOST, Condition(holds=False, reason="Denied", message="m"))
    found.lose(About.IDENTITY, IDENTITY.ref)
    assert [*found.marked] == [IDENTITY]
    assert found.next(IDENTITY, 0.0) is None


def test_of_two_objects_of_an_identity_the_one_that_is_left_is_told_of_a_refusal() -> None:
    found = seen()
    found.see(About.IDENTITY, identity("blue", "other"), None)
    found.lose(About.IDENTITY, ObjectRef("blue", "other"))
    found.marked.clear()
    found.refuse(FOLDED, HOST, Condition(holds=False, reason="Denied", message="m"))
    assert IDENTITY in found.marked


def test_a_new_leader_looks_at_all_and_writes_what_was_under_way() -> None:
    found = seen()
    assert wanted(found, IDENTITY) == "Usable"
    found.mark_all()
    assert {*found.marked} == {IDENTITY, BINDING}
    assert wanted(found, IDENTITY) == "Usable"


def test_what_changed_while_its_condition_was_written_is_written_behind_it() -> None:
    found = seen()
    assert wanted(found, IDENTITY) == "Usable"
    found.see(About.IDENTITY, replace(identity("blue", "id"), resource_id=None), None)
    found.marked.clear()
    found.take(IDENTITY, None, 0.0)
    assert IDENTITY in found.marked
    assert wanted(found, IDENTITY) == "NoResourceID"


def test_what_is_attached_to_no_host_any_more_is_in_no_doubt() -> None:
    found, denied = conditions("Denied"), Condition(holds=False, reason="Denied", message="m")
    assert found.next(IDENTITY, 0.0) is None
    found.see(About.IDENTITY, principal("blue", "id"), denied)
    assert wanted(found, IDENTITY) == "Usable"


def test_an_exception_has_its_own_condition() -> None:
    found = Conditions(STRICT)
    one = exception("kube-system", "e", {"app": "x"})
    found.see(About.EXCEPTION, one, None)
    assert wanted(found, ConditionOf(About.EXCEPTION, one.ref)) == "Effective"


def said(found: Conditions, subject: ConditionOf) -> str:
    found.mark_all()
    call = found.next(subject, 0.0)
    assert isinstance(call, WriteCondition)
    return call.condition.message


def test_the_binding_of_an_identity_that_is_left_out_for_a_budget_says_that_it_is_not_read() -> (
    None
):
    found = Conditions(STRICT)
    found.see(About.BINDING, binding("blue", "b", "id", "app"), None)
    found.see(About.BINDING, binding("red", "b", "id", "app"), None)
    missing = said(found, BINDING)
    assert "does not exist" in missing
    found.marked.clear()
    found.leave_out("blue", holds=True)
    assert list(found.marked) == [BINDING]
    found.marked.clear()
    found.leave_out("blue", holds=True)
    assert not found.marked  # it is said for each object that is left out
    message = said(found, BINDING)
    assert "AzureIdentity 'id' is not read, if it exists: its namespace has" in message
    assert "does not exist" in said(found, BINDING._replace(ref=ObjectRef("red", "b")))
    found.see(About.IDENTITY, identity("blue", "id"), READY)
    assert said(found, BINDING) == of_binding(binding("blue", "b", "id", "app"), READY).message
    found.lose(About.IDENTITY, IDENTITY.ref)
    found.marked.clear()
    found.leave_out("blue", holds=False)
    assert list(found.marked) == [BINDING]
    assert said(found, BINDING) == missing
