"""What the whole agent says and does where a node lacks what the proof of callers needs."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess

import pytest

from tests.acceptance.sandbox import Sandbox, one_node

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="pods have cgroups only as root")


def on_node(place: Sandbox, *command: str) -> str:
    """Run a program in the node's network, and return its output."""
    entered = ("nsenter", "-t", str(place.nmi()), "-n", *command)
    return subprocess.run(entered, check=True, capture_output=True, text=True).stdout


def readiness(place: Sandbox) -> dict[str, object]:
    """Return what `/readyz` of the node says."""
    said = on_node(place, "curl", "-s", "http://127.0.0.1:8085/readyz")
    found: dict[str, object] = json.loads(said)
    return found


async def test_an_agent_that_cannot_prove_by_cgroup_is_not_ready_and_serves_nobody() -> None:
    async with one_node("nocgroup") as place:
        await place.bind()
        place.start_pod()
        assert readiness(place)["attestation"] == "kernel"
        # An update to it would stop at the first node, and the agent before go on serving.
        await asyncio.to_thread(place.run, "podidentity", "disable")
        elsewhere = "--nmi-arg=--cgroup-root=/proc"
        with pytest.raises(AssertionError, match="not ready"):
            await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, "--timeout=10s")
        found = readiness(place)
        assert found["ready"] is False
        assert "no cgroup v2 at /proc" in json.dumps(found)
        assert (await place.ask())[0] == 503

        weaker = "--nmi-arg=--attestation=namespace"
        await asyncio.to_thread(place.run, "podidentity", "enable", elsewhere, weaker)
        found = readiness(place)
        assert (found["ready"], found["attestation"]) == (True, "namespace")
        assert (await place.ask())[0] == 200
