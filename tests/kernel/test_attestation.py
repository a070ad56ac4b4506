from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.kernel.agent import uid
from tests.kernel.topology import PODS, pod_cgroups, run
from tests.root import WAYS, needs_root

pytestmark = pytest.mark.net

_OTHERS = ["net_admin", "sys_admin"]
_LOOK_UP = "dac_read_search"
_REFUSED = "give the process CAP_DAC_READ_SEARCH"
BY_CGROUP = [
    (_OTHERS, False, _REFUSED),
    pytest.param([*_OTHERS, _LOOK_UP], True, "", marks=needs_root),
    pytest.param([*_OTHERS, _LOOK_UP], False, "in no pod's cgroup of v2", marks=needs_root),
    pytest.param(_OTHERS, True, _REFUSED, marks=needs_root),
]


@pytest.fixture(scope="module", params=WAYS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def seen(kind: str) -> Iterator[dict[str, Any]]:
    """What an agent saw of p2's requests and of p1's attacks in p2's name."""
    if kind == "rootless":
        yield run("spoofing", rootless=True)
    else:
        with pod_cgroups([uid(name) for name in PODS]) as root:
            yield run("spoofing", cgroups=str(root))


def test_an_ordinary_request_is_proven(seen: dict[str, Any], kind: str) -> None:
    assert seen["ordinary"]["verdict"] == "proven"
    assert seen["ordinary"]["uid"] == (uid("p2") if kind == "root" else "")


@pytest.mark.parametrize("way", ["arp", "mac", "arp, listening", "welcomed by a server", "address"])
def test_an_attack_holds_a_conversation_under_the_victims_address_and_is_found_out(
    seen: dict[str, Any], way: str
) -> None:
    assert seen[way]["who"] == "agent"
    assert seen[way]["peer"] == PODS["p2"]
    assert seen[way]["verdict"] == "forged"


def test_the_socket_of_a_server_proves_nobody_who_called_it_in_the_name_of_imds(
    seen: dict[str, Any],
) -> None:
    assert "somebody listens at its port" in seen["welcomed by a server"]["detail"]


def test_the_attacker_is_named_where_the_kernel_knows_him(seen: dict[str, Any], kind: str) -> None:
    by_namespace = "p1, p2 hold the address, and pods have no cgroups to tell them apart"
    by_cgroup = f"the socket in p1 belongs to pod {uid('p1')}"
    assert seen["address"]["detail"] == (by_cgroup if kind == "root" else by_namespace)
    assert seen["address"]["uid"] == (uid("p1") if kind == "root" else "")


def test_an_attacker_with_the_owners_address_locks_him_out_only_where_there_are_no_cgroups(
    seen: dict[str, Any], kind: str
) -> None:
    assert seen["owner"]["peer"] == PODS["p2"]
    assert seen["owner"]["verdict"] == ("proven" if kind == "root" else "forged")


def test_a_process_in_the_pods_network_but_not_of_the_pod_is_not_the_pod(
    seen: dict[str, Any], kind: str
) -> None:
    assert seen["no cgroup"]["verdict"] == ("forged" if kind == "root" else "proven")


def test_no_attack_reached_the_real_imds(seen: dict[str, Any]) -> None:
    assert seen["leaked"] == 0


@pytest.mark.parametrize(("capabilities", "in_a_pod", "problem"), BY_CGROUP)
def test_cgroups_are_usable_where_this_process_is_in_a_pods_and_may_look_it_up(
    capabilities: list[str], *, in_a_pod: bool, problem: str
) -> None:
    rootless = os.geteuid() != 0
    with contextlib.ExitStack() as stack:
        cgroup = ""
        if in_a_pod:
            root = stack.enter_context(pod_cgroups([uid("p1")]))
            cgroup = f"{root}/kubepods/burstable/pod{uid('p1')}/main"
        seen = run("privileges", rootless=rootless, capabilities=capabilities, cgroup=cgroup)
    assert problem in seen["cgroups"]
    assert bool(problem) == bool(seen["cgroups"])


@needs_root
def test_a_service_of_the_node_needs_a_tree_with_cgroups_of_pods() -> None:
    with pod_cgroups([uid("p1")]) as root:
        seen = run("privileges", capabilities=[*_OTHERS, _LOOK_UP], cgroup_root=str(root))
    assert seen["cgroups"] == ""


def test_what_is_missing_on_the_node_makes_callers_unprovable_and_is_said(
    *, rootless: bool
) -> None:
    seen = run("unprovable", rootless=rootless)
    assert {what: verdict for what, (verdict, *_) in seen.items()} == dict.fromkeys(seen, "unknown")
    mends = {
        "no cgroup v2": "mount the node's /sys/fs/cgroup there; on a node with cgroup v1 only",
        "no namespaces": "containerd with netns_mounts_under_state_dir",
        "no folder": "with propagation HostToContainer",
    }
    for what, mend in mends.items():
        _, detail, problems = seen[what]
        assert mend in detail
        assert problems == [detail]
    assert seen["not asked"][1:] == [
        "cgroups are not asked: both programs need the same --attestation",
        [],
    ]


def test_a_folder_that_gets_no_mounts_of_the_node_is_a_problem_once_one_is_missing(
    *, rootless: bool
) -> None:
    before, after, propagated, later = run("propagation", rootless=rootless)
    assert before == propagated == later == ""
    assert "later-private there has no network namespace on it" in after


def test_a_pod_whose_namespace_cannot_come_is_unknown_at_once_and_no_forger(
    *, rootless: bool
) -> None:
    seen = run("unseen", rootless=rootless)
    verdict, detail = seen["private"]
    assert verdict == "unknown"
    assert "p1 there has no network namespace on it" in detail
    # Where new mounts come, it is another cause.
    verdict, detail = seen["slave"]
    assert verdict == "unknown"
    assert "somebody has taken it out of the folder of namespaces" in detail


def test_each_state_of_a_connection_has_its_verdict(*, rootless: bool) -> None:
    seen = run("states", rootless=rootless)
    assert {what: verdict for what, (verdict, _) in seen.items()} == {
        "ordinary": "proven",
        "IPv6 socket": "proven",
        "bound to an interface": "proven",
        "half-closed": "proven",
        "closed": "gone",
        "reset": "gone",
        "only a listener": "gone",
        "its second address": "proven",
        "which another has taken since": "forged",
        "more sent than we have read": "proven",
        "answered without a proof before": "proven",
        "it reads nothing": "proven",
        "half-closed after its requests": "proven",
        "its data lost": "proven",
        "its data lost and sent again": "proven",
        "long in our backlog": "proven",
        "a request after a long silence": "proven",
        "led to our loopback address": "proven",
        "at another address than it is": "gone",
        "at no address": "gone",
        "an address of no pod": "gone",
        "IPv6": "gone",
        "no address": "gone",
    }


def test_an_old_socket_of_the_victim_proves_nobody_who_speaks_from_its_port(
    *, rootless: bool
) -> None:
    seen = run("stale", rootless=rootless)
    assert {what: before for what, (before, _) in seen.items()} == dict.fromkeys(seen, "proven")
    old = "forged: the socket in p2 is of another connection: "
    assert {what: after.removeprefix(old) for what, (_, after) in seen.items()} == {
        "closed by us": "it has received the end of a connection, and we have sent none",
        "our end was diverted": "it has received 40 bytes, and we have sent 0",
        "diverted before any answer": "it sent its last data before the last that has arrived",
        "diverted before any request": "it has sent 0 bytes, and 76 have arrived",
    }


@pytest.fixture(scope="module")
def handed() -> dict[str, Any]:
    """What a proof says of sockets in p1's network that passed between pods, or by a ring."""
    with pod_cgroups([uid(name) for name in PODS]) as root:
        found: dict[str, Any] = run("handing", cgroups=str(root))
    return found


OWN, OF_ANOTHER = ["proven", "p1"], ["forged", "p2"]


@needs_root
def test_a_socket_is_its_makers_whoever_holds_it_and_of_whatever_kind_it_is(
    handed: dict[str, Any],
) -> None:
    seen = {what: found for what, found in handed.items() if "ring" not in what}
    assert seen == {
        **({"MPTCP": OWN} if Path("/proc/sys/net/mptcp").exists() else {}),
        "a request in its SYN": OWN,
        "on its way to p2": OWN,
        "made by p1, connected by p2": OWN,
        "made by p2 in p1's network": OF_ANOTHER,
        "of p1 that has ended, held by p2": ["gone", ""],
    }


@needs_root
def test_who_puts_a_request_into_anothers_ring_is_who_he_is_unless_the_others_thread_does_it(
    handed: dict[str, Any],
) -> None:
    """By a thread of the maker's (SQPOLL) it is the maker who asks, for whoever he lets."""
    if "no rings" in handed:
        pytest.skip(f"the kernel gives us no io_uring: {handed['no rings']}")
    assert {what: found for what, found in handed.items() if "ring" in what} == {
        "by a worker of a ring": OWN,
        "by p2 on p1's ring": OF_ANOTHER,
        "by a thread of p1's ring, for p2": OWN,
    }


def test_namespaces_and_addresses_are_known_as_of_the_last_refresh(*, rootless: bool) -> None:
    seen = run("changes", rootless=rootless)
    table = {what: (opened, holders) for what, (_, opened, holders) in seen.items()}
    assert table == {
        "start": (3, ["p1"]),
        "nothing new": (3, ["p1"]),
        "an address more": (3, ["p1"]),
        "an address less": (3, []),
        "a file without a namespace": (3, ["p1"]),
        "our own namespace, under a name": (4, ["second"]),
        "a second name": (4, ["p2"]),
        "a namespace less": (3, []),
        "another of the same name": (4, ["p1"]),
        "a crowd of addresses": (3, []),
    }
    assert [what for what, (refreshed, *_) in seen.items() if not refreshed] == [
        "nothing new",
        "a file without a namespace",
        "a second name",
    ]


def test_a_folder_that_is_not_there_yet_is_named_and_found_later(*, rootless: bool) -> None:
    seen = run("absent", rootless=rootless)
    refreshed, failure = seen["before"]
    assert not refreshed
    assert "with propagation HostToContainer" in failure
    assert seen["after"] == [True, "", 1]


def test_namespaces_are_known_at_once_where_another_has_used_up_all_watches_of_our_user() -> None:
    seen = run("unwatched", rootless=True)
    assert seen["instances"] == seen["watches"] == 4
    assert "cannot read /run/nowhere" in seen["missing"]


def test_the_namespace_of_a_pod_that_ends_is_let_go_with_no_request_coming() -> None:
    assert run("absent", rootless=True)["let go"] == 0


def test_a_probe_is_sent_from_the_network_of_the_probe_pod_and_of_no_other(kind: str) -> None:
    if kind == "rootless":
        seen = run("probing", rootless=True)
    else:
        with pod_cgroups([uid(name) for name in PODS]) as root:
            seen = run("probing", cgroups=str(root))
    p1, by_cgroup = PODS["p1"], kind == "root"
    two = f"2 network namespaces have the address {p1}"
    absent = f"no network namespace in which the program of the probe pod runs has the address {p1}"
    assert seen == {
        "not yet": absent if by_cgroup else "in p1",
        "a tenant's pod": "in p2",
        "it runs": "in p1",
        "another has its address": "in p1" if by_cgroup else two,
        "and nothing tells them apart": two,
        "the filter ties it to its port": "in p1",
        # Without cgroups that is not seen: the probe fails or not as that pod's requests do.
        "the thief was first at the port": absent if by_cgroup else "in p2",
        "it has ended": absent if by_cgroup else two,
        "no pod": "no network namespace of a pod has the address 10.244.0.99",
        "IPv6": "fd00::1 is no IPv4 address",
    }
