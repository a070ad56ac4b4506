from __future__ import annotations

from typing import Any

from tests.sandbox.cluster.conftest import MAPS, MERGE, PODS, Client, Served, pod


def config(name: str = "x", **data: str) -> dict[str, Any]:
    return {"metadata": {"name": name}, "data": data}


async def test_a_pod_is_created_with_the_defaults_of_a_real_one(api: Client) -> None:
    made = await api.post(PODS, json=pod())
    assert made.status_code == 201
    spec, state = made.json()["spec"], made.json()["status"]
    assert spec["serviceAccountName"] == "default"
    assert spec["restartPolicy"] == "Always"
    assert spec["terminationGracePeriodSeconds"] == 30
    assert spec["dnsPolicy"] == "ClusterFirst"
    assert spec["containers"][0]["imagePullPolicy"] == "Always"
    assert state == {"phase": "Pending", "qosClass": "BestEffort"}


async def test_the_server_writes_identity_and_time_whatever_the_client_says(
    api: Client,
) -> None:
    body = config()
    body["metadata"] |= {"uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z"}
    metadata = (await api.post(MAPS, json=body)).json()["metadata"]
    assert metadata["uid"] != "mine"
    assert metadata["creationTimestamp"] != "2001-01-01T00:00:00Z"
    assert metadata["namespace"] == "default"
    assert "generation" not in metadata


async def test_items_of_a_built_in_list_name_no_kind_but_an_object_does(
    api: Client,
) -> None:
    await api.post(MAPS, json=config())
    listed = (await api.get(MAPS)).json()
    assert (listed["kind"], listed["apiVersion"]) == ("ConfigMapList", "v1")
    assert all("kind" not in item and "apiVersion" not in item for item in listed["items"])
    assert (await api.get(f"{MAPS}/x")).json()["kind"] == "ConfigMap"


async def test_a_name_is_generated(api: Client) -> None:
    body = {"metadata": {"generateName": "x-"}}
    made = [(await api.post(MAPS, json=body)).json()["metadata"]["name"] for _ in range(2)]
    assert all(len(name) == 7 and name.startswith("x-") for name in made)
    assert made[0] != made[1]


async def test_an_update_needs_the_latest_version_if_it_names_one(api: Client) -> None:
    made = (await api.post(MAPS, json=config(a="1"))).json()
    made["data"] = {"a": "2"}
    changed = await api.put(f"{MAPS}/x", json=made)
    assert changed.status_code == 200
    assert changed.json()["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
    assert (await api.put(f"{MAPS}/x", json=made)).status_code == 409
    assert (await api.put(f"{MAPS}/x", json=config(a="3"))).json()["data"] == {"a": "3"}


async def test_an_update_that_changes_nothing_writes_nothing(api: Client) -> None:
    made = (await api.post(MAPS, json=config(a="1"))).json()
    assert (await api.put(f"{MAPS}/x", json=made)).json() == made
    patched = await api.patch(f"{MAPS}/x", content='{"data":{"a":"1"}}', headers=MERGE)
    assert patched.json() == made


async def test_status_is_written_through_its_own_path_only(api: Client) -> None:
    body = pod(nodeName="n") | {"status": {"phase": "Running"}}
    made = (await api.post(PODS, json=body)).json()
    assert made["status"]["phase"] == "Pending"
    patch = {"status": {"phase": "Running"}}
    other = {"status": {"phase": "Running"}, "metadata": {"labels": {"x": "y"}}}
    assert (await api.patch(f"{PODS}/a", json=patch, headers=MERGE)).json() == made
    changed = (await api.patch(f"{PODS}/a/status", json=other, headers=MERGE)).json()
    assert changed["status"]["phase"] == "Running"
    assert changed["metadata"]["labels"] == {"app": "a"}


async def test_a_node_may_bring_its_status_with_it(api: Client) -> None:
    body = {"metadata": {"name": "n"}, "status": {"addresses": [{"address": "10.0.0.1"}]}}
    assert (await api.post("/api/v1/nodes", json=body)).json()["status"] == body["status"]


async def test_a_pod_on_a_node_lives_until_its_kubelet_deletes_it(api: Client) -> None:
    await api.post(PODS, json=pod(nodeName="n"))
    marked = (await api.delete(f"{PODS}/a")).json()
    assert marked["kind"] == "Pod"
    assert marked["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await api.get(f"{PODS}/a")).status_code == 200
    final = await api.request("DELETE", f"{PODS}/a", json={"gracePeriodSeconds": 0})
    assert final.json()["status"] == "Success"
    assert (await api.get(f"{PODS}/a")).status_code == 404


async def test_a_pod_without_a_node_or_with_its_work_done_goes_at_once(
    api: Client,
) -> None:
    await api.post(PODS, json=pod())
    assert (await api.delete(f"{PODS}/a")).json()["status"] == "Success"
    await api.post(PODS, json=pod(nodeName="n"))
    done = {"status": {"phase": "Succeeded"}}
    await api.patch(f"{PODS}/a/status", json=done, headers=MERGE)
    assert (await api.delete(f"{PODS}/a")).json()["status"] == "Success"


async def test_preconditions_guard_a_deletion(api: Client) -> None:
    await api.post(MAPS, json=config())
    wrong = {"preconditions": {"uid": "another"}}
    refused = await api.request("DELETE", f"{MAPS}/x", json=wrong)
    assert refused.status_code == 409
    assert "Precondition failed: UID in precondition: another" in refused.json()["message"]


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


async def test_string_data_of_a_secret_becomes_data(api: Client) -> None:
    path = "/api/v1/namespaces/default/secrets"
    made = await api.post(path, json={"metadata": {"name": "s"}, "stringData": {"a": "b"}})
    assert made.json()["data"] == {"a": "Yg=="}
    assert "stringData" not in made.json()
    assert made.json()["type"] == "Opaque"


async def test_generation_counts_changes_of_the_spec_alone(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd)
    served.cluster.loop.settle()
    path = "/apis/example.com/v1/namespaces/default/widgets"
    await api.post(path, json={"metadata": {"name": "w"}, "spec": {"size": 1}})

    async def generation(patch: dict[str, Any]) -> int:
        answer = await api.patch(f"{path}/w", json=patch, headers=MERGE)
        return int(answer.json()["metadata"]["generation"])

    assert await generation({"metadata": {"labels": {"a": "b"}}}) == 1
    assert await generation({"spec": {"size": 2}}) == 2
    assert await generation({"status": {"phase": "x"}}) == 2


async def test_without_the_subresource_a_status_is_content_as_any_other(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    """PrepareForUpdate of apiextensions-apiserver leaves out metadata alone."""
    del crd["spec"]["versions"][0]["subresources"]
    await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=crd)
    served.cluster.loop.settle()
    path = "/apis/example.com/v1/namespaces/default/widgets"
    await api.post(path, json={"metadata": {"name": "w"}, "status": {"phase": "a"}})
    patch = {"status": {"phase": "b"}}
    changed = await api.patch(f"{path}/w", json=patch, headers=MERGE)
    assert changed.json()["metadata"]["generation"] == 2


async def test_endpoints_are_kept_as_a_leader_of_old_locks_them(api: Client) -> None:
    path = "/api/v1/namespaces/default/endpoints"
    lock = {"control-plane.alpha.kubernetes.io/leader": "{}"}
    made = await api.post(path, json={"metadata": {"name": "lock", "annotations": lock}})
    assert made.status_code == 201
    body = made.json() | {"subsets": [{"addresses": [{"ip": "10.0.0.9"}]}]}
    assert (await api.put(f"{path}/lock", json=body)).status_code == 200
    assert (await api.put(f"{path}/lock", json=body)).status_code == 409
