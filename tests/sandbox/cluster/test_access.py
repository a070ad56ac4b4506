"""Who may do what, over HTTP: the administrator, kubelets, service accounts, and nobody.

RBAC: https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster import rbac
from tests.sandbox.cluster.conftest import ADMIN, Served

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}


async def account_token(api: httpx2.AsyncClient, name: str = "default") -> str:
    path = f"/api/v1/namespaces/default/serviceaccounts/{name}/token"
    answer = await api.post(path, json={"spec": {}})
    assert answer.status_code == 201
    return str(answer.json()["status"]["token"])


async def grant(api: httpx2.AsyncClient, subject: dict[str, str], *rules: dict[str, Any]) -> None:
    """Give rules cluster-wide."""
    role = {"metadata": {"name": "r"}, "rules": list(rules)}
    assert (await api.post(f"{RBAC}/clusterroles", json=role)).status_code == 201
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "r"},
        "subjects": [subject],
    }
    assert (await api.post(f"{RBAC}/clusterrolebindings", json=binding)).status_code == 201


@pytest.mark.parametrize(
    "header", ["", "Bearer nonsense", "Bearer", "Basic YTpi", f"Basic {ADMIN}"]
)
async def test_without_a_token_that_holds_nobody_gets_in(served: Served, header: str) -> None:
    async with served.client("") as client:
        answer = await client.get(PODS, headers={"Authorization": header} if header else {})
    assert answer.status_code == 401
    assert answer.json() == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }


@pytest.mark.parametrize(
    "path",
    ["/healthz", "/livez", "/readyz", "/version", "/openid/v1/jwks"],
)
async def test_anybody_may_ask_how_it_is_and_for_its_keys(served: Served, path: str) -> None:
    async with served.client("") as client:
        assert (await client.get(path)).status_code == 200


async def test_a_service_account_may_nothing_until_a_role_says_so(
    api: httpx2.AsyncClient, served: Served
) -> None:
    async with served.client(await account_token(api)) as client:
        refused = await client.get(PODS)
        assert refused.status_code == 403
        assert refused.json()["message"] == (
            'pods is forbidden: User "system:serviceaccount:default:default" cannot list '
            'resource "pods" in API group "" in the namespace "default"'
        )
        subject = {"kind": "ServiceAccount", "name": "default", "namespace": "default"}
        rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]}
        await grant(api, subject, rule)
        assert (await client.get("/api/v1/pods")).status_code == 200
        assert (await client.delete(f"{PODS}/a")).status_code == 403
        everywhere = await client.get("/api/v1/secrets")
        assert everywhere.json()["message"].endswith(
            'cannot list resource "secrets" in API group "" at the cluster scope'
        )
        await api.delete(f"{RBAC}/clusterrolebindings/b")
        assert (await client.get(PODS)).status_code == 403


async def test_a_role_binding_holds_in_its_namespace_only(
    api: httpx2.AsyncClient, served: Served
) -> None:
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "Group", "name": "system:serviceaccounts:default"}],
    }
    await api.post(f"{RBAC}/namespaces/default/rolebindings", json=binding)
    async with served.client(await account_token(api)) as client:
        assert (await client.get(PODS)).status_code == 200
        assert (await client.get("/api/v1/namespaces/kube-system/pods")).status_code == 403
        assert (await client.get("/api/v1/pods")).status_code == 403
        assert (await client.get("/api/v1/namespaces/default/secrets")).status_code == 403


async def test_a_binding_to_a_role_that_is_not_there_grants_nothing_and_is_told(
    api: httpx2.AsyncClient, served: Served
) -> None:
    binding = {
        "metadata": {"name": "b"},
        "roleRef": {"kind": "ClusterRole", "name": "lost"},
        "subjects": [{"kind": "Group", "name": "system:authenticated"}],
    }
    await api.post(f"{RBAC}/clusterrolebindings", json=binding)
    async with served.client(await account_token(api)) as client:
        message = (await client.get(PODS)).json()["message"]
    assert message.endswith(': RBAC: clusterrole.rbac.authorization.k8s.io "lost" not found')


async def test_a_role_s_names_limit_it_also_for_lists_by_name(
    api: httpx2.AsyncClient, served: Served
) -> None:
    subject = {"kind": "Group", "name": "system:serviceaccounts"}
    rule = {
        "apiGroups": [""],
        "resources": ["configmaps"],
        "verbs": ["get", "list"],
        "resourceNames": ["kube-root-ca.crt"],
    }
    await grant(api, subject, rule)
    maps = "/api/v1/namespaces/default/configmaps"
    by_name = {"fieldSelector": "metadata.name=kube-root-ca.crt"}
    async with served.client(await account_token(api)) as client:
        assert (await client.get(f"{maps}/kube-root-ca.crt")).status_code == 200
        assert (await client.get(f"{maps}/other")).status_code == 403
        assert (await client.get(maps)).status_code == 403
        assert (await client.get(maps, params=by_name)).status_code == 200


async def test_a_path_that_is_no_resource_needs_a_grant_too(
    api: httpx2.AsyncClient, served: Served
) -> None:
    async with served.client(await account_token(api)) as client:
        assert (await client.get("/apis")).status_code == 200
        refused = await client.get("/metrics")
    assert refused.json()["message"] == (
        'forbidden: User "system:serviceaccount:default:default" cannot get path "/metrics"'
    )


async def test_a_review_answers_what_the_server_would_decide(
    api: httpx2.AsyncClient, served: Served
) -> None:
    subject = {"kind": "Group", "name": "system:serviceaccounts:shop"}
    rule = {
        "apiGroups": ["aadpodidentity.k8s.io"],
        "resources": ["azureidentities"],
        "verbs": ["use"],
        "resourceNames": ["client-1"],
    }
    await grant(api, subject, rule)

    async def allowed(name: str, *groups: str) -> bool:
        attributes = {
            "group": "aadpodidentity.k8s.io",
            "resource": "azureidentities",
            "verb": "use",
            "name": name,
        }
        user = {"user": "system:serviceaccount:shop:web", "groups": list(groups)}
        body = {"spec": {**user, "resourceAttributes": attributes}}
        path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
        return bool((await api.post(path, json=body)).json()["status"]["allowed"])

    assert await allowed("client-1", "system:serviceaccounts:shop")
    assert not await allowed("client-2", "system:serviceaccounts:shop")
    assert not await allowed("client-1", "system:serviceaccounts:other")
    async with served.client(await account_token(api)) as client:
        own = {"spec": {"resourceAttributes": {"resource": "pods", "verb": "list"}}}
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        assert (await client.post(path, json=own)).json()["status"] == {"allowed": False}


async def test_a_token_review_tells_whose_token_it_is(api: httpx2.AsyncClient) -> None:
    path = "/apis/authentication.k8s.io/v1/tokenreviews"
    token = await account_token(api)
    told = (await api.post(path, json={"spec": {"token": token}})).json()
    state = told["status"]
    assert told["spec"] == {"token": token}
    assert state["authenticated"] is True
    assert state["user"]["username"] == "system:serviceaccount:default:default"
    wrong = {"spec": {"token": token, "audiences": ["vault"]}}
    assert (await api.post(path, json=wrong)).json()["status"].get("authenticated") is None


async def test_what_a_binding_grants_never_changes(api: httpx2.AsyncClient) -> None:
    await grant(api, {"kind": "User", "name": "u"}, {"verbs": ["get"], "resources": ["pods"]})
    patch = {"roleRef": {"name": "cluster-admin"}}
    answer = await api.patch(f"{RBAC}/clusterrolebindings/b", json=patch, headers=MERGE)
    assert answer.status_code == 422
    assert "cannot change roleRef" in answer.json()["message"]


@pytest.mark.parametrize(
    ("granted", "asked", "yes"),
    [
        ("/logs", "/logs", True),
        ("/logs", "/logs/a", False),
        ("/logs/*", "/logs/a/b", True),
        ("/logs/*", "/logs", False),
        ("/logs**", "/logs/a", True),
        ("*", "/logs", True),
    ],
)
def test_stars_at_the_end_of_a_path_stand_for_all_below(
    granted: str, asked: str, yes: bool
) -> None:
    assert rbac.has_path([granted], asked) is yes
