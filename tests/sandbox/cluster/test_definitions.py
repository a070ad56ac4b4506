"""CustomResourceDefinitions, and the product's own.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from tests.sandbox.cluster.conftest import (
    DEFINITIONS,
    MERGE,
    WIDGETS,
    Client,
    Served,
    check_refusal,
    define,
)

OURS = "/apis/aadpodidentity.k8s.io/v1/namespaces/default"
OF_WIDGETS = f"{DEFINITIONS}/widgets.example.com"
IDENTITY = {"type": 0, "resourceID": "/subscriptions/x", "clientID": "1"}


async def test_a_definition_says_what_was_accepted_of_it(widgets: Client) -> None:
    found = (await widgets.get(OF_WIDGETS)).json()["status"]
    conditions = {c["type"]: c["status"] for c in found["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert (found["acceptedNames"]["listKind"], found["storedVersions"]) == ("WidgetList", ["v1"])


async def test_a_changed_schema_holds_for_the_next_write(widgets: Client, served: Served) -> None:
    current = (await widgets.get(OF_WIDGETS)).json()
    schema = current["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["required"] = ["size"]
    await widgets.put(OF_WIDGETS, json=current)
    served.cluster.loop.settle()
    answer = await widgets.post(WIDGETS, json={"metadata": {"name": "w"}, "spec": {}})
    check_refusal(answer, 422, 'Widget.example.com "w" is invalid: spec.size: Required value')


async def test_a_definition_takes_its_objects_with_it_and_waits_for_their_finalizers(
    widgets: Client, served: Served
) -> None:
    held = {"metadata": {"name": "w", "finalizers": ["example.com/hold"]}}
    await widgets.post(WIDGETS, json=held)
    assert "finalizers" not in (await widgets.get(OF_WIDGETS)).json()["metadata"]
    await widgets.delete(OF_WIDGETS)
    served.cluster.loop.settle()
    ending = (await widgets.get(OF_WIDGETS)).json()
    assert ending["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert ending["status"]["conditions"][-1]["type"] == "Terminating"
    await widgets.patch(f"{WIDGETS}/w", json={"metadata": {"finalizers": None}}, headers=MERGE)
    served.cluster.loop.settle()
    for path in (OF_WIDGETS, WIDGETS):
        assert (await widgets.get(path)).status_code == 404


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            {"metadata": {"name": "other.example.com"}},
            'metadata.name: Invalid value: "other.example.com": '
            'must be spec.names.plural+"."+spec.group',
        ),
        ({"scope": "Everywhere"}, 'spec.scope: Unsupported value: "Everywhere"'),
        ({"versions": []}, "must have exactly one version marked as storage version"),
        ({"versions": [{"name": "v1", "served": True, "storage": True}]}, "schemas are required"),
        ({"group": "x.k8s.io"}, "groups must have approval annotation"),
    ],
)
async def test_a_definition_that_cannot_be_served_is_invalid(
    api: Client, crd: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    crd["metadata"] |= change.pop("metadata", {})
    crd["spec"] |= change
    check_refusal(await api.post(DEFINITIONS, json=crd), 422, says)


@pytest.mark.parametrize(
    "word", [{"x-kubernetes-validations": [{"rule": "self.size > 0"}]}, {"minProperties": 1}]
)
async def test_rules_that_are_not_evaluated_are_refused_and_not_ignored(
    api: Client, crd: dict[str, Any], word: dict[str, Any]
) -> None:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] |= word
    answer = await api.post(DEFINITIONS, json=crd)
    check_refusal(answer, 422, "this sandbox does not evaluate it")


@pytest.fixture
async def ours(api: Client, served: Served) -> Client:
    text = resources.files("podidentity.manifests").joinpath("crds.yaml").read_text()
    for crd in yaml.safe_load(text)["items"]:
        await define(api, served, crd)
    return api


async def test_old_manifests_of_the_four_kinds_are_taken_as_they_are(ours: Client) -> None:
    body = {"metadata": {"name": "demo"}, "spec": IDENTITY}
    made = (await ours.post(f"{OURS}/azureidentities", json=body)).json()
    assert (made["spec"], made["metadata"]["generation"]) == (IDENTITY, 1)
    reference = {**made, "metadata": {"name": "demo", "resourceVersion": "7"}}
    assigned = {
        "metadata": {"name": "a"},
        "spec": {"azureIdentityRef": reference, "pod": "p", "nodename": "n", "replicas": None},
        "status": {"status": "Assigned", "availableReplicas": 1},
    }
    kept = (await ours.post(f"{OURS}/azureassignedidentities", json=assigned)).json()
    # no status subresource: the status is written with the object
    assert kept["status"]["status"] == "Assigned"
    assert kept["spec"]["azureIdentityRef"]["metadata"]["name"] == "demo"
    assert kept["spec"]["replicas"] is None
