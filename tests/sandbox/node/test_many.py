"""A full node."""

from __future__ import annotations

import time

import pytest

from podidentity_sandbox.world.api import ready
from tests.sandbox.node.objects import pod
from tests.sandbox.node.site import PATIENCE, PODS, Site

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
    version = site.api.request("GET", PODS)["metadata"]["resourceVersion"]
    site.api.request("DELETE", PODS)
    left = set(names)
    for kind, item in site.api.watch(PODS, version, 3 * PATIENCE):
        left -= {item["metadata"]["name"]} if kind == "DELETED" else set()
        if not left:
            break
    assert not left
    assert site.on_node("ip -brief link show master cbr0; ls /run/netns") == ""
