"""Which types there are, and what they are made of, in the forms that clients ask for."""

from __future__ import annotations

from tests.sandbox.cluster.conftest import Client

ALL = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def test_a_client_that_would_have_all_in_one_document_takes_them_one_by_one(
    api: Client,
) -> None:
    answer = await api.get("/apis", headers={"Accept": f"{ALL},application/json"})
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["kind"] == "APIGroupList"
    assert (await api.get("/apis", headers={"Accept": ALL})).status_code == 406


async def test_the_types_of_a_group_are_told_with_their_subresources(widgets: Client) -> None:
    core = {each["name"]: each for each in (await widgets.get("/api/v1")).json()["resources"]}
    kind = {"kind": "TokenRequest", "group": "authentication.k8s.io", "version": "v1"}
    assert core["serviceaccounts"]["singularName"] == "serviceaccount"
    assert core["serviceaccounts/token"].items() >= {**kind, "verbs": ["create"]}.items()
    own = (await widgets.get("/apis/example.com/v1")).json()["resources"]
    assert [each["name"] for each in own] == ["widgets", "widgets/status"]


async def test_a_patch_says_that_the_server_validates_fields(api: Client) -> None:
    # What kubectl looks for before it writes: https://github.com/kubernetes/kubectl/blob/v0.32.3/pkg/util/openapi
    index = (await api.get("/openapi/v3")).json()["paths"]
    document = (await api.get(index["api/v1"]["serverRelativeURL"])).json()
    patch = document["paths"]["/api/v1/namespaces/{namespace}/pods/{name}"]["patch"]
    pod = {"group": "", "version": "v1", "kind": "Pod"}
    assert patch["x-kubernetes-group-version-kind"] == pod
    assert {"dryRun", "fieldValidation", "force"} <= {p["name"] for p in patch["parameters"]}
