"""A kubelet may do what its own node and pods need, and nothing of other nodes.

https://kubernetes.io/docs/reference/access-authn-authz/node/
"""

from __future__ import annotations

from typing import Any

import httpx2

from tests.sandbox.cluster.conftest import Served, pod

PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}


async def test_a_kubelet_sees_and_changes_its_own_node_s_pods_only(
    api: httpx2.AsyncClient, served: Served
) -> None:
    await api.post(PODS, json=pod("mine", nodeName="node-0"))
    await api.post(PODS, json=pod("other", nodeName="node-1"))
    running = {"status": {"phase": "Running"}}
    async with served.client(served.plan.nodes[0].token) as kubelet:
        own = {"fieldSelector": "spec.nodeName=node-0"}
        listed = (await kubelet.get("/api/v1/pods", params=own)).json()["items"]
        assert [item["metadata"]["name"] for item in listed] == ["mine"]
        assert (await kubelet.get("/api/v1/pods")).status_code == 403
        foreign = {"fieldSelector": "spec.nodeName=node-1"}
        assert (await kubelet.get("/api/v1/pods", params=foreign)).status_code == 403

        async def patch(name: str) -> httpx2.Response:
            return await kubelet.patch(f"{PODS}/{name}/status", json=running, headers=MERGE)

        assert (await patch("mine")).status_code == 200
        refused = await patch("other")
        assert refused.status_code == 403
        assert refused.json()["message"].endswith(
            "no relationship found between node 'node-0' and this object"
        )
        assert (await kubelet.delete(f"{PODS}/other")).status_code == 403
        assert (await kubelet.post(PODS, json=pod("new"))).status_code == 403


async def test_a_kubelet_reads_the_secrets_that_its_pods_name_and_no_others(
    api: httpx2.AsyncClient, served: Served
) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    for name in ("used", "unused"):
        await api.post(secrets, json={"metadata": {"name": name}})
    volumes = [{"name": "v", "secret": {"secretName": "used"}}]
    await api.post(PODS, json=pod(nodeName="node-0", volumes=volumes))
    async with served.client(served.plan.nodes[0].token) as kubelet:
        assert (await kubelet.get(f"{secrets}/used")).status_code == 200
        assert (await kubelet.get(f"{secrets}/unused")).status_code == 403
        assert (await kubelet.get(secrets)).status_code == 403
    async with served.client(served.plan.nodes[1].token) as stranger:
        assert (await stranger.get(f"{secrets}/used")).status_code == 403


async def test_a_kubelet_gets_tokens_bound_to_its_own_pods_only(
    api: httpx2.AsyncClient, served: Served
) -> None:
    mine = (await api.post(PODS, json=pod("mine", nodeName="node-0"))).json()["metadata"]
    other = (await api.post(PODS, json=pod("other", nodeName="node-1"))).json()["metadata"]
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"

    def bound(metadata: dict[str, Any]) -> dict[str, Any]:
        pair = {"name": metadata["name"], "uid": metadata["uid"]}
        return {"spec": {"boundObjectRef": {"apiVersion": "v1", "kind": "Pod", **pair}}}

    async with served.client(served.plan.nodes[0].token) as kubelet:
        assert (await kubelet.post(path, json=bound(mine))).status_code == 201
        for body, says in (
            (bound(other), "bound to a pod scheduled on a different node"),
            ({"spec": {}}, "not bound to a pod"),
            (bound({"name": "mine", "uid": ""}), "with a pod binding without a uid"),
        ):
            refused = await kubelet.post(path, json=body)
            assert refused.status_code == 403
            assert f"node requested token {says}" in refused.json()["message"]
