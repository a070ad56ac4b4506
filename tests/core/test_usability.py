"""Where a secret may be read from and sent to; what else makes an identity unusable."""

from __future__ import annotations

import pytest
from hypothesis import given

from podidentity.core.authorities import Authority
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import STRICT, Rules, match
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity, Pod
from tests.core.objects import binding, identity, pod, principal
from tests.core.test_matching import MATCHING
from tests.core.worlds import EVIL, World, occurs, pods, rules, worlds


def bound(made: AzureIdentity) -> World:
    return World([binding(made.ref.namespace, "b", made.ref.name, "app")], [made])


@given(worlds(), pods(), rules())
def test_no_secret_goes_to_an_authority_that_nobody_allowed_or_comes_from_elsewhere(
    world: World, asker: Pod, chosen: Rules
) -> None:
    for each in match(asker, world, chosen).entitlements:
        entra = each.identity.entra
        if entra is not None:
            assert entra.authority in {None, *chosen.authorities}
            if entra.secret is not None and not chosen.foreign_secrets:
                assert entra.secret.namespace == each.identity.ref.namespace


@pytest.mark.parametrize("reason", [Reason.UNKNOWN_AUTHORITY, Reason.FOREIGN_SECRET])
def test_identities_with_such_secrets_occur_and_are_refused(reason: Reason) -> None:
    def refuses(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        return any(each.reason is reason for each in match(asker, world, chosen).refusals)

    occurs(MATCHING, refuses)


@pytest.mark.parametrize(
    ("made", "chosen", "reason"),
    [
        (principal("blue", "alpha"), STRICT, None),
        (principal("blue", "alpha", authority=EVIL), STRICT, Reason.UNKNOWN_AUTHORITY),
        (principal("blue", "alpha", authority=EVIL), Rules(authorities=frozenset({EVIL})), None),
        (
            principal("blue", "alpha", authority=Authority("https://login.microsoftonline.us")),
            STRICT,
            None,
        ),
        (
            principal("blue", "alpha", secret=ObjectRef("green", "s")),
            STRICT,
            Reason.FOREIGN_SECRET,
        ),
        (
            principal("blue", "alpha", secret=ObjectRef("green", "s")),
            Rules(foreign_secrets=True),
            None,
        ),
        (
            principal("blue", "alpha", secret=ObjectRef("green", "s"), authority=EVIL),
            Rules(foreign_secrets=True),
            Reason.UNKNOWN_AUTHORITY,
        ),
        (identity("blue", "alpha", namespaced=True), STRICT, None),
        (identity("blue", "alpha", namespaced=True), Rules(cross_namespace=True), None),
    ],
)
def test_an_identity_is_used_or_refused_by_what_it_says_of_secret_and_authority(
    made: AzureIdentity, chosen: Rules, reason: Reason | None
) -> None:
    found = match(pod(), bound(made), chosen)
    assert [each.reason for each in found.refusals] == ([reason] if reason else [])
    assert [each.identity for each in found.entitlements] == ([] if reason else [made])


@pytest.mark.parametrize(
    ("namespaced", "chosen", "reason"),
    [
        (False, STRICT, Reason.OTHER_NAMESPACE),
        (False, Rules(cross_namespace=True), None),
        (True, Rules(cross_namespace=True), Reason.OTHER_NAMESPACE),
    ],
)
def test_a_binding_of_another_namespace_counts_only_where_that_was_chosen_on_both_sides(
    namespaced: bool, chosen: Rules, reason: Reason | None
) -> None:
    world = bound(identity("green", "alpha", namespaced=namespaced))
    found = match(pod("blue"), world, chosen)
    assert [each.reason for each in found.refusals] == ([reason] if reason else [])
    assert bool(found.entitlements) is (reason is None)
    for refusal in found.refusals:
        assert "green" not in refusal.public


def test_a_binding_never_names_an_identity_of_another_namespace_than_its_own() -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("green", "alpha")])
    for chosen in (STRICT, Rules(cross_namespace=True)):
        [refusal] = match(pod(), world, chosen).refusals
        assert refusal.reason is Reason.NO_IDENTITY
