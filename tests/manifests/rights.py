"""A program of ours before an API server, with the rights of its manifests, or with all but one."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

from podidentity.adapters.kube import Kube
from podidentity.cli.cluster_rights import Places, Single, held_by, singles
from podidentity.cli.rights import roles
from tests.manifests.conftest import Served
from tests.sandbox.cluster.conftest import bound_to, pod

SYSTEM, SHOP = "/api/v1/namespaces/kube-system", "/api/v1/namespaces/shop"
CUSTOM = "aadpodidentity.k8s.io/v1"
_ABOUT_RIGHTS = {
    "ClusterRole": "clusterroles",
    "ClusterRoleBinding": "clusterrolebindings",
    "Role": "roles",
    "RoleBinding": "rolebindings",
    "ValidatingAdmissionPolicy": "validatingadmissionpolicies",
    "ValidatingAdmissionPolicyBinding": "validatingadmissionpolicybindings",
}


def of_roles(made: Sequence[Any]) -> list[Single]:
    """Return each right that the roles among these manifests give."""
    return singles(held_by(made), Places())


@dataclass
class Program:
    """Its client of the API server, and the administrator's."""

    admin: httpx2.AsyncClient
    kube: Kube
    token: str = ""
    answered: set[tuple[str, str]] = field(default_factory=set)
    """The verb and the resource of each request of the program that was answered."""
    refused: set[tuple[str, str]] = field(default_factory=set)
    """Those of each that was refused."""

    async def make(self, path: str, body: Any) -> Any:
        answer = await self.admin.post(path, json=body)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def change(self, path: str, body: Any) -> None:
        kind = {"Content-Type": "application/merge-patch+json"}
        answer = await self.admin.patch(path, json=body, headers=kind)
        assert answer.status_code == 200, answer.text

    async def until(self, holds: Callable[[], object], *resources: str) -> None:
        """Return when something holds, or the program was refused anything, or any of these."""

        def refused() -> bool:
            return any(not resources or each in resources for _, each in self.refused)

        async with asyncio.timeout(60):
            while not (holds() or refused()):  # noqa: ASYNC110 - nothing tells of both
                await asyncio.sleep(0.01)


@asynccontextmanager
async def program(
    served: Served, account: str, given: Sequence[Any], without: Single | None
) -> AsyncIterator[Program]:
    """Yield a program of this account of kube-system with these manifests' rights, but for one.

    The cluster has a node and a namespace `shop` with a service account.
    """
    async with served.client() as admin:
        made = Program(admin, Kube(admin))
        await made.make("/api/v1/namespaces", {"metadata": {"name": "shop"}})
        await made.make("/api/v1/nodes", {"metadata": {"name": "node-0"}})
        for path, name in ((SYSTEM, account), (SHOP, "default")):
            await admin.post(f"{path}/serviceaccounts", json={"metadata": {"name": name}})
        await give(served, [_but_for(each, without) for each in given])
        made.token = await token_of(admin, account)
        client = served.client(made.token, of_program=True)

        async def note(response: httpx2.Response) -> None:
            made.answered.add(_asked(response.request))
            if response.status_code == httpx2.codes.FORBIDDEN:
                made.refused.add(_asked(response.request))

        client.event_hooks = {"response": [note]}
        made.kube = Kube(client, patience=0)
        try:
            yield made
        finally:
            await made.kube.close()


def in_namespace(namespace: str, name: str, account: str = "default", **metadata: Any) -> Any:
    """Return a pod on the node."""
    made = pod(name, nodeName="node-0", serviceAccountName=account)
    return {**made, "metadata": {**made["metadata"], "namespace": namespace, **metadata}}


def _asked(request: httpx2.Request) -> tuple[str, str]:
    """Return the verb and the resource of a request."""
    path = request.url.path
    words = path.strip("/").split("/")
    words = words[2:] if words[0] == "api" else words[3:]
    group = "" if path.startswith("/api/") else f".{path.split('/')[2]}"
    words = words[2:] if words[0] == "namespaces" and len(words) > 2 else words
    resource = f"{words[0]}/{words[2]}" if len(words) > 2 else words[0]
    reading = "get" if len(words) > 1 else "list"
    reading = "watch" if "watch" in request.url.params else reading
    verbs = {"POST": "create", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
    return verbs.get(request.method, reading), f"{resource}{group}"


def _but_for(manifest: Any, without: Single | None) -> Any:
    """Return a manifest without one of the rights that it gives."""
    if not without or "rules" not in manifest:
        return manifest
    left = [each for each in of_roles([manifest]) if not _is_same(each, without)]
    return {**manifest, "rules": [rule for each in roles(left, "x") for rule in each["rules"]]}


def _is_same(one: Single, other: Single) -> bool:
    return (one.resource, one.verb, one.name) == (other.resource, other.verb, other.name)


async def give(served: Served, manifests: Sequence[Any]) -> None:
    """Make the roles, bindings and policies among these manifests, and nothing else.

    They count when it returns.
    """
    with ExitStack() as waits:
        async with served.client() as admin:
            for each in manifests:
                if plural := _ABOUT_RIGHTS.get(each["kind"]):
                    namespace = each["metadata"].get("namespace")
                    where = f"/namespaces/{namespace}" if namespace else ""
                    path = f"/apis/{each['apiVersion']}{where}/{plural}"
                    answer = await admin.post(path, json=each)
                    assert answer.status_code == 201, answer.text
        waits.enter_context(served.control_plane.rights_seen())
        if any("Admission" in each["kind"] for each in manifests):
            waits.enter_context(served.control_plane.policies_seen())


async def token_of(admin: httpx2.AsyncClient, account: str) -> str:
    """Return a token of an account of kube-system that is bound to a pod on the node."""
    program = in_namespace("kube-system", "program-0", account)
    mine = (await admin.post(f"{SYSTEM}/pods", json=program)).json()["metadata"]
    path = f"{SYSTEM}/serviceaccounts/{account}/token"
    found = await admin.post(path, json=bound_to(mine))
    assert found.status_code == 201, found.text
    return str(found.json()["status"]["token"])
