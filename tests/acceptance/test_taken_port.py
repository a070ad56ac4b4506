"""Another program has NMI's port on a node: NMI says so, pods get nothing, and it recovers."""

from __future__ import annotations

import asyncio
import json
import time

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.world.api import Api
from tests.acceptance.sandbox import Sandbox, one_node

LISTEN = "import socket, time; held = socket.create_server(('127.0.0.1', 2579)); time.sleep(9999)"
OLD_AGENT = f"""
apiVersion: v1
kind: Pod
metadata: {{name: old-agent, namespace: default}}
spec:
  hostNetwork: true
  terminationGracePeriodSeconds: 0
  containers:
  - name: main
    image: any
    command: [python3, -c, {json.dumps(LISTEN)}]
"""


async def nmi_pod(place: Sandbox) -> str:
    """Return the name of NMI's pod, as soon as it is made."""
    path = "/api/v1/namespaces/kube-system/pods"
    for _, pod in Api(place.plan).watch(path, "0", 30):
        if pod["metadata"]["name"].startswith("nmi-"):
            return str(pod["metadata"]["name"])
    raise AssertionError("no pod of NMI")


def said(place: Sandbox, pod: str) -> str:
    """Return what `serve` has logged; "" before it runs."""
    try:
        return place.run("kubectl", "logs", "-n", "kube-system", pod, "-c", "serve")
    except AssertionError:
        return ""


def until_said(place: Sandbox, pod: str, words: str) -> None:
    """Return when `serve` has logged these words."""
    end = time.monotonic() + 30
    while words not in said(place, pod):
        assert time.monotonic() < end, words
        time.sleep(0.2)


async def test_nmi_without_its_port_says_who_may_have_it_and_serves_as_soon_as_it_is_free() -> None:
    async with one_node("taken-port") as place, AzureOperator(place.plan) as azure:
        made = await prepare(place.plan)
        place.run("podidentity", "sandbox", "apply", "--wait", "-f", "-", given=OLD_AGENT)
        place.start_pod()
        place.run("podidentity", "enable", "--no-wait")
        name = await nmi_pod(place)
        cannot = "cannot listen on 127.0.0.1:2579: Address already in use."
        await asyncio.to_thread(until_said, place, name, cannot)
        assert "Traceback" not in said(place, name)

        before = len(await azure.imds_requests())
        assert (await place.ask(seconds=3))[0] == 0
        assert len(await azure.imds_requests()) == before, "nothing reaches the real IMDS"

        place.run("podidentity", "sandbox", "delete", "pod/old-agent")
        add = ("podidentity", "add", "--namespace", "default", "--name", "bound")
        place.run(*add, "--identity-resource-id", made.identity_id)
        await asyncio.to_thread(place.run, "podidentity", "enable")
        assert (await place.ask())[0] == 200
