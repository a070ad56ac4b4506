"""What is said of an AzurePodIdentityException to whoever made it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from podidentity.core.excepting import effect, excepting, ignored
from podidentity.core.resources import AzurePodIdentityException, Malformed, Phase, Pod
from podidentity.core.usability import Rules
from tests.core.objects import exception, pod
from tests.core.test_matching import MATCHING
from tests.core.worlds import World, occurs, pods, rules, worlds

WEB = {"tier": "web"}
MINE = exception("blue", "e", WEB)
BLUE = Rules(exception_namespaces=frozenset({"blue"}))
OLD = Rules(exception_namespaces=None, any_label=True)
STRICT = Rules()


@pytest.mark.parametrize(
    ("labels", "chosen", "says"),
    [
        (WEB, BLUE, (True, "NamespaceAllowed")),
        (WEB, OLD, (True, "NamespaceAllowed")),
        ({"tier": "WEB"}, OLD, (True, "NamespaceAllowed")),
        (WEB, STRICT, (False, "NamespaceNotAllowed")),
        ({"tier": "WEB"}, BLUE, None),
        ({}, STRICT, None),
    ],
)
def test_what_an_exception_is_told(
    labels: dict[str, str], chosen: Rules, says: tuple[bool, str] | None
) -> None:
    found = effect(MINE, [pod(more={}), pod(more=labels)], chosen)
    assert (found and (found.holds, found.reason)) == says


@pytest.mark.parametrize(
    "facts", [{"host_network": True}, {"phase": Phase.FAILED}, {"namespace": "green"}]
)
def test_of_a_pod_that_no_exception_reaches_nothing_is_said(facts: dict[str, Any]) -> None:
    assert effect(MINE, [pod(more=WEB, **facts)], BLUE) is None


def test_an_exception_without_effect_is_told_in_the_words_of_the_pods_refusal() -> None:
    asker = pod(more=WEB)
    found = effect(MINE, [asker], STRICT)
    assert found is not None
    assert found.message == str(ignored(asker, [MINE], STRICT))
    assert "--exception-namespaces=blue,kube-system" in found.message


def test_a_malformed_exception_is_told_why_whether_there_are_pods_or_not() -> None:
    bad = Malformed(ref=MINE.ref, kind="AzurePodIdentityException", why="spec is missing")
    found = effect(bad, [], STRICT)
    assert found is not None
    assert (found.holds, found.reason) == (False, "Malformed")
    assert "blue/e cannot be used: spec is missing" in found.message


def said(world: World, asker: Pod, chosen: Rules) -> list[tuple[AzurePodIdentityException, bool]]:
    every = [(each, effect(each, [asker], chosen)) for each in world.all_exceptions]
    return [(each, found.holds) for each, found in every if found is not None]


@given(worlds(), pods(), rules())
def test_it_has_effect_where_a_pod_that_relies_on_it_alone_is_excepted(
    world: World, asker: Pod, chosen: Rules
) -> None:
    for each, holds in said(world, asker, chosen):
        assert (excepting(asker, [each], chosen) is each) is holds


@pytest.mark.parametrize("holds", [True, False])
def test_exceptions_with_and_without_effect_occur(holds: bool) -> None:
    def told(case: tuple[World, Pod, Rules]) -> bool:
        return any(each is holds for _, each in said(*case))

    occurs(MATCHING, told)
