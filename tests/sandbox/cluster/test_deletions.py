"""DeleteOptions are checked, and refused in the real server's words."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import pod

PODS = "/api/v1/namespaces/default/pods"
UNSUPPORTED = 'propagationPolicy: Unsupported value: "Sideways": supported values: '
POLICIES = '"Foreground", "Background", "Orphan", "nil"'
INVALID = 'DeleteOptions.meta.k8s.io "" is invalid: '


async def ask(api: httpx2.AsyncClient, body: Any = None, **query: str) -> httpx2.Response:
    """Make a pod on a node, and ask for its deletion."""
    await api.post(PODS, json=pod(nodeName="n"))
    return await api.request("DELETE", f"{PODS}/a", json=body, params=query)


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (
            {"propagationPolicy": "Sideways"},
            422,
            INVALID + UNSUPPORTED + POLICIES,
        ),
        (
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            422,
            f'{INVALID}propagationPolicy: Invalid value: "Orphan": '
            "orphanDependents and deletionPropagation cannot be both set",
        ),
        (
            {"dryRun": ["Some"]},
            422,
            f'{INVALID}dryRun: Unsupported value: []string{{"Some"}}: supported values: "All"',
        ),
        (
            {"gracePeriodSeconds": "5"},
            500,
            "json: cannot unmarshal string into Go struct field "
            "DeleteOptions.gracePeriodSeconds of type int64",
        ),
    ],
)
async def test_options_that_make_no_sense_delete_nothing(
    api: httpx2.AsyncClient, options: dict[str, Any], code: int, message: str
) -> None:
    answer = await ask(api, options)
    assert (answer.status_code, answer.json()["message"]) == (code, message)
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/a")).json()["metadata"]


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"propagationPolicy": "Sideways"}, 422),
        ({"dryRun": "Some"}, 422),
        ({"gracePeriodSeconds": "soon"}, 400),
    ],
)
async def test_the_query_says_the_same_where_there_is_no_body(
    api: httpx2.AsyncClient, query: dict[str, str], code: int
) -> None:
    assert (await ask(api, **query)).status_code == code


@pytest.mark.parametrize(
    ("asked", "given"), [({"gracePeriodSeconds": -5}, 1), ({}, 30), ({"gracePeriodSeconds": 7}, 7)]
)
async def test_a_grace_period_is_as_asked_and_a_negative_one_a_second(
    api: httpx2.AsyncClient, asked: dict[str, Any], given: int
) -> None:
    metadata = (await ask(api, asked)).json()["metadata"]
    assert metadata["deletionGracePeriodSeconds"] == given


async def test_orphan_dependents_is_the_old_name_of_a_policy(api: httpx2.AsyncClient) -> None:
    metadata = (await ask(api, {"orphanDependents": True})).json()["metadata"]
    assert metadata["finalizers"] == ["orphan"]


async def test_a_dry_run_deletes_nothing(api: httpx2.AsyncClient) -> None:
    assert (await ask(api, dryRun="All")).is_success
    assert "deletionTimestamp" not in (await api.get(f"{PODS}/a")).json()["metadata"]
