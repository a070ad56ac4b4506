from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.ids import ClientId, ObjectId, ObjectRef, ResourceId
from podidentity.core.resources import (
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
    Malformed,
)
from podidentity.wire.manifests import (
    parse_binding,
    parse_identity,
    render_binding,
    render_identity,
)
from tests.fakes import CLIENT, RESOURCE_ID

META = {"namespace": "shop", "name": "orders"}
JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
IDENTITY_FIELDS = ["type", "clientID", "ClientID", "resourceID", "ResourceID", "objectID"]
BINDING_FIELDS = ["azureIdentity", "AzureIdentity", "selector", "Selector", "weight"]


def raw(spec: Any, **meta: Any) -> bytes:
    return json.dumps({"metadata": META | meta, "spec": spec}).encode()


def test_an_identity_is_read_with_all_its_ids() -> None:
    found = parse_identity(
        raw({"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID, "objectID": CLIENT})
    )
    assert found == AzureIdentity(
        ref=ObjectRef("shop", "orders"),
        type=IdentityType.USER_ASSIGNED,
        client_id=ClientId.parse(CLIENT),
        resource_id=ResourceId.parse(RESOURCE_ID),
        object_id=ObjectId.parse(CLIENT),
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        (None, "spec is missing"),
        ([], "spec must be an object"),
        ({}, "spec.clientID is missing"),
        ({"clientID": ""}, "spec.clientID is missing"),
        ({"clientID": "x"}, "spec.clientID must be a GUID, not 'x'"),
        ({"clientID": 7}, "spec.clientID must be a GUID in a string, not int"),
        ({"clientID": CLIENT, "type": "0"}, "spec.type must be 0, 1, 2 or 3, not '0'"),
        ({"clientID": CLIENT, "type": True}, "spec.type must be 0, 1, 2 or 3, not True"),
        ({"clientID": CLIENT, "type": 4}, "spec.type must be 0, 1, 2 or 3, not 4"),
        ({"clientID": CLIENT, "objectID": "y"}, "spec.objectID must be a GUID, not 'y'"),
    ],
)
def test_an_identity_that_cannot_be_used_says_why(spec: Any, why: str) -> None:
    assert parse_identity(raw(spec)) == Malformed(
        ref=ObjectRef("shop", "orders"), kind="AzureIdentity", why=why
    )


def test_a_bad_resource_id_makes_an_identity_unusable_though_its_client_id_is_good() -> None:
    found = parse_identity(raw({"clientID": CLIENT, "resourceID": "/subscriptions/s"}))
    assert isinstance(found, Malformed)
    assert found.why.startswith("spec.resourceID must match /subscriptions/<subscription>/")


def test_the_spellings_of_old_releases_are_read() -> None:
    old = parse_identity(raw({"ClientID": CLIENT, "ResourceID": RESOURCE_ID}))
    assert old == parse_identity(raw({"clientID": CLIENT, "resourceID": RESOURCE_ID}))
    binding = parse_binding(raw({"AzureIdentity": "orders", "Selector": "app"}))
    assert binding == parse_binding(raw({"azureIdentity": "orders", "selector": "app"}))


def test_fields_that_we_do_not_know_disturb_nothing() -> None:
    spec = {"clientID": CLIENT, "replicas": "many", "metadata": 3, "clientPassword": []}
    assert isinstance(parse_identity(raw(spec)), AzureIdentity)


def test_a_binding_is_read() -> None:
    found = parse_binding(raw({"azureIdentity": "orders", "selector": "app", "weight": 5}))
    assert found == AzureIdentityBinding(
        ref=ObjectRef("shop", "orders"), identity="orders", selector="app", weight=5
    )


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"selector": "app"}, "spec.azureIdentity is missing"),
        ({"azureIdentity": "orders"}, "spec.selector is missing"),
        ({"azureIdentity": "orders", "selector": ""}, "spec.selector is empty"),
        ({"azureIdentity": "orders", "selector": 1}, "spec.selector must be a string, not 1"),
        (
            {"azureIdentity": "orders", "selector": "a", "weight": "9"},
            "spec.weight must be an integer, not '9'",
        ),
    ],
)
def test_a_binding_that_cannot_be_used_says_why(spec: Any, why: str) -> None:
    assert parse_binding(raw(spec)) == Malformed(
        ref=ObjectRef("shop", "orders"), kind="AzureIdentityBinding", why=why
    )


@given(st.dictionaries(st.sampled_from(IDENTITY_FIELDS), JSON) | JSON)
def test_whatever_an_identity_holds_it_is_a_value_or_malformed(spec: Any) -> None:
    assert isinstance(parse_identity(raw(spec)), AzureIdentity | Malformed)


@given(st.dictionaries(st.sampled_from(BINDING_FIELDS), JSON) | JSON)
def test_whatever_a_binding_holds_it_is_a_value_or_malformed(spec: Any) -> None:
    found = parse_binding(raw(spec))
    assert isinstance(found, Malformed) or found.selector


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{}", b'{"metadata":3}', b"\xff", b'{"metadata":{},"spec":' + b"[" * 10_000],
)
def test_what_has_no_name_is_a_value_error(text: bytes) -> None:
    for parse in (parse_identity, parse_binding):
        with pytest.raises(ValueError, match="not a"):
            parse(text)


def test_what_is_rendered_is_read_back_the_same() -> None:
    identity = parse_identity(raw({"clientID": CLIENT, "resourceID": RESOURCE_ID}))
    binding = parse_binding(raw({"azureIdentity": "orders", "selector": "app", "weight": 2}))
    assert isinstance(identity, AzureIdentity)
    assert isinstance(binding, AzureIdentityBinding)
    assert parse_identity(json.dumps(render_identity(identity)).encode()) == identity
    assert parse_binding(json.dumps(render_binding(binding)).encode()) == binding


def test_a_rendered_identity_is_what_the_archived_project_reads() -> None:
    found = parse_identity(raw({"clientID": CLIENT, "resourceID": RESOURCE_ID}))
    assert isinstance(found, AzureIdentity)
    assert render_identity(found) == {
        "apiVersion": "aadpodidentity.k8s.io/v1",
        "kind": "AzureIdentity",
        "metadata": META,
        "spec": {"type": 0, "resourceID": RESOURCE_ID, "clientID": CLIENT},
    }
