"""What holds of every match, whatever the cluster holds and whatever an operator chose."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.entitlements import Basis, Match
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import MOST_BOUND, STRICT, Rules, match
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity, Phase, Pod
from tests.core.objects import binding, identity
from tests.core.worlds import World, occurs, pods, rules, worlds

MATCHING = st.tuples(worlds(), pods(), rules())

NOT_OF_MATCHING = {
    Reason.NOT_AMONG,
    Reason.AMBIGUOUS,
    Reason.NOT_A_PROVIDER,
    Reason.NO_CSI_VOLUME,
    Reason.NOT_PERMITTED,
    Reason.NOT_ASSIGNED,
}
"""Given by selection, delegation and permission; the last one stands beside an entitlement."""


@given(worlds(), pods(), rules())
def test_no_pod_may_use_what_is_in_another_namespace_unless_an_operator_lets_them_cross(
    world: World, asker: Pod, chosen: Rules
) -> None:
    for each in match(asker, world, chosen).entitlements:
        if each.identity.ref.namespace != asker.ref.namespace:
            assert chosen.cross_namespace
            assert not each.identity.namespaced


def test_where_an_operator_lets_them_cross_they_do() -> None:
    def crosses(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        found = match(asker, world, chosen).entitlements
        return any(each.identity.ref.namespace != asker.ref.namespace for each in found)

    occurs(MATCHING, crosses)


@given(worlds(), pods(), rules())
def test_what_a_label_gives_is_what_a_binding_with_that_selector_names_beside_it(
    world: World, asker: Pod, chosen: Rules
) -> None:
    for each in match(asker, world, chosen).entitlements:
        if each.basis is Basis.BINDING:
            assert each.binding is not None
            assert each.binding.selector == asker.labels["aadpodidbinding"]
            assert each.binding.identity == each.identity.ref.name
            assert each.binding.ref.namespace == each.identity.ref.namespace


@given(worlds(), pods())
def test_every_bound_and_usable_identity_is_among_what_the_pod_may_use(
    world: World, asker: Pod
) -> None:
    bound = {
        each.identity
        for each in world.bindings(asker.ref.namespace, asker.labels.get("aadpodidbinding") or "-")
    }
    expected = {
        each.ref
        for each in world.identities
        if isinstance(each, AzureIdentity)
        and each.ref.namespace == asker.ref.namespace
        and each.ref.name in bound
        and (each.entra is None or each.entra.authority is None)
        and (each.entra is None or (each.entra.secret or each.ref)[0] == each.ref.namespace)
    }
    if asker.host_network or asker.phase is Phase.SUCCEEDED:
        expected = set()
    found = [
        each.identity.ref
        for each in match(asker, world, Rules(exception_namespaces=frozenset())).entitlements
        if each.basis is Basis.BINDING
    ]
    assert set(found) == expected
    assert len(found) == len(expected)


@given(worlds(), pods(), rules())
def test_an_answer_is_never_empty_a_pod_without_identity_has_a_reason(
    world: World, asker: Pod, chosen: Rules
) -> None:
    found = match(asker, world, chosen)
    assert found.entitlements or found.refusals or found.exception


@given(worlds(), pods())
def test_what_the_pod_is_told_names_no_other_namespace(world: World, asker: Pod) -> None:
    other = "green" if asker.ref.namespace == "blue" else "blue"
    for refusal in match(asker, world).refusals:
        if refusal.reason is not Reason.FOREIGN_SECRET:  # its own AzureIdentity names that one
            assert other not in refusal.public


@given(worlds(), pods())
def test_nor_where_an_operator_lets_them_cross(world: World, asker: Pod) -> None:
    other = "green" if asker.ref.namespace == "blue" else "blue"
    for refusal in match(asker, world, Rules(cross_namespace=True)).refusals:
        if refusal.reason is not Reason.FOREIGN_SECRET:
            assert other not in refusal.public


def test_of_thousands_of_bindings_the_heaviest_count_and_no_message_is_long() -> None:
    asker = Pod(ref=ObjectRef("blue", "p"), uid="u", labels={"aadpodidbinding": "app"})
    bound = [
        replace(binding("blue", f"b{number}", "alpha", "app"), weight=number)
        for number in range(MOST_BOUND + 1)
    ]
    found = match(asker, World(bound, [identity("blue", "alpha")]))
    assert {each.weight for each in found.bindings} == set(range(1, MOST_BOUND + 1))
    elsewhere = [binding(f"ns-{number}", "b", "alpha", "app") for number in range(5000)]
    (refusal,) = match(asker, World(elsewhere)).refusals
    assert refusal.reason is Reason.OTHER_NAMESPACE
    assert len(str(refusal)) < 1000


@given(worlds(), pods(), rules())
def test_the_order_of_what_the_api_server_sends_does_not_matter(
    world: World, asker: Pod, chosen: Rules
) -> None:
    assert _ranked(match(asker, world.turned(), chosen)) == _ranked(match(asker, world, chosen))


def _ranked(found: Match) -> object:
    return (found.entitlements, found.exception, [each.reason for each in found.refusals])


@given(worlds(), pods(), rules())
def test_heavier_bindings_come_first_then_names(world: World, asker: Pod, chosen: Rules) -> None:
    keys = [
        (-each.binding.weight, each.identity.ref.name)
        for each in match(asker, world, chosen).entitlements
        if each.binding is not None
    ]
    assert keys == sorted(keys)


@given(worlds(), pods(), rules())
def test_a_pod_without_a_label_or_of_the_nodes_network_or_that_ended_uses_no_binding(
    world: World, asker: Pod, chosen: Rules
) -> None:
    found = match(asker, world, chosen)
    if asker.host_network or asker.ended:
        assert not found.entitlements
        assert found.exception is None
    if not asker.labels.get("aadpodidbinding"):
        assert all(each.basis is Basis.SERVICE_ACCOUNT for each in found.entitlements)


# The random worlds are not empty, or the properties above say nothing.


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_pods_with_none_one_and_two_identities_occur(wanted: int) -> None:
    def yields(pair: tuple[World, Pod]) -> bool:
        return len(match(pair[1], pair[0]).entitlements) == wanted

    occurs(st.tuples(worlds(), pods()), yields)


@pytest.mark.parametrize("kind", [0, 1, 2, 3])
def test_pods_with_identities_of_each_type_occur(kind: int) -> None:
    def yields(pair: tuple[World, Pod]) -> bool:
        return any(each.identity.type == kind for each in match(pair[1], pair[0]).entitlements)

    occurs(st.tuples(worlds(), pods()), yields)


@pytest.mark.parametrize("basis", [Basis.BINDING, Basis.SERVICE_ACCOUNT])
def test_each_way_to_an_identity_occurs(basis: Basis) -> None:
    def yields(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        return any(each.basis is basis for each in match(asker, world, chosen).entitlements)

    occurs(MATCHING, yields)


@pytest.mark.parametrize("reason", [each for each in Reason if each not in NOT_OF_MATCHING])
def test_every_reason_of_matching_occurs_by_the_strict_rules(reason: Reason) -> None:
    def refuses(pair: tuple[World, Pod]) -> bool:
        world, asker = pair
        return any(each.reason is reason for each in match(asker, world, STRICT).refusals)

    occurs(st.tuples(worlds(), pods()), refuses)
