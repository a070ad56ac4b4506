"""Applications of Entra on real nodes: one with a secret, one that trusts the cluster's tokens."""

from __future__ import annotations

import asyncio
import json

import pytest

from podidentity_sandbox.azure.client import App, AzureOperator
from podidentity_sandbox.plan import ISSUER, Plan
from tests.acceptance.runtime.node import SERVED
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.kubernetes.nodes.test_programs import until
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]


@pytest.fixture(scope="session")
def apps(nodes: list[RealNode]) -> dict[str, App]:
    """The application of each binding, which pods of `team` may use."""
    node = nodes[0]
    found, secret = asyncio.run(registered(node.plan))
    body = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "by-secret", "namespace": SERVED},
        "stringData": {"clientSecret": secret},
    }
    node.api.request("POST", f"/api/v1/namespaces/{SERVED}/secrets", body)
    for name, how in (("by-secret", ("--secret", "by-secret")), ("by-pod", ("--federated",))):
        app = found[name]
        words = ("--client-id", app.client_id, "--tenant-id", app.tenant.id, *how)
        node.place.add(SERVED, name, *words)
    return found


async def registered(plan: Plan) -> tuple[dict[str, App], str]:
    """Register both with Entra; return them, and the secret of the first."""
    async with AzureOperator(plan) as azure:
        found = {name: await azure.make_app(name) for name in ("by-secret", "by-pod")}
        secret = await azure.add_secret(found["by-secret"])
        subject = f"system:serviceaccount:{SERVED}:default"
        trust = azure.add_federated_credential(
            found["by-pod"], "pod", issuer=ISSUER, subject=subject
        )
        await trust
    return found, secret.value


@pytest.mark.parametrize("name", ["by-secret", "by-pod"])
def test_an_application_gives_a_pod_its_token(
    node: RealNode, apps: dict[str, App], name: str
) -> None:
    pod = f"{name}-{node.own.index}"
    node.ready(node.start(pod, binding=name))
    until(lambda: node.ask(pod).status == 200)
    assert json.loads(node.ask(pod).body)["client_id"] == apps[name].client_id
    assert node.ask("other").status == 400
    node.drop(pod)
