"""What a kubelet does with a pod, in a real sandbox."""

from __future__ import annotations

import ipaddress

import pytest

from podidentity_sandbox.plan import Network
from podidentity_sandbox.world.api import ready
from tests.sandbox.node.site import (
    PATIENCE,
    PODS,
    Site,
    container,
    pod,
    script,
    terminated,
    waits_for,
)

pytestmark = pytest.mark.net

EMPTY = {"name": "shared", "emptyDir": {}}
SHARED = {"name": "shared", "mountPath": "/shared/deep"}


def test_a_pod_without_a_command_idles_and_is_ready(site: Site) -> None:
    status = site.run(pod("idle"))["status"]
    assert status["phase"] == "Running"
    assert ipaddress.ip_address(status["podIP"]) in ipaddress.ip_network(site.node.pod_cidr)
    assert status["podIP"] != site.node.gateway
    assert status["hostIP"] == site.node.address


def test_init_containers_run_one_after_the_other_before_the_rest(site: Site) -> None:
    first = script("echo 1 >>/shared/deep/order", name="first", volumeMounts=[SHARED])
    second = script("echo 2 >>/shared/deep/order", name="second", volumeMounts=[SHARED])
    main = script("cat /shared/deep/order", volumeMounts=[SHARED])
    found = site.run(
        pod("ordered", main, initContainers=[first, second], volumes=[EMPTY]), terminated
    )
    assert site.log(found) == "1\n2\n"
    assert found["status"]["phase"] == "Succeeded"


def test_a_pod_fails_when_an_init_container_does(site: Site) -> None:
    found = site.run(
        pod("unborn", initContainers=[script("exit 9", name="first")]),
        lambda seen: seen["status"]["phase"] == "Failed",
    )
    init, main = (found["status"][f"{kind}ontainerStatuses"][0] for kind in ("initC", "c"))
    assert init["state"]["terminated"]["exitCode"] == 9
    assert "waiting" in main["state"]


def test_a_command_that_is_not_there_has_an_end_that_says_so(site: Site) -> None:
    lost = pod("lost", container("no-such-program"), restartPolicy="Always")
    status = site.run(lost, waits_for("CrashLoopBackOff"))["status"]["containerStatuses"][0]
    last = status["lastState"]["terminated"]
    assert (last["reason"], last["exitCode"]) == ("StartError", 128)
    assert 'exec: "no-such-program": executable file not found in $PATH' in last["message"]


def test_variables_and_fields_reach_the_program(site: Site) -> None:
    env = [
        {"name": "NODE", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "BOTH", "value": "$(NODE)/$(IP)"},
    ]
    found = site.run(pod("fields", container("echo", "$(BOTH)", "$$(IP)", env=env)), terminated)
    assert site.log(found) == f"{site.node.name}/{found['status']['podIP']} $(IP)\n"


def test_nothing_is_mounted_inside_the_proc_of_a_container(site: Site) -> None:
    mount = {"name": "v", "mountPath": "/proc/sys/net"}
    host = {"name": "v", "hostPath": {"path": "/proc/sys/net"}}
    site.create(pod("meddler", {**container("true"), "volumeMounts": [mount]}, volumes=[host]))
    said = site.event("meddler", "Failed")
    assert '"/proc/sys/net" cannot be mounted because it is inside /proc' in said


def test_a_pod_is_joined_to_its_node_as_network_plugins_of_this_kind_do_it(site: Site) -> None:
    address = site.run(pod("joined"))["status"]["podIP"]
    routes = site.says("joined", "ip -4 route; ip -4 -o address show dev eth0").split()
    on_node = site.on_node(f"ip -o route get {address}").split()
    link = on_node[on_node.index("dev") + 1]
    assert ["default", "via", site.node.gateway, "dev", "eth0"] == routes[:5]
    if site.node.network is Network.BRIDGE:
        assert f"{address}/24" in routes
        assert link == "cbr0"
    else:
        assert f"{address}/32" in routes
        assert link.startswith("azv")
        settings = f"/proc/sys/net/ipv4/conf/{link}/proxy_arp"
        assert site.on_node(f"cat {settings}; ip -4 -brief address show {link}") == "1"


def test_a_pod_of_the_host_network_has_the_nodes_address_and_interfaces(site: Site) -> None:
    found = site.run(pod("host", hostNetwork=True))
    assert found["status"]["podIP"] == site.node.address
    links = site.says("host", "ip -brief address show")
    assert site.node.address in links
    if site.node.network is Network.BRIDGE:
        assert f"{site.node.gateway}/24" in links
    else:
        assert site.node.gateway not in links
    assert site.says("host", "hostname") == site.node.name


def test_a_program_runs_as_the_user_of_its_spec_where_there_are_users(site: Site) -> None:
    site.run(pod("someone", container("sleep", "9", securityContext={"runAsUser": 1234})))
    if site.plan.rootless:
        assert site.says("someone", "id -u") == "0"
        assert "its only user is 0" in site.event("someone", "RunAsUser")
    else:
        told = site.says("someone", "id -u; grep CapEff /proc/self/status")
        assert told == "1234\nCapEff:\t0000000000000000"


# ---- A full node


def test_a_node_holds_110_pods_and_lets_them_go(rooted: Site) -> None:
    """The many are one kind of network's here: ten seconds of a processor are theirs."""
    site, patience = rooted, 5 * PATIENCE
    names = [f"pod-{number}" for number in range(110)]
    for name in names:
        site.create(pod(name))
    assert not site.api.wait_for(PODS, names, ready, patience)
    items = site.api.request("GET", PODS)["items"]
    assert len({item["status"]["podIP"] for item in items}) == 110
    version = site.api.request("GET", PODS)["metadata"]["resourceVersion"]
    site.api.request("DELETE", PODS)
    left = set(names)
    for kind, item in site.api.watch(PODS, version, patience):
        left -= {item["metadata"]["name"]} if kind == "DELETED" else set()
        if not left:
            break
    assert not left
    assert site.on_node("ip -brief link show type veth | grep -v ^eth0; ls /run/netns") == ""
    assert site.on_node("ip route show type unicast proto boot scope link") == ""
