from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.resources import ObjectRef
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    EVENTS,
    NODES,
    PODS,
    SECRETS,
    SERVICE_ACCOUNTS,
    WATCH,
    KubeError,
    NotKubernetes,
    parse_error,
    parse_event,
    parse_list,
    parse_object,
    parse_object_version,
    request_in_words,
)


def test_paths_name_all_objects_those_of_a_namespace_or_one() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("shop") == "/api/v1/namespaces/shop/pods"
    assert AZURE_IDENTITIES.path("shop", "orders") == (
        "/apis/aadpodidentity.k8s.io/v1/namespaces/shop/azureidentities/orders"
    )


def test_each_type_has_its_place_in_the_api() -> None:
    core = (PODS, NODES, SECRETS, EVENTS, SERVICE_ACCOUNTS)
    assert [each.path().removeprefix("/api/v1/") for each in core] == [
        "pods",
        "nodes",
        "secrets",
        "events",
        "serviceaccounts",
    ]
    own = (
        AZURE_IDENTITIES,
        AZURE_IDENTITY_BINDINGS,
        AZURE_POD_IDENTITY_EXCEPTIONS,
        AZURE_ASSIGNED_IDENTITIES,
    )
    assert [each.path().removeprefix("/apis/aadpodidentity.k8s.io/v1/") for each in own] == [
        "azureidentities",
        "azureidentitybindings",
        "azurepodidentityexceptions",
        "azureassignedidentities",
    ]


def test_a_name_with_a_slash_reaches_no_other_path() -> None:
    assert PODS.path("a/b", "../c") == "/api/v1/namespaces/a%2Fb/pods/..%2Fc"


def test_the_objects_of_a_list_stay_as_they_came() -> None:
    page = parse_list(
        b'{"metadata":{"resourceVersion":"7","continue":"next"},"items":[{"spec":1}, null]}'
    )
    assert [bytes(item) for item in page.items] == [b'{"spec":1}', b"null"]
    assert (page.resource_version, page.more) == ("7", "next")


@pytest.mark.parametrize("items", ["null", "[]"])
def test_a_list_without_objects_is_empty(items: str) -> None:
    page = parse_list(f'{{"metadata":{{}},"items":{items}}}'.encode())
    assert (page.items, page.resource_version, page.more) == ((), "", "")


def test_an_event_keeps_its_object_as_it_came() -> None:
    event = parse_event(b'{"type":"ADDED","object":{"metadata":{"name":"a"}}}')
    assert (event.type, bytes(event.object)) == ("ADDED", b'{"metadata":{"name":"a"}}')


def test_what_names_an_object_is_read_without_the_rest() -> None:
    raw = b'{"metadata":{"name":"a","namespace":"n","resourceVersion":"3"},"spec":{"odd":[1]}}'
    meta = parse_object_version(raw)
    assert (meta.ref, meta.resource_version) == (ObjectRef("n", "a"), "3")


def test_null_fields_of_an_object_are_read_as_absent_at_every_depth() -> None:
    inner = b'"spec":{"versions":[{"name":"v1","columns":null}]}'
    raw = b'{"status":{"conditions":null,"storedVersions":["v1"]},"extra":null,' + inner + b"}"
    assert parse_object(raw) == {
        "status": {"storedVersions": ["v1"]},
        "spec": {"versions": [{"name": "v1"}]},
    }
    deep = b'{"metadata":{"name":"deep"},"spec":' + b"[" * 9000 + b"null" + b"]" * 9000 + b"}"
    assert parse_object(deep)["metadata"] == {"name": "deep"}


@given(st.binary())
def test_bytes_of_no_api_server_raise_one_error(body: bytes) -> None:
    for parse in (parse_list, parse_event, parse_object, parse_object_version):
        try:
            parse(body)
        except NotKubernetes:
            continue


def test_an_object_that_is_nested_without_end_spoils_no_list_and_no_watch() -> None:
    deep = b'{"metadata":{"name":"deep"},"spec":' + b"[" * 9000 + b"]" * 9000 + b"}"
    page = parse_list(b'{"metadata":{},"items":[' + deep + b',{"metadata":{"name":"next"}}]}')
    assert [parse_object_version(item).ref.name for item in page.items] == ["deep", "next"]
    event = parse_event(b'{"type":"ADDED","object":' + deep + b"}")
    assert (
        parse_object_version(event.object).ref.name == parse_object_version(deep).ref.name == "deep"
    )


@pytest.mark.parametrize(
    ("code", "reason", "holds"),
    [
        (401, "Unauthorized", "unauthorized"),
        (403, "Forbidden", "forbidden"),
        (404, "NotFound", "not_found"),
        (409, "AlreadyExists", "conflict"),
        (410, "Expired", "gone"),
    ],
)
def test_a_status_is_an_error_that_says_its_kind(code: int, reason: str, holds: str) -> None:
    body = json.dumps({"kind": "Status", "code": code, "reason": reason, "message": "because"})
    error = parse_error(body.encode(), code, asked="list pods")
    assert getattr(error, holds)
    assert (error.status, error.reason, error.said) == (code, reason, "because")
    assert str(error) == f"The API server refused to list pods ({code} {reason}): because"


ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
CUSTOM = "/apis/aadpodidentity.k8s.io/v1"


@pytest.mark.parametrize(
    ("method", "path", "words"),
    [
        ("GET", "/api/v1/pods", "list pods"),
        ("GET", "/api/v1/nodes/n-1", "get nodes n-1"),
        ("GET", "/api/v1/namespaces", "list namespaces"),
        ("PATCH", "/api/v1/namespaces/shop", "patch namespaces shop"),
        ("GET", "/api/v1/namespaces/shop/pods", "list pods in namespace shop"),
        (WATCH, "/api/v1/namespaces/shop/pods", "watch pods in namespace shop"),
        ("DELETE", f"{ROLES}/a%3Ab", "delete clusterroles.rbac.authorization.k8s.io a:b"),
        ("POST", ROLES, "create clusterroles.rbac.authorization.k8s.io"),
        (
            "PATCH",
            f"{CUSTOM}/namespaces/shop/azureidentities/orders/status",
            "patch azureidentities.aadpodidentity.k8s.io/status orders in namespace shop",
        ),
        (
            "POST",
            "/api/v1/namespaces/shop/serviceaccounts/orders/token",
            "create serviceaccounts/token orders in namespace shop",
        ),
        (
            "GET",
            "/api/v1/namespaces/a/pods/https:nmi-x:8080/proxy/debug/pods",
            "get pods/proxy https:nmi-x:8080 in namespace a",
        ),
        ("GET", "/version", "get /version"),
        ("GET", CUSTOM, f"get {CUSTOM}"),
    ],
)
def test_what_was_asked_for_is_said_as_kubectl_is_asked_whether_one_may(
    method: str, path: str, words: str
) -> None:
    assert request_in_words(method, path) == words


@pytest.mark.parametrize(
    ("code", "header", "seconds"),
    [
        (429, "7", 7),
        (503, "7", 7),
        (500, "7", 0),
        (429, "", 0),
        (429, "999", 10),
        (429, "9" * 5000, 10),
        (429, "-1", 0),
        (429, "\u0667", 0),
        (429, "Wed, 25 Nov 2026 12:00:00 GMT", 0),
    ],
)
def test_a_server_that_is_overloaded_says_for_how_long(
    code: int, header: str, seconds: int
) -> None:
    error = parse_error(b"", code, header, asked="list pods")
    assert (error.retry_after, error.throttled) == (seconds, code == 429)


@pytest.mark.parametrize("body", [b"", b"<html>\nbad\tgateway</html>", b"[]", b"\xff"])
def test_an_answer_that_is_no_status_is_an_error_in_one_line(body: bytes) -> None:
    error = parse_error(body, 502, asked="list pods")
    assert (error.status, error.reason) == (502, "")
    assert str(error).startswith("The API server refused to list pods (502): ")
    assert str(error).isprintable() or "\ufffd" in str(error)


def test_only_an_error_without_an_answer_is_unreachable() -> None:
    assert KubeError("no route").unreachable
    assert not KubeError("no", status=403).unreachable
