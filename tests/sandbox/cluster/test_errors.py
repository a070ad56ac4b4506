"""Refusals in the real server's words: recorded from kube-apiserver where a line says so.

The others: https://github.com/kubernetes/apimachinery/blob/master/pkg/api/errors/errors.go
and https://github.com/kubernetes/apimachinery/blob/master/pkg/api/validation/objectmeta.go
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import Served, pod

PODS = "/api/v1/namespaces/default/pods"
MAPS = "/api/v1/namespaces/default/configmaps"
DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
WIDGETS = "/apis/example.com/v1/namespaces/default/widgets"


def failure(code: int, reason: str, message: str, details: Any = None) -> dict[str, Any]:
    body = {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }
    return body if details is None else {**body, "details": details}


async def test_what_is_not_there_is_not_found(api: httpx2.AsyncClient) -> None:
    # recorded
    answer = await api.get(f"{PODS}/nope")
    details = {"name": "nope", "kind": "pods"}
    assert answer.status_code == 404
    assert answer.json() == failure(404, "NotFound", 'pods "nope" not found', details)


async def test_a_name_that_is_taken_already_exists(api: httpx2.AsyncClient) -> None:
    # recorded
    await api.post(PODS, json=pod())
    answer = await api.post(PODS, json=pod())
    details = {"name": "a", "kind": "pods"}
    assert answer.json() == failure(409, "AlreadyExists", 'pods "a" already exists', details)


async def test_an_unknown_type_is_not_found_without_a_name(api: httpx2.AsyncClient) -> None:
    # recorded
    message = "the server could not find the requested resource"
    for path in ("/api/v1/nopes", f"{PODS}/a/nope", "/apis/apps/v1/nopes"):
        assert (await api.get(path)).json() == failure(404, "NotFound", message, {})


async def test_an_unknown_group_is_a_page_that_is_not_there(api: httpx2.AsyncClient) -> None:
    # recorded
    for path in ("/apis/nope.example.com/v1/widgets", "/apis/nope.example.com/v1", "/nope"):
        answer = await api.get(path)
        assert (answer.status_code, answer.text) == (404, "404 page not found\n")


@pytest.fixture
async def widgets(
    api: httpx2.AsyncClient, served: Served, crd: dict[str, Any]
) -> httpx2.AsyncClient:
    assert (await api.post(DEFINITIONS, json=crd)).status_code == 201
    served.cluster.loop.settle()
    await api.post(WIDGETS, json={"metadata": {"name": "demo"}, "spec": {"size": 1}})
    return api


async def test_a_stale_update_is_a_conflict(widgets: httpx2.AsyncClient) -> None:
    # recorded
    body = {"metadata": {"name": "demo", "resourceVersion": "1"}}
    answer = await widgets.put(f"{WIDGETS}/demo", json=body)
    message = (
        'Operation cannot be fulfilled on widgets.example.com "demo": the object has been '
        "modified; please apply your changes to the latest version and try again"
    )
    details = {"name": "demo", "group": "example.com", "kind": "widgets"}
    assert answer.json() == failure(409, "Conflict", message, details)


async def test_an_update_of_a_custom_resource_names_its_version(
    widgets: httpx2.AsyncClient,
) -> None:
    answer = await widgets.put(f"{WIDGETS}/demo", json={"metadata": {"name": "demo"}})
    assert answer.status_code == 422
    assert "metadata.resourceVersion: Invalid value: 0" in answer.json()["message"]
    assert "must be specified for an update" in answer.json()["message"]


async def test_a_field_of_the_wrong_type_is_invalid(widgets: httpx2.AsyncClient) -> None:
    # recorded, of AzureIdentity
    body = {"metadata": {"name": "demo9"}, "spec": {"size": "x"}}
    answer = await widgets.post(WIDGETS, json=body)
    told = 'Invalid value: "string": spec.size in body must be of type integer: "string"'
    cause = {"reason": "FieldValueTypeInvalid", "message": told, "field": "spec.size"}
    details = {"name": "demo9", "group": "example.com", "kind": "Widget", "causes": [cause]}
    message = f'Widget.example.com "demo9" is invalid: spec.size: {told}'
    assert answer.json() == failure(422, "Invalid", message, details)


async def test_an_unknown_field_is_refused_warned_of_or_dropped_as_asked(
    widgets: httpx2.AsyncClient,
) -> None:
    # the refusal is recorded, of AzureIdentity
    def body(name: str) -> dict[str, Any]:
        return {"metadata": {"name": name}, "spec": {"sizze": 1}}

    strict = await widgets.post(WIDGETS, json=body("a"), params={"fieldValidation": "Strict"})
    message = (
        'Widget in version "v1" cannot be handled as a Widget: '
        'strict decoding error: unknown field "spec.sizze"'
    )
    assert strict.json() == failure(400, "BadRequest", message)
    warned = await widgets.post(WIDGETS, json=body("b"))
    assert warned.headers["Warning"] == '299 - "unknown field \\"spec.sizze\\""'
    assert warned.json()["spec"] == {}
    ignored = await widgets.post(WIDGETS, json=body("c"), params={"fieldValidation": "Ignore"})
    assert "Warning" not in ignored.headers


async def test_a_strategic_patch_of_a_custom_resource_is_an_unknown_format(
    widgets: httpx2.AsyncClient,
) -> None:
    kind = {"Content-Type": "application/strategic-merge-patch+json"}
    answer = await widgets.patch(f"{WIDGETS}/demo", content="{}", headers=kind)
    assert answer.status_code == 415
    assert answer.json()["reason"] == "UnsupportedMediaType"
    assert answer.json()["message"].startswith("the body of the request was in an unknown format")


@pytest.mark.parametrize(
    ("body", "kind", "code"),
    [
        ("{", "application/json", 400),
        ("[]", "application/json", 400),
        ("a: [", "application/yaml", 400),
        ("[" * 100_000, "application/json", 400),
        ("{}", "text/plain", 415),
        ('{"metadata": 1}', "application/json", 400),
        ('{"metadata": {"labels": {"a": 1}, "name": "a"}}', "application/json", 400),
        ('{"metadata": {"name": 1}}', "application/json", 400),
        ('{"kind": "Pod", "metadata": {"name": "a"}}', "application/json", 400),
        ('{"apiVersion": "v2", "metadata": {"name": "a"}}', "application/json", 400),
        ('{"metadata": {"name": "a", "namespace": "other"}}', "application/json", 400),
        ('{"metadata": {"name": "a", "resourceVersion": "1"}}', "application/json", 400),
        ('{"metadata": {"name": "a"}, "data": {"x": 1}}', "application/json", 400),
        ('{"metadata": {}}', "application/json", 422),
        ('{"metadata": {"name": "A"}}', "application/json", 422),
        ('{"metadata": {"name": "a", "labels": {"a": "b c"}}}', "application/json", 422),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_with_a_status(
    api: httpx2.AsyncClient, body: str, kind: str, code: int
) -> None:
    answer = await api.post(MAPS, content=body, headers={"Content-Type": kind})
    assert answer.json()["kind"] == "Status"
    assert answer.status_code == answer.json()["code"] == code


async def test_what_is_too_large_is_refused(api: httpx2.AsyncClient) -> None:
    huge = await api.post(MAPS, content=b" " * (3 * 1024 * 1024 + 1))
    message = "Request entity too large: limit is 3145728"
    assert (huge.status_code, huge.json()["message"]) == (413, message)
    large = {"metadata": {"name": "a"}, "data": {"x": "y" * 1_200_000}}
    assert (await api.post(MAPS, json=large)).json()["message"] == (
        'ConfigMap "a" is invalid: []: Too long: may not be more than 1048576 bytes'
    )
    spec = {"containers": [{"name": "c", "image": "i", "args": ["x" * 1_600_000]}]}
    larger = {"metadata": {"name": "a"}, "spec": spec}
    pods = MAPS.replace("configmaps", "pods")
    answer = await api.post(pods, json=larger)
    assert answer.json()["message"] == "etcdserver: request is too large"
    assert (await api.get(f"{pods}/a")).status_code == 404


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"metadata": {"name": "b"}}, 400, "does not match the name on the URL (a)"),
        ({"metadata": {"namespace": "b"}}, 400, "the namespace of the provided object does not"),
        ({"metadata": {"uid": "b"}}, 409, "Precondition failed: UID in precondition: b"),
    ],
)
async def test_an_update_is_of_the_object_in_its_path(
    api: httpx2.AsyncClient, change: dict[str, Any], code: int, says: str
) -> None:
    await api.post(MAPS, json={"metadata": {"name": "a"}})
    body = {"metadata": {"name": "a"} | change["metadata"]}
    answer = await api.put(f"{MAPS}/a", json=body)
    assert answer.status_code == code
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{MAPS}/a"),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api/v1/configmaps"),
        ("DELETE", "/api/v1/configmaps/a"),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ],
)
async def test_a_verb_in_the_wrong_place_is_not_allowed(
    api: httpx2.AsyncClient, method: str, path: str
) -> None:
    headers = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
    answer = await api.request(method, path, json={}, headers=headers)
    assert answer.status_code == 405
    assert answer.json()["reason"] == "MethodNotAllowed"


async def test_who_takes_no_json_gets_nothing(api: httpx2.AsyncClient) -> None:
    answer = await api.get(MAPS, headers={"Accept": "application/vnd.kubernetes.protobuf"})
    assert answer.status_code == 406
    both = "application/vnd.kubernetes.protobuf,application/json"
    assert (await api.get(MAPS, headers={"Accept": both})).status_code == 200


async def test_an_event_lies_where_its_object_is(api: httpx2.AsyncClient) -> None:
    about = {"kind": "Pod", "name": "a", "namespace": "other"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R"}
    answer = await api.post("/api/v1/namespaces/default/events", json=body)
    assert answer.status_code == 422
    assert "does not match event.namespace" in answer.json()["message"]
