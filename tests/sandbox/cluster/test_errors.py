"""Refusals in the real server's words; nothing that a client writes makes the server fail."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st

from podidentity_sandbox.cluster import Json, Obj, names
from podidentity_sandbox.cluster.cluster import Cluster
from podidentity_sandbox.cluster.resources import Deletion
from podidentity_sandbox.cluster.status import StatusError
from tests.sandbox.cluster.conftest import (
    definition,
    node_plan,
    plan_of,
    pod,
)

# ---- Nonsense is taken or refused with a Status: nothing makes the server fail
#
# Valid objects are changed in one place, so that nonsense gets past the first check.

TEMPLATE = {"metadata": {"labels": {"app": "x", "a": "b"}}, "spec": pod()["spec"]}
RULE = {"verbs": ["get"], "apiGroups": [""], "resources": ["pods"], "resourceNames": ["a"]}
OWNER = {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": "u", "controller": True}
TERM = {"matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]}
AFFINITY = {
    "nodeAffinity": {
        "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [TERM]}
    }
}
CONTAINER = {
    "name": "c",
    "image": "x:1",
    "env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
    "envFrom": [{"configMapRef": {"name": "m"}}],
    "volumeMounts": [{"name": "v", "mountPath": "/v"}],
}
METADATA = {
    "name": "a",
    "labels": {"app": "x"},
    "annotations": {"a": "b"},
    "finalizers": ["example.com/x"],
    "ownerReferences": [OWNER],
}
VALID: dict[str, Obj] = {
    "pods": {
        "spec": {
            "containers": [CONTAINER],
            "affinity": AFFINITY,
            "tolerations": [{"key": "a", "operator": "Equal", "value": "b", "effect": "NoExecute"}],
            "volumes": [{"name": "v", "projected": {"sources": [{"secret": {"name": "s"}}]}}],
        },
    },
    "nodes": {
        "spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]},
        "status": {"conditions": [{"type": "Ready", "status": "True"}]},
    },
    "secrets": {"data": {"a": "Yg=="}, "stringData": {"b": "c"}, "type": "Opaque"},
    "configmaps": {"data": {"a": "b"}},
    "events": {
        "involvedObject": {"namespace": "default", "name": "a"},
        "source": {"component": "x"},
    },
    "namespaces": {"spec": {"finalizers": ["x"]}},
    "leases.coordination.k8s.io": {"spec": {"holderIdentity": "x", "leaseDurationSeconds": 1}},
    "daemonsets.apps": {
        "spec": {
            "selector": {"matchLabels": {"app": "x"}, **TERM},
            "template": TEMPLATE,
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": "50%"}},
        },
    },
    "clusterroles.rbac.authorization.k8s.io": {
        "rules": [RULE, {"nonResourceURLs": ["/x"], "verbs": ["get"]}]
    },
    "clusterrolebindings.rbac.authorization.k8s.io": {
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "a", "namespace": "default"}],
    },
    "customresourcedefinitions.apiextensions.k8s.io": definition(),
    "widgets.example.com": {"spec": {"size": 1, "colour": None, "labels": {"a": "b"}}},
}
NONSENSE = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.sampled_from(["", "x", "a/b", "100%", "2026-11-25T00:00:00Z", "\u0000"]),
    st.sampled_from([[], [None], ["x"], [1], [{}], [[]], {}, {"a": None}, {"a": 1}, {"": {}}]),
)
KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)


def places(value: Json, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Yield the path of each value inside a JSON value."""
    pairs = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in pairs:
        yield (*path, key)
        if isinstance(item, dict | list):
            yield from places(item, (*path, key))


def changed(body: Obj, path: tuple[Any, ...], value: Json) -> Obj:
    result = copy.deepcopy(body)
    inner = result
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return result


def new_cluster() -> Cluster:
    cluster = Cluster(plan_of(Path(), node_plan(0)), KEY)
    definitions = "customresourcedefinitions.apiextensions.k8s.io"
    cluster.resources.create(definitions, "", definition())
    cluster.loop.settle()
    state = {"conditions": [{"type": "Ready", "status": "True"}]}
    cluster.resources.create("nodes", "", {"metadata": {"name": "node-0"}, "status": state})
    return cluster


@pytest.mark.parametrize("key", sorted(VALID))
def test_what_is_changed_is_valid_to_begin_with(key: str) -> None:
    cluster = new_cluster()
    kind = cluster.registry.by_key(key)
    body = {"metadata": METADATA, **copy.deepcopy(VALID[key])}
    if kind.kind == "CustomResourceDefinition":
        body["metadata"] = VALID[key]["metadata"]
        cluster.storage.remove(key, cluster.storage.all(key)[0])
    assert cluster.resources.create(kind, "default" if kind.namespaced else "", body)


@settings(max_examples=400, deadline=None)
@given(data=st.data())
def test_no_body_makes_the_server_or_a_controller_fail(data: st.DataObject) -> None:
    cluster = new_cluster()
    key = data.draw(st.sampled_from(sorted(VALID)))
    kind = cluster.registry.by_key(key)
    whole = {"metadata": METADATA, **VALID[key]}
    body = changed(whole, data.draw(st.sampled_from(list(places(whole)))), data.draw(NONSENSE))
    namespace = "default" if kind.namespaced else ""
    with contextlib.suppress(StatusError):
        cluster.resources.create(kind, namespace, copy.deepcopy(body))
    cluster.loop.settle()
    for record in cluster.storage.all(key, namespace):
        with contextlib.suppress(StatusError):
            cluster.resources.update(kind, record, copy.deepcopy(body))
        cluster.loop.settle()
        left = cluster.storage.get(key, namespace, record.name)
        if left is not None and not kind.strategy.keeps(left.object):
            cluster.resources.delete(kind, left, Deletion())
            cluster.loop.settle()


# ---- Rules: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/.


@pytest.mark.parametrize(
    ("rule", "good", "bad"),
    [
        (
            names.subdomain_faults,
            ["a", "a-b", "a.b", "0", "a" * 253],
            ["", "A", "a_b", "-a", "a-", "a..b", "a.", "ä", "a" * 254, "a\n"],
        ),
        (names.label_faults, ["a" * 63], ["a.b", "a" * 64]),
        (names.path_faults, ["system:node"], ["a/b", ".."]),
        (
            names.qualified_faults,
            ["app", "app.kubernetes.io/name", "A_b.c"],
            ["", "/name", "a/", "a/b/c", "Prefix/name", "-x"],
        ),
        (names.value_faults, ["", "A.b_c-1"], ["a b"]),
    ],
)
def test_a_rule_takes_the_names_that_it_is_for(
    rule: Callable[[str], list[str]], good: list[str], bad: list[str]
) -> None:
    assert [name for name in good if rule(name)] == []
    assert [name for name in bad if not rule(name)] == []


def test_a_generated_name_is_valid_and_new_each_time() -> None:
    made = {names.generated("nmi-") for _ in range(20)}
    assert len(made) == 20
    assert all(name.startswith("nmi-") and not names.subdomain_faults(name) for name in made)
