"""Whoever has the token of NMI on one node: what can he change of nodes?

NMI takes the start-up taint off its own node. Each try is made with the rights that
`podidentity enable --startup-taint` gives: with its policy, and with the right alone, where the
tries succeed.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import httpx2
import pytest

from podidentity.adapters.startup_taint import StartupTaint
from podidentity.manifests import STARTUP_TAINT, startup_taint_rights
from tests.fakes import FakeClock
from tests.manifests.conftest import Served
from tests.manifests.rights import give
from tests.manifests.test_stolen_node import Thief, stolen

OURS = {"key": STARTUP_TAINT, "effect": "NoSchedule"}
OTHERS = {"key": "gpu", "value": "yes", "effect": "NoSchedule"}
MERGE, JSON, STRATEGIC, APPLY = (
    f"application/{kind}"
    for kind in (
        "merge-patch+json",
        "json-patch+json",
        "strategic-merge-patch+json",
        "apply-patch+yaml",
    )
)
Tried = tuple[str, Any]


async def with_nodes(served: Served, rights: list[dict[str, Any]]) -> Thief:
    """Return root on node-0 of a cluster with these rights of NMI; both nodes have taints."""
    await give(served, rights)
    async with served.client() as admin:
        for name in ("node-0", "node-1"):
            body = {
                "metadata": {"name": name, "labels": {"a": "b"}, "annotations": {"c": "d"}},
                "spec": {"providerID": f"azure:///{name}"},
            }
            assert (await admin.post("/api/v1/nodes", json=body)).status_code == 201
            answer = await admin.patch(
                f"/api/v1/nodes/{name}",
                content=json.dumps(taints(OTHERS, OURS)),
                headers={"Content-Type": MERGE},
            )
            assert answer.status_code == 200, "without the taint of a node that is not ready yet"
    return await stolen(served, as_node=False, policy=True)


@pytest.fixture
async def bounded(served: Served) -> AsyncIterator[Thief]:
    thief = await with_nodes(served, startup_taint_rights())
    async with thief.api:
        yield thief
        await thief.kube.close()


@pytest.fixture
async def unbounded(served: Served) -> AsyncIterator[Thief]:
    """With the right, and without the policy."""
    _, _, role, binding = startup_taint_rights()
    thief = await with_nodes(served, [role, binding])
    async with thief.api:
        yield thief
        await thief.kube.close()


async def tried(thief: Thief, kind: str, body: Any, node: str = "node-0") -> httpx2.Response:
    query = "?fieldManager=thief&force=true" if kind == APPLY else ""
    return await thief.api.patch(
        f"/api/v1/nodes/{node}{query}",
        content=json.dumps(body),
        headers={"Content-Type": kind},
    )


def taints(*wanted: dict[str, Any]) -> dict[str, Any]:
    return {"spec": {"taints": list(wanted)}}


HEAD = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node-0"}}
OWNER = {"apiVersion": "v1", "kind": "Node", "name": "node-1", "uid": "u"}
FORBIDDEN: dict[str, Tried] = {
    "all taints": (MERGE, {"spec": {"taints": None}}),
    "another taint alone": (MERGE, taints(OURS)),
    "another taint by its place": (JSON, [{"op": "remove", "path": "/spec/taints/0"}]),
    "another taint's value": (MERGE, taints({**OTHERS, "value": "no"})),
    "another taint's effect": (MERGE, taints({**OTHERS, "effect": "PreferNoSchedule"})),
    "one more taint": (MERGE, taints(OTHERS, {**OTHERS, "key": "mine"})),
    "our taint's effect": (MERGE, taints(OTHERS, {**OURS, "effect": "PreferNoSchedule"})),
    "taints by a strategic patch": (STRATEGIC, taints()),
    "taints by apply": (APPLY, {**HEAD, **taints()}),
    "nothing": (MERGE, {}),
    "a label": (MERGE, {"metadata": {"labels": {"a": "x"}}, **taints(OTHERS)}),
    "a new label": (MERGE, {"metadata": {"labels": {"x": "y"}}, **taints(OTHERS)}),
    "a label less": (MERGE, {"metadata": {"labels": None}, **taints(OTHERS)}),
    "an annotation": (MERGE, {"metadata": {"annotations": {"c": "x"}}, **taints(OTHERS)}),
    "an annotation less": (MERGE, {"metadata": {"annotations": None}, **taints(OTHERS)}),
    "a finalizer": (MERGE, {"metadata": {"finalizers": ["x.example/y"]}, **taints(OTHERS)}),
    "an owner": (MERGE, {"metadata": {"ownerReferences": [OWNER]}, **taints(OTHERS)}),
    "cordon": (MERGE, {"spec": {"unschedulable": True, "taints": [OTHERS]}}),
    "a field that we do not know": (MERGE, {"spec": {"podCIDR": "10.0.0.0/8", "taints": [OTHERS]}}),
}


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_by_the_policy_nothing_else_of_its_own_node_changes(
    bounded: Thief, what: str
) -> None:
    refused = await tried(bounded, *FORBIDDEN[what])
    assert refused.status_code == 403, refused.text
    assert "ValidatingAdmissionPolicy 'podidentity-nmi-startup-taint'" in refused.text


@pytest.mark.parametrize("what", FORBIDDEN)
async def test_without_the_policy_each_of_these_is_done(unbounded: Thief, what: str) -> None:
    done = await tried(unbounded, *FORBIDDEN[what])
    assert done.status_code == 200, done.text


ALLOWED: dict[str, Tried] = {
    "merge": (MERGE, taints(OTHERS)),
    "json": (JSON, [{"op": "remove", "path": "/spec/taints/1"}]),
}


@pytest.mark.parametrize("how", ALLOWED)
async def test_it_takes_the_start_up_taint_off_its_own_node_and_off_no_other(
    bounded: Thief, how: str
) -> None:
    refused = await tried(bounded, *ALLOWED[how], node="node-1")
    assert refused.status_code == 403
    assert "NMI changes its own node alone" in refused.text
    done = await tried(bounded, *ALLOWED[how])
    assert done.status_code == 200, done.text
    assert done.json()["spec"]["taints"] == [OTHERS]


async def test_without_the_policy_it_takes_it_off_every_node(unbounded: Thief) -> None:
    assert (await tried(unbounded, *ALLOWED["merge"], node="node-1")).status_code == 200


@pytest.mark.parametrize("node", ["node-0", "node-1"])
async def test_it_has_no_other_right_on_nodes(bounded: Thief, node: str) -> None:
    path = f"/api/v1/nodes/{node}"
    body = {**HEAD, "metadata": {"name": node}}
    for method, where, sent in (
        ("PUT", path, body),
        ("DELETE", path, None),
        ("GET", "/api/v1/nodes", None),
        ("POST", "/api/v1/nodes", {"metadata": {"name": "node-9"}}),
        ("PUT", f"{path}/status", body),
    ):
        answer = await bounded.api.request(method, where, json=sent)
        assert answer.status_code == 403, (method, where, answer.text)
    answer = await bounded.api.patch(
        f"{path}/status",
        content=json.dumps({"status": {"conditions": []}}),
        headers={"Content-Type": MERGE},
    )
    assert answer.status_code == 403


@pytest.mark.usefixtures("bounded")
async def test_a_token_that_names_no_node_changes_none(served: Served) -> None:
    """One that somebody else asked for, with NMI's account and for no pod."""
    async with served.client() as admin:
        path = "/api/v1/namespaces/kube-system/serviceaccounts/podidentity-nmi/token"
        token = (await admin.post(path, json={"spec": {}})).json()["status"]["token"]
    async with served.client(token) as api:
        for node in ("node-0", "node-1"):
            answer = await api.patch(
                f"/api/v1/nodes/{node}",
                content=json.dumps(taints(OTHERS)),
                headers={"Content-Type": MERGE},
            )
            assert answer.status_code == 403
            assert "NMI changes its own node alone" in answer.text


@pytest.mark.usefixtures("bounded")
async def test_nor_does_the_kubelets_own_token_take_it_off(served: Served) -> None:
    async with served.client(served.control_plane.plan.nodes[0].token) as kubelet:
        for node, why in (
            ("node-0", 'node "node-0" is not allowed to modify taints'),
            ("node-1", 'node "node-0" is not allowed to modify node "node-1"'),
        ):
            answer = await kubelet.patch(
                f"/api/v1/nodes/{node}",
                content=json.dumps(taints(OTHERS)),
                headers={"Content-Type": MERGE},
            )
            assert answer.status_code == 403
            assert why in answer.json()["message"]


@pytest.mark.usefixtures("bounded")
async def test_the_policy_is_for_nmi_alone(served: Served) -> None:
    async with served.client() as admin:
        answer = await admin.patch(
            "/api/v1/nodes/node-1",
            content=json.dumps({"spec": {"taints": None}, "metadata": {"labels": {"x": "y"}}}),
            headers={"Content-Type": MERGE},
        )
        assert answer.status_code == 200, answer.text


async def test_another_key_and_another_namespace_are_written_into_the_policy() -> None:
    policy, _, _, binding = startup_taint_rights("example.com/wait", "identity")
    assert "system:serviceaccount:identity:podidentity-nmi" in json.dumps(policy)
    assert "example.com/wait" in json.dumps(policy)
    assert STARTUP_TAINT not in json.dumps(policy)
    assert binding["subjects"][0]["namespace"] == "identity"


# ---- NMI itself


def agent(thief: Thief, *, node: str = "node-0", key: str = STARTUP_TAINT) -> StartupTaint:
    return StartupTaint(thief.kube, FakeClock(), node=node, key=key, ready=lambda: True)


async def test_nmi_takes_the_taint_off_its_node_and_leaves_the_others(
    bounded: Thief, served: Served
) -> None:
    found = agent(bounded)
    assert await found.look()
    assert await found.look(), "there is nothing to do any more"
    assert found.warnings() == ()
    async with served.client() as admin:
        nodes = (await admin.get("/api/v1/nodes")).json()["items"]
    assert [each["spec"]["taints"] for each in nodes] == [[OTHERS], [OTHERS, OURS]]


async def test_nmi_says_what_mends_it_where_the_right_or_the_policy_is_another(
    bounded: Thief,
) -> None:
    other = agent(bounded, key="gpu")
    assert not await other.look()
    (said,) = other.warnings()
    assert said.startswith("the start-up taint gpu cannot be taken off node node-0 (The API server")
    assert said.endswith("run podidentity enable --startup-taint with the same key")
