"""What only a real control plane has is refused in a sentence that says where one is."""

from __future__ import annotations

import pytest

from podidentity_sandbox.cluster.patch import patches
from tests.sandbox.cluster.conftest import MAPS, PODS, Client, Served, check_refusal, pod

ELSEWHERE = "`podidentity sandbox up --kubernetes FOLDER` has a real one"


@pytest.mark.parametrize("header", ["Impersonate-User", "impersonate-group"])
async def test_nobody_acts_as_another(api: Client, header: str) -> None:
    answer = await api.get(PODS, headers={header: "ann"})
    check_refusal(answer, 403, "API server knows no impersonation: ")
    assert ELSEWHERE in answer.text


async def test_who_shows_no_token_is_told_that_nothing_else_counts(served: Served) -> None:
    async with served.client("") as stranger:
        answer = await stranger.get(PODS)
    check_refusal(answer, 401, "knows no credentials but bearer tokens: ")


async def test_nothing_is_applied_by_the_server(api: Client) -> None:
    headers = {"Content-Type": patches.APPLY}
    answer = await api.patch(f"{MAPS}/a?fieldManager=m", json={}, headers=headers)
    check_refusal(answer, 415, "knows no server-side apply: ")


async def test_no_body_is_protobuf(api: Client) -> None:
    headers = {"Content-Type": "application/vnd.kubernetes.protobuf"}
    answer = await api.post(MAPS, content=b"k8s", headers=headers)
    check_refusal(answer, 415, "knows no protobuf: ")


@pytest.mark.parametrize(
    "patch", [{"spec": {"tolerations": []}}, {"metadata": {"labels": {"$patch": "replace"}}}]
)
async def test_a_strategic_merge_patch_is_taken_where_it_is_a_merge_patch(
    api: Client, patch: object
) -> None:
    await api.post(PODS, json=pod())
    headers = {"Content-Type": patches.STRATEGIC}
    labels = {"metadata": {"labels": {"app": None, "tier": "web"}}}
    changed = await api.patch(f"{PODS}/a", json=labels, headers=headers)
    assert changed.json()["metadata"]["labels"] == {"tier": "web"}
    refused = await api.patch(f"{PODS}/a", json=patch, headers=headers)
    check_refusal(refused, 415, "knows no strategic merge patch of a list: ")


async def test_nothing_is_scaled_by_its_subresource(api: Client) -> None:
    scaled = await api.get("/apis/apps/v1/namespaces/default/deployments/a/scale")
    check_refusal(scaled, 404, "knows no subresource scale: ")
