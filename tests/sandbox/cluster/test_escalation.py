"""Nobody grants what he does not hold, in the real server's words.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import Served

RBAC = "/apis/rbac.authorization.k8s.io/v1"
HERE = f"{RBAC}/namespaces/default"
MERGE = {"Content-Type": "application/merge-patch+json"}
USE = {
    "apiGroups": ["aadpodidentity.k8s.io"],
    "resources": ["azureidentities"],
    "resourceNames": ["client-1"],
    "verbs": ["use"],
}
EVERYTHING = {"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}
ROLES = {
    "apiGroups": ["rbac.authorization.k8s.io"],
    "resources": ["clusterroles", "clusterrolebindings", "roles", "rolebindings"],
    "verbs": ["create", "update", "patch", "get"],
}
ME = [{"kind": "ServiceAccount", "name": "default", "namespace": "default"}]


def role(name: str, *rules: dict[str, Any]) -> dict[str, Any]:
    return {"metadata": {"name": name}, "rules": list(rules)}


def binding(name: str, role: str, kind: str = "ClusterRole") -> dict[str, Any]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role}
    return {"metadata": {"name": name}, "roleRef": reference, "subjects": ME}


@pytest.fixture
async def tenant(api: httpx2.AsyncClient, served: Served) -> AsyncIterator[httpx2.AsyncClient]:
    """Everything in namespace default, and the right to write roles anywhere."""
    path = "/api/v1/namespaces/default/serviceaccounts/default/token"
    token = (await api.post(path, json={"spec": {}})).json()["status"]["token"]
    await made(api, f"{RBAC}/clusterroles", role("roles", ROLES))
    await made(api, f"{RBAC}/clusterrolebindings", binding("roles", "roles"))
    await made(api, f"{HERE}/rolebindings", binding("owner", "cluster-admin"))
    await made(api, f"{RBAC}/clusterroles", role("use", USE))
    async with served.client(token) as client:
        yield client


async def made(client: httpx2.AsyncClient, path: str, body: dict[str, Any]) -> None:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text


async def holds(api: httpx2.AsyncClient, namespace: str = "") -> bool:
    attributes = {
        "group": "aadpodidentity.k8s.io",
        "resource": "azureidentities",
        "verb": "use",
        "name": "client-1",
        "namespace": namespace,
    }
    spec = {"user": "system:serviceaccount:default:default", "resourceAttributes": attributes}
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    return bool((await api.post(path, json={"spec": spec})).json()["status"]["allowed"])


async def test_an_owner_of_a_namespace_cannot_grant_himself_what_is_cluster_wide(
    api: httpx2.AsyncClient, tenant: httpx2.AsyncClient
) -> None:
    refused = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "use"))
    assert refused.status_code == 403
    assert refused.json()["message"] == (
        'clusterrolebindings.rbac.authorization.k8s.io "mine" is forbidden: user '
        '"system:serviceaccount:default:default" (groups=["system:serviceaccounts" '
        '"system:serviceaccounts:default" "system:authenticated"]) is attempting to grant RBAC '
        "permissions not currently held:\n"
        '{APIGroups:["aadpodidentity.k8s.io"], Resources:["azureidentities"], '
        'ResourceNames:["client-1"], Verbs:["use"]}'
    )
    assert refused.json()["reason"] == "Forbidden"
    # In his namespace he may do all, and it is worth nothing outside of it.
    await made(tenant, f"{HERE}/roles", role("mine", USE))
    await made(tenant, f"{HERE}/rolebindings", binding("mine", "mine", "Role"))
    await made(tenant, f"{HERE}/rolebindings", binding("also", "use"))
    assert await holds(api, "default")
    assert not await holds(api)


@pytest.mark.parametrize(
    ("rule", "shown"),
    [
        (EVERYTHING, '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}'),
        (
            {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list"]},
            '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "list"]}',
        ),
        (
            {"nonResourceURLs": ["/metrics"], "verbs": ["get"]},
            '{NonResourceURLs:["/metrics"], Verbs:["get"]}',
        ),
    ],
    ids=["everything", "secrets", "path"],
)
async def test_no_role_holds_more_than_its_author(
    tenant: httpx2.AsyncClient, rule: dict[str, Any], shown: str
) -> None:
    answer = await tenant.post(f"{RBAC}/clusterroles", json=role("more", rule))
    assert answer.status_code == 403
    assert answer.json()["message"].endswith(f"not currently held:\n{shown}")
    await made(tenant, f"{RBAC}/clusterroles", role("less", {**ROLES, "verbs": ["get"]}))
    patch = {"rules": [rule]}
    answer = await tenant.patch(f"{RBAC}/clusterroles/less", json=patch, headers=MERGE)
    assert answer.status_code == 403


async def test_a_binding_of_others_is_not_bent_to_oneself(
    api: httpx2.AsyncClient, tenant: httpx2.AsyncClient
) -> None:
    await made(api, f"{RBAC}/clusterrolebindings", binding("theirs", "use") | {"subjects": []})
    path = f"{RBAC}/clusterrolebindings/theirs"
    assert (await tenant.patch(path, json={"subjects": ME}, headers=MERGE)).status_code == 403
    owned = {"metadata": {"finalizers": ["example.com/kept"]}}
    assert (await tenant.patch(path, json=owned, headers=MERGE)).status_code == 200
    assert not await holds(api)


@pytest.mark.parametrize(("verb", "name"), [("bind", "use"), ("bind", "other"), ("use", "use")])
async def test_who_may_bind_a_role_or_holds_it_grants_it(
    api: httpx2.AsyncClient, tenant: httpx2.AsyncClient, verb: str, name: str
) -> None:
    bind = {**ROLES, "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["bind"]}
    await made(api, f"{RBAC}/clusterroles", role("extra", bind if verb == "bind" else USE))
    await made(api, f"{RBAC}/clusterrolebindings", binding("extra", "extra"))
    answer = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "use"))
    assert answer.status_code == (403 if name == "other" else 201)


async def test_who_may_escalate_writes_any_role(
    api: httpx2.AsyncClient, tenant: httpx2.AsyncClient
) -> None:
    escalate = {**ROLES, "resources": ["clusterroles"], "verbs": ["escalate"]}
    await made(api, f"{RBAC}/clusterroles", role("extra", escalate))
    await made(api, f"{RBAC}/clusterrolebindings", binding("extra", "extra"))
    await made(tenant, f"{RBAC}/clusterroles", role("more", EVERYTHING))


async def test_a_role_that_is_not_there_can_be_bound_by_an_administrator_only(
    api: httpx2.AsyncClient, tenant: httpx2.AsyncClient
) -> None:
    answer = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "later"))
    assert answer.status_code == 404
    assert 'clusterroles.rbac.authorization.k8s.io "later" not found' in answer.json()["message"]
    await made(api, f"{RBAC}/clusterrolebindings", binding("mine", "later"))
