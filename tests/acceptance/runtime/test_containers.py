"""The agent in a real container runtime, and pods that ask it."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from podidentity_sandbox.node.cri.pause import SHELL
from podidentity_sandbox.plan import Network
from tests.acceptance.runtime.node import ASK, ROOT, SECONDS, SERVED, SYSTEM, Answer, Node

THREE = "0000000000201004"
"""NET_ADMIN, SYS_ADMIN and DAC_READ_SEARCH."""
NONE = "0000000000000000"
SETS = ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")
WGET = (
    "wget -q -O - --header Metadata:true 'http://169.254.169.254/metadata/identity/oauth2/token"
    "?api-version=2018-02-01&resource=https://vault.azure.net'"
)
STRICT = {
    "securityContext": {
        "runAsUser": 1000,
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "seccompProfile": {"type": "RuntimeDefault"},
    },
    "resources": {"limits": {"cpu": "100m", "memory": "64Mi"}},
}
READ = "import sys; [print(open(path).read()) for path in sys.argv[1:]]"


def status(node: Node, container: str) -> dict[str, str]:
    """Return /proc/1/status of a container of the agent."""
    lines = node.in_agent(container, "python3", "-ISc", READ, "/proc/1/status").splitlines()
    return {key: value.strip() for key, _, value in (line.partition(":") for line in lines)}


def mounts(node: Node, container: str) -> dict[str, str]:
    """Return the lines of mountinfo by mount point."""
    lines = node.in_agent(container, "python3", "-ISc", READ, "/proc/1/mountinfo").splitlines()
    return {line.split()[4]: line for line in lines if line}


def test_net_has_three_capabilities_and_serve_none_both_under_the_runtimes_seccomp(
    node: Node,
) -> None:
    net, serve = status(node, "net"), status(node, "serve")
    assert {net[each] for each in ("CapPrm", "CapEff", "CapBnd")} == {THREE}
    assert {serve[each] for each in SETS} == {NONE}
    assert (net["Seccomp"], serve["Seccomp"]) == ("2", "2")
    assert serve["Uid"].split() == ["64912"] * 4
    assert serve["NoNewPrivs"] == "1"


@pytest.mark.parametrize("container", ["net", "serve"])
def test_the_root_of_the_agents_containers_is_read_only(node: Node, container: str) -> None:
    assert mounts(node, container)["/"].split()[5].startswith("ro,")


def test_namespaces_of_pods_that_start_later_come_to_net(node: Node) -> None:
    assert " master:" in mounts(node, "net")["/run/netns"]
    before = {path for path in mounts(node, "net") if path.startswith("/run/netns/")}
    node.ready(node.start("later"))
    new = {path for path in mounts(node, "net") if path.startswith("/run/netns/")} - before
    assert len(new) == 1
    assert node.ask("later").status == 200
    node.drop("later")


def test_a_bound_pod_has_a_token_and_one_without_a_right_is_refused(node: Node) -> None:
    assert node.ask("app").status == 200
    assert node.ask("other").status == 400


def test_a_process_of_the_node_in_a_pods_network_is_not_that_pod(node: Node) -> None:
    said = node.ask_on_node(net=node.network("app"), cgroup="system.slice")
    assert said.status == 403
    assert node.ask_on_node(net=node.network("app"), cgroup=node.cgroup("app")).status == 200


def test_a_pods_process_in_its_neighbours_network_is_not_the_neighbour(node: Node) -> None:
    said = node.ask_on_node(net=node.network("app"), cgroup=node.cgroup("other"))
    assert said.status == 403


@pytest.mark.parametrize("other", ["runc", "crun"])
def test_pods_of_both_runtimes_are_proved(node: Node, other: str) -> None:
    node.ready(node.start(f"by-{other}", runtimeClassName=other))
    assert node.ask(f"by-{other}").status == 200
    node.drop(f"by-{other}")


def test_a_pod_without_any_right_of_its_own_is_proved(node: Node) -> None:
    node.ready(node.start("strict", container=STRICT))
    assert node.ask("strict").status == 200
    node.drop("strict")


@pytest.mark.parametrize("handler", ["runc", "crun"])
def test_a_pod_with_users_of_its_own_is_proved(node: Node, handler: str) -> None:
    # Of a small image: containerd 1.7 copies it to give it to the pod's users.
    shell = {"image": SHELL, "command": ["sleep", "infinity"]}
    node.ready(
        node.start(f"users-{handler}", hostUsers=False, runtimeClassName=handler, container=shell)
    )
    assert node.inside(f"users-{handler}", "cat", "/proc/self/uid_map").split()[2] == "65536"
    assert "access_token" in node.inside(f"users-{handler}", "sh", "-c", WGET)
    node.drop(f"users-{handler}")


def test_a_pod_that_asks_in_its_first_instruction_has_a_token(node: Node) -> None:
    asking = {"command": ["python3", "-ISc", ASK]}
    node.start("first", container=asking, restartPolicy="Never")
    node.become(lambda pod: pod["status"].get("phase") in {"Succeeded", "Failed"}, "first")
    said = node.place.run("kubectl", "logs", "-n", SERVED, "first")
    assert Answer.of(said, "").status == 200
    node.drop("first")


def test_a_static_pod_is_known_by_the_hash_in_its_cgroup(node: Node) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "static", "namespace": SERVED, "labels": {"aadpodidbinding": "demo"}},
        "spec": {
            "containers": [{"name": "main", "image": SHELL, "command": ["sleep", "infinity"]}],
            "terminationGracePeriodSeconds": 1,
        },
    }
    node.on_node(f"echo '{json.dumps(manifest)}' >/run/kubelet/manifests/static.yaml")
    name = f"static-{node.own.name}"
    end = time.monotonic() + SECONDS
    while name not in str(node.api.request("GET", f"/api/v1/namespaces/{SERVED}/pods")):
        assert time.monotonic() < end, "the kubelet makes no mirror"
        time.sleep(0.1)
    node.ready(name)
    pod = node.get(name)
    digest = pod["metadata"]["annotations"]["kubernetes.io/config.hash"]
    assert digest in node.cgroup(name)
    assert pod["metadata"]["uid"] not in node.cgroup(name)
    assert "access_token" in node.inside(name, "sh", "-c", WGET)
    node.on_node("rm /run/kubelet/manifests/static.yaml")
    node.alone("app", "other")


def test_a_neighbours_address_gives_nothing(node: Node) -> None:
    """By forged ARP where pods share a bridge; by the node's own route where they do not."""
    claim = node.address("app")
    sandbox = str(ROOT / "src/podidentity_sandbox")
    mount = {"name": "sandbox", "mountPath": "/tricks/podidentity_sandbox", "readOnly": True}
    rights = {"runAsUser": 0, "capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}
    container = {"volumeMounts": [mount], "securityContext": rights}
    volume = {"name": "sandbox", "hostPath": {"path": sandbox}}
    node.ready(node.start("forger", bound=False, container=container, volumes=[volume]))
    if node.own.network is Network.BRIDGE:
        run = (
            "import sys; sys.path.insert(0, '/tricks'); from podidentity_sandbox.demo import forger"
        )
        tricks = ("--trick", "arp", "--claim", claim, "--seconds", "4")
        said = node.inside("forger", "python3", "-ISc", f"{run}; forger.main()", *tricks)
        # The guard of the bridge lets no frame through; without it the proof would say 403.
        assert said.startswith("no answer"), said
    else:
        pods = {name: node.address(name) for name in ("app", "forger")}
        link = {name: _interface(node, address) for name, address in pods.items()}
        take = f"ip address add {claim}/32 dev eth0"
        node.on_node(take, net=node.network("forger"))
        node.on_node(f"ip route replace {claim} dev {link['forger']}")
        assert node.ask("forger", claim).status == 403
        node.on_node(f"ip route replace {claim} dev {link['app']}")
    node.drop("forger")
    assert node.ask("app").status == 200


def _interface(node: Node, address: str) -> str:
    words = node.on_node(f"ip -o route get {address}").split()
    return words[words.index("dev") + 1]


def test_what_net_holds_of_a_pods_network_goes_with_the_pod(node: Node) -> None:
    node.alone("app", "other")
    held = node.program("net")

    def now() -> tuple[int, int, int]:
        files = len(node.on_node("ls /run/netns").split())
        shown = node.on_node(f"grep -c nsfs /proc/{_inner(node, held)}/mountinfo")
        descriptors = len(node.on_node(f"ls /proc/{_inner(node, held)}/fd").split())
        return files, int(shown), descriptors

    before = now()
    names = [node.start(f"churn-{number}") for number in range(4)]
    node.ready(*names)
    assert now()[0] == before[0] + len(names)
    assert {node.ask(name).status for name in names} == {200}
    node.delete(*names)
    end = time.monotonic() + SECONDS
    while now() != before and time.monotonic() < end:
        time.sleep(0.1)
    files, shown, descriptors = now()
    assert (files, shown) == before[:2]
    assert descriptors <= before[2] + 1


def _inner(node: Node, pid: int) -> int:
    """Return a process's number on the node (NSpid of proc_pid_status(5))."""
    lines = {each: Path(f"/proc/{each}/status").read_text() for each in (pid, node.pid)}
    numbers = {each: text.split("NSpid:")[1].split("\n")[0].split() for each, text in lines.items()}
    return int(numbers[pid][len(numbers[node.pid]) - 1])


def test_ip_netns_used_by_hand_on_the_node_hides_no_pod(node: Node) -> None:
    node.on_node("ip netns add late")
    node.ready(node.start("after-netns"))
    assert node.ask("after-netns").status == 200
    node.drop("after-netns")
    node.on_node("ip netns del late")
    assert node.ask("app").status == 200


def test_a_pods_namespace_that_has_a_second_name_by_hand_is_known_by_either(node: Node) -> None:
    """As `ip netns attach` gives it one, whoever takes the runtime's own away."""
    (pid,) = (node.cgroups / node.cgroup("app") / "cgroup.procs").read_text().split()[:1]
    space = f"/proc/{_inner(node, int(pid))}/ns/net"
    mine = f'[ "$(stat -Lc %i "$each")" = "$(stat -Lc %i {space})" ]'
    named = node.on_node(f'for each in /run/netns/*; do {mine} && echo "$each"; done; :').split()
    (theirs,) = named
    node.on_node(f"touch /run/netns/by-hand && mount --bind {space} /run/netns/by-hand")
    assert node.ask("app").status == 200
    node.on_node(f"umount {theirs}")
    assert node.ask("app").status == 200
    node.on_node(f"mount --bind {space} {theirs} && umount /run/netns/by-hand")
    node.on_node("rm /run/netns/by-hand")
    assert node.ask("app").status == 200


def test_the_agents_pod_says_nothing_is_wrong(node: Node) -> None:
    log = node.place.run("kubectl", "logs", node.agent(), "-n", SYSTEM, "-c", "net")
    assert "WARN" not in log, log
    assert "ERROR" not in log, log
