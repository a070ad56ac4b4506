"""Custom resources and annotated service accounts: right and wrong, long and deep."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.resources import (
    AssertionSubject,
    Assignment,
    Authority,
    AzureAssignedIdentity,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    Malformed,
    ObjectId,
    ObjectRef,
    ResourceId,
    Tenant,
    WorkloadIdentity,
)
from podidentity.wire.manifests import (
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_identity,
    parse_service_account,
    render_binding,
    render_identity,
)
from tests.fakes import CLIENT, OTHER_CLIENT, RESOURCE_ID

META = {"namespace": "shop", "name": "orders"}
REF = ObjectRef("shop", "orders")
ENORMOUS = "x" * 1_000_000

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def raw(spec: Any, status: Any = None, **meta: Any) -> bytes:
    """Return an object named shop/orders."""
    content = {"metadata": META | meta, "spec": spec}
    return json.dumps(content if status is None else content | {"status": status}).encode()


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


def test_of_auxiliary_tenants_empty_ones_are_left_out() -> None:
    entra = good(SECRET | {"auxiliaryTenantIDs": ["", "contoso.example", None]}).entra
    assert entra is not None
    assert entra.auxiliary_tenants == (Tenant("contoso.example"),)


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
        subject=AssertionSubject.IDENTITY, audience="api://a", via=ResourceId.parse(RESOURCE_ID)
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
        (MSI | {"type": 1.0}, "spec.type must be 0, 1, 2 or 3, not 1.0"),
        (MSI | {"type": True}, "spec.type must be 0, 1, 2 or 3, not True"),
        (MSI | {"type": 4}, "spec.type must be 0, 1, 2 or 3, not 4"),
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
            "spec.federation.audience must be at most 600 characters of ASCII "
            "without spaces, not 3",
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


def test_the_old_spellings_of_identities_are_read() -> None:
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
            "type": 2,
            "clientID": CLIENT,
            "tenantID": TENANT,
            "clientPassword": {"name": "s", "namespace": "shop"},
        },
        {
            "type": 3,
            "clientID": CLIENT,
            "tenantID": TENANT,
            "federation": {"subject": "pod"},
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


Parse = Callable[[bytes], Any]
KINDS: dict[Parse, str] = {
    parse_binding: "AzureIdentityBinding",
    parse_exception: "AzurePodIdentityException",
    parse_assigned: "AzureAssignedIdentity",
}
COPY = {"metadata": {"name": "orders", "namespace": "shop"}}
RECORD = {
    "pod": "orders-0",
    "podNamespace": "shop",
    "nodename": "n1",
    "azureIdentityRef": COPY,
    "azureBindingRef": {"metadata": {"name": "b"}},
}


def test_a_binding_is_read() -> None:
    found = parse_binding(raw({"azureIdentity": "orders", "selector": "app", "weight": 5}))
    assert found == AzureIdentityBinding(ref=REF, identity="orders", selector="app", weight=5)


def test_an_exception_is_read_with_its_labels_and_its_list() -> None:
    listed = [CLIENT.upper(), f" {RESOURCE_ID} ", OTHER_CLIENT]
    spec = {"podLabels": {"app": "web"}, "azureIdentities": listed}
    assert parse_exception(raw(spec)) == AzurePodIdentityException(
        ref=REF,
        pod_labels={"app": "web"},
        identities=(
            ClientId.parse(CLIENT),
            ResourceId.parse(RESOURCE_ID),
            ClientId.parse(OTHER_CLIENT),
        ),
    )
    assert parse_exception(raw({})) == AzurePodIdentityException(ref=REF, pod_labels={})


def test_a_record_says_which_pod_identity_and_node_and_how_far_it_is() -> None:
    assert parse_assigned(raw(RECORD, {"status": "Created"})) == AzureAssignedIdentity(
        ref=REF,
        pod=ObjectRef("shop", "orders-0"),
        identity=ObjectRef("shop", "orders"),
        node="n1",
        state=Assignment.CREATED,
    )


@pytest.mark.parametrize("status", [None, {}, {"status": ""}, {"status": None}, [], "Created"])
def test_a_record_without_a_state_is_assigned_as_old_releases_left_it(status: Any) -> None:
    found = parse_assigned(raw(RECORD, status))
    assert isinstance(found, AzureAssignedIdentity)
    assert found.state is Assignment.ASSIGNED


def test_an_identity_that_a_record_names_without_a_namespace_is_in_none() -> None:
    found = parse_assigned(raw(RECORD | {"azureIdentityRef": {"metadata": {"name": "orders"}}}))
    assert isinstance(found, AzureAssignedIdentity)
    assert found.identity == ObjectRef("", "orders")


def test_what_a_record_copies_is_not_read() -> None:
    forged = COPY | {"spec": {"clientID": OTHER_CLIENT, "clientPassword": {"namespace": "bank"}}}
    plain = parse_assigned(raw(RECORD))
    assert parse_assigned(raw(RECORD | {"azureIdentityRef": forged, "azureBindingRef": 3})) == plain


def test_the_old_spellings_of_bindings_exceptions_and_records_are_read() -> None:
    new = {"azureIdentity": "orders", "selector": "app"}
    assert parse_binding(raw({"AzureIdentity": "orders", "Selector": "app"})) == parse_binding(
        raw(new)
    )
    assert parse_exception(raw({"PodLabels": {"a": "b"}})) == parse_exception(
        raw({"podLabels": {"a": "b"}})
    )
    old = {name: value for name, value in RECORD.items() if name != "azureIdentityRef"}
    made = {"metadata": META, "spec": old | {"azureidentityref": COPY}}
    for status in ({"Status": {"Status": "Created"}}, {"Status": {"status": "Created"}}):
        assert parse_assigned(json.dumps(made | status).encode()) == (
            parse_assigned(raw(RECORD, {"status": "Created"}))
        )


@pytest.mark.parametrize(
    ("parse", "spec", "why"),
    [
        (parse_binding, None, "spec is missing"),
        (parse_binding, {"selector": "app"}, "spec.azureIdentity is missing"),
        (parse_binding, {"azureIdentity": "orders"}, "spec.selector is missing"),
        (parse_binding, {"azureIdentity": "o", "selector": ""}, "spec.selector is empty"),
        (parse_binding, {"azureIdentity": "o", "selector": 1}, "spec.selector must be a string"),
        (
            parse_binding,
            {"azureIdentity": "o", "selector": "a),app in (b"},
            "spec.selector must be a value that a label can have, not 'a),app in (b'",
        ),
        (
            parse_binding,
            {"azureIdentity": "\x1b[2Jo", "selector": "a"},
            "spec.azureIdentity must be a name of Kubernetes, not '\\x1b[2Jo'",
        ),
        (parse_binding, {"azureIdentity": [], "selector": "a"}, "spec.azureIdentity must be a"),
        (
            parse_binding,
            {"azureIdentity": "o", "selector": "a", "weight": "9"},
            "spec.weight must be an integer, not '9'",
        ),
        (
            parse_binding,
            {"azureIdentity": "o", "selector": "a", "weight": True},
            "spec.weight must be an integer, not True",
        ),
        (parse_exception, [], "spec must be an object"),
        (parse_exception, {"podLabels": ["app"]}, "spec.podLabels must be labels and their"),
        (parse_exception, {"podLabels": {"app": 1}}, "spec.podLabels must be labels and their"),
        (parse_exception, {"azureIdentities": CLIENT}, "spec.azureIdentities must be a list"),
        (parse_exception, {"azureIdentities": ["x"]}, "spec.azureIdentities must be a GUID"),
        (parse_exception, {"azureIdentities": ["/s"]}, "spec.azureIdentities must match /sub"),
        (parse_exception, {"azureIdentities": [CLIENT, 3]}, "spec.azureIdentities must be a GUID"),
        (
            parse_exception,
            {"azureIdentities": [CLIENT] * 101},
            "spec.azureIdentities must be a list of at most 100, not [",
        ),
        (
            parse_exception,
            {"podLabels": {f"app-{number}": "" for number in range(101)}},
            "spec.podLabels must be at most 100 labels that a pod can have, not {",
        ),
        (parse_assigned, RECORD | {"pod": ""}, "spec.pod is empty"),
        (parse_assigned, RECORD | {"podNamespace": None}, "spec.podNamespace is missing"),
        (parse_assigned, RECORD | {"nodename": 3}, "spec.nodename must be a string"),
        (parse_assigned, RECORD | {"azureIdentityRef": None}, "spec.azureIdentityRef.metadata is"),
        (parse_assigned, RECORD | {"azureIdentityRef": {}}, "spec.azureIdentityRef.metadata is"),
        (
            parse_assigned,
            RECORD | {"azureIdentityRef": {"metadata": {"namespace": "a"}}},
            "spec.azureIdentityRef.metadata.name is missing",
        ),
    ],
)
def test_what_cannot_be_used_says_why(parse: Parse, spec: Any, why: str) -> None:
    found = parse(raw(spec))
    assert isinstance(found, Malformed)
    assert (found.kind, found.ref, found.why[: len(why)]) == (KINDS[parse], REF, why)


@pytest.mark.parametrize(
    ("spec", "selector"),
    [
        ({"selector": "app"}, "app"),
        ({"Selector": "app"}, "app"),
        ({"azureIdentity": "a"}, ""),
        ({"azureIdentity": "a", "selector": ""}, ""),
        ({"azureIdentity": "a", "selector": 3}, ""),
        ([], ""),
    ],
)
def test_a_binding_that_cannot_be_used_says_for_which_pods_it_is(spec: Any, selector: str) -> None:
    found = parse_binding(raw(spec))
    assert isinstance(found, Malformed)
    assert found.selector == selector


@pytest.mark.parametrize("state", ["assigned", "Deleted", 3, {}, ["Assigned"], "x" * 60_000])
def test_a_record_in_an_unknown_state_says_nothing(state: Any) -> None:
    found = parse_assigned(raw(RECORD, {"status": state}))
    assert isinstance(found, Malformed)
    assert found.why.startswith("status.status must be Created, Assigned or Unassigned, not")
    assert len(found.why) < 200


ANNOTATIONS = "azure.workload.identity"


def account(**annotations: Any) -> bytes:
    named = {
        f"{ANNOTATIONS}/{name.replace('_', '-')}": value for name, value in annotations.items()
    }
    return raw(None, annotations=named)


def test_a_service_account_is_read_by_its_annotations() -> None:
    tenant = "contoso.example"
    assert parse_service_account(account(client_id=CLIENT, tenant_id=tenant)) == WorkloadIdentity(
        ref=REF, client_id=ClientId.parse(CLIENT), tenant=Tenant(tenant)
    )
    bare = parse_service_account(account(client_id=CLIENT))
    assert isinstance(bare, WorkloadIdentity)
    assert bare.tenant is None


@pytest.mark.parametrize("content", [raw(None), account(client_id=""), account(tenant_id="a.b")])
def test_a_service_account_without_a_client_id_is_only_a_name(content: bytes) -> None:
    assert parse_service_account(content) == REF


@pytest.mark.parametrize(
    "content",
    [account(client_id="x"), account(client_id=ENORMOUS), account(client_id=CLIENT, tenant_id="/")],
)
def test_an_annotation_that_cannot_be_used_says_so(content: bytes) -> None:
    found = parse_service_account(content)
    assert isinstance(found, Malformed)
    assert found.kind == "ServiceAccount"
    assert "azure.workload.identity/client-id or tenant-id must be" in found.why
    assert len(found.why) < 400


@pytest.mark.parametrize(
    ("parse", "names"),
    [
        (parse_binding, ["azureIdentity", "AzureIdentity", "selector", "Selector", "weight"]),
        (parse_exception, ["podLabels", "PodLabels", "azureIdentities"]),
        (parse_assigned, list(RECORD)),
    ],
)
def test_whatever_an_object_holds_it_is_a_value_or_malformed(
    parse: Parse, names: list[str]
) -> None:
    @given(st.dictionaries(st.sampled_from(names), JSON) | JSON, JSON)
    def holds(spec: Any, status: Any) -> None:
        assert parse(raw(spec, status)).ref == REF

    holds()


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"metadata":3}', b"\xff", b'{"metadata":{},"spec":' + b"[" * 10_000],
)
@pytest.mark.parametrize("parse", [parse_identity, parse_binding, parse_exception, parse_assigned])
def test_what_has_no_name_is_a_value_error(parse: Parse, text: bytes) -> None:
    with pytest.raises(ValueError, match="not a"):
        parse(text)


@pytest.mark.parametrize("parse", [parse_identity, parse_binding, parse_exception, parse_assigned])
def test_what_lacks_its_name_or_its_namespace_is_not_given_one(parse: Parse) -> None:
    assert parse(b'{"metadata":{"name":"a"}}').ref == ObjectRef("", "a")
    assert parse(b'{"metadata":{"namespace":"a"}}').ref == ObjectRef("a", "")


@pytest.mark.parametrize("text", [b"", b"[]", b"{}", b'{"metadata":3}', b"\xff"])
def test_a_service_account_without_a_name_is_a_value_error(text: bytes) -> None:
    with pytest.raises(ValueError, match="not a ServiceAccount"):
        parse_service_account(text)


def test_a_rendered_binding_is_what_was_read() -> None:
    for spec in (
        {"azureIdentity": "o", "selector": "a"},
        {"azureIdentity": "o", "selector": "a", "weight": 2},
    ):
        found = parse_binding(raw(spec))
        assert isinstance(found, AzureIdentityBinding)
        rendered = render_binding(found)
        assert rendered == {
            "apiVersion": "aadpodidentity.k8s.io/v1",
            "kind": "AzureIdentityBinding",
            "metadata": META,
            "spec": spec,
        }
        assert parse_binding(json.dumps(rendered).encode()) == found


@pytest.mark.parametrize(
    ("parse", "spec"),
    [
        (parse_binding, {"azureIdentity": "orders", "selector": "a" * 64}),
        (parse_binding, {"azureIdentity": "orders", "selector": ENORMOUS}),
        (parse_binding, {"azureIdentity": ENORMOUS, "selector": "app"}),
        (parse_exception, {"podLabels": {"app": ENORMOUS}}),
        (parse_exception, {"podLabels": {ENORMOUS: "app"}}),
        (parse_exception, {"podLabels": {f"app-{number}": "" for number in range(101)}}),
        (parse_exception, {"azureIdentities": [CLIENT] * 101}),
        (
            parse_assigned,
            RECORD | {"pod": ENORMOUS, "azureIdentityRef": {"metadata": {"name": "a"}}},
        ),
        (parse_assigned, RECORD | {"azureIdentityRef": {"metadata": {"name": ENORMOUS}}}),
    ],
)
def test_what_no_object_can_be_named_fills_no_memory(parse: Parse, spec: Any) -> None:
    found = parse(raw(spec))
    assert isinstance(found, Malformed)
    assert len(found.why) < 200
    assert len(found.selector) < 64


TYPED = "\x1b]0;owned\x07"
"""What a terminal obeys."""


TEXTS: dict[str, tuple[Parse, Callable[[str], Any]]] = {
    "an audience": (parse_identity, lambda odd: FEDERATED | {"federation": {"audience": odd}}),
    "an identity's name": (parse_binding, lambda odd: {"azureIdentity": odd, "selector": "a"}),
    "a selector": (parse_binding, lambda odd: {"azureIdentity": "o", "selector": odd}),
    "a label's key": (parse_exception, lambda odd: {"podLabels": {odd: "a"}}),
    "a label's value": (parse_exception, lambda odd: {"podLabels": {"a": odd}}),
    "an id": (parse_exception, lambda odd: {"azureIdentities": [odd]}),
    "a pod's name": (parse_assigned, lambda odd: RECORD | {"pod": odd}),
    "a pod's namespace": (parse_assigned, lambda odd: RECORD | {"podNamespace": odd}),
    "a node's name": (parse_assigned, lambda odd: RECORD | {"nodename": odd}),
    "a record's identity": (
        parse_assigned,
        lambda odd: RECORD | {"azureIdentityRef": {"metadata": {"name": odd}}},
    ),
    "its namespace": (
        parse_assigned,
        lambda odd: RECORD | {"azureIdentityRef": {"metadata": {"name": "o", "namespace": odd}}},
    ),
}


@pytest.mark.parametrize("odd", [TYPED, "\x9b2J", "x\ny", "\u202egnp"])
@pytest.mark.parametrize("what", TEXTS)
def test_no_text_of_a_tenant_writes_to_the_terminal_of_who_lists_it(what: str, odd: str) -> None:
    parse, spec = TEXTS[what]
    found = parse(raw(spec(odd)))
    assert isinstance(found, Malformed)
    assert found.why.isprintable()
    assert found.selector.isprintable()


BOUND = {"azureIdentity": "orders", "selector": "app"}
LIMITS: dict[str, tuple[Parse, Callable[[int], Any], int]] = {
    "a secret's name": (
        parse_identity,
        lambda n: SECRET | {"clientPassword": {"name": "x" * n}},
        253,
    ),
    "a secret's namespace": (
        parse_identity,
        lambda n: SECRET | {"clientPassword": {"name": "s", "namespace": "x" * n}},
        253,
    ),
    "auxiliary tenants": (
        parse_identity,
        lambda n: SECRET | {"auxiliaryTenantIDs": ["a.example"] * n},
        3,
    ),
    "an audience": (
        parse_identity,
        lambda n: FEDERATED | {"federation": {"audience": "x" * n}},
        600,
    ),
    "an identity's name": (parse_binding, lambda n: BOUND | {"azureIdentity": "x" * n}, 253),
    "a selector": (parse_binding, lambda n: BOUND | {"selector": "x" * n}, 63),
    # It may have a domain and a slash before its name.
    "a label's key": (parse_exception, lambda n: {"podLabels": {"x" * n: ""}}, 253 + 1 + 63),
    "a label's value": (parse_exception, lambda n: {"podLabels": {"app": "x" * n}}, 63),
    "labels": (
        parse_exception,
        lambda n: {"podLabels": {f"app-{each}": "" for each in range(n)}},
        100,
    ),
    "identities": (parse_exception, lambda n: {"azureIdentities": [CLIENT] * n}, 100),
    "a pod's name": (parse_assigned, lambda n: RECORD | {"pod": "x" * n}, 253),
    "a pod's namespace": (parse_assigned, lambda n: RECORD | {"podNamespace": "x" * n}, 253),
    "a node's name": (parse_assigned, lambda n: RECORD | {"nodename": "x" * n}, 253),
    "a record's identity": (
        parse_assigned,
        lambda n: RECORD | {"azureIdentityRef": {"metadata": {"name": "x" * n}}},
        253,
    ),
    "its namespace": (
        parse_assigned,
        lambda n: RECORD | {"azureIdentityRef": {"metadata": {"name": "a", "namespace": "x" * n}}},
        253,
    ),
}


@pytest.mark.parametrize("what", LIMITS)
def test_what_is_as_long_as_it_may_be_is_read_and_one_more_is_not(what: str) -> None:
    parse, of_size, most = LIMITS[what]
    assert not isinstance(parse(raw(of_size(most))), Malformed)
    assert isinstance(parse(raw(of_size(most + 1))), Malformed)


@pytest.mark.parametrize("depth", range(940, 1000))
def test_a_value_is_a_value_error_or_malformed_however_deep_it_is(depth: int) -> None:
    spec = b'{"azureIdentity":"o","selector":"a","weight":' + b"[" * depth + b"]" * depth + b"}"
    with suppress(ValueError):
        assert isinstance(
            parse_binding(b'{"metadata":{"name":"o"},"spec":' + spec + b"}"), Malformed
        )
