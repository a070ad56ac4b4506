"""Probes of running containers: startup before all others, by page, by port and by program.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.world.api import ready
from tests.sandbox.node.site import Site, pod, restarted, script

pytestmark = pytest.mark.net
SERVER = "exec python3 -m http.server 80"


def probe(**action: Any) -> dict[str, Any]:
    """Return a probe that is made each second and may fail once."""
    return {**action, "periodSeconds": 1, "failureThreshold": 1}


def status(found: dict[str, Any]) -> dict[str, Any]:
    first: dict[str, Any] = found["status"]["containerStatuses"][0]
    return first


def runs(found: dict[str, Any]) -> bool:
    """Whether the pod's container runs."""
    statuses = found["status"].get("containerStatuses") or [{}]
    return "running" in statuses[0].get("state", {})


def test_until_its_startup_probe_succeeds_a_container_is_neither_started_nor_ready(
    site: Site,
) -> None:
    slow = script(
        "sleep 999",
        startupProbe={**probe(exec={"command": ["test", "-e", "/up"]}), "failureThreshold": 99},
    )
    found = site.run(pod("slow", slow), runs)
    assert (status(found)["started"], status(found)["ready"]) == (False, False)
    site.says("slow", "touch /up")
    assert status(site.until("slow"))["started"]


def test_a_startup_probe_that_fails_ends_the_container(site: Site) -> None:
    never = script(
        "sleep 999", startupProbe=probe(exec={"command": ["sh", "-c", "echo no; exit 1"]})
    )
    site.run(pod("never", never, restartPolicy="Always"), restarted(1))
    assert site.event("never", "Unhealthy") == "Startup probe failed: no\n"
    assert (
        site.event("never", "Killing") == "Container main failed startup probe, will be restarted"
    )


def test_a_program_in_the_container_says_whether_it_is_ready(site: Site) -> None:
    command = ["sh", "-c", "cat /ready"]
    made = script("sleep 999", readinessProbe=probe(exec={"command": command}))
    site.create(pod("asked", made))
    said = site.event("asked", "Unhealthy")
    assert said == "Readiness probe failed: cat: /ready: No such file or directory\n"
    site.says("asked", "touch /ready")
    site.until("asked")
    site.says("asked", "rm /ready")
    site.until("asked", lambda p: not ready(p))


def test_a_program_that_takes_too_long_has_failed(site: Site) -> None:
    made = script("sleep 999", readinessProbe=probe(exec={"command": ["sleep", "995"]}))
    site.create(pod("stuck", made))
    said = site.event("stuck", "Unhealthy")
    assert said == ('Readiness probe failed: command timed out: "sleep 995" timed out after 1s')


def test_a_port_that_is_open_is_enough_for_a_tcp_probe(site: Site) -> None:
    made = script(SERVER, readinessProbe=probe(tcpSocket={"port": 80}))
    site.run(pod("open", made))


def test_a_port_that_is_closed_is_said_to_refuse(site: Site) -> None:
    made = script("sleep 999", readinessProbe=probe(tcpSocket={"port": 81}))
    site.create(pod("closed", made))
    said = site.event("closed", "Unhealthy")
    address = site.get("closed")["status"]["podIP"]
    assert said == f"Readiness probe failed: dial tcp {address}:81: connect: connection refused"
