from __future__ import annotations

import pytest

from podidentity.core.resources import IdentityType
from podidentity.nmi.reporting.metrics import kubernetes_operation
from podidentity.nmi.reporting.request_log import operation_of, source_of
from tests.fakes import identity


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
