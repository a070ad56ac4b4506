from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import find, given
from hypothesis import strategies as st

from podidentity.core.ids import ObjectRef
from podidentity.core.matching import Match, match
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity, IdentityType, Malformed, Phase, Pod
from tests.core.worlds import World, binding, identity, pod, pods, worlds

ELSEWHERE = {Reason.NOT_AMONG, Reason.AMBIGUOUS, Reason.NOT_A_PROVIDER, Reason.NO_CSI_VOLUME}
"""Given by selection, and by delegation."""


@given(worlds(), pods())
def test_what_a_pod_may_use_is_bound_in_its_own_namespace_by_its_exact_label(
    world: World, asker: Pod
) -> None:
    for entitlement in match(asker, world).entitlements:
        assert entitlement.identity.ref.namespace == asker.ref.namespace
        assert entitlement.binding.ref.namespace == asker.ref.namespace
        assert entitlement.binding.selector == asker.labels["aadpodidbinding"]
        assert entitlement.binding.identity == entitlement.identity.ref.name


@given(worlds(), pods())
def test_every_bound_and_usable_identity_is_among_what_the_pod_may_use(
    world: World, asker: Pod
) -> None:
    expected = {
        each.ref
        for each in world.identities
        if isinstance(each, AzureIdentity)
        and each.type is IdentityType.USER_ASSIGNED
        and each.ref.namespace == asker.ref.namespace
        and not asker.host_network
        and asker.phase is not Phase.SUCCEEDED
        and any(
            bound.identity == each.ref.name
            and bound.ref.namespace == asker.ref.namespace
            and bound.selector == asker.labels.get("aadpodidbinding")
            for bound in world.all_bindings
        )
    }
    found = [each.identity.ref for each in match(asker, world).entitlements]
    assert set(found) == expected
    assert len(found) == len(expected)


@given(worlds(), pods())
def test_an_answer_is_never_empty_a_pod_without_identity_has_a_reason(
    world: World, asker: Pod
) -> None:
    found = match(asker, world)
    assert found.entitlements or found.refusals


@given(worlds(), pods())
def test_what_the_pod_is_told_names_no_other_namespace(world: World, asker: Pod) -> None:
    other = "green" if asker.ref.namespace == "blue" else "blue"
    for refusal in match(asker, world).refusals:
        assert other not in refusal.public


@given(worlds(), pods())
def test_the_order_of_what_the_api_server_sends_does_not_matter(world: World, asker: Pod) -> None:
    turned = World(world.all_bindings[::-1], world.identities[::-1], world.bad_bindings[::-1])
    assert match(asker, turned).entitlements == match(asker, world).entitlements


@given(worlds(), pods())
def test_heavier_bindings_come_first_then_names(world: World, asker: Pod) -> None:
    found = match(asker, world).entitlements
    keys = [(-each.binding.weight, each.identity.ref.name) for each in found]
    assert keys == sorted(keys)


@pytest.mark.parametrize("wanted", [0, 1, 2])
def test_the_random_worlds_are_not_empty(wanted: int) -> None:
    """Pods with none, one and two identities occur, or the properties above say nothing."""

    def yields(pair: tuple[World, Pod]) -> bool:
        return len(match(pair[1], pair[0]).entitlements) == wanted

    find(st.tuples(worlds(), pods()), yields)


@pytest.mark.parametrize(
    "reason",
    [reason for reason in Reason if reason not in ELSEWHERE],
)
def test_every_reason_of_matching_occurs_in_the_random_worlds(reason: Reason) -> None:
    def refuses(pair: tuple[World, Pod]) -> bool:
        return any(each.reason is reason for each in match(pair[1], pair[0]).refusals)

    find(st.tuples(worlds(), pods()), refuses)


BOUND = World(
    [binding("blue", "b", "alpha", "app")],
    [identity("blue", "alpha"), identity("green", "alpha", 2)],
)
REFUSALS: list[tuple[str, World, Pod, Reason, str, str]] = [
    (
        "no label",
        BOUND,
        pod(selector=None),
        Reason.NO_LABEL,
        "Pod blue/pod has no label aadpodidbinding.",
        "Identity not found",
    ),
    (
        "an empty label is none",
        BOUND,
        pod(selector=""),
        Reason.NO_LABEL,
        "Pod blue/pod has no label aadpodidbinding.",
        "Identity not found",
    ),
    (
        "no binding",
        BOUND,
        pod(selector="other"),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'other'.",
        "No AzureIdentityBinding in namespace blue has the selector 'other'.",
    ),
    (
        "a selector of another case",
        BOUND,
        pod(selector="App"),
        Reason.NO_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'App'.",
        "No AzureIdentityBinding in namespace blue has the selector 'App'.",
    ),
    (
        "bound in another namespace only",
        BOUND,
        pod("green"),
        Reason.OTHER_NAMESPACE,
        "No AzureIdentityBinding in namespace green has the selector 'app'. Namespace blue has "
        "one, but the application and its AzureIdentity must be in the same namespace.",
        "No AzureIdentityBinding in namespace green has the selector 'app'.",
    ),
    (
        "the identity does not exist",
        World([binding("blue", "b", "gone", "app")], []),
        pod(),
        Reason.NO_IDENTITY,
        "AzureIdentityBinding blue/b names AzureIdentity 'gone', which does not exist in "
        "namespace blue.",
        "AzureIdentityBinding blue/b names AzureIdentity 'gone', which does not exist in "
        "namespace blue.",
    ),
    (
        "the identity is in another namespace only",
        World([binding("blue", "b", "alpha", "app")], [identity("green", "alpha")]),
        pod(),
        Reason.NO_IDENTITY,
        "AzureIdentityBinding blue/b names AzureIdentity 'alpha', which does not exist in "
        "namespace blue.",
        "AzureIdentityBinding blue/b names AzureIdentity 'alpha', which does not exist in "
        "namespace blue.",
    ),
    (
        "the identity is malformed",
        World(
            [binding("blue", "b", "alpha", "app")],
            [
                Malformed(
                    ref=ObjectRef("blue", "alpha"),
                    kind="AzureIdentity",
                    why="spec.clientID must be a GUID, not 'x'",
                )
            ],
        ),
        pod(),
        Reason.MALFORMED_IDENTITY,
        "AzureIdentity blue/alpha cannot be used: spec.clientID must be a GUID, not 'x'.",
        "AzureIdentity blue/alpha cannot be used: spec.clientID must be a GUID, not 'x'.",
    ),
    (
        "a binding is malformed",
        World(
            bad_bindings=[
                Malformed(
                    ref=ObjectRef("blue", "b"),
                    kind="AzureIdentityBinding",
                    why="spec.selector is empty",
                )
            ]
        ),
        pod(),
        Reason.MALFORMED_BINDING,
        "No AzureIdentityBinding in namespace blue has the selector 'app'. AzureIdentityBinding "
        "blue/b cannot be used: spec.selector is empty.",
        "No AzureIdentityBinding in namespace blue has the selector 'app'. AzureIdentityBinding "
        "blue/b cannot be used: spec.selector is empty.",
    ),
    (
        "the identity is of a type that is not served",
        World(
            [binding("blue", "b", "alpha", "app")],
            [replace(identity("blue", "alpha"), type=IdentityType.FEDERATED)],
        ),
        pod(),
        Reason.UNSERVED_TYPE,
        "AzureIdentity blue/alpha has type 3, which this release does not serve.",
        "AzureIdentity blue/alpha has type 3, which this release does not serve.",
    ),
    (
        "the node's network",
        BOUND,
        pod(host_network=True),
        Reason.HOST_NETWORK,
        "Pod blue/pod uses the node's network, where pods cannot be told apart.",
        "Pod blue/pod uses the node's network, where pods cannot be told apart.",
    ),
    (
        "ended",
        BOUND,
        pod(phase=Phase.FAILED),
        Reason.POD_ENDED,
        "Pod blue/pod has ended (Failed).",
        "Pod blue/pod has ended (Failed).",
    ),
]


@pytest.mark.parametrize(
    ("world", "asker", "reason", "message", "told"),
    [row[1:] for row in REFUSALS],
    ids=[row[0] for row in REFUSALS],
)
def test_each_refusal_says_why_to_the_operator_and_no_more_than_allowed_to_the_pod(
    world: World, asker: Pod, reason: Reason, message: str, told: str
) -> None:
    found = match(asker, world)
    assert found.entitlements == ()
    [refusal] = found.refusals
    assert (refusal.reason, refusal.message, refusal.public) == (reason, message, told)
    assert refusal.next_step.endswith(".")


def test_the_table_of_refusals_has_every_reason_that_matching_gives() -> None:
    assert {row[3] for row in REFUSALS} == set(Reason) - ELSEWHERE


def test_the_selector_is_the_bindings_and_the_label_the_pods() -> None:
    """Both sides of a property would move together if the comparison were turned round."""
    found = match(pod("blue", "app"), BOUND)
    assert [str(each.identity.ref) for each in found.entitlements] == ["blue/alpha"]


def test_a_bad_identity_does_not_take_a_good_one_away() -> None:
    world = World(
        [binding("blue", "b1", "bad", "app"), binding("blue", "b2", "good", "app")],
        [
            Malformed(ref=ObjectRef("blue", "bad"), kind="AzureIdentity", why="it is bad"),
            identity("blue", "good"),
        ],
    )
    found: Match = match(pod(), world)
    assert [each.identity.ref.name for each in found.entitlements] == ["good"]
    assert [each.reason for each in found.refusals] == [Reason.MALFORMED_IDENTITY]


def test_two_bindings_of_one_identity_are_one_entitlement_by_the_heavier() -> None:
    world = World(
        [binding("blue", "b1", "alpha", "app", 1), binding("blue", "b2", "alpha", "app", 9)],
        [identity("blue", "alpha")],
    )
    [found] = match(pod(), world).entitlements
    assert found.binding.ref.name == "b2"
