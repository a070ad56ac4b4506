"""Bindings, exceptions, the controller's records, annotated service accounts: good and bad."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.authorities import Tenant
from podidentity.core.ids import ClientId, ObjectRef, ResourceId
from podidentity.core.resources import (
    Assignment,
    AzureAssignedIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
    WorkloadIdentity,
)
from podidentity.wire.manifests import (
    parse_assigned,
    parse_binding,
    parse_exception,
    parse_identity,
    parse_service_account,
    render_binding,
)
from tests.fakes import CLIENT, OTHER_CLIENT, RESOURCE_ID
from tests.wire.manifests import ENORMOUS, JSON, META, REF, raw

Parse = Callable[[bytes], Any]
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
    listed = [CLIENT.upper(), RESOURCE_ID, OTHER_CLIENT]
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


def test_what_a_record_copies_is_not_read() -> None:
    forged = COPY | {"spec": {"clientID": OTHER_CLIENT, "clientPassword": {"namespace": "bank"}}}
    plain = parse_assigned(raw(RECORD))
    assert parse_assigned(raw(RECORD | {"azureIdentityRef": forged, "azureBindingRef": 3})) == plain


def test_the_spellings_of_old_releases_are_read() -> None:
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
    assert (found.ref, found.why[: len(why)]) == (REF, why)


@pytest.mark.parametrize("state", ["assigned", "Deleted", 3, {}, ["Assigned"], ENORMOUS])
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
