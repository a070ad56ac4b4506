from __future__ import annotations

import json
from typing import Any

import anyio
import httpx2
import pytest

from podidentity.adapters.readiness import AgentPages, AgentReadiness
from podidentity.cli.nodes import NOBODY, NodeState, states
from tests.cli.binding import Run
from tests.cli.world import World

OURS = {"app.kubernetes.io/part-of": "podidentity"}
SAID = {
    "ready": True,
    "checks": {"rules": "ok", "path": "ok"},
    "attestation": "kernel",
    "path": {"hop": "proved", "plane": "routed", "backend": "nftables"},
    "warnings": [],
}


def node(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux", **labels}}}


def agent(node_name: str, address: str, *, is_ready: bool = True) -> dict[str, Any]:
    return {
        "metadata": {"name": f"nmi-{address}", "labels": OURS},
        "spec": {"nodeName": node_name},
        "status": {
            "hostIP": address,
            "conditions": [{"type": "Ready", "status": "True" if is_ready else "False"}],
        },
    }


def test_each_linux_node_is_there_once_with_the_agent_that_is_ready() -> None:
    nodes = [
        node("b"),
        node("a"),
        node("win", **{"kubernetes.io/os": "windows"}),
        node("aci", type="virtual-kubelet"),
    ]
    pods = [agent("a", "10.0.0.1"), agent("a", "10.0.0.2", is_ready=False)]
    found = states(nodes, pods)
    assert [(state.node, state.address) for state in found] == [("a", "10.0.0.1"), ("b", "")]
    assert found[1].said.problems == (NOBODY,)


def test_a_node_works_when_its_probe_has_arrived_and_not_when_it_is_ready_otherwise() -> None:
    said = AgentReadiness.of(json.dumps(SAID).encode())
    assert said == AgentReadiness(
        ready=True, plane="routed", backend="nftables", proof="kernel", hop="proved"
    )
    assert NodeState(node="a", said=said).works
    for changed in ({"ready": False}, {"path": {**SAID["path"], "hop": "imds"}}):  # type: ignore[dict-item]
        said = AgentReadiness.of(json.dumps({**SAID, **changed}).encode())
        assert not NodeState(node="a", said=said).works


def test_what_is_wrong_is_said_with_the_name_of_the_check() -> None:
    checks = {"rules": ["the table is gone", "and the rest"], "path": "ok"}
    said = AgentReadiness.of(json.dumps({**SAID, "ready": False, "checks": checks}).encode())
    assert said.problems == ("rules: the table is gone", "rules: and the rest")


def asked(handler: Any) -> AgentPages:
    return AgentPages(httpx2.MockTransport(handler))


@pytest.mark.parametrize("body", [b"", b"hello", b"[]", b'{"ready":true}', b'{"path":null}'])
def test_another_program_at_that_port_is_no_nmi(body: bytes) -> None:
    async def ask() -> AgentReadiness:
        return await asked(lambda _: httpx2.Response(200, content=body)).readiness("10.0.0.1", 1)

    said = anyio.run(ask)
    assert not said.ready
    assert said.problems == ("10.0.0.1:1: it answers, but not as NMI does",)


def test_a_node_that_does_not_answer_is_said_with_its_address() -> None:
    def refuse(request: httpx2.Request) -> httpx2.Response:
        raise httpx2.ConnectError("refused", request=request)

    async def ask() -> AgentReadiness:
        return await asked(refuse).readiness("fd00::1", 8085)

    assert anyio.run(ask).problems == ("fd00::1:8085 cannot be asked: refused",)


def test_a_token_is_asked_for_as_a_pod_does_and_only_what_it_is_of_comes_back() -> None:
    seen: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        seen.append(request)
        return httpx2.Response(
            200, json={"access_token": "SECRET", "client_id": "2b7e", "expires_in": "3599"}
        )

    async def ask() -> str:
        return str(await asked(answer).token("https://vault.azure.net"))

    said = anyio.run(ask)
    assert "2b7e" in said
    assert "SECRET" not in said
    assert seen[0].headers["Metadata"] == "true"
    assert str(seen[0].url).startswith("http://169.254.169.254/metadata/identity/oauth2/token?")


def test_a_refused_token_is_told_in_the_words_of_the_refusal() -> None:
    body = {"error": "invalid_request", "error_description": "Identity not found"}

    async def ask() -> tuple[int, str]:
        said = await asked(lambda _: httpx2.Response(400, json=body)).token("x")
        return said.status, said.text

    assert anyio.run(ask) == (400, "Identity not found")


@pytest.mark.usefixtures("bare")
def test_outside_a_pod_it_asks_through_the_api_server_as_check_does(
    podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    ran = podidentity("nodes")
    assert ran.code == 1
    assert "Outside a pod this is podidentity check --probes." in ran.err
    assert "What each NMI says\n" in ran.out
    assert "(NoAgent)" in ran.out
    refused = podidentity("nodes", "--token=https://vault.azure.net")
    assert (refused.code, "run it in a pod of the cluster" in refused.err) == (2, True)


def test_in_a_pod_it_asks_each_node_itself(
    bare: World, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    ran = podidentity("nodes", "--timeout=0s")
    assert (ran.code, f"0 of {len(bare.plan.nodes)} nodes" in ran.err) == (1, True)
