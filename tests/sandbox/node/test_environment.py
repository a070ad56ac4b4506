from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.node.environment import expand, pod_fields, variables
from podidentity_sandbox.node.refusals import ContainerRefused

POD = {
    "metadata": {
        "name": "web",
        "namespace": "shop",
        "uid": "u-1",
        "labels": {"app": "web"},
    },
    "spec": {"nodeName": "node-0", "serviceAccountName": "buyer"},
}


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
    assert variables([entry], fields, {})["X"] == expected


def test_a_variable_refers_to_those_before_it_and_not_after() -> None:
    entries = [
        {"name": "FIRST", "value": "$(SECOND)"},
        {"name": "SECOND", "value": "two"},
        {"name": "THIRD", "value": "$(SECOND)-$(GIVEN)"},
    ]
    result = variables(entries, {}, {"GIVEN": "g"})
    assert result == {"GIVEN": "g", "FIRST": "$(SECOND)", "SECOND": "two", "THIRD": "two-g"}


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ({"fieldRef": {"fieldPath": "spec.colour"}}, "unsupported fieldPath: spec.colour"),
        ({"secretKeyRef": {"name": "s", "key": "k"}}, "env X: .* secretKeyRef"),
    ],
)
def test_a_source_that_is_not_served_refuses_the_container(
    source: dict[str, Any], says: str
) -> None:
    with pytest.raises(ContainerRefused, match=says) as refused:
        variables([{"name": "X", "valueFrom": source}], {}, {})
    assert refused.value.reason == "CreateContainerConfigError"
