"""Pods of azure-workload-identity: served by the annotations of their service account."""

from __future__ import annotations

from podidentity.core.authorities import Tenant
from podidentity.core.entitlements import Basis
from podidentity.core.ids import ObjectRef
from podidentity.core.matching import Rules, match
from podidentity.core.permission import uses_of
from podidentity.core.refusals import Reason
from podidentity.core.resources import AssertionSubject, IdentityType, Malformed, WorkloadIdentity
from tests.core.objects import TENANT, binding, client_id, identity, pod
from tests.core.worlds import World

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
