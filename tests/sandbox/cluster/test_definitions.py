"""CustomResourceDefinitions, and the product's own.

https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/custom-resource-definitions/
"""

from __future__ import annotations

from importlib import resources
from typing import Any

import pytest
import yaml

from tests.sandbox.cluster.conftest import DEFINITIONS, MERGE, WIDGETS, Client, Served

OURS = "/apis/aadpodidentity.k8s.io/v1/namespaces/default"


async def define(api: Client, served: Served, crd: dict[str, Any]) -> None:
    answer = await api.post(DEFINITIONS, json=crd)
    assert answer.status_code == 201, answer.text
    served.cluster.loop.settle()


async def test_a_definition_is_established_and_its_type_discovered(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    await define(api, served, crd)
    found = (await api.get(f"{DEFINITIONS}/widgets.example.com")).json()
    conditions = {c["type"]: c["status"] for c in found["status"]["conditions"]}
    assert conditions == {"NamesAccepted": "True", "Established": "True"}
    assert found["status"]["acceptedNames"]["listKind"] == "WidgetList"
    assert found["status"]["storedVersions"] == ["v1"]
    listed = (await api.get("/apis/example.com/v1")).json()
    assert [entry["name"] for entry in listed["resources"]] == ["widgets", "widgets/status"]
    groups = (await api.get("/apis")).json()["groups"]
    assert "example.com" in {group["name"] for group in groups}


async def test_items_of_a_custom_list_name_their_kind(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    await define(api, served, crd)
    await api.post(WIDGETS, json={"metadata": {"name": "w"}})
    listed = (await api.get(WIDGETS)).json()
    assert listed["kind"] == "WidgetList"
    assert listed["items"][0]["kind"] == "Widget"


async def test_a_changed_schema_holds_for_the_next_write(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    await define(api, served, crd)
    current = (await api.get(f"{DEFINITIONS}/widgets.example.com")).json()
    schema = current["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"]["required"] = ["size"]
    await api.put(f"{DEFINITIONS}/widgets.example.com", json=current)
    served.cluster.loop.settle()
    answer = await api.post(WIDGETS, json={"metadata": {"name": "w"}, "spec": {}})
    assert answer.json()["message"] == (
        'Widget.example.com "w" is invalid: spec.size: Required value'
    )


async def test_a_definition_takes_its_objects_with_it_and_waits_for_their_finalizers(
    api: Client, served: Served, crd: dict[str, Any]
) -> None:
    await define(api, served, crd)
    held = {"metadata": {"name": "w", "finalizers": ["example.com/hold"]}}
    await api.post(WIDGETS, json=held)
    living = (await api.get(f"{DEFINITIONS}/widgets.example.com")).json()
    assert "finalizers" not in living["metadata"]
    await api.delete(f"{DEFINITIONS}/widgets.example.com")
    served.cluster.loop.settle()
    ending = (await api.get(f"{DEFINITIONS}/widgets.example.com")).json()
    assert ending["metadata"]["finalizers"] == ["customresourcecleanup.apiextensions.k8s.io"]
    assert ending["status"]["conditions"][-1]["type"] == "Terminating"
    free = {"metadata": {"finalizers": None}}
    await api.patch(f"{WIDGETS}/w", json=free, headers=MERGE)
    served.cluster.loop.settle()
    assert (await api.get(f"{DEFINITIONS}/widgets.example.com")).status_code == 404
    assert (await api.get(WIDGETS)).status_code == 404


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
        (
            {"versions": [{"name": "v1", "served": True, "storage": True}]},
            "schemas are required",
        ),
        (
            {
                "group": "x.k8s.io",
            },
            'protected groups must have approval annotation "api-approved.kubernetes.io"',
        ),
    ],
)
async def test_a_definition_that_cannot_be_served_is_invalid(
    api: Client, crd: dict[str, Any], change: dict[str, Any], says: str
) -> None:
    crd["metadata"] |= change.pop("metadata", {})
    crd["spec"] |= change
    answer = await api.post(DEFINITIONS, json=crd)
    assert answer.status_code == 422
    assert says in answer.json()["message"]


@pytest.mark.parametrize(
    "word", [{"x-kubernetes-validations": [{"rule": "self.size > 0"}]}, {"minProperties": 1}]
)
async def test_rules_that_are_not_evaluated_are_refused_and_not_ignored(
    api: Client, crd: dict[str, Any], word: dict[str, Any]
) -> None:
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    schema["properties"]["spec"] |= word
    answer = await api.post(DEFINITIONS, json=crd)
    assert answer.status_code == 422
    assert "this sandbox does not evaluate it" in answer.json()["message"]


@pytest.fixture
async def ours(api: Client, served: Served) -> Client:
    text = resources.files("podidentity.manifests").joinpath("crds.yaml").read_text()
    for definition in yaml.safe_load(text)["items"]:
        await define(api, served, definition)
    return api


async def test_old_manifests_of_the_four_kinds_are_taken_as_they_are(
    ours: Client,
) -> None:
    spec = {"type": 0, "resourceID": "/subscriptions/x", "clientID": "1"}
    made = await ours.post(
        f"{OURS}/azureidentities", json={"metadata": {"name": "demo"}, "spec": spec}
    )
    assert made.json()["spec"] == spec
    assert made.json()["metadata"]["generation"] == 1
    reference = {**made.json(), "metadata": {"name": "demo", "resourceVersion": "7"}}
    assigned = {
        "metadata": {"name": "a"},
        "spec": {"azureIdentityRef": reference, "pod": "p", "nodename": "n", "replicas": None},
        "status": {"status": "Assigned", "availableReplicas": 1},
    }
    answer = await ours.post(f"{OURS}/azureassignedidentities", json=assigned)
    assert answer.status_code == 201, answer.text
    # no status subresource: the status is written with the object
    assert answer.json()["status"]["status"] == "Assigned"
    assert answer.json()["spec"]["azureIdentityRef"]["metadata"]["name"] == "demo"
    assert answer.json()["spec"]["replicas"] is None


async def test_a_resource_inside_another_says_what_it_is(ours: Client) -> None:
    """x-kubernetes-embedded-resource, as AzureAssignedIdentity has it."""
    path = f"{OURS}/azureassignedidentities"
    body: dict[str, Any] = {"metadata": {"name": "a"}, "spec": {"azureIdentityRef": {}}}
    where, ref = "spec.azureIdentityRef", body["spec"]["azureIdentityRef"]

    async def said() -> str:
        answer = (await ours.post(path, json=body)).json()
        return str(answer["message"]).partition(" is invalid: ")[2] or str(answer["message"])

    assert await said() == (f"[{where}.apiVersion: Required value, {where}.kind: Required value]")
    ref |= {"apiVersion": "a/b/c", "kind": "AzureIdentity"}
    assert "unexpected GroupVersion string: a/b/c" in await said()
    ref |= {"apiVersion": "aadpodidentity.k8s.io/v1", "kind": "No Kind"}
    assert "may have mixed case, but should otherwise match: a DNS-1035 label" in await said()
    ref |= {"kind": "AzureIdentity", "metadata": {"name": "x", "labels": {"a b": "c"}}}
    assert f'{where}.metadata.labels: Invalid value: "a b": name part must' in await said()
    ref |= {"metadata": {"labels": 1}}
    assert "cannot be handled as a AzureAssignedIdentity: spec.azureIdentityRef.metadata: " in (
        await said()
    )
    ref |= {"metadata": {"name": "a b", "bogus": 1}}
    made = await ours.post(path, json=body)
    assert made.json()["spec"]["azureIdentityRef"]["metadata"] == {"name": "a b"}
    assert made.headers["Warning"] == f'299 - "unknown field \\"{where}.metadata.bogus\\""'


async def test_a_finalizer_that_anybody_could_have_is_warned_of(ours: Client) -> None:
    path, own = f"{OURS}/azureidentities", "azureassignedidentity.finalizers.aadpodidentity.k8s.io"
    names = [own, "aadpodidentity.k8s.io/mic", "foregroundDeletion"]
    spec = {"type": 0, "resourceID": "/subscriptions/x", "clientID": "1"}
    made = await ours.post(
        path, json={"metadata": {"name": "a", "finalizers": names}, "spec": spec}
    )
    said = f'metadata.finalizers: \\"{own}\\": prefer a domain-qualified finalizer name'
    assert said in made.headers["Warning"]
    assert made.headers["Warning"].count("prefer") == 1
    again = await ours.patch(f"{path}/a", json={"metadata": {"labels": {"a": "b"}}}, headers=MERGE)
    assert "Warning" not in again.headers


MONITORING = """
spec:
  group: monitoring.coreos.com
  scope: Namespaced
  names: {kind: KIND, plural: kinds, categories: [prometheus-operator], shortNames: [short]}
  versions:
  - name: v1
    served: true
    storage: true
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties: {spec: SPEC}
"""
NUMBER_OR_TEXT = "{anyOf: [{type: integer}, {type: string}], x-kubernetes-int-or-string: true}"
TEXTS = "{type: object, additionalProperties: {type: string}}"
SERVICE_MONITOR = f"""
type: object
required: [endpoints, selector]
properties:
  endpoints:
    type: array
    items:
      type: object
      properties:
        interval: {{type: string, pattern: '^(0|(([0-9]+)m)?(([0-9]+)s)?)$'}}
        port: {{type: string}}
        scheme: {{type: string, enum: [http, https]}}
        targetPort: {NUMBER_OR_TEXT}
  selector: {{type: object, properties: {{matchLabels: {TEXTS}}}, x-kubernetes-map-type: atomic}}
"""
PROMETHEUS_RULE = f"""
type: object
properties:
  groups:
    type: array
    x-kubernetes-list-map-keys: [name]
    x-kubernetes-list-type: map
    items:
      type: object
      required: [name]
      properties:
        name: {{type: string, minLength: 1}}
        partial_response_strategy: {{type: string, pattern: '^(?i)(abort|warn)?$'}}
        rules:
          type: array
          items:
            type: object
            required: [expr]
            properties: {{alert: {{type: string}}, expr: {NUMBER_OR_TEXT}, labels: {TEXTS}}}
"""


def monitoring(kind: str, spec: str) -> dict[str, Any]:
    """Return a definition of the Prometheus operator's, with some of its spec's fields."""
    found: dict[str, Any] = yaml.safe_load(MONITORING)
    names, (version,) = found["spec"]["names"], found["spec"]["versions"]
    names |= {"kind": kind, "plural": f"{kind.lower()}s", "shortNames": [kind.lower()[:5]]}
    version["schema"]["openAPIV3Schema"]["properties"]["spec"] = yaml.safe_load(spec)
    return {"metadata": {"name": f"{names['plural']}.monitoring.coreos.com"}, **found}


@pytest.mark.parametrize(
    ("definition", "good", "bad", "says"),
    [
        (
            monitoring("ServiceMonitor", SERVICE_MONITOR),
            {"endpoints": [{"port": "metrics", "targetPort": 9090, "interval": "1m"}]},
            {"endpoints": [{"port": "metrics", "scheme": "ftp"}]},
            'spec.endpoints[0].scheme: Unsupported value: "ftp"',
        ),
        (
            monitoring("PrometheusRule", PROMETHEUS_RULE),
            {"groups": [{"name": "nmi", "partial_response_strategy": "Warn"}]},
            {"groups": [{"name": "nmi", "rules": [{"alert": "Down"}]}]},
            "spec.groups[0].rules[0].expr: Required value",
        ),
    ],
    ids=["ServiceMonitor", "PrometheusRule"],
)
async def test_definitions_as_the_prometheus_operator_has_them_judge_their_objects(
    api: Client,
    served: Served,
    *,
    definition: dict[str, Any],
    good: dict[str, Any],
    bad: dict[str, Any],
    says: str,
) -> None:
    await define(api, served, definition)
    names = definition["spec"]["names"]
    path = f"/apis/monitoring.coreos.com/v1/namespaces/default/{names['plural']}"
    body = {"apiVersion": "monitoring.coreos.com/v1", "kind": names["kind"]}
    apply = {"fieldManager": "helm", "fieldValidation": "Strict"}
    how = {"Content-Type": "application/apply-patch+yaml"}
    spec = {"selector": {"matchLabels": {"app": "nmi"}}} if "Monitor" in names["kind"] else {}
    for wanted, status in ((good, 201), (bad, 422)):
        answer = await api.patch(
            f"{path}/nmi", params=apply, headers=how, json={**body, "spec": {**spec, **wanted}}
        )
        assert answer.status_code == status, answer.text
    assert says in answer.json()["message"]
    kept = (await api.get(f"{path}/nmi")).json()["spec"]
    assert kept == {**spec, **good}
