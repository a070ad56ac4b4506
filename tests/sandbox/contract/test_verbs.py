from __future__ import annotations

from typing import Any

from tests.sandbox.cluster.conftest import MAPS, MERGE, PODS, WIDGET, WIDGETS, Client, pod
from tests.sandbox.contract.conftest import define


def config(name: str = "x", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def test_a_pod_is_created_with_the_defaults_of_a_real_one(api: Client) -> None:
    made = (await api.post(PODS, json=pod())).json()
    given: dict[str, Any] = {"serviceAccountName": "default", "restartPolicy": "Always"}
    given |= {"dnsPolicy": "ClusterFirst", "terminationGracePeriodSeconds": 30}
    assert made["spec"].items() >= given.items()
    assert made["spec"]["containers"][0]["imagePullPolicy"] == "Always"
    assert made["status"] == {"phase": "Pending", "qosClass": "BestEffort"}


async def test_the_server_writes_identity_and_time_whatever_the_client_says(api: Client) -> None:
    body = config()
    body["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}
    metadata = (await api.post(MAPS, json=body)).json()["metadata"]
    assert metadata["uid"] != "mine"
    assert metadata["creationTimestamp"] != "2001-01-01T00:00:00Z"
    assert metadata["namespace"] == "default"
    assert "generation" not in metadata


async def test_items_name_their_kind_in_a_custom_list_and_in_a_built_in_one_do_not(
    widgets: Client,
) -> None:
    for path, head, kinds in ((WIDGETS, WIDGET, {"Widget"}), (MAPS, {}, {None})):
        await widgets.post(path, json={**head, "metadata": {"name": "x"}})
        items = (await widgets.get(path)).json()["items"]
        assert {item.get("kind") for item in items} == kinds


async def test_an_update_that_names_no_version_is_of_the_latest(api: Client) -> None:
    await api.post(MAPS, json=config(a="1"))
    assert (await api.put(f"{MAPS}/x", json=config(a="3"))).json()["data"] == {"a": "3"}


async def test_status_is_written_through_its_own_path_only(api: Client) -> None:
    body = pod(nodeName="n") | {"status": {"phase": "Running"}}
    made = (await api.post(PODS, json=body)).json()
    assert made["status"]["phase"] == "Pending"
    patch = {"status": {"phase": "Running"}}
    assert (await api.patch(f"{PODS}/a", json=patch, headers=MERGE)).json() == made
    changed = (await api.patch(f"{PODS}/a/status", json=patch, headers=MERGE)).json()
    assert changed["status"]["phase"] == "Running"


async def test_a_pod_with_its_work_done_goes_at_once(api: Client) -> None:
    await api.post(PODS, json=pod(nodeName="n"))
    done = {"status": {"phase": "Succeeded"}}
    await api.patch(f"{PODS}/a/status", json=done, headers=MERGE)
    assert (await api.delete(f"{PODS}/a")).status_code == 200
    assert (await api.get(f"{PODS}/a")).status_code == 404


async def test_a_collection_is_deleted_by_selector(api: Client) -> None:
    for name in ("a", "b"):
        await api.post(PODS, json=pod(name))
    await api.delete(PODS, params={"labelSelector": "app=a"})
    left = (await api.get(PODS)).json()["items"]
    assert [item["metadata"]["name"] for item in left] == ["b"]


async def test_yaml_is_read_as_kubernetes_reads_it(api: Client) -> None:
    body = "metadata: {name: x}\ndata: {when: 2026-11-25, text: 'yes'}\n"
    made = await api.post(MAPS, content=body, headers={"Content-Type": "application/yaml"})
    assert made.json()["data"] == {"when": "2026-11-25", "text": "yes"}


async def test_generation_counts_changes_of_the_spec_alone(widgets: Client) -> None:
    await widgets.post(WIDGETS, json={**WIDGET, "metadata": {"name": "w"}, "spec": {"size": 1}})

    async def generation(patch: dict[str, Any]) -> int:
        answer = await widgets.patch(f"{WIDGETS}/w", json=patch, headers=MERGE)
        return int(answer.json()["metadata"]["generation"])

    assert await generation({"metadata": {"labels": {"a": "b"}}}) == 1
    assert await generation({"spec": {"size": 2}}) == 2
    assert await generation({"status": {"phase": "x"}}) == 2


async def test_without_the_subresource_a_status_is_content_as_any_other(
    api: Client, crd: dict[str, Any]
) -> None:
    """PrepareForUpdate of apiextensions-apiserver leaves out metadata alone."""
    del crd["spec"]["versions"][0]["subresources"]
    await define(api, crd)
    await api.post(WIDGETS, json={**WIDGET, "metadata": {"name": "w"}, "status": {"phase": "a"}})
    patch = {"status": {"phase": "b"}}
    changed = await api.patch(f"{WIDGETS}/w", json=patch, headers=MERGE)
    assert changed.json()["metadata"]["generation"] == 2


async def test_endpoints_are_kept_as_a_leader_of_old_locks_them(api: Client) -> None:
    path = "/api/v1/namespaces/default/endpoints"
    lock = {"control-plane.alpha.kubernetes.io/leader": "{}"}
    made = await api.post(path, json={"metadata": {"name": "lock", "annotations": lock}})
    body = made.json() | {"subsets": [{"addresses": [{"ip": "10.0.0.9"}]}]}
    codes = [(await api.put(f"{path}/lock", json=body)).status_code for _ in range(2)]
    assert codes == [200, 409]
