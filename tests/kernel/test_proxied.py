"""Whose a connection is that a mesh's proxy made in the pod's own network namespace."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.kernel.agent import uid
from tests.kernel.topology import PODS, pod_cgroups, run
from tests.root import needs_root

pytestmark = [pytest.mark.net, needs_root]


@pytest.fixture(scope="module")
def seen() -> Iterator[dict[str, Any]]:
    """What an agent saw of p2's requests, with p3's process as its proxy, and of p1's attacks."""
    with pod_cgroups([uid(name) for name in PODS]) as root:
        yield run("proxied", cgroups=str(root))


def verdict(found: dict[str, Any]) -> tuple[str, str, str]:
    """Return the verdict, and which pod is named and as whose proxy."""
    names = {uid(name): name for name in PODS} | {"": ""}
    return found["verdict"], names[found["uid"]], names[found["proxy"]]


def test_through_a_proxy_the_kernel_names_the_pod_and_the_proxy(seen: dict[str, Any]) -> None:
    assert verdict(seen["the pod itself"]) == ("proven", "p2", "")
    assert verdict(seen["through the proxy"]) == ("proxied", "p2", "p3")
    assert verdict(seen["another pod through the proxy"]) == ("proxied", "p1", "p3")
    assert verdict(seen["once more"]) == ("proxied", "p2", "p3")


def test_a_proxy_that_asks_for_itself_in_a_pods_namespace_is_not_the_pod(
    seen: dict[str, Any],
) -> None:
    assert verdict(seen["the proxy for itself"]) == ("forged", "p3", "")


def test_who_is_not_of_the_pod_is_not_the_pod_behind_a_proxy_either(seen: dict[str, Any]) -> None:
    assert verdict(seen["a process of no pod"]) == ("forged", "p3", "")
    assert verdict(seen["another pod's process"]) == ("forged", "p1", "p3")
    assert verdict(seen["beside another pod's client"]) == ("forged", "p3", "")


def test_a_pod_that_takes_an_address_proves_only_itself_behind_a_proxy_as_well(
    seen: dict[str, Any],
) -> None:
    """Its namespace is the only holder of the address then, and so the first."""
    taken = seen["its address, taken after its end"]
    assert taken["peer"] == PODS["p2"]
    assert verdict(taken) == ("forged", "p1", "p3")


def test_it_is_told_when_two_namespaces_hold_the_address(seen: dict[str, Any]) -> None:
    assert seen["through the proxy"]["holders"] == 1
    contested = seen["while another pod has its address"]
    assert (verdict(contested), contested["holders"]) == (("proxied", "p2", "p3"), 2)


def test_no_request_reached_the_real_imds(seen: dict[str, Any]) -> None:
    assert seen["leaked"] == 0


@pytest.fixture(scope="module")
def with_users() -> dict[str, Any]:
    """Pod p2 has users of its own."""
    with pod_cgroups([uid(name) for name in PODS]) as root:
        found: dict[str, Any] = run("users", cgroups=str(root))
    return found


def test_a_pod_with_users_of_its_own_is_known_with_and_without_a_proxy(
    with_users: dict[str, Any],
) -> None:
    seen = with_users
    assert seen["its own users"] == "yes"
    assert verdict(seen["itself"]) == ("proven", "p2", "")
    assert verdict(seen["through the proxy"]) == ("proxied", "p2", "p3")
    assert seen["leaked"] == 0


def test_who_has_net_admin_and_users_of_its_own_administers_its_own_network_alone(
    with_users: dict[str, Any],
) -> None:
    assert with_users["p2 deletes the link of p3"] == "EACCES"
    assert with_users["p3"] == "agent"


def test_who_has_net_admin_and_the_nodes_users_administers_the_nodes_network_too(
    with_users: dict[str, Any],
) -> None:
    """The kernel's own rule, and a limit of what NMI protects from (docs/security.md)."""
    assert with_users["p1 deletes the link of p3"] == "done"
