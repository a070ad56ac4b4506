"""Authorization over HTTP: the administrator, kubelets, service accounts, nobody; and grants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.authentication import person_of
from tests.sandbox.cluster.conftest import (
    ACCOUNT,
    ADMIN,
    MAPS,
    MERGE,
    PODS,
    RBAC,
    TOKEN,
    Client,
    Served,
    binding,
    check_refusal,
    pod,
    role,
    rule,
)


async def account_token(api: Client) -> str:
    return str((await made(api, TOKEN, {"spec": {}}))["status"]["token"])


async def made(client: Client, path: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = await client.post(path, json=body)
    assert answer.status_code == 201, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def grant(api: Client, subject: dict[str, str], *rules: dict[str, Any]) -> None:
    """Give rules cluster-wide."""
    await made(api, f"{RBAC}/clusterroles", role("r", *rules))
    await made(api, f"{RBAC}/clusterrolebindings", binding("b", "r", subject=subject))


def group(name: str) -> dict[str, str]:
    return {"kind": "Group", "name": name}


async def may_use(api: Client, name: str, **spec: Any) -> bool:
    """Return whether a review says that somebody may use the identity of that name."""
    attributes = {
        "group": "aadpodidentity.k8s.io",
        "resource": "azureidentities",
        "verb": "use",
        "name": name,
        "namespace": spec.pop("namespace", ""),
    }
    path = "/apis/authorization.k8s.io/v1/subjectaccessreviews"
    answer = await api.post(path, json={"spec": {**spec, "resourceAttributes": attributes}})
    return bool(answer.json()["status"]["allowed"])


@pytest.mark.parametrize("header", ["Bearer nonsense", "Bearer", "Basic YTpi", f"Basic {ADMIN}"])
async def test_without_a_token_that_holds_nobody_gets_in(served: Served, header: str) -> None:
    async with served.client("") as client:
        answer = await client.get(PODS, headers={"Authorization": header})
    check_refusal(answer, 401, "Unauthorized")


async def test_a_service_account_may_nothing_until_a_role_says_so(
    api: Client, served: Served
) -> None:
    async with served.client(await account_token(api)) as client:
        assert (await client.get(PODS)).status_code == 403
        await grant(api, ACCOUNT, rule("get list", "pods"))
        assert (await client.get("/api/v1/pods")).status_code == 200
        assert (await client.delete(f"{PODS}/a")).status_code == 403
        await api.delete(f"{RBAC}/clusterrolebindings/b")
        assert (await client.get(PODS)).status_code == 403


async def test_a_role_s_names_limit_it_also_for_lists_by_name(api: Client, served: Served) -> None:
    named = rule("get list", "configmaps", resourceNames=["kube-root-ca.crt"])
    await grant(api, group("system:serviceaccounts"), named)
    by_name = {"fieldSelector": "metadata.name=kube-root-ca.crt"}
    async with served.client(await account_token(api)) as client:
        assert (await client.get(f"{MAPS}/kube-root-ca.crt")).status_code == 200
        assert (await client.get(f"{MAPS}/other")).status_code == 403
        assert (await client.get(MAPS)).status_code == 403
        assert (await client.get(MAPS, params=by_name)).status_code == 200


# ---- Nobody grants what he does not hold, in the real server's words.
#
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping

HERE = f"{RBAC}/namespaces/default"
USE = rule("use", "azureidentities", "aadpodidentity.k8s.io", resourceNames=["client-1"])
ROLES = rule(
    "create update patch get",
    "clusterroles clusterrolebindings roles rolebindings",
    "rbac.authorization.k8s.io",
)


@pytest.fixture
async def tenant(api: Client, served: Served) -> AsyncIterator[Client]:
    """Everything in namespace default, and the right to write roles anywhere."""
    await made(api, f"{RBAC}/clusterroles", role("roles", ROLES))
    await made(api, f"{RBAC}/clusterrolebindings", binding("roles", "roles"))
    await made(api, f"{HERE}/rolebindings", binding("owner", "cluster-admin"))
    await made(api, f"{RBAC}/clusterroles", role("use", USE))
    async with served.client(await account_token(api)) as client:
        yield client


async def test_an_owner_of_a_namespace_cannot_grant_himself_what_is_cluster_wide(
    api: Client, tenant: Client
) -> None:
    refused = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "use"))
    check_refusal(
        refused,
        403,
        'clusterrolebindings.rbac.authorization.k8s.io "mine" is forbidden: user '
        '"system:serviceaccount:default:default" is attempting to grant RBAC permissions not '
        "currently held: use azureidentities client-1",
    )
    assert refused.json()["reason"] == "Forbidden"
    # In his namespace he may do all, and it is worth nothing outside of it.
    await made(tenant, f"{HERE}/roles", role("mine", USE))
    await made(tenant, f"{HERE}/rolebindings", binding("mine", "mine", "Role"))
    await made(tenant, f"{HERE}/rolebindings", binding("also", "use"))
    me = {"user": "system:serviceaccount:default:default"}
    assert await may_use(api, "client-1", **me, namespace="default")
    assert not await may_use(api, "client-1", **me)


@pytest.mark.parametrize(("verb", "name"), [("bind", "use"), ("bind", "other"), ("use", "use")])
async def test_who_may_bind_a_role_or_holds_it_grants_it(
    api: Client, tenant: Client, verb: str, name: str
) -> None:
    bind = {**ROLES, "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["bind"]}
    await grant(api, ACCOUNT, bind if verb == "bind" else USE)
    answer = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "use"))
    assert answer.status_code == (403 if name == "other" else 201)


# ---- A kubelet may do what its own node and pods need, and nothing of other nodes.
#
# https://kubernetes.io/docs/reference/access-authn-authz/node/


MIRROR = {"annotations": {"kubernetes.io/config.mirror": "0123456789abcdef0123456789abcdef"}}
STRANGER = "no relationship found between node 'node-0' and this object"


async def test_a_kubelet_sees_and_changes_its_own_node_s_pods_only(
    api: Client, kubelet: Client
) -> None:
    await api.post(PODS, json=pod("mine", nodeName="node-0"))
    await api.post(PODS, json=pod("other", nodeName="node-1"))
    running = {"status": {"phase": "Running"}}
    own = {"fieldSelector": "spec.nodeName=node-0"}
    listed = (await kubelet.get("/api/v1/pods", params=own)).json()["items"]
    assert [item["metadata"]["name"] for item in listed] == ["mine"]
    assert (await kubelet.get("/api/v1/pods")).status_code == 403
    foreign = {"fieldSelector": "spec.nodeName=node-1"}
    assert (await kubelet.get("/api/v1/pods", params=foreign)).status_code == 403

    async def patch(name: str) -> httpx2.Response:
        return await kubelet.patch(f"{PODS}/{name}/status", json=running, headers=MERGE)

    assert (await patch("mine")).status_code == 200
    check_refusal(await patch("other"), 403, STRANGER)
    assert (await kubelet.delete(f"{PODS}/other")).status_code == 403


async def test_a_mirror_of_a_static_pod_has_no_token(kubelet: Client) -> None:
    wanted = pod("new", nodeName="node-0")
    wanted["metadata"] |= MIRROR
    made = await kubelet.post(PODS, json=wanted)
    assert made.status_code == 201
    assert "volumes" not in made.json()["spec"]


async def test_a_kubelet_reads_the_secrets_that_its_pods_name_and_no_others(
    api: Client, kubelet: Client, served: Served
) -> None:
    secrets = "/api/v1/namespaces/default/secrets"
    for name in ("used", "unused"):
        await api.post(secrets, json={"metadata": {"name": name}})
    volumes = [{"name": "v", "secret": {"secretName": "used"}}]
    await api.post(PODS, json=pod(nodeName="node-0", volumes=volumes))
    assert (await kubelet.get(f"{secrets}/used")).status_code == 200
    assert (await kubelet.get(f"{secrets}/unused")).status_code == 403
    assert (await kubelet.get(secrets)).status_code == 403
    async with served.client(served.plan.nodes[1].token) as stranger:
        assert (await stranger.get(f"{secrets}/used")).status_code == 403


async def test_whoever_has_credentials_reads_the_keys_of_tokens_by_a_right_alone(
    served: Served, api: Client
) -> None:
    async with served.client(await account_token(api)) as account:
        assert (await account.get("/openid/v1/jwks")).status_code == 200
        role = "system:service-account-issuer-discovery"
        assert (await api.delete(f"{RBAC}/clusterrolebindings/{role}")).status_code == 200
        refused = await account.get("/openid/v1/jwks")
    check_refusal(refused, 403, 'cannot get path "/openid/v1/jwks"')


async def test_a_token_that_is_nearly_that_of_a_person_of_entra_is_nobodys(served: Served) -> None:
    plan, person = served.cluster.plan, "8c0ffee0-0000-4000-8000-000000000001"
    async with served.client(plan.person_token(person)) as client:
        assert (await client.get(PODS)).status_code == 403
    for forged in (f"{person}.", f"{person}.00", plan.person_token("x").replace("x", person, 1)):
        async with served.client(forged) as client:
            assert (await client.get(PODS)).status_code == 401


async def test_without_aks_no_person_has_a_token(served: Served) -> None:
    plan = replace(served.cluster.plan, aks_token="")
    assert person_of(plan, plan.person_token("x")) is None
