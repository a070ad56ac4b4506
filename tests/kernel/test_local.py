from __future__ import annotations

import pytest

from tests.kernel.agent import uid
from tests.kernel.topology import pod_cgroups, run
from tests.root import WAYS

pytestmark = pytest.mark.net


@pytest.mark.parametrize("kind", WAYS)
def test_of_a_connection_of_the_node_itself_the_kernel_names_the_pod_and_the_user(
    kind: str,
) -> None:
    if kind == "rootless":
        seen = run("local", rootless=True)
    else:
        with pod_cgroups([uid("p1")]) as root:
            seen = run("local", cgroups=str(root))
    by_cgroup = {
        "a pod of the node's network": ["proven", uid("p1"), True],
        "nobody": ["proven", "", False],
        "nobody, at a pod's port": ["proven", "", False],
        "the pod whose port it is": ["proven", uid("p1"), True],
    }
    assert seen == (by_cgroup if kind == "root" else {}) | {
        "root": ["proven", "", True],
        "half-closed": ["proven", "", True],
        "reset": ["gone", "", False],
        "a port that nobody has": ["gone", "", False],
        "a pod's own loopback": ["gone", "", False],
    }
