"""AzurePodIdentityExceptions: which pods, where, and for which identities."""

from __future__ import annotations

from collections import UserDict
from collections.abc import ItemsView, Mapping
from dataclasses import replace

import pytest
from hypothesis import given

from podidentity.core.decision import (
    MOST_TRIED,
    Basis,
    Entitlement,
    Rules,
    as_it_counts,
    ineffective_exception,
    match,
    select,
    without_effect,
)
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.resources import ClientId, ObjectId, Phase, Pod, ResourceId, TokenRequest
from tests.core.objects import (
    binding,
    client_id,
    exception,
    identity,
    object_id,
    pod,
    resource_id,
)
from tests.core.test_matching import MATCHING
from tests.core.worlds import World, occurs, pods, rules, worlds

BLUE = Rules(exception_namespaces=frozenset({"blue"}))
EVERYWHERE = Rules(exception_namespaces=None)
ANY_LABEL = Rules(exception_namespaces=None, any_label=True)


@given(worlds(), pods(), rules())
def test_a_pod_is_excepted_only_where_an_operator_allows_it_and_by_all_its_labels(
    world: World, asker: Pod, chosen: Rules
) -> None:
    found = match(asker, world, chosen).exception
    if found is None:
        return
    allowed = chosen.exception_namespaces
    assert allowed is None or asker.ref.namespace in allowed
    assert found.ref.namespace == asker.ref.namespace
    assert found.pod_labels
    assert not asker.host_network
    if not chosen.any_label:
        assert found.pod_labels.items() <= asker.labels.items()


@pytest.mark.parametrize("any_label", [True, False])
def test_excepted_pods_occur(any_label: bool) -> None:
    def excepted(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        return chosen.any_label is any_label and match(asker, world, chosen).exception is not None

    occurs(MATCHING, excepted)


WEB = {"tier": "web"}


@pytest.mark.parametrize(
    ("wanted", "labels", "chosen", "excepted"),
    [
        (WEB, WEB, BLUE, True),
        (WEB, WEB | {"more": "x"}, BLUE, True),
        (WEB | {"team": "a"}, WEB | {"team": "a"}, BLUE, True),
        (WEB | {"team": "a"}, WEB, BLUE, False),
        (WEB | {"team": "a"}, WEB | {"team": "b"}, BLUE, False),
        (WEB, {"tier": "Web"}, BLUE, False),
        (WEB, {"Tier": "web"}, BLUE, False),
        (WEB, {}, BLUE, False),
        ({}, WEB, BLUE, False),
        ({}, {}, BLUE, False),
        ({"tier": ""}, {}, BLUE, False),
        ({"tier": ""}, {"tier": ""}, BLUE, True),
        (WEB, WEB, EVERYWHERE, True),
        (WEB, WEB, Rules(exception_namespaces=frozenset()), False),
        (WEB, WEB, Rules(exception_namespaces=frozenset({"green"})), False),
        (WEB, WEB, Rules(), False),
        # As the archived project: one label, whatever the case of its value.
        (WEB | {"team": "a"}, WEB, ANY_LABEL, True),
        (WEB, {"tier": "WEB"}, ANY_LABEL, True),
        ({"tier": "WEB"}, WEB, ANY_LABEL, True),
        (WEB, {"TIER": "web"}, ANY_LABEL, False),
        (WEB, {"tier": "db"}, ANY_LABEL, False),
        ({}, WEB, ANY_LABEL, False),
    ],
)
def test_which_pods_an_exception_takes_out(
    wanted: Mapping[str, str], labels: Mapping[str, str], chosen: Rules, excepted: bool
) -> None:
    world = World(all_exceptions=[exception("blue", "e", wanted)])
    found = match(pod(selector=None, more=labels), world, chosen)
    assert (found.exception is not None) is excepted


def test_an_exception_of_another_namespace_takes_nobody_out() -> None:
    world = World(all_exceptions=[exception("green", "e", WEB)])
    assert match(pod(more=WEB), world, EVERYWHERE).exception is None


def test_an_exception_comes_before_a_binding_and_without_effect_leaves_it_alone() -> None:
    world = World(
        [binding("blue", "b", "alpha", "app")],
        [identity("blue", "alpha")],
        all_exceptions=[exception("blue", "e", WEB)],
    )
    asker = pod(more=WEB)
    assert match(asker, world, BLUE).exception is not None
    [found] = match(asker, world, Rules()).entitlements
    assert found.basis is Basis.BINDING


def test_of_several_exceptions_the_first_by_name_counts() -> None:
    made = [exception("blue", name, WEB) for name in ("c", "a", "b")]
    found = match(pod(more=WEB), World(all_exceptions=made), BLUE).exception
    assert found is not None
    assert found.ref.name == "a"


def test_an_exception_without_effect_is_told_to_the_operator_and_not_to_the_pod() -> None:
    world = World(all_exceptions=[exception("blue", "e", WEB)])
    [refusal] = match(pod(selector=None, more=WEB), world, Rules()).refusals
    assert refusal.reason is Reason.EXCEPTION_IGNORED
    assert "blue/e" in refusal.message
    assert "--exception-namespaces" in refusal.next_step
    assert refusal.public == "Identity not found"


def test_of_thousands_of_exceptions_without_effect_the_first_few_are_compared() -> None:
    tried: list[str] = []

    class Labels(UserDict[str, str]):
        def items(self) -> ItemsView[str, str]:
            tried.append(self["name"])
            return super().items()

    made = [exception("blue", f"e{each:04}", Labels(name=f"e{each:04}")) for each in range(3_000)]
    assert ineffective_exception(pod(more=WEB), made[::-1], Rules()) is None
    assert tried == [f"e{each:04}" for each in range(MOST_TRIED)]


def test_nmi_keeps_of_an_exception_without_effect_the_name_and_a_few_labels() -> None:
    ids = (client_id(1),)
    small = replace(exception("blue", "e", WEB), identities=ids)
    large = exception("blue", "f", {str(each): "x" for each in range(5)})
    for allowed in (None, frozenset({"blue"})):
        assert [as_it_counts(each, allowed) for each in (small, large)] == [small, large]
    assert as_it_counts(small, frozenset()) == exception("blue", "e", WEB)
    assert as_it_counts(large, frozenset()) == exception("blue", "f", {})


def test_the_flag_to_set_keeps_the_namespaces_that_the_operator_has_set() -> None:
    chosen = Rules(exception_namespaces=frozenset({"ops", "azure"}))
    refusal = ineffective_exception(pod(more=WEB), [exception("blue", "e", WEB)], chosen)
    assert refusal is not None
    assert refusal.next_step.endswith(" --exception-namespaces=azure,blue,ops.")


def test_an_exception_has_no_effect_but_where_an_operator_allows_it_whatever_it_selects() -> None:
    made = exception("blue", "e", {})
    assert without_effect(made, BLUE) is None
    assert without_effect(made, EVERYWHERE) is None
    refusal = without_effect(made, Rules(exception_namespaces=frozenset({"green"})))
    assert refusal is not None
    assert (refusal.reason, refusal.about) == (Reason.EXCEPTION_IGNORED, made.ref)
    assert refusal.next_step.endswith(" --exception-namespaces=blue,green.")


@pytest.mark.parametrize(
    ("asker", "reason"),
    [
        (pod(more=WEB, host_network=True), Reason.HOST_NETWORK),
        (pod(more=WEB, phase=Phase.FAILED), Reason.POD_ENDED),
    ],
    ids=["host network", "ended"],
)
def test_what_closes_a_pod_out_is_looked_at_before_its_exceptions(
    asker: Pod, reason: Reason
) -> None:
    world = World(all_exceptions=[exception("blue", "e", WEB)])
    [refusal] = match(asker, world, BLUE).refusals
    assert refusal.reason is reason


Id = ClientId | ResourceId | ObjectId


def _request(asked: Id | None) -> TokenRequest:
    return TokenRequest(
        resource="r",
        client_id=asked if isinstance(asked, ClientId) else None,
        object_id=asked if isinstance(asked, ObjectId) else None,
        resource_id=asked if isinstance(asked, ResourceId) else None,
    )


@pytest.mark.parametrize(
    ("listed", "asked", "gets"),
    [
        ((), None, "system-assigned"),
        ((), client_id(1), client_id(1)),
        ((), resource_id(1), resource_id(1)),
        ((), object_id(1), object_id(1)),
        ((client_id(1),), client_id(1), client_id(1)),
        ((client_id(1), resource_id(2)), resource_id(2), resource_id(2)),
        ((client_id(1), client_id(2)), None, client_id(1)),
        ((resource_id(2),), None, resource_id(2)),
        ((client_id(1),), client_id(2), None),
        ((client_id(1),), resource_id(1), None),
        ((client_id(1),), object_id(1), None),
    ],
)
def test_an_excepted_pod_gets_what_it_asks_for_within_the_exceptions_list(
    listed: tuple[ClientId | ResourceId, ...], asked: Id | None, gets: object
) -> None:
    world = World(all_exceptions=[exception("blue", "e", WEB, listed)])
    found = select(match(pod(more=WEB), world, BLUE), _request(asked))
    if gets is None:
        assert isinstance(found, Refusal)
        assert found.reason is Reason.NOT_AMONG
        assert found.public.startswith("Identity not found: ")
        assert str(listed[0]) in found.public
        return
    assert not isinstance(found, Refusal)
    [only] = found
    assert _what(only) == gets
    assert only.basis is Basis.EXCEPTION


def _what(entitlement: Entitlement) -> object:
    identity = entitlement.identity
    ids = [identity.client_id, identity.resource_id, identity.object_id]
    named = [each for each in ids if each is not None]
    assert len(named) == (not identity.system_assigned)
    return named[0] if named else "system-assigned"
