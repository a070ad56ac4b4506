"""What Kubernetes itself does with pods: it starts sidecars before what they are for."""

from __future__ import annotations

import pytest

from tests.acceptance.runtime.node import ASK, IMAGE, SERVED, Answer, Object
from tests.kubernetes.conftest import needs_kubernetes
from tests.kubernetes.nodes.node import RealNode
from tests.kubernetes.nodes.test_programs import until
from tests.root import needs_root

pytestmark = [needs_kubernetes, needs_root, pytest.mark.net]


def asking(name: str, then: str = "") -> Object:
    """Return a container that asks for a token in its first instruction."""
    return {"name": name, "image": IMAGE, "command": ["python3", "-ISc", ASK + then]}


def answered(node: RealNode, pod: str, container: str) -> int:
    words = ("logs", pod, "-c", container, "-n", SERVED)
    return Answer.of(node.place.run("kubectl", *words), "").status


def test_a_sidecar_has_a_token_and_so_has_what_starts_before_and_beside_it(node: RealNode) -> None:
    sidecar = {**asking("sidecar", "import signal; signal.pause()"), "restartPolicy": "Always"}
    name = f"sidecar-{node.own.index}"
    node.ready(node.start(name, initContainers=[asking("before"), sidecar, asking("between")]))
    for container in ("before", "sidecar", "between"):
        until(lambda: answered(node, name, container) == 200)  # noqa: B023 - it is asked at once
    assert node.ask(name).status == 200
    node.drop(name)
