"""Probes of running containers: by page, by port and by program.

https://kubernetes.io/docs/concepts/configuration/liveness-readiness-startup-probes/
"""

from __future__ import annotations

from typing import Any

import pytest

from podidentity_sandbox.world.api import ready
from tests.sandbox.node.site import Site, pod, script

pytestmark = pytest.mark.net
SERVER = "exec python3 -m http.server 80"


def probe(**action: Any) -> dict[str, Any]:
    """Return a probe that is made each second and may fail once."""
    return {**action, "periodSeconds": 1, "failureThreshold": 1}


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
