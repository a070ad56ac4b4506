"""Refusals in the real server's words; nothing that a client writes makes the server fail."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.cluster.conftest import (
    MAPS,
    MERGE,
    PODS,
    WIDGET,
    WIDGETS,
    Client,
    check_refusal,
)

NOWHERE = ("/api/v1/nopes", f"{PODS}/a/nope", "/apis/apps/v1/nopes")
UNVERSIONED = "must be specified for an update"
MISTYPED = 'Invalid value: "string": spec.size in body must be of type integer: "string"'


async def test_a_refusal_is_a_status_in_the_real_servers_words(demo: Client) -> None:
    # recorded
    body = {**WIDGET, "metadata": {"name": "demo"}, "spec": {"size": "x"}}
    answer = await demo.post(WIDGETS, json=body)
    cause = {"reason": "FieldValueTypeInvalid", "message": MISTYPED, "field": "spec.size"}
    details = {"name": "demo", "group": "example.com", "kind": "Widget", "causes": [cause]}
    assert answer.status_code == 422
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": f'Widget.example.com "demo" is invalid: spec.size: {MISTYPED}',
        "reason": "Invalid",
        "details": details,
        "code": 422,
    }


@pytest.mark.parametrize(
    ("request_line", "version", "code", "reason", "message"),
    [  # all but the update without a version are recorded
        (f"GET {PODS}/nope", "", 404, "NotFound", 'pods "nope" not found'),
        *((f"GET {path}", "", 404, "NotFound", "the server could not find") for path in NOWHERE),
        (f"POST {WIDGETS}", "", 409, "AlreadyExists", 'widgets.example.com "demo" already exists'),
        (f"PUT {WIDGETS}/demo", "1", 409, "Conflict", "the object has been modified; please"),
        (f"PUT {WIDGETS}/demo", "", 422, "Invalid", UNVERSIONED),
    ],
)
async def test_what_cannot_be_done_has_the_reason_that_clients_go_by(
    demo: Client, *, request_line: str, version: str, code: int, reason: str, message: str
) -> None:
    method, path = request_line.split()
    metadata = {"name": "demo", **({"resourceVersion": version} if version else {})}
    body = {**WIDGET, "metadata": metadata}
    answer = await demo.request(method, path, json=body)
    check_refusal(answer, code, message)
    assert answer.json()["reason"] == reason


async def test_an_unknown_group_is_a_page_that_is_not_there(api: Client) -> None:
    # recorded
    for path in ("/apis/nope.example.com/v1/widgets", "/apis/nope.example.com/v1", "/nope"):
        answer = await api.get(path)
        assert (answer.status_code, answer.text) == (404, "404 page not found\n")


@pytest.fixture
async def demo(widgets: Client) -> Client:
    body = {**WIDGET, "metadata": {"name": "demo"}, "spec": {"size": 1}}
    assert (await widgets.post(WIDGETS, json=body)).status_code == 201
    return widgets


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
        ('{"metadata": {}}', "application/json", 422),
        ('{"metadata": {"name": "A"}}', "application/json", 422),
        ('{"metadata": {"name": "a", "labels": {"a": "b c"}}}', "application/json", 422),
    ],
)
async def test_a_body_that_makes_no_sense_is_refused_with_a_status(
    api: Client, body: str, kind: str, code: int
) -> None:
    check_refusal(await api.post(MAPS, content=body, headers={"Content-Type": kind}), code, "")


@pytest.mark.parametrize(
    ("change", "code", "says"),
    [
        ({"metadata": {"name": "b"}}, 400, "does not match the name on the URL (a)"),
        ({"metadata": {"namespace": "b"}}, 400, "the namespace of the provided object does not"),
        ({"metadata": {"uid": "b"}}, 409, "Precondition failed: UID in precondition: b"),
    ],
)
async def test_an_update_is_of_the_object_in_its_path(
    api: Client, change: dict[str, Any], code: int, says: str
) -> None:
    await api.post(MAPS, json={"metadata": {"name": "a"}})
    body = {"metadata": {"name": "a"} | change["metadata"]}
    check_refusal(await api.put(f"{MAPS}/a", json=body), code, says)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"{MAPS}/a"),
        ("PUT", MAPS),
        ("PATCH", MAPS),
        ("POST", "/api/v1/configmaps"),
        ("GET", "/apis/authorization.k8s.io/v1/subjectaccessreviews"),
    ],
)
async def test_a_verb_in_the_wrong_place_is_not_allowed(
    api: Client, method: str, path: str
) -> None:
    headers = MERGE if method == "PATCH" else {}
    answer = await api.request(method, path, json={}, headers=headers)
    assert answer.status_code == 405
    assert answer.json()["reason"] == "MethodNotAllowed"


async def test_an_event_lies_where_its_object_is(api: Client) -> None:
    about = {"kind": "Pod", "name": "a", "namespace": "other"}
    body = {"metadata": {"name": "e"}, "involvedObject": about, "reason": "R"}
    answer = await api.post("/api/v1/namespaces/default/events", json=body)
    check_refusal(answer, 422, "does not match event.namespace")
