from __future__ import annotations

import pytest

from podidentity.core.decision import Use
from podidentity.core.permissions import Asked, IdentityPermission, NeededPermissions
from podidentity.core.resources import ObjectRef

POD, OTHER = ObjectRef("blue", "web"), ObjectRef("blue", "other")
IDENTITY = ObjectRef("blue", "orders")
ONE, TWO = (Use(ObjectRef("blue", "account"), name) for name in ("id-1", "id-2"))
THREE = Use(ObjectRef("blue", "another"), "id-1")


def needed(*asked: tuple[ObjectRef, Use], identity: ObjectRef = IDENTITY) -> NeededPermissions:
    """Return what is known where each of these pods needs its permissions for one identity."""
    known = NeededPermissions()
    of_pod: dict[ObjectRef, tuple[Use, ...]] = {}
    for pod, use in asked:
        of_pod[pod] = (*of_pod.get(pod, ()), use)
    for pod, uses in of_pod.items():
        known.keep(pod, ((identity, uses),), is_there=True)
    return known


def test_an_answer_names_the_pods_that_it_concerns_and_the_same_again_none() -> None:
    known = needed((POD, ONE), (OTHER, ONE))
    assert list(known.answer(ONE, allowed=True)) == [POD, OTHER]
    assert list(known.answer(ONE, allowed=True)) == []
    assert list(known.answer(ONE, allowed=False)) == [POD, OTHER]
    assert list(known.answer(TWO, allowed=True)) == [], "nobody asked"
    assert known.known(TWO) is None


def test_what_no_pod_needs_any_more_is_asked_anew() -> None:
    known = needed((POD, ONE), (OTHER, ONE))
    known.answer(ONE, allowed=True)
    asked: Asked = ((IDENTITY, (ONE,)),)
    assert known.keep(POD, (), is_there=True) == (asked, [])
    assert known.known(ONE) is True
    known.keep(OTHER, (), is_there=True)
    assert (known.known(ONE), known.matters(ONE)) == (None, False)
    assert known.keep(POD, asked, is_there=True) == ((), [ONE])


@pytest.mark.parametrize(
    ("answers", "permission"),
    [
        ({}, IdentityPermission(decided=False)),
        ({ONE: False}, IdentityPermission(decided=False)),
        ({ONE: True, THREE: False}, IdentityPermission()),
        ({ONE: False, THREE: False}, IdentityPermission(lacking=ONE)),
    ],
)
def test_an_identity_may_be_used_if_one_of_its_pods_may_else_the_first_that_is_lacking_is_named(
    answers: dict[Use, bool], permission: IdentityPermission
) -> None:
    known = needed((POD, THREE), (OTHER, ONE))
    for use, allowed in answers.items():
        known.answer(use, allowed=allowed)
    assert known.of(IDENTITY) == permission
    assert known.of(ObjectRef("blue", "unbound")) == IdentityPermission(lacking=None, decided=True)


def test_of_two_permissions_that_a_pod_needs_the_one_that_was_refused_is_lacking() -> None:
    known = needed((POD, ONE), (POD, TWO))
    known.answer(ONE, allowed=True)
    assert (known.all((ONE, TWO)), known.of(IDENTITY).decided) == (None, False)
    known.answer(TWO, allowed=False)
    assert known.of(IDENTITY) == IdentityPermission(lacking=TWO)
    known.answer(TWO, allowed=True)
    assert known.of(IDENTITY) == IdentityPermission()


def test_of_pods_of_other_namespaces_and_of_those_that_are_not_there_an_identity_says_nothing() -> (
    None
):
    known = needed((ObjectRef("red", "web"), ONE))
    known.keep(POD, ((IDENTITY, (TWO,)),), is_there=False)
    assert known.of(IDENTITY) == IdentityPermission()
    assert known.uses("blue") == known.uses(None) == [ONE, TWO]
    assert known.uses("red") == []
