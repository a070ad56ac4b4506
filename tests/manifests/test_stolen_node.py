"""Whoever has the token of NMI on one node: for which pods can he ask the API server for tokens?

Each try is made with the rights that `podidentity enable` gives: with constrained impersonation,
and without, where the tries succeed.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import httpx2
import pytest

from podidentity.adapters.entra.client_credentials import Assertions
from podidentity.adapters.kube import Kube
from podidentity.adapters.node_identity import NodeIdentity
from podidentity.core.authorities import EXCHANGE_AUDIENCES
from podidentity.core.errors import TokenRefused
from podidentity.core.resources import ObjectRef, Pod
from podidentity.lasting import ASK_AGAIN
from podidentity.manifests import account_tokens, nmi
from tests.fakes import FakeClock, FakeTokenSource
from tests.manifests.conftest import Served
from tests.manifests.rights import SYSTEM, give, token_of
from tests.sandbox.cluster.conftest import bound_to, pod

ENTRA = "api://AzureADTokenExchange"
IDENTITIES = "podidentity-identities"


@dataclass
class Thief:
    """Root on node-0, with NMI's token of that node."""

    api: httpx2.AsyncClient
    kube: Kube
    pods: dict[str, Pod]

    async def ask(
        self, name: str, *, as_user: str = "", audience: str = ENTRA, seconds: int = 3600
    ) -> httpx2.Response:
        """Ask for a token that is bound to a pod."""
        headers = {"Impersonate-User": as_user} if as_user else {}
        wish = {"audiences": [audience], "expirationSeconds": seconds}
        asked = bound_to({"name": name, "uid": self.pods[name].uid}, **wish)
        return await self.api.post(token_path(name), json=asked, headers=headers)


async def known(kubelet: httpx2.AsyncClient, pod: Pod) -> None:
    """Return when the API server knows that the pod is on this kubelet's node."""
    asked = bound_to({"name": pod.ref.name, "uid": pod.uid})
    async with kubelet, asyncio.timeout(60):
        path = token_path(pod.service_account)
        while (await kubelet.post(path, json=asked)).status_code != 201:  # noqa: ASYNC110 - of it
            await asyncio.sleep(0.005)


def token_path(account: str, namespace: str = "default") -> str:
    return f"/api/v1/namespaces/{namespace}/serviceaccounts/{account}/token"


async def stolen(served: Served, *, as_node: bool, policy: bool = False) -> Thief:
    """Return the thief of a cluster with NMI; a pod of an account of its own is on each node."""
    found: dict[str, Pod] = {}
    await give(served, nmi(as_node=as_node, policy=policy))
    async with served.client() as admin:
        await admin.post(f"{SYSTEM}/serviceaccounts", json=named("podidentity-nmi"))
        for name in ("node-0", "node-1"):
            await admin.post("/api/v1/nodes", json=named(name))
        for name, node in (("near", "node-0"), ("far", "node-1")):
            await admin.post("/api/v1/namespaces/default/serviceaccounts", json=named(name))
            wanted = pod(name, nodeName=node, serviceAccountName=name)
            made = await admin.post("/api/v1/namespaces/default/pods", json=wanted)
            ref = ObjectRef("default", name)
            found[name] = Pod(ref=ref, uid=made.json()["metadata"]["uid"], service_account=name)
        token = await token_of(admin, "podidentity-nmi")
    for pod_name, of in zip(("near", "far"), served.control_plane.plan.nodes, strict=True):
        await known(served.client(of.token), found[pod_name])
    return Thief(served.client(token), Kube(served.client(token)), found)


def named(name: str) -> dict[str, Any]:
    return {"metadata": {"name": name}}


@pytest.fixture
async def bounded(served: Served) -> AsyncIterator[Thief]:
    """With constrained impersonation: 1.36."""
    thief = await stolen(served, as_node=True)
    async with thief.api:
        yield thief
        await thief.kube.close()


@pytest.fixture
async def unbounded(each_served: Served) -> AsyncIterator[Thief]:
    """With the right for all service accounts: all that there is before 1.36."""
    thief = await stolen(each_served, as_node=False)
    async with thief.api:
        yield thief
        await thief.kube.close()


@pytest.fixture
async def by_policy(served: Served) -> AsyncIterator[Thief]:
    """With that right, and the policy that `enable` brings."""
    thief = await stolen(served, as_node=False, policy=True)
    async with thief.api:
        yield thief
        await thief.kube.close()


API_SERVER = "https://kubernetes.default.svc"


async def test_without_anything_a_stolen_node_has_the_api_server_in_the_name_of_every_pod(
    unbounded: Thief,
) -> None:
    assert (await unbounded.ask("far", audience=API_SERVER)).status_code == 201


async def test_by_the_policy_it_has_tokens_for_entra_alone_and_still_those_of_every_pod(
    by_policy: Thief,
) -> None:
    assert (await by_policy.ask("far")).status_code == 201
    for audience in (API_SERVER, "https://kubernetes.default.svc.cluster.local", "vault"):
        refused = await by_policy.ask("near", audience=audience)
        assert refused.status_code == 403
        assert refused.json()["message"] == (
            'serviceaccounts "near" is forbidden: ValidatingAdmissionPolicy '
            "'podidentity-nmi-tokens' with binding 'podidentity-nmi-tokens' denied request: "
            "NMI asks for tokens for Entra alone"
        )


@pytest.mark.parametrize(
    ("spec", "says"),
    [
        ({}, "for Entra alone"),
        ({"audiences": []}, "for Entra alone"),
        ({"audiences": [ENTRA, API_SERVER]}, "for Entra alone"),
        ({"audiences": [ENTRA]}, "tokens that end with a pod"),
        (
            {
                "audiences": [ENTRA],
                "boundObjectRef": {"kind": "Node", "apiVersion": "v1", "name": "node-0"},
            },
            "tokens that end with a pod",
        ),
    ],
)
async def test_by_the_policy_no_token_outlives_its_pod_or_is_for_the_api_server(
    by_policy: Thief, spec: dict[str, Any], says: str
) -> None:
    refused = await by_policy.api.post(token_path("far"), json={"spec": spec})
    assert refused.status_code == 403
    assert says in refused.text


@pytest.mark.parametrize(("seconds", "code"), [(600, 201), (3600, 201), (3601, 403), (86400, 403)])
async def test_by_the_policy_no_token_lasts_longer_than_an_hour(
    by_policy: Thief, seconds: int, code: int
) -> None:
    """Entra takes it until it expires, also when its pod and NMI's own token are gone."""
    assert (await by_policy.ask("far", seconds=seconds)).status_code == code


@pytest.mark.usefixtures("by_policy")
async def test_the_policy_is_for_nmi_alone(served: Served) -> None:
    async with served.client() as admin:
        assert (await admin.post(token_path("far"), json={"spec": {}})).status_code == 201


async def test_the_policy_lets_nmi_ask_for_accounts_without_pods_and_for_named_audiences(
    served: Served,
) -> None:
    thief = await stolen(served, as_node=False)
    async with served.client() as admin, thief.api:
        await admin.post("/api/v1/namespaces", json=named("own"))
        await admin.post("/api/v1/namespaces/own/serviceaccounts", json=named("orders"))
        wanted = nmi(policy=True, audiences=["urn:it's\"mine"], identities="own")
        await give(served, [each for each in wanted if "Admission" in each["kind"]])
        for audience, code in ((ENTRA, 201), ("urn:it's\"mine", 201), (API_SERVER, 403)):
            body = {"spec": {"audiences": [audience]}}
            answer = await thief.api.post(token_path("orders", "own"), json=body)
            assert answer.status_code == code, answer.text
        await thief.kube.close()


async def test_without_it_a_stolen_node_has_the_tokens_of_every_pod_of_every_node(
    unbounded: Thief,
) -> None:
    for name in ("near", "far"):
        assert (await unbounded.ask(name)).status_code == 201


async def test_with_it_a_stolen_node_has_those_of_its_own_pods_and_no_others(
    bounded: Thief,
) -> None:
    assert (await bounded.ask("near", as_user="system:node:node-0")).status_code == 201
    refused = await bounded.ask("far", as_user="system:node:node-0")
    assert refused.status_code == 403
    assert "no relationship found between node 'node-0' and this object" in refused.text


@pytest.mark.parametrize(
    "user",
    ["", "system:node:node-1", "admin", "system:serviceaccount:default:far", "system:node:node-0."],
)
async def test_with_it_neither_its_own_right_nor_another_user_helps_him(
    bounded: Thief, user: str
) -> None:
    assert (await bounded.ask("far", as_user=user)).status_code == 403


async def test_with_it_he_asks_for_no_other_audience_than_entras_and_the_pods_own(
    bounded: Thief,
) -> None:
    node = "system:node:node-0"
    assert (await bounded.ask("near", as_user=node, audience="api://elsewhere")).status_code == 403


async def test_with_it_he_does_nothing_else_as_the_node(bounded: Thief) -> None:
    headers = {"Impersonate-User": "system:node:node-0"}
    for method, path in (
        ("GET", "/api/v1/nodes/node-0"),
        ("GET", "/api/v1/namespaces/default/pods/near"),
        ("DELETE", "/api/v1/namespaces/default/pods/near"),
        ("GET", "/api/v1/namespaces/default/configmaps/kube-root-ca.crt"),
    ):
        answer = await bounded.api.request(method, path, headers=headers)
        assert answer.status_code == 403, (method, path)


async def test_an_account_without_pods_is_asked_for_by_name_or_not_at_all(
    bounded: Thief, served: Served
) -> None:
    """Of identities with `subject: identity`: no node may ask for their tokens."""
    async with served.client() as admin:
        await admin.post("/api/v1/namespaces", json=named(IDENTITIES))
        for name in ("orders", "secret"):
            path = f"/api/v1/namespaces/{IDENTITIES}/serviceaccounts"
            await admin.post(path, json=named(name))
        await give(served, account_tokens("orders", accounts=IDENTITIES))
    body = {"spec": {"audiences": [ENTRA]}}
    codes = {}
    for name in ("orders", "secret"):
        for user in ("", "system:node:node-0"):
            headers = {"Impersonate-User": user} if user else {}
            path = token_path(name, IDENTITIES)
            answer = await bounded.api.post(path, json=body, headers=headers)
            codes[name, user] = answer.status_code
    assert codes == {
        ("orders", ""): 201,
        ("orders", "system:node:node-0"): 403,
        ("secret", ""): 403,
        ("secret", "system:node:node-0"): 403,
    }


@pytest.mark.parametrize("policy", [False, True])
async def test_what_he_gets_of_an_account_without_pods_is_for_entra_alone_and_for_an_hour(
    served: Served, *, policy: bool
) -> None:
    """No node is in it, so the policy bounds it; without the policy each of these succeeds."""
    thief = await stolen(served, as_node=True, policy=policy)
    async with served.client() as admin, thief.api:
        await admin.post("/api/v1/namespaces", json=named(IDENTITIES))
        path = f"/api/v1/namespaces/{IDENTITIES}/serviceaccounts"
        await admin.post(path, json=named("orders"))
        await give(served, account_tokens("orders", accounts=IDENTITIES))
        codes = []
        for spec in (
            {"audiences": [ENTRA], "expirationSeconds": 3600},
            {"audiences": [ENTRA], "expirationSeconds": 86400},
            {"audiences": [API_SERVER], "expirationSeconds": 3600},
            {"audiences": [ENTRA, "vault"], "expirationSeconds": 3600},
        ):
            made = await thief.api.post(token_path("orders", IDENTITIES), json={"spec": spec})
            codes.append(made.status_code)
        await thief.kube.close()
    assert codes == ([201, 403, 403, 403] if policy else [201, 201, 201, 201])


# ---- NMI itself


def assertions(thief: Thief, *, as_node: bool) -> Assertions:
    acting = thief.kube.acting_as("system:node:node-0") if as_node else None
    return Assertions(thief.kube, FakeTokenSource(), FakeClock(), as_node=acting)


async def test_nmi_gets_the_tokens_of_its_nodes_pods_and_no_others(
    bounded: Thief,
) -> None:
    asked = assertions(bounded, as_node=True)
    near, far = bounded.pods["near"], bounded.pods["far"]
    assert await asked.of_account(ObjectRef("default", "near"), ENTRA, near)
    with pytest.raises(TokenRefused, match="does not let NMI request tokens of") as refused:
        await asked.of_account(ObjectRef("default", "far"), ENTRA, far)
    assert "no relationship found between node 'node-0'" in str(refused.value.__cause__)


async def test_nmi_never_falls_back_to_a_right_of_its_own(unbounded: Thief) -> None:
    near = unbounded.pods["near"]
    asked = assertions(unbounded, as_node=True)
    with pytest.raises(TokenRefused) as refused:
        await asked.of_account(ObjectRef("default", "near"), ENTRA, near)
    assert "cannot impersonate" in str(refused.value.__cause__)


async def test_nmi_is_ready_where_it_may_act_as_its_node(bounded: Thief) -> None:
    found = NodeIdentity(bounded.kube.acting_as("system:node:node-0"), FakeClock(), node="node-0")
    assert "not known yet" in found.problems()[0]
    await found.look()
    assert found.problems() == ()


@pytest.mark.parametrize("node", ["node-0", "node-1"])
async def test_nmi_is_not_ready_where_it_may_not_and_says_what_mends_it(
    unbounded: Thief, node: str
) -> None:
    clock = FakeClock()
    found = NodeIdentity(unbounded.kube.acting_as(f"system:node:{node}"), clock, node=node)
    await found.look()
    assert "not known yet" in found.problems()[0], "an API server that starts refuses once"
    clock.advance(ASK_AGAIN)
    await found.look()
    (problem,) = found.problems()
    assert problem.startswith(f"NMI may not act as node {node} (")
    assert "run podidentity enable" in problem


async def test_an_api_server_that_takes_the_header_for_nothing_is_noticed(unbounded: Thief) -> None:
    """A proxy may take it out: NMI would count as itself."""
    found = NodeIdentity(unbounded.kube, FakeClock(), node="node-0")
    await found.look()
    (problem,) = found.problems()
    assert "takes NMI for system:serviceaccount:kube-system:podidentity-nmi" in problem


def test_a_node_may_ask_for_the_audiences_of_entra_in_each_cloud() -> None:
    (role,) = [
        each
        for each in nmi(as_node=True)
        if each["metadata"]["name"] == "podidentity-node-audiences"
        and each["kind"] == "ClusterRole"
    ]
    (rule,) = role["rules"]
    assert set(rule["resources"]) == set(EXCHANGE_AUDIENCES.values())
