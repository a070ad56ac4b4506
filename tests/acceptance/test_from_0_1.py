"""From release 0.1, as it stood in clusters, by `podidentity enable` and by hand.

Its agent was one program and cannot hand over: for some seconds pods get no token. They get none of
another identity either, the nodes stay closed, and nothing that people made or were granted goes.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from podidentity.manifests import crds
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.weather import CALM
from tests import release_0_1
from tests.acceptance.asking import OURS, load
from tests.acceptance.sandbox import PATIENCE, Sandbox, leaked, opened
from tests.docs.blocks import ROOT, blocks_of
from tests.sandboxes import own

PODS = [("default", "bound"), ("shop", "orders")]
"""By the identity that was there before 0.1 came, and by the one that its `add` made."""
MADE_FOR_PEOPLE = {
    *("CustomResourceDefinition", "AzureIdentity", "AzureIdentityBinding"),
    *("AzurePodIdentityException", "ConfigMap"),
}
"""Kinds of what must stay; besides roles that grant the use of an identity."""


class Cluster:
    """A cluster with release 0.1, and a pod in each of two namespaces."""

    def __init__(self, place: Sandbox, azure: AzureOperator, made: list[dict[str, Any]]) -> None:
        self.place, self.azure, self.made = place, azure, made
        *_, self.agents = made

    def kept(self) -> dict[str, Any]:
        """Return what must stay, as it is now, without what the API server numbers."""
        found = {}
        for each in self.made:
            metadata = each["metadata"]
            if each["kind"] in MADE_FOR_PEOPLE or "-use-" in metadata["name"]:
                where = ("-n", metadata["namespace"]) if "namespace" in metadata else ()
                what = (each["kind"].lower(), metadata["name"], "-o", "json")
                there = json.loads(self.place.run("kubectl", "get", *where, *what))
                named = "/".join((each["kind"], metadata.get("namespace", ""), metadata["name"]))
                # Definitions become those of this version.
                rest = {} if "Definition" in each["kind"] else without_status(there)
                found[named] = (there["metadata"]["uid"], rest)
        return found

    async def is_old(self) -> None:
        """Have NMI of 0.1 on the node, which serves both pods."""
        await asyncio.to_thread(self.place.apply, json.dumps(self.agents), seconds=None)
        await self.until_ready()
        assert await self.tokens("old") == [200, 200]
        assert set(self.containers()) == {"nmi"}

    async def until_ready(self) -> None:
        wait = ("rollout", "status", "daemonset/nmi", f"--timeout={PATIENCE}s")
        await asyncio.to_thread(self.place.run, "kubectl", "-n", "kube-system", *wait)

    async def tokens(self, nonce: str) -> list[int]:
        return [
            (await self.place.ask(nonce=nonce, pod=name, namespace=namespace))[0]
            for namespace, name in PODS
        ]

    def containers(self) -> dict[str, int]:
        """Return how often each container of NMI was started again."""
        ask = ("get", "pods", "-o", "json", "-l", "app.kubernetes.io/component=nmi")
        (pod,) = json.loads(self.place.run("kubectl", "-n", "kube-system", *ask))["items"]
        return {each["name"]: each["restartCount"] for each in pod["status"]["containerStatuses"]}

    async def is_updated_by(self, nonce: str, *command: str) -> None:
        """Run the command under load; see that tokens go on after it, and that nothing leaked."""
        before = self.kept()
        async with load(self.place, nonce, pods=["bound"]) as asked:
            await asyncio.to_thread(self.place.run, *command)
            await self.until_ready()
            assert await self.tokens("new") == [200, 200]
        assert set(asked.answers) == {OURS}
        assert self.containers() == {"serve": 0, "net": 0}
        assert await leaked(self.azure, nonce) == 0
        assert self.kept() == before
        definitions = self.place.run("kubectl", "get", "crd", "-o", "name").split()
        assert len(definitions) == len(crds())


def without_status(found: dict[str, Any]) -> dict[str, Any]:
    """Return what people said of an object; the owner of a grant is what `enable` adds."""
    notes = found["metadata"].get("annotations") or {}
    notes = {key: each for key, each in notes.items() if not key.startswith("kubectl.")}
    metadata = {"labels": found["metadata"].get("labels"), "annotations": notes}
    return {**{key: each for key, each in found.items() if key != "status"}, "metadata": metadata}


@pytest.fixture(scope="module")
def cluster() -> Iterator[tuple[Cluster, asyncio.Runner]]:
    with opened(own("from-0-1"), weather=CALM) as (place, azure, loop):
        prepared = loop.run(prepare(place.plan))
        made = release_0_1.objects(
            client=prepared.client_id, subscription=place.plan.subscription_id
        )
        machines = {
            "type": "UserAssigned",
            "userAssignedIdentities": {prepared.identity_id: {}},
        }
        loop.run(azure.arm("PATCH", place.plan.scale_set_id, {"identity": machines}))
        place.run("kubectl", "create", "namespace", "shop")
        place.apply(*map(json.dumps, made[:-1]), seconds=None)
        place.apply(*map(pod, PODS))
        yield Cluster(place, azure, made), loop


def pod(where: tuple[str, str]) -> str:
    namespace, name = where
    metadata = {"name": name, "namespace": namespace, "labels": {"aadpodidbinding": name}}
    spec = {"containers": [{"name": "main", "image": "idle"}]}
    return json.dumps({"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec})


def test_enable_replaces_it_and_keeps_what_was_made_and_granted(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    loop.run(found.is_old())
    loop.run(found.is_updated_by("enabled", "podidentity", "enable"))


def test_who_applies_manifests_by_hand_comes_by_the_commands_of_the_changelog(
    cluster: tuple[Cluster, asyncio.Runner],
) -> None:
    found, loop = cluster
    (commands,) = (each for each in blocks_of(ROOT / "CHANGELOG.md") if each.mark == "run=cluster")
    delete = ("delete", "daemonset", "nmi", "--cascade=foreground")
    found.place.run("kubectl", "-n", "kube-system", *delete)
    loop.run(found.is_old())
    loop.run(found.is_updated_by("by-hand", "bash", "-ec", commands.text))
