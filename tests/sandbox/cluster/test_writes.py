"""What clients send with a write, over TLS: warnings, options of a watch, DeleteOptions."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import MAPS, PODS, Client, check_refusal, pod


def settings(**data: str) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": data}


async def test_a_lot_of_warnings_is_cut_short(api: Client) -> None:
    body = {**settings(), **{f"{number:03}{'x' * 300}": 1 for number in range(40)}}
    warned = await api.post(MAPS, json=body)
    texts = warned.headers.get_list("Warning")
    assert (len(texts), {len(text) for text in texts}) == (16, {256 + len('299 - ""') + 1})


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
