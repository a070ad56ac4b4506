"""Properties of every match, for any cluster and any choice of the operator; then each way."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.decision import MOST_BOUND, STRICT, Basis, Match, Rules, match, uses_of
from podidentity.core.refusals import Reason
from podidentity.core.resources import (
    AssertionSubject,
    Authority,
    AzureAssignedIdentity,
    AzureIdentity,
    IdentityType,
    Malformed,
    ObjectRef,
    Phase,
    Pod,
    Tenant,
    WorkloadIdentity,
)
from tests.core.objects import TENANT, binding, client_id, identity, pod, principal, record, system
from tests.core.worlds import EVIL, World, occurs, pods, rules, worlds

MATCHING = st.tuples(worlds(), pods(), rules())

NOT_OF_MATCHING = {
    Reason.NOT_AMONG,
    Reason.AMBIGUOUS,
    Reason.NOT_A_PROVIDER,
    Reason.NO_CSI_VOLUME,
    Reason.MADE_BY_PROXY,
    Reason.ADDRESS_CONTESTED,
    Reason.RUNTIME_CLASS,
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


@pytest.mark.parametrize(("number", "more"), [(10, "ns-09 has"), (11, "ns-09 and 1 more has")])
def test_of_the_namespaces_that_have_the_selector_ten_are_named(number: int, more: str) -> None:
    elsewhere = [binding(f"ns-{each:02}", "b", "alpha", "app") for each in range(number)]
    [refusal] = match(pod(), World(elsewhere)).refusals
    assert f", {more} one," in refusal.message


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
    def refuses(pair: tuple[Pod, World]) -> bool:
        asker, world = pair
        return any(each.reason is reason for each in match(asker, world, STRICT).refusals)

    # In this order the rarest of them, an exception that is ignored, comes a dozen times as soon.
    occurs(st.tuples(pods(), worlds()), refuses)


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
        if chosen.cross_namespace:
            told = "No AzureIdentity of namespace blue is bound to the pod."
            assert refusal.public == told, "it says so itself"


def test_a_binding_never_names_an_identity_of_another_namespace_than_its_own() -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("green", "alpha")])
    for chosen in (STRICT, Rules(cross_namespace=True)):
        [refusal] = match(pod(), world, chosen).refusals
        assert refusal.reason is Reason.NO_IDENTITY


STANDARD = Rules(standard=True)


@given(worlds(), pods(), rules())
def test_no_record_however_forged_adds_an_entitlement(
    world: World, asker: Pod, chosen: Rules
) -> None:
    without = match(asker, replace(world, records=[]), chosen)
    found = match(asker, world, chosen)
    bare = [replace(each, awaited=None) for each in found.entitlements]
    assert bare == [replace(each, awaited=None) for each in without.entitlements]
    assert (found.exception, found.refusals) == (without.exception, without.refusals)


@given(worlds(), pods(), rules())
def test_in_managed_mode_nothing_is_waited_for(world: World, asker: Pod, chosen: Rules) -> None:
    for each in match(asker, world, replace(chosen, standard=False)).entitlements:
        assert each.awaited is None


@pytest.mark.parametrize("awaited", [True, False])
def test_records_that_count_occur_and_such_that_do_not(awaited: bool) -> None:
    def yields(case: tuple[World, Pod, Rules]) -> bool:
        world, asker, chosen = case
        if not chosen.standard or not world.assigned(asker.ref):
            return False
        found = match(asker, world, chosen).entitlements
        return any(each.identity.resource_id and bool(each.awaited) is awaited for each in found)

    occurs(MATCHING, yields)


ASSIGNED = record("blue", "alpha", "Assigned")


@pytest.mark.parametrize(
    ("records", "says"),
    [
        ([], "no AzureAssignedIdentity yet"),
        ([ASSIGNED], ""),
        ([record("blue", "alpha", "Created")], "AzureAssignedIdentity is Created"),
        ([record("blue", "alpha", "Unassigned")], "AzureAssignedIdentity is Unassigned"),
        ([record("blue", "alpha", "Created"), ASSIGNED], ""),
        ([ASSIGNED, record("blue", "alpha", "Unassigned")], ""),
        (
            [record("blue", "alpha", "Unassigned"), record("blue", "alpha", "Created")],
            "AzureAssignedIdentity is Created",
        ),
        # Records of another pod, node, identity or namespace say nothing of this one.
        ([replace(ASSIGNED, pod=ObjectRef("blue", "pod-2"))], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, pod=ObjectRef("green", "pod"))], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, node="n2")], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, node="")], "no AzureAssignedIdentity yet"),
        ([record("blue", "beta", "Assigned")], "no AzureAssignedIdentity yet"),
        ([record("green", "alpha", "Assigned")], "no AzureAssignedIdentity yet"),
        ([replace(ASSIGNED, ref=ObjectRef("any", "where"))], ""),
    ],
)
def test_what_a_record_must_say_for_its_pod(
    records: list[AzureAssignedIdentity], says: str
) -> None:
    world = World([binding("blue", "b", "alpha", "app")], [identity("blue", "alpha")])
    world.records = records
    [found] = match(pod(), world, STANDARD).entitlements
    if not says:
        assert found.awaited is None
        return
    assert found.awaited is not None
    assert found.awaited.reason is Reason.NOT_ASSIGNED
    assert found.awaited.message.endswith(f"{says}.")
    assert found.awaited.public == "The identity alpha is not assigned to the pod's node yet."


@pytest.mark.parametrize("made", [principal("blue", "alpha"), system("blue", "alpha")])
def test_what_no_controller_attaches_is_not_waited_for(made: Any) -> None:
    world = World([binding("blue", "b", "alpha", "app")], [made])
    [found] = match(pod(), world, STANDARD).entitlements
    assert found.awaited is None


def test_an_assigned_record_of_an_identity_that_is_gone_gives_nothing() -> None:
    world = World([binding("blue", "b", "alpha", "app")], records=[ASSIGNED])
    found = match(pod(), world, STANDARD)
    assert (found.entitlements, found.refusals[0].reason) == ((), Reason.NO_IDENTITY)


WEB = ObjectRef("blue", "web")
ANNOTATED = WorkloadIdentity(ref=WEB, client_id=client_id(3), tenant=TENANT)


def test_a_pod_without_a_label_is_federated_as_its_own_service_account() -> None:
    world = World(accounts=[ANNOTATED])
    [found] = match(pod(selector=None, service_account="web"), world).entitlements
    assert found.basis is Basis.SERVICE_ACCOUNT
    assert (found.identity.type, found.identity.client_id) == (IdentityType.FEDERATED, client_id(3))
    entra = found.identity.entra
    assert entra is not None
    assert entra.federation is not None
    assert (entra.tenant, entra.federation.subject) == (TENANT, AssertionSubject.POD)
    assert entra.federation.via is None


def test_what_entra_decides_itself_needs_no_permission_of_the_cluster() -> None:
    asker = pod(selector=None, service_account="web")
    [found] = match(asker, World(accounts=[ANNOTATED])).entitlements
    assert uses_of(asker, found) == ()


def test_the_label_wins_even_where_it_leads_nowhere() -> None:
    asker = pod(service_account="web")
    world = World([binding("blue", "b", "alpha", "app")], [identity("blue", "alpha")])
    world.accounts = [ANNOTATED]
    [found] = match(asker, world).entitlements
    assert found.basis is Basis.BINDING
    [refusal] = match(asker, World(accounts=[ANNOTATED])).refusals
    assert refusal.reason is Reason.NO_BINDING


def test_an_empty_label_is_none() -> None:
    asker = pod(selector="", service_account="web")
    assert match(asker, World(accounts=[ANNOTATED])).entitlements


def test_only_the_pods_own_service_account_in_its_own_namespace_counts() -> None:
    for other in (
        pod(selector=None),
        pod(selector=None, service_account="Web"),
        pod("green", selector=None, service_account="web"),
    ):
        [refusal] = match(other, World(accounts=[ANNOTATED])).refusals
        assert refusal.reason is Reason.NO_LABEL


def test_a_tenant_comes_from_the_annotation_or_from_the_agent_and_without_one_nothing_does() -> (
    None
):
    asker = pod(selector=None, service_account="web")
    bare = World(accounts=[WorkloadIdentity(ref=WEB, client_id=client_id(3))])
    [refusal] = match(asker, bare).refusals
    assert refusal.reason is Reason.NO_TENANT
    assert "azure.workload.identity/tenant-id" in refusal.next_step
    ours = Tenant.parse("contoso.example")
    for world, expected in ((bare, ours), (World(accounts=[ANNOTATED]), TENANT)):
        [found] = match(asker, world, Rules(tenant=ours)).entitlements
        assert found.identity.entra is not None
        assert found.identity.entra.tenant == expected


def test_an_annotation_that_cannot_be_used_says_why() -> None:
    bad = Malformed(ref=WEB, kind="ServiceAccount", why="its annotation … must be a GUID")
    [refusal] = match(pod(selector=None, service_account="web"), World(accounts=[bad])).refusals
    assert refusal.reason is Reason.MALFORMED_IDENTITY
    assert refusal.message == (
        "ServiceAccount blue/web cannot be used: its annotation … must be a GUID."
    )


def test_standard_mode_makes_nobody_wait_for_a_federated_identity() -> None:
    asker = pod(selector=None, service_account="web")
    [found] = match(asker, World(accounts=[ANNOTATED]), Rules(standard=True)).entitlements
    assert found.awaited is None
