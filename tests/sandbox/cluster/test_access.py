"""Authorization over HTTP: the administrator, kubelets, service accounts, nobody; and grants."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster import authorization
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
    bound_to,
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


@pytest.mark.parametrize(
    "path", ["/healthz", "/livez", "/readyz", "/version", "/version/", "/openid/v1/jwks"]
)
async def test_anybody_may_ask_how_it_is_and_for_its_keys(served: Served, path: str) -> None:
    async with served.client("") as client:
        assert (await client.get(path)).status_code == 200


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


async def test_a_role_binding_holds_in_its_namespace_only(api: Client, served: Served) -> None:
    bound = binding("b", "view", subject=group("system:serviceaccounts:default"))
    await api.post(f"{RBAC}/namespaces/default/rolebindings", json=bound)
    async with served.client(await account_token(api)) as client:
        assert (await client.get(PODS)).status_code == 200
        assert (await client.get("/api/v1/namespaces/kube-system/pods")).status_code == 403
        assert (await client.get("/api/v1/pods")).status_code == 403
        assert (await client.get("/api/v1/namespaces/default/secrets")).status_code == 403


async def test_a_binding_to_a_role_that_is_not_there_grants_nothing_and_is_told(
    api: Client, served: Served
) -> None:
    bound = binding("b", "lost", subject=group("system:authenticated"))
    await api.post(f"{RBAC}/clusterrolebindings", json=bound)
    async with served.client(await account_token(api)) as client:
        message = (await client.get(PODS)).json()["message"]
    assert message.endswith(': RBAC: clusterrole.rbac.authorization.k8s.io "lost" not found')


async def test_a_role_s_names_limit_it_also_for_lists_by_name(api: Client, served: Served) -> None:
    named = rule("get list", "configmaps", resourceNames=["kube-root-ca.crt"])
    await grant(api, group("system:serviceaccounts"), named)
    by_name = {"fieldSelector": "metadata.name=kube-root-ca.crt"}
    async with served.client(await account_token(api)) as client:
        assert (await client.get(f"{MAPS}/kube-root-ca.crt")).status_code == 200
        assert (await client.get(f"{MAPS}/other")).status_code == 403
        assert (await client.get(MAPS)).status_code == 403
        assert (await client.get(MAPS, params=by_name)).status_code == 200


async def test_a_path_that_is_no_resource_needs_a_grant_too(api: Client, served: Served) -> None:
    async with served.client(await account_token(api)) as client:
        assert (await client.get("/apis")).status_code == 200
        refused = await client.get("/metrics")
    user = "system:serviceaccount:default:default"
    check_refusal(refused, 403, f'forbidden: User "{user}" cannot get path "/metrics"')


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
    assert authorization.has_path([granted], asked) is yes


# ---- Nobody grants what he does not hold, in the real server's words.
#
# https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping

HERE = f"{RBAC}/namespaces/default"
USE = rule("use", "azureidentities", "aadpodidentity.k8s.io", resourceNames=["client-1"])
EVERYTHING = rule("*", "*", "*")
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
        '"system:serviceaccount:default:default" (groups=["system:serviceaccounts" '
        '"system:serviceaccounts:default" "system:authenticated"]) is attempting to grant RBAC '
        "permissions not currently held:\n"
        '{APIGroups:["aadpodidentity.k8s.io"], Resources:["azureidentities"], '
        'ResourceNames:["client-1"], Verbs:["use"]}',
    )
    assert refused.json()["reason"] == "Forbidden"
    # In his namespace he may do all, and it is worth nothing outside of it.
    await made(tenant, f"{HERE}/roles", role("mine", USE))
    await made(tenant, f"{HERE}/rolebindings", binding("mine", "mine", "Role"))
    await made(tenant, f"{HERE}/rolebindings", binding("also", "use"))
    me = {"user": "system:serviceaccount:default:default"}
    assert await may_use(api, "client-1", **me, namespace="default")
    assert not await may_use(api, "client-1", **me)


@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (EVERYTHING, '{APIGroups:["*"], Resources:["*"], Verbs:["*"]}'),
        (
            rule("get list", "secrets"),
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
    tenant: Client, more: dict[str, Any], shown: str
) -> None:
    answer = await tenant.post(f"{RBAC}/clusterroles", json=role("more", more))
    check_refusal(answer, 403, f"not currently held:\n{shown}")
    await made(tenant, f"{RBAC}/clusterroles", role("less", {**ROLES, "verbs": ["get"]}))
    patch = {"rules": [more]}
    answer = await tenant.patch(f"{RBAC}/clusterroles/less", json=patch, headers=MERGE)
    assert answer.status_code == 403


async def test_a_binding_of_others_is_not_bent_to_oneself(api: Client, tenant: Client) -> None:
    await made(api, f"{RBAC}/clusterrolebindings", binding("theirs", "use") | {"subjects": []})
    path = f"{RBAC}/clusterrolebindings/theirs"
    assert (
        await tenant.patch(path, json={"subjects": [ACCOUNT]}, headers=MERGE)
    ).status_code == 403
    owned = {"metadata": {"finalizers": ["example.com/kept"]}}
    assert (await tenant.patch(path, json=owned, headers=MERGE)).status_code == 200
    assert not await may_use(api, "client-1", user="system:serviceaccount:default:default")


@pytest.mark.parametrize(("verb", "name"), [("bind", "use"), ("bind", "other"), ("use", "use")])
async def test_who_may_bind_a_role_or_holds_it_grants_it(
    api: Client, tenant: Client, verb: str, name: str
) -> None:
    bind = {**ROLES, "resources": ["clusterroles"], "resourceNames": [name], "verbs": ["bind"]}
    await grant(api, ACCOUNT, bind if verb == "bind" else USE)
    answer = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "use"))
    assert answer.status_code == (403 if name == "other" else 201)


async def test_who_may_escalate_writes_any_role(api: Client, tenant: Client) -> None:
    escalate = {**ROLES, "resources": ["clusterroles"], "verbs": ["escalate"]}
    await grant(api, ACCOUNT, escalate)
    await made(tenant, f"{RBAC}/clusterroles", role("more", EVERYTHING))


async def test_a_role_that_is_not_there_can_be_bound_by_an_administrator_only(
    api: Client, tenant: Client
) -> None:
    answer = await tenant.post(f"{RBAC}/clusterrolebindings", json=binding("mine", "later"))
    check_refusal(answer, 404, 'clusterroles.rbac.authorization.k8s.io "later" not found')
    await made(api, f"{RBAC}/clusterrolebindings", binding("mine", "later"))


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


async def test_the_account_of_a_mirror_pod_is_none_of_its_node(
    api: Client, kubelet: Client
) -> None:
    accounts = "/api/v1/namespaces/default/serviceaccounts"
    await api.post(accounts, json={"metadata": {"name": "other"}})
    static = pod("static", nodeName="node-0", serviceAccountName="other")
    static["metadata"] |= MIRROR
    made = (await api.post(PODS, json=static)).json()["metadata"]
    refused = await kubelet.post(f"{accounts}/other/token", json=bound_to(made))
    check_refusal(refused, 403, STRANGER)


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
