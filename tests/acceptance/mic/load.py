"""The load of scenario 30: pods of many namespaces on many nodes, each with an identity to have."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from tests.acceptance.directory import bound, pod
from tests.acceptance.mic.controlled import Controlled, Managed

_SIDE_BY_SIDE = 8
"""Requests that make pods."""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Pods by number, spread over namespaces and nodes in turn."""

    place: Controlled
    pods: int
    first: int = 0
    """The least number of a pod."""
    namespaces: int
    nodes: Sequence[str]
    """Their names."""
    identities: Sequence[Managed]

    def namespace(self, number: int) -> str:
        """Return the namespace of a pod."""
        return f"load-{number % self.namespaces}"

    def identity(self, number: int) -> Managed:
        """Return the identity of a pod, which is that of its namespace."""
        return self.identities[number % self.namespaces % len(self.identities)]

    def node(self, number: int) -> str:
        """Return the name of a pod's node."""
        return self.nodes[number % len(self.nodes)]

    def bind(self) -> None:
        """Make the namespaces, each with an AzureIdentity that its pods may use."""
        _let_everybody_use(self.place, self.identities)
        for number in range(self.namespaces):
            identity, space = self.identity(number), self.namespace(number)
            spec = {"type": 0, "resourceID": identity.resource_id, "clientID": identity.client_id}
            self.place.create("/api/v1/namespaces", {"metadata": {"name": space}})
            self.place.apply(*bound("load", space, label=space, **spec))

    def make(self, made: Callable[[int], None] = lambda _: None) -> None:
        """Make the pods as fast as the API server takes them; tell after each how many are made."""
        api = self.place.sandbox.api

        def one(number: int) -> None:
            space = self.namespace(number)
            body = json.loads(pod(f"load-{number}", space, space))
            body["spec"] |= {"nodeName": self.node(number), "tolerations": [{"operator": "Exists"}]}
            api.request("POST", f"/api/v1/namespaces/{space}/pods", body)

        with ThreadPoolExecutor(_SIDE_BY_SIDE) as threads:
            numbers = range(self.first, self.first + self.pods)
            for number, _ in enumerate(threads.map(one, numbers), start=1):
                made(number)

    def running(self) -> int:
        """Return how many of these pods run."""
        found = self.place.get("/api/v1/pods")["items"]
        mine = [each for each in found if each["metadata"]["name"].startswith("load-")]
        return sum(each.get("status", {}).get("phase") == "Running" for each in mine)

    def states(self) -> list[str]:
        """Return what the records of these pods say, those that are there."""
        found = self.place.records()
        return [
            each["status"]["status"] for each in found if each["spec"]["pod"].startswith("load-")
        ]


def _let_everybody_use(place: Controlled, identities: Sequence[Managed]) -> None:
    """Grant identities to all pods of the cluster."""
    group = "rbac.authorization.k8s.io"
    rule = {
        "apiGroups": ["aadpodidentity.k8s.io"],
        "resources": ["azureidentities"],
        "resourceNames": [each.client_id for each in identities],
        "verbs": ["use"],
    }
    place.create(f"/apis/{group}/v1/clusterroles", {"metadata": {"name": "load"}, "rules": [rule]})
    everybody = {"apiGroup": group, "kind": "Group", "name": "system:serviceaccounts"}
    place.create(
        f"/apis/{group}/v1/clusterrolebindings",
        {
            "metadata": {"name": "load"},
            "roleRef": {"apiGroup": group, "kind": "ClusterRole", "name": "load"},
            "subjects": [everybody],
        },
    )
