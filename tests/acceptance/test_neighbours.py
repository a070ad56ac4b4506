"""What pods get, and people are told, while a neighbour of NMI is away: an answer, in time."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.cluster.controllers.nodes import GRACE
from podidentity_sandbox.world.apply import documents
from tests.acceptance.sandbox import ANSWERED, ASK, Sandbox, opened
from tests.sandboxes import own

MALFORMED = """
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentity
metadata: {name: broken, namespace: default}
spec: {type: 0, clientID: not-a-guid}
---
apiVersion: aadpodidentity.k8s.io/v1
kind: AzureIdentityBinding
metadata: {name: broken-binding, namespace: default}
spec: {azureIdentity: broken, selector: broken}
---
apiVersion: v1
kind: Pod
metadata: {name: unlucky, namespace: default, labels: {aadpodidbinding: broken}}
spec: {containers: [{name: main, image: idle}]}
"""


Place = tuple[Sandbox, AzureOperator, asyncio.Runner]
GIVE_UP = 10.0
"""Seconds after which some clients ask no longer: Terraform, older AzCopy."""


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with opened(own("neighbours")) as found:
        sandbox, _, loop = found
        loop.run(sandbox.bind())
        sandbox.start_pod()
        assert loop.run(sandbox.ask())[0] == 200
        yield found


def part(sandbox: Sandbox, order: str, name: str) -> None:
    sandbox.run("podidentity", "sandbox", "part", order, name)


def test_pods_are_served_while_the_api_server_is_away(place: Place) -> None:
    sandbox, _, loop = place
    part(sandbox, "kill", sandbox.plan.apiserver_part)
    assert loop.run(sandbox.ask())[0] == 200
    part(sandbox, "start", sandbox.plan.apiserver_part)
    loop.run(sandbox.nmi_ready())


def test_while_imds_fails_it_is_told_and_what_is_kept_is_served(place: Place) -> None:
    sandbox, azure, loop = place
    for fault in ("reset", "rubbish", "500"):
        azure.weather(f"imds=[{{effect: {fault}}}]")
        status, body, _ = loop.run(sandbox.ask(resource=f"https://{fault}.example"))
        assert (status, bool(body["error_description"])) == (503, True), (fault, body)
        assert loop.run(sandbox.ask())[0] == 200, f"a cached token is served while IMDS: {fault}"
    azure.weather("imds=[]")
    assert loop.run(sandbox.ask(resource="https://storage.azure.com"))[0] == 200, "healed"


def test_imds_that_hangs_is_told_before_clients_give_up(place: Place) -> None:
    """From the request on; a timer of this test is as late as the machine is, and so may NMI be."""
    sandbox, _, loop = place
    ask = ASK.format(seconds=ANSWERED, nonce="n", resource="https://graph.microsoft.com")
    times = "%{http_code} %{time_pretransfer} %{time_total}"

    async def gives_up_after() -> float:
        began = time.monotonic()
        await asyncio.sleep(GIVE_UP)
        return time.monotonic() - began

    async def asked() -> None:
        waiting = asyncio.create_task(gives_up_after())
        said = (await sandbox.shell(ask.replace("%{http_code}", times))).stdout.decode()
        body, _, told = said.rpartition("\n")
        status, sent, answered = map(float, told.split())
        assert (status, json.loads(body)["error"]) == (503, "service_unavailable"), body
        assert "IMDS did not answer" in body
        assert answered - sent < await waiting

    part(sandbox, "pause", "azure")
    try:
        loop.run(asked())
        assert loop.run(sandbox.ask())[0] == 200, "a cached token is served all the same"
    finally:
        part(sandbox, "resume", "azure")


def test_a_malformed_identity_of_before_admission_policies_touches_nobody_else(
    place: Place,
) -> None:
    sandbox, _, loop = place
    sandbox.run("podidentity", "enable", "--no-admission-policies")
    identity, _, _ = documents(MALFORMED)
    sandbox.until_admitted(identity)
    sandbox.apply(MALFORMED)
    listed = json.loads(sandbox.run("podidentity", "list", "-A", "-o", "json"))
    states = {each["name"]: each for each in listed["identities"]}
    assert "spec.clientID must be a GUID" in json.dumps(states["broken"])
    assert loop.run(sandbox.ask())[0] == 200


def test_of_a_node_that_is_gone_explain_and_check_say_so(place: Place) -> None:
    """The last one here. What a kubelet said last stays: its pods are Running for ever."""
    sandbox, _, _ = place
    node = sandbox.plan.nodes[0].name

    def explained() -> dict[str, str]:
        said = sandbox.run("sh", "-c", "podidentity explain pod default/app -o json || true")
        (link,) = (each for each in json.loads(said)["chain"] if each["link"] == "nmi")
        return dict(link)

    def found() -> list[str]:
        listed = json.loads(sandbox.run("sh", "-c", "podidentity check -o json || true"))
        return [each["message"] for each in listed if each["reason"] == "NotReady"]

    # A kubelet that had no processor for a while is silent, and that is said: so not "ok" alone.
    assert explained()["state"] != "no"
    assert found() == []
    part(sandbox, "kill", node)

    def lost(each: dict[str, dict[str, list[dict[str, str]]]]) -> bool:
        return any(
            (told["type"], told["status"]) == ("Ready", "False")
            for told in each["status"]["conditions"]
        )

    agents = "/api/v1/namespaces/kube-system/pods"
    (nmi,) = (
        each["metadata"]["name"]
        for each in sandbox.api.request("GET", agents)["items"]
        if each["metadata"]["name"].startswith("nmi-")
    )
    assert not sandbox.api.wait_for(agents, [nmi], lost, GRACE * 5)
    said = "its node does not answer the control plane"
    assert explained() == {
        "link": "nmi",
        "state": "no",
        "text": f"{nmi} on node {node} is not ready: {said}",
    }
    (told,) = found()
    assert f"{node}: {said}" in told
