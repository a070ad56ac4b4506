"""What the cluster's own parts write is theirs in managedFields, as in a real cluster.

https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx2

from podidentity_sandbox.cluster.storage import Record
from tests.sandbox.cluster.conftest import Served, pod
from tests.sandbox.cluster.settled import Settled

MANAGER, SCHEDULER, SERVER = "kube-controller-manager", "kube-scheduler", "kube-apiserver"


def shares(record: Record | None) -> Mapping[tuple[str, str], Any]:
    """Return what each manager owns, by its name and subresource."""
    assert record is not None
    entries = record.metadata.get("managedFields", [])
    assert {entry["operation"] for entry in entries} <= {"Update"}
    return {(e["manager"], e.get("subresource", "")): e["fieldsV1"] for e in entries}


def deployed(world: Settled) -> Sequence[Record | None]:
    """Return a deployment, its set and its pod."""
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    world.create("deployments.apps", {"metadata": {"name": "a"}, "spec": spec})
    (one,) = world.cluster.storage.all("replicasets.apps")
    (name,) = world.pods()
    return world.get("deployments.apps", "a"), one, world.get("pods", name)


def test_what_a_controller_makes_and_what_it_says_of_it_are_two_shares(world: Settled) -> None:
    world.node("n")
    _, made, its_pod = deployed(world)
    assert set(shares(made)) == {(MANAGER, ""), (MANAGER, "status")}
    assert shares(made)[MANAGER, "status"]["f:status"]["f:replicas"] == {}
    owned = shares(its_pod)[MANAGER, ""]
    assert owned["f:metadata"]["f:generateName"] == {}
    assert made is not None
    assert set(owned["f:metadata"]["f:ownerReferences"]) == {".", f'k:{{"uid":"{made.uid}"}}'}
    assert set(owned["f:spec"]["f:containers"]) == {'k:{"name":"c"}'}
    assert "f:status" not in owned


def test_what_a_person_wrote_stays_the_persons(world: Settled) -> None:
    made, _, _ = deployed(world)
    # The person's own part is not tracked here: nobody is named as its manager.
    assert set(shares(made)) == set()


async def test_a_deployment_is_its_makers_and_its_status_and_revision_the_controllers(
    served: Served, api: httpx2.AsyncClient
) -> None:
    labels = {"app": "a"}
    template = {"metadata": {"labels": labels}, "spec": pod()["spec"]}
    spec = {"selector": {"matchLabels": labels}, "template": template}
    body = {"metadata": {"name": "a"}, "spec": spec}
    path = "/apis/apps/v1/namespaces/default/deployments"
    await api.post(path, json=body, headers={"User-Agent": "kubectl/v1.32.3 (linux/amd64)"})
    served.cluster.loop.settle()
    found = shares(served.cluster.storage.get("deployments.apps", "default", "a"))
    assert set(found) == {("kubectl", ""), (MANAGER, "status")}
    assert "f:replicas" in found["kubectl", ""]["f:spec"]
    told = found[MANAGER, "status"]
    revision: dict[str, Any] = {".": {}, "f:deployment.kubernetes.io/revision": {}}
    assert told["f:metadata"] == {"f:annotations": revision}
    assert "f:conditions" in told["f:status"]


def test_the_scheduler_owns_what_it_says_and_nobody_where_a_pod_is(world: Settled) -> None:
    kind = world.cluster.registry.by_key("pods")
    resources = world.cluster.resources.acting_as("kubectl-run")
    resources.create(kind, "default", pod("a"))
    world.cluster.loop.settle()
    said = shares(world.get("pods", "a"))[SCHEDULER, "status"]["f:status"]["f:conditions"]
    assert set(said) == {".", 'k:{"type":"PodScheduled"}'}
    world.node("n")
    placed = shares(world.get("pods", "a"))
    assert "f:nodeName" not in placed["kubectl-run", ""]["f:spec"]


def test_what_every_cluster_has_is_the_servers_or_the_controller_managers(world: Settled) -> None:
    assert set(shares(world.get("namespaces", "kube-system"))) == {(SERVER, "")}
    role = world.get("clusterroles.rbac.authorization.k8s.io", "view")
    assert set(shares(role)) == {(SERVER, "")}
    root = shares(world.get("configmaps", "kube-root-ca.crt"))
    assert root == {(MANAGER, ""): {"f:data": {".": {}, "f:ca.crt": {}}}}
    assert shares(world.get("serviceaccounts", "default")) == {}


def test_the_conditions_of_a_definition_are_the_servers(
    world: Settled, crd: dict[str, Any]
) -> None:
    kind = world.cluster.registry.by_key("customresourcedefinitions.apiextensions.k8s.io")
    world.cluster.resources.acting_as("kubectl").create(kind, "", crd)
    world.cluster.loop.settle()
    found = shares(world.get(kind.key, "widgets.example.com"))
    assert set(found) == {("kubectl", ""), (SERVER, "status")}
