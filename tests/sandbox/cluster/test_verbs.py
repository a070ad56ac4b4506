from __future__ import annotations

import httpx2

from tests.sandbox.cluster.conftest import pod

PODS = "/api/v1/namespaces/default/pods"


async def test_a_pod_is_created_read_listed_and_deleted(api: httpx2.AsyncClient) -> None:
    made = await api.post(PODS, json=pod())
    assert made.status_code == 201
    assert made.json()["spec"]["serviceAccountName"] == "default"
    assert made.json()["status"]["phase"] == "Pending"
    assert (await api.get(f"{PODS}/a")).json()["metadata"]["uid"] == made.json()["metadata"]["uid"]
    listed = (await api.get(PODS)).json()
    assert listed["kind"] == "PodList"
    assert [item["metadata"]["name"] for item in listed["items"]] == ["a"]
    gone = await api.delete(f"{PODS}/a")
    assert gone.json()["status"] == "Success"
    assert (await api.get(f"{PODS}/a")).status_code == 404
