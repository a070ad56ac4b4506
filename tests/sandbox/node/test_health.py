"""Probes of running containers: by page, by port and by program.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from podidentity_sandbox.node.probes import repeat_probe
from podidentity_sandbox.node.spec import Probe
from podidentity_sandbox.world.api import ready
from tests.sandbox.node.site import Site, eventually, pod, restarted, script

pytestmark = pytest.mark.net
SERVER = "exec python3 -m http.server 80"


def probe(**action: Any) -> dict[str, Any]:
    """Return a probe that is made each second and may fail once."""
    return {**action, "periodSeconds": 1, "failureThreshold": 1}


@pytest.mark.parametrize(
    ("action", "said"),
    [
        ({"exec": {"command": ["cat", "/well"]}}, "cat: /well: No such file or directory\n"),
        ({"httpGet": {"port": 80, "path": "/well"}}, "HTTP probe failed with statuscode: 404"),
    ],
)
def test_a_pod_is_ready_only_while_its_probe_succeeds(
    site: Site, action: dict[str, Any], said: str
) -> None:
    name = "-".join(action).lower()  # events are told by it
    site.create(pod(name, script(SERVER, readinessProbe=probe(**action))))
    assert site.event(name, "Unhealthy").startswith("Readiness probe failed: ")
    site.says(name, "touch /well")
    site.until(name)
    site.says(name, "rm /well")
    site.until(name, lambda seen: not ready(seen))
    wanted = ("Unhealthy", f"Readiness probe failed: {said}")
    eventually(lambda: wanted in site.events(name))


def test_a_program_whose_liveness_probe_fails_is_started_again(site: Site) -> None:
    dead = script(SERVER, livenessProbe=probe(httpGet={"port": 80, "path": "/never"}))
    site.run(pod("unwell", dead, restartPolicy="Always"), restarted)
    assert site.event("unwell", "Killing").endswith("failed liveness probe, will be restarted")


@pytest.mark.parametrize(
    ("name", "action", "said"),
    [
        (
            "stuck",
            {"exec": {"command": ["sleep", "995"]}},
            'command timed out: "sleep 995" timed out after 1s',
        ),
        ("closed", {"tcpSocket": {"port": 81}}, "dial tcp {}:81: connect: connection refused"),
    ],
)
def test_a_program_that_takes_too_long_or_a_port_that_is_closed_has_failed(
    site: Site, name: str, action: dict[str, Any], said: str
) -> None:
    site.create(pod(name, script("sleep 999", readinessProbe=probe(**action))))
    found = site.event(name, "Unhealthy")
    address = site.get(name)["status"]["podIP"]
    assert found == f"Readiness probe failed: {said.format(address)}"


# ---- How many results count


def counting(successes: int, failures: int) -> Probe:
    return Probe(initial_delay=3, period=7, successes=successes, failures=failures)


@pytest.mark.parametrize(
    ("successes", "failures", "results", "reported"),
    [
        (1, 3, "ok", ["+1"]),
        (1, 3, "ok ok ok", ["+1"]),
        (2, 3, "ok ok", ["+2"]),
        (1, 3, "no no", []),
        (1, 3, "no no no", ["-3"]),
        (1, 3, "no no no no", ["-3", "-4"]),
        (1, 3, "no no ok no no", ["+3"]),
        (1, 1, "ok no ok", ["+1", "-2", "+3"]),
    ],
)
async def test_so_many_results_in_a_row_decide(
    successes: int, failures: int, results: str, reported: list[str]
) -> None:
    waiting, seen, asked = results.split(), [], 0
    over = asyncio.Event()

    async def once() -> str | None:
        nonlocal asked
        if not waiting:
            over.set()
            await asyncio.Event().wait()
        asked += 1
        return None if waiting.pop(0) == "ok" else ""

    async def report(well: bool, why: str) -> None:
        assert not why
        seen.append(f"{'+' if well else '-'}{asked}")

    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        await asyncio.sleep(0)

    probing = repeat_probe(counting(successes, failures), once, report, sleep=sleep)
    task = asyncio.create_task(probing)
    await over.wait()
    task.cancel()
    assert seen == reported
    assert slept == [3] + [7] * asked
