"""Who is proved, with the whole agent: an old socket proves nobody, and what is missing is said."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import signal
import subprocess

import pytest

from podidentity_sandbox.node.client import execute
from tests.acceptance.stage import Stage, stage
from tests.kernel.topology import until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root")

NEIGHBOUR = """
apiVersion: v1
kind: Pod
metadata: {name: mallory, namespace: default}
spec: {containers: [{name: main, image: idle}]}
"""
# Asks for a token as a client with a pool does, says from which port, and keeps the connection.
POOL = """
import http.client, os, time
kept = http.client.HTTPConnection("169.254.169.254")
path = "/metadata/identity/oauth2/token?api-version=2018-02-01&resource=https://vault.azure.net"
kept.request("GET", path, headers={"Metadata": "true"})
answer = kept.getresponse()
answer.read()
print(answer.status, *kept.sock.getsockname(), flush=True)
if os.fork() == 0:
    os.closerange(0, 3)
    time.sleep(300)
"""
FORGER = "python3 -m podidentity_sandbox.demo.forger --trick arp --claim {address} --port {port}"


def on_node(place: Stage, *command: str) -> str:
    """Run a program in the node's network, and return its output."""
    entered = ("nsenter", "-t", str(place.nmi()), "-n", *command)
    return subprocess.run(entered, check=True, capture_output=True, text=True).stdout


async def state_of(place: Stage, port: str) -> str:
    """Return the state of the pod's socket with that port."""
    shown = (await place.shell(f"ss -Htan sport = :{port}")).stdout.decode().split()
    return shown[0] if shown else ""


async def test_an_old_socket_of_a_pod_proves_nobody_who_speaks_from_its_port() -> None:
    async with stage("oldsocket") as place:
        await place.bind()
        place.start_pod()
        place.run("podidentity", "sandbox", "apply", "--wait", "-f", "-", given=NEIGHBOUR)
        said = await place.shell(f"python3 -c {shlex.quote(POOL)}")
        status, address, port = said.stdout.decode().split()
        assert status == "200"

        # The node forgets a connection that it has closed after a second, not a minute.
        on_node(place, "sysctl", "-qw", "net.ipv4.tcp_fin_timeout=1")
        os.kill(place.nmi(), signal.SIGKILL)
        await place.nmi_ready()
        await until(lambda: port not in on_node(place, "ss", "-Htan", "dport", "=", f":{port}"))
        assert await state_of(place, port) == "CLOSE-WAIT"

        forger = FORGER.format(address=address, port=port)
        ran = await execute(place.plan, "default", "mallory", ["sh", "-c", forger], timeout=60)
        forged = json.loads(ran.stdout)
        assert forged["status"] == 403, forged
        assert await state_of(place, port) == "CLOSE-WAIT", "the socket was there all the time"
        assert (await place.ask())[0] == 200, "the pod itself is served"


def readiness(place: Stage) -> dict[str, object]:
    """Return what `/readyz` of the node says."""
    said = on_node(place, "curl", "-s", "http://127.0.0.1:8085/readyz")
    found: dict[str, object] = json.loads(said)
    return found


async def test_an_agent_that_cannot_prove_by_cgroup_is_not_ready_and_serves_nobody() -> None:
    async with stage("nocgroup") as place:
        await place.bind()
        place.start_pod()
        assert readiness(place)["attestation"] == "kernel"
        elsewhere = "--nmi-arg=--cgroup-root=/proc"
        with pytest.raises(AssertionError, match="not ready"):
            await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, "--timeout=10s")
        found = readiness(place)
        assert found["ready"] is False
        assert "no cgroup v2 at /proc" in json.dumps(found)
        assert (await place.ask())[0] == 503

        weaker = "--nmi-arg=--attestation=namespace"
        await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, weaker)
        assert readiness(place) | {"checks": {}} == {
            "ready": True,
            "checks": {},
            "attestation": "namespace",
        }
        assert (await place.ask())[0] == 200
