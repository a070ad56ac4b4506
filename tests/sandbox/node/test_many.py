"""A full node."""

from __future__ import annotations

import time

import pytest
from tests.sandbox.node.objects import pod
from tests.sandbox.node.site import PATIENCE, PODS, Site

from podidentity_sandbox.world.api import ready

pytestmark = pytest.mark.net


def test_a_node_holds_110_pods_soon_and_lets_them_go(site: Site) -> None:
    names = [f"pod-{number}" for number in range(110)]
    began = time.monotonic()
    for name in names:
        site.create(pod(name))
    assert not site.api.wait_for(PODS, names, ready, 3 * PATIENCE)
    assert time.monotonic() - began < 30
    items = site.api.request("GET", PODS)["items"]
    assert len({item["status"]["podIP"] for item in items}) == 110
    site.api.request("DELETE", PODS)
    for name in names[-1:]:
        if any(item["metadata"]["name"] == name for item in site.api.request("GET", PODS)["items"]):
            site.until_gone(name, site.api.request("GET", PODS)["metadata"]["resourceVersion"])
