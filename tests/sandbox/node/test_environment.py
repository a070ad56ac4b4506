from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.node.api import ApiClient
from podidentity_sandbox.node.environment import Found, expand, fetch_references, variables
from podidentity_sandbox.node.spec import ContainerRefused, ContainerSpec, parse_pod, pod_fields

POD: dict[str, Any] = {
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web"},
    },
    "spec": {"nodeName": "node-0", "serviceAccountName": "buyer"},
}


UNPARSED = (
    "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
)
FOUND: Found = {
    ("secret", "s"): {"USER": "root"},
    ("configMap", "c"): {"A": "shared"},
    ("secret", "none"): None,
    ("configMap", "none"): None,
}


def container_of(entries: list[dict[str, Any]], **more: Any) -> ContainerSpec:
    raw = {"name": "main", "image": "none", "env": entries, **more}
    return parse_pod({**POD, "spec": {**POD["spec"], "containers": [raw]}}).containers[0]


def made(
    entries: list[dict[str, Any]], fields: dict[str, str], given: dict[str, str], **more: Any
) -> dict[str, str]:
    """Return the environment of a container with these entries."""
    return variables(container_of(entries, **more), fields, given, namespace="shop", found=FOUND)


# The first five are the cases of
# https://github.com/kubernetes/kubernetes/blob/master/third_party/forked/golang/expansion/expand_test.go
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("$(A)", "1"),
        ("___$(A)___$(B)___", "___1___2___"),
        ("$(MISSING)", "$(MISSING)"),
        ("$$(A)", "$(A)"),
        ("$A", "$A"),
        ("$$$(A)", "$1"),
        ("$(A", "$(A"),
        ("cost: 5$", "cost: 5$"),
        ("", ""),
    ],
)
def test_only_known_names_in_parentheses_are_expanded(text: str, expected: str) -> None:
    assert expand(text, {"A": "1", "B": "2"}) == expected


def test_an_expanded_value_is_not_expanded_again() -> None:
    assert expand("$(A)", {"A": "$(B)", "B": "x"}) == "$(B)"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("metadata.name", "web"),
        ("metadata.namespace", "shop"),
        ("metadata.uid", "u-1"),
        ("spec.nodeName", "node-0"),
        ("spec.serviceAccountName", "buyer"),
        ("status.podIP", "10.244.0.2"),
        ("status.hostIP", "10.240.0.4"),
        ("metadata.labels['app']", "web"),
        ("metadata.labels['missing']", ""),
    ],
)
def test_a_field_of_the_pod_becomes_a_variable(path: str, expected: str) -> None:
    fields = pod_fields(POD, pod_address="10.244.0.2", host_address="10.240.0.4")
    entry = {"name": "X", "valueFrom": {"fieldRef": {"fieldPath": path}}}
    assert made([entry], fields, {})["X"] == expected


def test_a_variable_refers_to_those_before_it_and_not_after() -> None:
    entries = [
        {"name": "FIRST", "value": "$(SECOND)"},
        {"name": "SECOND", "value": "two"},
        {"name": "THIRD", "value": "$(SECOND)-$(GIVEN)"},
    ]
    result = made(entries, {}, {"GIVEN": "g"})
    assert result == {"GIVEN": "g", "FIRST": "$(SECOND)", "SECOND": "two", "THIRD": "two-g"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"fieldRef": {"fieldPath": "spec.colour"}}, "unsupported fieldPath: spec.colour"),
        ({"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Q"}}, UNPARSED),
        ({"secretKeyRef": {"name": "none", "key": "k"}}, 'secret "none" not found'),
        ({"configMapKeyRef": {"name": "none", "key": "k"}}, 'configmap "none" not found'),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "couldn't find key k in Secret shop/s"),
        ({"configMapKeyRef": {"name": "c", "key": "k"}}, "couldn't find key k in ConfigMap shop/c"),
    ],
)
def test_a_source_that_is_not_there_refuses_the_container(
    source: dict[str, Any], says: str
) -> None:
    with pytest.raises(ContainerRefused) as refused:
        made([{"name": "X", "valueFrom": source}], {}, {})
    assert (refused.value.reason, str(refused.value)) == ("CreateContainerConfigError", says)


def test_variables_from_whole_objects_are_refused() -> None:
    with pytest.raises(ContainerRefused, match="the sandbox serves no envFrom"):
        made([], {}, {}, envFrom=[{"configMapRef": {"name": "m"}}])


def test_an_optional_source_that_is_not_there_makes_no_variable() -> None:
    for reference in ({"name": "none", "key": "k"}, {"name": "s", "key": "k"}):
        source = {"secretKeyRef": {**reference, "optional": True}}
        assert made([{"name": "X", "valueFrom": source}], {}, {}) == {}


@pytest.mark.parametrize(
    ("resource", "divisor", "expected"),
    [
        ("limits.cpu", None, "1"),
        ("limits.cpu", "1m", "250"),
        ("requests.cpu", "1m", "250"),
        ("limits.memory", None, "134217728"),
        ("limits.memory", "1Mi", "128"),
        ("requests.memory", "1Ki", "65536"),
    ],
)
def test_a_container_sees_its_resources(resource: str, divisor: str | None, expected: str) -> None:
    source = {"resourceFieldRef": {"resource": resource, "divisor": divisor}}
    resources = {
        "limits": {"cpu": "250m", "memory": "128Mi"},
        "requests": {"memory": "64Mi"},
    }
    entry = {"name": "X", "valueFrom": source}
    assert made([entry], {}, {}, resources=resources)["X"] == expected


def test_without_limits_a_container_sees_those_of_the_node() -> None:
    source = {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1Gi"}}
    assert made([{"name": "X", "valueFrom": source}], {}, {})["X"] == "4"


async def test_each_object_is_read_once_however_many_variables_it_gives() -> None:
    asked: list[str] = []

    class Recording(ApiClient):
        """Answers every question with the same config map."""

        def __init__(self) -> None:
            """Connect to nothing."""

        async def find(self, path: str) -> dict[str, Any]:
            asked.append(path)
            return {"data": {"a": "1", "b": "2"}}

    entries = [
        {"name": key, "valueFrom": {"configMapKeyRef": {"name": "c", "key": key}}} for key in "ab"
    ]
    found = await fetch_references(container_of(entries), "shop", Recording())
    assert asked == ["/api/v1/namespaces/shop/configmaps/c"]
    assert found == {("configMap", "c"): {"a": "1", "b": "2"}}
