"""AzureIdentities: each field missing, wrong or enormous; what is rendered."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import Authority, Tenant
from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId
from podidentity.core.resources import (
    AzureIdentity,
    Entra,
    Federation,
    IdentityType,
    Malformed,
    Subject,
)
from podidentity.wire.manifests import parse_identity, render_identity
from tests.fakes import CLIENT, RESOURCE_ID
from tests.wire.manifests import ENORMOUS, JSON, META, REF, raw

TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
MSI = {"clientID": CLIENT}
SECRET = {"type": 1, "clientID": CLIENT, "tenantID": TENANT, "clientPassword": {"name": "s"}}
FEDERATED = {"type": 3, "clientID": CLIENT, "tenantID": TENANT}
FIELDS = [
    *["type", "clientID", "ClientID", "resourceID", "objectID", "tenantID", "TenantID"],
    *["adEndpoint", "auxiliaryTenantIDs", "clientPassword", "ClientPassword", "federation"],
]


def good(spec: Any, **meta: Any) -> AzureIdentity:
    found = parse_identity(raw(spec, **meta))
    assert isinstance(found, AzureIdentity), found
    return found


def test_an_identity_is_read_with_all_its_ids() -> None:
    assert good(MSI | {"type": 0, "resourceID": RESOURCE_ID, "objectID": CLIENT}) == AzureIdentity(
        ref=REF,
        type=IdentityType.USER_ASSIGNED,
        client_id=ClientId.parse(CLIENT),
        resource_id=ResourceId.parse(RESOURCE_ID),
        object_id=ObjectId.parse(CLIENT),
    )


@pytest.mark.parametrize("spelling", ["system-assigned", "System-Assigned", " system-assigned "])
def test_the_nodes_own_identity_has_a_name_and_no_id(spelling: str) -> None:
    found = good({"resourceID": spelling})
    assert found.system_assigned
    assert (found.client_id, found.resource_id) == (None, None)


def test_a_service_principal_is_read_with_all_its_fields() -> None:
    found = good(
        SECRET
        | {
            "adEndpoint": "https://login.microsoftonline.us/",
            "auxiliaryTenantIDs": ["Contoso.example"],
            "clientPassword": {"name": "s", "namespace": "bank"},
        }
    )
    assert found.type is IdentityType.SERVICE_PRINCIPAL
    assert found.entra == Entra(
        tenant=Tenant(TENANT),
        authority=Authority("https://login.microsoftonline.us"),
        auxiliary_tenants=(Tenant("contoso.example"),),
        secret=ObjectRef("bank", "s"),
    )


def test_a_secret_without_a_namespace_is_of_the_identitys_own() -> None:
    for kind in (1, 2):
        entra = good(SECRET | {"type": kind}).entra
        assert entra is not None
        assert entra.secret == ObjectRef("shop", "s")


def test_a_federated_identity_is_read_and_is_the_pods_own_unless_it_says_otherwise() -> None:
    entra = good(FEDERATED).entra
    assert entra is not None
    assert (entra.secret, entra.federation) == (None, Federation())
    entra = good(
        FEDERATED
        | {"federation": {"subject": "identity", "audience": "api://a", "via": RESOURCE_ID}}
    ).entra
    assert entra is not None
    assert entra.federation == Federation(
        subject=Subject.IDENTITY, audience="api://a", via=ResourceId.parse(RESOURCE_ID)
    )


@pytest.mark.parametrize(
    ("value", "namespaced"), [("namespaced", True), ("Namespaced", False), ("", False)]
)
def test_an_identity_says_by_an_annotation_that_it_is_for_its_namespace(
    value: str, namespaced: bool
) -> None:
    found = good(MSI, annotations={"aadpodidentity.k8s.io/Behavior": value})
    assert found.namespaced is namespaced


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (None, "spec is missing"),
        ([], "spec must be an object"),
        ({}, "spec.clientID is missing"),
        ({"clientID": ""}, "spec.clientID is missing"),
        ({"clientID": "x"}, "spec.clientID must be a GUID, not 'x'"),
        ({"clientID": 7}, "spec.clientID must be a GUID in a string, not int"),
        (MSI | {"type": "0"}, "spec.type must be 0, 1, 2 or 3, not '0'"),
        (MSI | {"type": True}, "spec.type must be 0, 1, 2 or 3, not True"),
        (MSI | {"objectID": "y"}, "spec.objectID must be a GUID, not 'y'"),
        (
            MSI | {"resourceID": "system-assigned"},
            "spec.clientID must not be given where spec.resourceID is system-assigned",
        ),
        (MSI | {"resourceID": 3}, "spec.resourceID must be an ARM id in a string, not int"),
        ({"type": 1, "tenantID": TENANT}, "spec.clientID is missing"),
        ({"type": 3, "resourceID": "system-assigned"}, "spec.clientID is missing"),
        (MSI | {"type": 1}, "spec.tenantID is missing"),
        (SECRET | {"tenantID": ""}, "spec.tenantID is missing"),
        (
            SECRET | {"tenantID": "../x"},
            "spec.tenantID must be a GUID or a domain name, not '../x'",
        ),
        (
            SECRET | {"adEndpoint": "http://login.microsoftonline.com"},
            "spec.adEndpoint must be https://HOST/ and nothing more, not "
            "'http://login.microsoftonline.com'",
        ),
        (SECRET | {"adEndpoint": {}}, "spec.adEndpoint must be an https URL, not dict"),
        (MSI | {"type": 1, "tenantID": TENANT}, "spec.clientPassword is missing"),
        (SECRET | {"clientPassword": {}}, "spec.clientPassword.name is missing"),
        (
            SECRET | {"clientPassword": {"name": "a/../b"}},
            "spec.clientPassword.name must be a name of Kubernetes, not 'a/../b'",
        ),
        (
            SECRET | {"clientPassword": "s"},
            "spec.clientPassword must be an object with the name of a secret, not 's'",
        ),
        (
            SECRET | {"clientPassword": {"name": "s", "namespace": 3}},
            "spec.clientPassword.namespace must be a name of Kubernetes, not 3",
        ),
        (
            SECRET | {"auxiliaryTenantIDs": "contoso.example"},
            "spec.auxiliaryTenantIDs must be a list, not 'contoso.example'",
        ),
        (
            SECRET | {"auxiliaryTenantIDs": ["contoso.example", "common"]},
            "spec.auxiliaryTenantIDs.1 must be a GUID or a domain name, not 'common'",
        ),
        (
            SECRET | {"auxiliaryTenantIDs": ["a.example"] * 4},
            "spec.auxiliaryTenantIDs has more than 3 tenants",
        ),
        (FEDERATED | {"federation": "pod"}, "spec.federation must be an object, not 'pod'"),
        (
            FEDERATED | {"federation": {"subject": "node"}},
            "spec.federation.subject must be pod or identity, not 'node'",
        ),
        (
            FEDERATED | {"federation": {"subject": ["pod"]}},
            "spec.federation.subject must be pod or identity, not ['pod']",
        ),
        (
            FEDERATED | {"federation": {"audience": 3}},
            "spec.federation.audience must be a string of at most 600 characters, not 3",
        ),
    ],
)
def test_an_identity_that_cannot_be_used_says_why(spec: Any, why: str) -> None:
    assert parse_identity(raw(spec)) == Malformed(ref=REF, kind="AzureIdentity", why=why)


@pytest.mark.parametrize("name", FIELDS)
def test_what_is_enormous_is_told_in_a_line_and_wrong(name: str) -> None:
    for base in (SECRET, FEDERATED):
        for value in (ENORMOUS, [ENORMOUS] * 3, {"name": 1, ENORMOUS: 1}, 10**400):
            found = parse_identity(raw(base | {name: value}))
            if isinstance(found, Malformed):
                assert len(found.why) < 400


@pytest.mark.parametrize("field", ["resourceID", "via"])
def test_a_bad_arm_id_makes_an_identity_unusable_though_its_client_id_is_good(field: str) -> None:
    bad = {"resourceID": "/s"}
    spec = MSI | bad if field == "resourceID" else FEDERATED | {"federation": {"via": "/s"}}
    found = parse_identity(raw(spec))
    assert isinstance(found, Malformed)
    assert f"{field} must match /subscriptions/<subscription>/" in found.why


def test_the_spellings_of_old_releases_are_read() -> None:
    assert good({"ClientID": CLIENT, "ResourceID": RESOURCE_ID}) == good(
        {"clientID": CLIENT, "resourceID": RESOURCE_ID}
    )
    old = {"ClientID": CLIENT, "TenantID": TENANT, "ClientPassword": {"Name": "s"}, "type": 1}
    assert good(old) == good(SECRET)


def test_fields_that_we_do_not_know_disturb_nothing() -> None:
    spec = MSI | {"replicas": "many", "metadata": 3, "clientPassword": [], "adResourceID": {}}
    assert good(spec) == good(MSI)


@given(st.dictionaries(st.sampled_from(FIELDS), JSON) | JSON, st.sampled_from([{}, SECRET]))
def test_whatever_an_identity_holds_it_is_a_value_or_malformed(spec: Any, base: Any) -> None:
    found = parse_identity(raw(base | spec if isinstance(spec, dict) else spec))
    assert isinstance(found, AzureIdentity | Malformed)


@pytest.mark.parametrize(
    "spec",
    [
        {"type": 0, "resourceID": RESOURCE_ID, "clientID": CLIENT, "objectID": CLIENT},
        {"type": 0, "resourceID": "system-assigned"},
        {
            "type": 1,
            "clientID": CLIENT,
            "tenantID": TENANT,
            "adEndpoint": "https://login.microsoftonline.com/",
            "auxiliaryTenantIDs": ["contoso.example"],
            "clientPassword": {"name": "s", "namespace": "shop"},
        },
        {
            "type": 3,
            "clientID": CLIENT,
            "tenantID": TENANT,
            "federation": {"subject": "identity", "audience": "api://a", "via": RESOURCE_ID},
        },
    ],
)
def test_what_is_rendered_is_what_was_read(spec: Any) -> None:
    rendered = render_identity(good(spec))
    assert rendered == {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentity",
        "metadata": META,
        "spec": spec,
    }
    assert parse_identity(json.dumps(rendered).encode()) == good(spec)
