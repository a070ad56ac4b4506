"""Metrics have the archived project's names, and labels that are bounded whatever pods ask for."""

from __future__ import annotations

import pytest

from podidentity.core.errors import UnknownCaller
from podidentity.core.resources import IdentityType, ObjectRef, TokenRequest
from podidentity.nmi.reporting.metrics import kubernetes_operation
from podidentity.nmi.reporting.request_log import AUDIENCES_OF_NAMESPACE, operation_of, source_of
from tests.fakes import VAULT, FakeClock, identity, pod
from tests.nmi.outcomes import QUERY, granted, refused
from tests.nmi.recorded import Recorded


async def test_audiences_that_nobody_gets_a_token_for_have_no_label_of_their_own() -> None:
    record = Recorded(FakeClock())
    for number in range(10_000):
        asked = QUERY._replace(request=TokenRequest(resource=f"https://{number}"))
        await record.record.token(asked, refused(UnknownCaller("x"), None), 404, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == 1
    assert counts[0].endswith('resource="other"} 10000')


async def test_audiences_with_tokens_have_labels_up_to_a_bound_with_or_without_a_slash() -> None:
    record = Recorded(FakeClock())
    for resource in (VAULT, f"{VAULT}/", *(f"https://{number}" for number in range(10_000))):
        asked = QUERY._replace(request=TokenRequest(resource=resource))
        await record.record.token(asked, granted(), 200, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == AUDIENCES_OF_NAMESPACE + 1
    assert any(each.endswith(f'resource="{VAULT}"}} 2') for each in counts)


async def test_the_audiences_of_one_namespace_take_no_label_from_another() -> None:
    record = Recorded(FakeClock())
    for number in range(1000):
        asked = QUERY._replace(request=TokenRequest(resource=f"https://{number}"))
        await record.record.token(asked, granted(to=pod(ref=ObjectRef("red", "p"))), 200, 0.0)
    await record.record.token(QUERY, granted(), 200, 0.0)
    for number in range(1000):
        asked = QUERY._replace(request=TokenRequest(resource=f"https://{number}"))
        await record.record.token(asked, granted(), 200, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    shop = [each for each in counts if 'namespace="shop"' in each]
    assert any(each.endswith(f'resource="{VAULT}"}} 1') for each in shop)
    assert len(shop) == len(counts) - len(shop) == AUDIENCES_OF_NAMESPACE + 1


async def test_namespaces_that_come_and_go_are_bounded_with_all_else() -> None:
    record = Recorded(FakeClock())
    for number in range(2000):
        owner = pod(ref=ObjectRef(f"ns-{number}", "p"), uid=f"{number}")
        await record.record.token(QUERY, granted(to=owner), 200, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == 501
    assert sum(int(each.rpartition(" ")[2]) for each in counts) == 2000


@pytest.mark.parametrize(
    ("method", "path", "name"),
    [
        ("GET", "/api/v1/pods", "get_pod_list"),
        ("GET", "/api/v1/namespaces/shop/secrets/s", "get_secret"),
        ("WATCH", "/api/v1/pods", "watch_pods"),
        (
            "POST",
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            "create_subjectaccessreviews",
        ),
        ("PATCH", "/api/v1/namespaces/shop/events/e", "patch_events"),
        ("GET", "/apis/aadpodidentity.k8s.io/v1/azureidentities", "get_azureidentities"),
        ("GET", "/api/v1/namespaces", "get_namespaces"),
        ("GET", "/version", "get_api"),
        ("BREW", "/api/v1/pods", "other_pods"),
    ],
)
def test_a_failed_request_has_the_old_name_where_the_archived_agent_made_it(
    method: str, path: str, name: str
) -> None:
    assert kubernetes_operation(method, path) == name


@pytest.mark.parametrize("kind", IdentityType)
def test_every_type_of_identity_has_a_source_and_an_old_name(kind: IdentityType) -> None:
    managed = kind is IdentityType.USER_ASSIGNED
    of = identity(type=kind)
    assert source_of(of) == ("imds" if managed else "entra")
    assert operation_of(of) == ("adal_token_msi_userassignedid" if managed else "adal_token")


def test_the_nodes_own_identity_has_the_old_name_without_an_id() -> None:
    assert operation_of(identity(client_id=None, resource_id=None, system_assigned=True)) == (
        "adal_token_msi"
    )
