from __future__ import annotations

from typing import Any

import pytest

from tests.kernel.topology import PODS, run

pytestmark = pytest.mark.net


def _world(scenario: str, **settings: object) -> dict[str, Any]:
    found: dict[str, Any] = run(scenario, rootless=True, routed=True, **settings)
    return found


def test_nobody_is_told_of_another_way_to_imds_in_the_name_of_a_gateway() -> None:
    """A pod tells its neighbour, and the node where that listens (accept_redirects)."""
    bare, guarded = (_world("redirected_ways", guarded=on) for on in (False, True))
    assert bare == {"node": "10.240.0.99", "p2": PODS["p1"], "served": "nobody"}
    assert guarded == {"node": "10.240.0.1", "p2": "169.254.1.1", "served": "agent"}


def test_no_error_of_icmp_that_a_pod_makes_up_ends_or_diverts_a_connection_of_another() -> None:
    seen = _world("icmp_errors")
    assert seen["before"] == "proven"
    assert seen["arrived"] > 2 * 20, "those of both ends that are sent to the node"
    assert seen["after"] == [[PODS[pod], "proven"] for pod in ("p2", "p2", "p1")]


def test_what_conntracks_helpers_are_told_by_a_pod_leads_no_connection_elsewhere() -> None:
    seen = _world("expected")
    if "missing" in seen:
        pytest.skip(f"the kernel has no conntrack helpers: {seen['missing']}")
    expected = {what: seen[what] for what in seen if what.startswith(("FTP", "IRC"))}
    assert expected == {what: int(what.endswith("its own")) for what in expected}
    assert seen["after"] == [[PODS[pod], "proven"] for pod in ("p1", "p2", "p3")]
    assert seen["leaked"] == 0
