"""Which types there are, and what they are made of, in the forms that clients ask for."""

from __future__ import annotations

from typing import Any

import pytest

from tests.sandbox.cluster.conftest import DEFINITIONS, Client

ALL = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
WISHES = f"{ALL},application/json"


async def everything(api: Client, path: str) -> dict[str, Any]:
    """Return the resources of each group and version in an aggregated document."""
    answer = await api.get(path, headers={"Accept": WISHES})
    assert answer.headers["Content-Type"] == ALL
    return {
        f"{group['metadata'].get('name', '')}/{version['version']}": {
            resource["resource"]: resource for resource in version["resources"]
        }
        for group in answer.json()["items"]
        for version in group["versions"]
    }


# As recorded from a kube-apiserver of v1.37.
async def test_one_document_tells_all_types_of_the_core(api: Client) -> None:
    found = (await everything(api, "/api"))["/v1"]["serviceaccounts"]
    assert found["responseKind"] == {"group": "", "version": "", "kind": "ServiceAccount"}
    kind = {"group": "authentication.k8s.io", "version": "v1", "kind": "TokenRequest"}
    token = {"subresource": "token", "responseKind": kind, "verbs": ["create"]}
    assert (found["singularResource"], found["subresources"]) == ("serviceaccount", [token])


async def test_a_custom_type_names_its_group(widgets: Client) -> None:
    found = (await everything(widgets, "/apis"))["example.com/v1"]["widgets"]
    kind = {"group": "example.com", "version": "v1", "kind": "Widget"}
    assert found["responseKind"] == found["subresources"][0]["responseKind"] == kind


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "APIGroupList"),
        ("*/*", "APIGroupList"),
        (WISHES, "APIGroupDiscoveryList"),
        (f"{ALL.replace('v2', 'v2beta1')},{WISHES}", "APIGroupDiscoveryList"),
        (f"{ALL.replace('v2', 'v9')},application/json", "APIGroupList"),
        (f"application/json,{ALL}", "APIGroupList"),
    ],
)
async def test_the_first_wish_that_can_be_met_is_met(api: Client, accept: str, kind: str) -> None:
    assert (await api.get("/apis", headers={"Accept": accept})).json()["kind"] == kind


async def test_both_forms_of_discovery_tell_the_same(api: Client) -> None:
    whole = {**await everything(api, "/api"), **await everything(api, "/apis")}
    assert len(whole) > 5
    for place, resources in whole.items():
        group, _, version = place.partition("/")
        path = f"/apis/{group}/{version}" if group else f"/api/{version}"
        listed = (await api.get(path)).json()["resources"]
        assert [entry["name"] for entry in listed if "/" not in entry["name"]] == list(resources)
        for name, resource in resources.items():
            parts = {f"{name}/{sub['subresource']}" for sub in resource.get("subresources", ())}
            assert parts == {e["name"] for e in listed if e["name"].startswith(f"{name}/")}


async def test_a_patch_says_that_the_server_validates_fields(api: Client) -> None:
    # What kubectl looks for before it writes: https://github.com/kubernetes/kubectl/blob/v0.32.3/pkg/util/openapi
    index = (await api.get("/openapi/v3")).json()["paths"]
    document = (await api.get(index["api/v1"]["serverRelativeURL"])).json()
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    pod = {"group": "", "version": "v1", "kind": "Pod"}
    assert patch["x-kubernetes-group-version-kind"] == pod
    assert {"dryRun", "fieldValidation", "force"} <= {p["name"] for p in patch["parameters"]}


async def test_a_document_changes_its_address_with_its_content(widgets: Client) -> None:
    before = (await widgets.get("/openapi/v3")).json()["paths"]
    changed = (await widgets.get(f"{DEFINITIONS}/widgets.example.com")).json()
    spec = changed["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["description"] = "What is wished."
    await widgets.put(f"{DEFINITIONS}/widgets.example.com", json=changed)
    after = (await widgets.get("/openapi/v3")).json()["paths"]
    assert before.keys() == after.keys()
    assert [place for place in after if before[place] != after[place]] == ["apis/example.com/v1"]


async def test_openapi_of_the_second_version_names_no_type(api: Client) -> None:
    asked = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
    answer = await api.get("/openapi/v2", headers={"Accept": asked})
    # swagger (1) and info (2) with title and version, then paths (8) with nothing in it.
    assert answer.content == b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.32.3\x42\x00"
    assert (await api.get("/openapi/v2")).status_code == 406


async def test_there_is_no_document_of_a_group_that_is_not_served(api: Client) -> None:
    answer = await api.get("/openapi/v3/apis/batch/v1")
    assert (answer.status_code, answer.text) == (404, "404 page not found\n")
