"""What clients send with a write, over TLS: options, apply, owners of fields, DeleteOptions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.storage import Record
from tests.sandbox.cluster.conftest import MAPS, MERGE, PODS, Client, check_refusal, pod
from tests.sandbox.cluster.settled import Settled

APPLY = "application/apply-patch+yaml"


def settings(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


async def apply(api: Client, body: Any, path: str = f"{MAPS}/x", **query: str) -> httpx2.Response:
    """Apply a configuration, which may be YAML."""
    said = body if isinstance(body, str) else json.dumps(body)
    options = {"fieldManager": "m", **query}
    return await api.patch(path, content=said, params=options, headers={"Content-Type": APPLY})


def owners(obj: dict[str, Any]) -> list[tuple[str, str, str]]:
    entries = obj["metadata"].get("managedFields", [])
    return [(e["manager"], e["operation"], e.get("subresource", "")) for e in entries]


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        ({**settings(), "metadata": {"name": "y"}}, 400, "does not match the name on the URL"),
        ({**settings(), "apiVersion": "v2"}, 400, "Incorrect version specified in apply patch"),
        (
            {**settings(), "metadata": {"name": "x", "managedFields": []}},
            400,
            "metadata.managedFields must be nil",
        ),
        ({**settings(), "date": {}}, 500, ".date: field not declared in schema"),
        ({**settings(), "data": {"a": 1}}, 500, "json: cannot unmarshal number into Go"),
        ([1], 400, "error decoding YAML"),
    ],
)
async def test_a_configuration_that_makes_no_sense_is_refused(
    api: Client, body: Any, code: int, message: str
) -> None:
    check_refusal(await apply(api, body), code, message)


async def test_applying_wants_to_know_who_applies(api: Client) -> None:
    refused = await apply(api, settings(), fieldManager="")
    check_refusal(refused, 422, "fieldManager: Required value: is required for apply patch")


async def test_a_key_said_twice_in_yaml_is_refused_where_that_is_asked_for(api: Client) -> None:
    text = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: '1'\n  a: '2'\n"
    refused = await apply(api, text, fieldValidation="Strict")
    check_refusal(refused, 400, 'duplicate field "data.a"')
    warned = await apply(api, text)
    assert warned.json()["data"] == {"a": "2"}
    assert warned.headers["Warning"] == '299 - "duplicate field \\"data.a\\""'


async def test_a_lot_of_warnings_is_cut_short(api: Client) -> None:
    body = {**settings(), **{f"{number:03}{'x' * 300}": 1 for number in range(40)}}
    warned = await api.post(MAPS, json=body)
    texts = warned.headers.get_list("Warning")
    assert (len(texts), {len(text) for text in texts}) == (16, {256 + len('299 - ""') + 1})


async def test_the_user_agent_names_who_writes_where_nothing_else_does(api: Client) -> None:
    made = await api.post(MAPS, json=settings(a="1"), headers={"User-Agent": "tool/1.0 (x)"})
    assert owners(made.json()) == [("tool", "Update", "")]


async def test_a_status_is_applied_by_its_own_way_only(api: Client) -> None:
    await api.post(PODS, json=pod(nodeName="n"), params={"fieldManager": "maker"})
    head = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}}
    said = {**head, "status": {"message": "well"}}
    told = (await apply(api, said, f"{PODS}/a/status")).json()
    assert told["status"]["message"] == "well"
    assert owners(told) == [("m", "Apply", "status"), ("maker", "Update", "")]
    unheard = (await apply(api, {**said, "status": {"message": "no"}}, f"{PODS}/a")).json()
    assert unheard["status"]["message"] == "well"
    nobody = await apply(api, {**said, "metadata": {"name": "b"}}, f"{PODS}/b/status")
    assert nobody.status_code == 404


async def test_managers_can_be_forgotten(api: Client) -> None:
    await apply(api, settings(a="1"))
    forgotten = await api.patch(
        f"{MAPS}/x", json={"metadata": {"managedFields": []}}, headers=MERGE
    )
    assert owners(forgotten.json()) == []
    assert forgotten.json()["data"] == {"a": "1"}


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ({"force": "true"}, "force: Forbidden: may not be specified for non-apply patch"),
        ({"fieldManager": "x" * 129}, "Too long: may not be more than 128 bytes"),
        ({"fieldManager": "a\nb"}, "should only contain printable characters"),
    ],
)
async def test_options_that_make_no_sense_are_refused(
    api: Client, query: dict[str, str], words: str
) -> None:
    await api.post(MAPS, json=settings())
    refused = await api.patch(f"{MAPS}/x", json={}, params=query, headers=MERGE)
    check_refusal(refused, 422, words)
    assert refused.json()["message"].startswith('PatchOptions.meta.k8s.io "" is invalid: ')


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (
            {"sendInitialEvents": "true"},
            "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
        ),
        (
            {"resourceVersionMatch": "NotOlderThan"},
            "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided",
        ),
    ],
)
# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/apis/meta/internalversion/validation/validation.go
async def test_a_watch_that_begins_with_a_list_says_of_which_state(
    api: Client, query: dict[str, str], message: str
) -> None:
    refused = await api.get(MAPS, params={"watch": "true", **query})
    where = 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden'
    check_refusal(refused, 422, f"{where}: {message}")


# ---- DeleteOptions are checked, and refused in the real server's words.

UNSUPPORTED = 'propagationPolicy: Unsupported value: "Sideways": supported values: '
POLICIES = '"Foreground", "Background", "Orphan", "nil"'
INVALID = 'DeleteOptions.meta.k8s.io "" is invalid: '


async def ask(api: Client, options: dict[str, Any] | str) -> httpx2.Response:
    """Make a pod on a node, and ask for its deletion with a body, or with a query."""
    await api.post(PODS, json=pod(nodeName="n"))
    if isinstance(options, str):
        return await api.delete(f"{PODS}/a?{options}")
    return await api.request("DELETE", f"{PODS}/a", json=options)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        ({"propagationPolicy": "Sideways"}, 422, INVALID + UNSUPPORTED + POLICIES),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            *(422, "orphanDependents and deletionPropagation cannot be both set"),
        ),
        ({"dryRun": ["Some"]}, 422, f'{INVALID}dryRun: Unsupported value: []string{{"Some"}}: '),
        ({"gracePeriodSeconds": "5"}, 500, "DeleteOptions.gracePeriodSeconds of type int64"),
        ({"preconditions": {"uid": "b"}}, 409, "Precondition failed: UID in precondition: b"),
        ("propagationPolicy=Sideways", 422, INVALID + UNSUPPORTED + POLICIES),
        ("dryRun=Some", 422, f"{INVALID}dryRun: Unsupported value: "),
        ("gracePeriodSeconds=soon", 400, 'parsing "soon": invalid syntax'),
    ],
)
async def test_options_that_make_no_sense_in_body_or_query_delete_nothing(
    api: Client, options: dict[str, Any] | str, code: int, message: str
) -> None:
    check_refusal(await ask(api, options), code, message)
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/a")).json()["metadata"]


@pytest.mark.parametrize(
    ("asked", "given"), [({"gracePeriodSeconds": -5}, 1), ({}, 30), ({"gracePeriodSeconds": 7}, 7)]
)
async def test_a_grace_period_is_as_asked_and_a_negative_one_a_second(
    api: Client, asked: dict[str, Any], given: int
) -> None:
    metadata = (await ask(api, asked)).json()["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == given


async def test_orphan_dependents_is_the_old_name_of_a_policy(api: Client) -> None:
    metadata = (await ask(api, {"orphanDependents": True})).json()["metadata"]
    assert metadata["finalizers"] == ["orphan"]


# ---- What the cluster's own parts write is theirs in managedFields, as in a real cluster.
#
# https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management

SCHEDULER, SERVER = "kube-scheduler", "kube-apiserver"


def shares(record: Record | None) -> Mapping[tuple[str, str], Any]:
    """Return what each manager owns, by its name and subresource."""
    assert record is not None
    entries = record.metadata.get("managedFields", [])
    assert {entry["operation"] for entry in entries} <= {"Update"}
    return {(e["manager"], e.get("subresource", "")): e["fieldsV1"] for e in entries}


def test_the_scheduler_owns_what_it_says_and_nobody_where_a_pod_is(world: Settled) -> None:
    kind = world.cluster.registry.by_key("pods")
    resources = world.cluster.resources.acting_as("kubectl-run")
    resources.create(kind, "default", pod("a"))
    world.cluster.loop.settle()
    said = shares(world.get("pods", "a"))[SCHEDULER, "status"]["f:status"]["f:conditions"]
    assert set(said) == {".", 'k:{"type":"PodScheduled"}'}
    world.node("n")
    placed = shares(world.get("pods", "a"))
    assert "f:nodeName" not in placed["kubectl-run", ""]["f:spec"]


def test_the_conditions_of_a_definition_are_the_servers(
    world: Settled, crd: dict[str, Any]
) -> None:
    kind = world.cluster.registry.by_key("customresourcedefinitions.apiextensions.k8s.io")
    world.cluster.resources.acting_as("kubectl").create(kind, "", crd)
    world.cluster.loop.settle()
    found = shares(world.get(kind.key, "widgets.example.com"))
    assert set(found) == {("kubectl", ""), (SERVER, "status")}
