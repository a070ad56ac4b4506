"""Another program has NMI's port on a node: NMI says so, pods get nothing, and it recovers.

So it takes the place of the archived project's NMI, in the order that `enable` says.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import time

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import prepare
from podidentity_sandbox.world.api import Api
from tests.acceptance.sandbox import Sandbox, one_node

LISTEN = "import socket, time; held = socket.create_server(('127.0.0.1', 2579)); time.sleep(9999)"
OLD_AGENT = f"""
apiVersion: apps/v1
kind: DaemonSet
metadata: {{name: aad-pod-identity-nmi, namespace: default}}
spec:
  selector:
    matchLabels: {{app.kubernetes.io/component: nmi, app.kubernetes.io/name: aad-pod-identity}}
  template:
    metadata:
      labels: {{app.kubernetes.io/component: nmi, app.kubernetes.io/name: aad-pod-identity}}
    spec:
      hostNetwork: true
      terminationGracePeriodSeconds: 0
      containers:
      - name: main
        image: any
        command: [python3, -c, {json.dumps(LISTEN)}]
"""


def order_to_follow(place: Sandbox) -> list[list[str]]:
    """Return the commands that `enable` names as it refuses."""
    with pytest.raises(AssertionError) as refused:
        place.run("podidentity", "enable")
    words = " ".join(str(refused.value).split())
    said = words.partition("meanwhile: ")[2].partition("podidentity enable.")[0]
    return [shlex.split(each) for each in (*said.split("; ")[:-1], "podidentity enable")]


async def nmi_pod(place: Sandbox) -> str:
    """Return the name of NMI's pod, as soon as it is made."""
    path = "/api/v1/namespaces/kube-system/pods"
    for _, pod in Api(place.plan).follow(path, 30):
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
        orphan, enable, delete, again = await asyncio.to_thread(order_to_follow, place)
        place.run(*orphan)
        place.run(*enable)
        name = await nmi_pod(place)
        cannot = "cannot listen on 127.0.0.1:2579: Address already in use."
        await asyncio.to_thread(until_said, place, name, cannot)
        assert "Traceback" not in said(place, name)

        before = len(await azure.imds_requests())
        assert (await place.ask(seconds=3))[0] == 0
        assert len(await azure.imds_requests()) == before, "nothing reaches the real IMDS"

        place.run(*delete)
        add = ("podidentity", "add", "--namespace", "default", "--name", "bound")
        place.run(*add, "--identity-resource-id", made.identity_id)
        await asyncio.to_thread(place.run, *again)
        assert (await place.ask())[0] == 200
