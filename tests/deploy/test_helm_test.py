"""The program of `helm test`: what it says of a hundred nodes, and each right of its account."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity.cli import main
from tests.cli.world import World, running
from tests.deploy.helm import Helm, Rendered

LABELS = {"app.kubernetes.io/part-of": "podidentity", "app.kubernetes.io/component": "nmi"}
ACCOUNTS = "/api/v1/namespaces/kube-system/serviceaccounts"
PODS = "/api/v1/namespaces/kube-system/pods"
Ran = tuple[int, str, str]
"""Exit status, output, errors."""
SAYS = {
    "ready": True,
    "checks": {"path": "ok"},
    "attestation": "kernel",
    "path": {"hop": "proved", "plane": "routed", "backend": "nftables"},
    "warnings": [],
}
TEST = "aad-pod-identity-test"
NODES = "/api/v1/nodes"


class Says(http.server.BaseHTTPRequestHandler):
    """What NMI of any node says at /readyz."""

    def do_GET(self) -> None:
        """Answer as one that is ready."""
        self.send_response(200)
        self.end_headers()
        self.wfile.write(json.dumps(SAYS).encode())

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@dataclass
class Account:
    """The account of `helm test` in a cluster of 100 nodes."""

    world: World
    names: list[str]
    """Of the nodes."""
    arguments: list[str]
    """Of the test's program."""
    rules: dict[str, list[Any]]
    """What the account may do, by the paths of its roles."""


@pytest.fixture(scope="module")
def account(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Account]:
    """It is there as the chart makes it. NMI of each node answers at an address of the loopback."""
    everywhere = ("0.0.0.0", 0)  # noqa: S104 - one socket for a hundred addresses of the loopback
    with (
        Helm() as helm,
        running(tmp_path_factory.mktemp("world")) as world,
        http.server.ThreadingHTTPServer(everywhere, Says) as server,
    ):
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = [each["metadata"]["name"] for each in world.send("GET", NODES)["items"]]
        hollow = [f"hollow-{number:03}" for number in range(100 - len(own))]
        for name in hollow:
            metadata = {"name": name, "labels": {"kubernetes.io/os": "linux"}}
            world.send("POST", NODES, {"metadata": metadata})
        for number, name in enumerate([*own, *hollow], 1):
            put_nmi(world, name, f"127.99.0.{number}")
        given = {"operationMode": "managed", "nmi": {"probePort": server.server_address[1]}}
        made = helm.render(given)
        (container,) = made.named("Pod", TEST)["spec"]["containers"]
        yield Account(world, sorted([*own, *hollow]), container["args"], put_account(world, made))
        server.shutdown()


def put_nmi(world: World, node: str, address: str) -> None:
    """Have a pod of NMI on a node, ready at this address."""
    spec = {"nodeName": node, "containers": [{"name": "serve", "image": "x"}]}
    world.send("POST", PODS, {"metadata": {"name": f"nmi-{node}", "labels": LABELS}, "spec": spec})
    ready = {"type": "Ready", "status": "True"}
    status = {"hostIP": address, "conditions": [ready]}
    world.send("PATCH", f"{PODS}/nmi-{node}/status", {"status": status})


def put_account(world: World, made: Rendered) -> dict[str, list[Any]]:
    """Make the account and its roles as the chart does; return their rules by their paths."""
    world.send("POST", ACCOUNTS, made.named("ServiceAccount", TEST))
    rules = {}
    for kind in ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"):
        found = made.named(kind, TEST)
        within = "" if kind.startswith("Cluster") else "/namespaces/kube-system"
        path = f"/apis/rbac.authorization.k8s.io/v1{within}/{kind.lower()}s"
        world.send("POST", path, found)
        if "rules" in found:
            rules[f"{path}/{TEST}"] = found["rules"]
    return rules


@pytest.fixture
def helm_test(
    account: Account,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Callable[[], Ran]:
    """Run what the pod of `helm test` runs, as its service account."""
    path = f"{ACCOUNTS}/{TEST}/token"
    token = account.world.send("POST", path, {"spec": {}})["status"]["token"]
    kubeconfig = yaml.safe_load(account.world.plan.kubeconfig.read_text())
    (user,) = kubeconfig["users"]
    user["user"] = {"token": token}
    written = tmp_path / "kubeconfig"
    written.write_text(yaml.safe_dump(kubeconfig))
    monkeypatch.setenv("KUBECONFIG", str(written))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")

    def ran() -> Ran:
        code = main.run(account.arguments)
        said = capsys.readouterr()
        return code, said.out, said.err

    return ran


def test_helm_test_says_plane_backend_proof_and_probe_of_100_nodes(
    account: Account, helm_test: Callable[[], Ran]
) -> None:
    code, out, err = helm_test()
    assert (code, err) == (0, "")
    head, *lines = map(str.split, out.splitlines())
    assert head == ["NODE", "NMI", "PLANE", "BACKEND", "PROOF", "PROBE"]
    assert len(lines) == 100
    told = ["ready", "routed", "nftables", "kernel", "proved"]
    assert lines == [[name, *told] for name in account.names]


def test_the_account_of_helm_test_needs_each_of_its_rights(
    account: Account, helm_test: Callable[[], Ran]
) -> None:
    taken = list[str]()
    for path, rules in account.rules.items():
        for rule in rules:
            left = [each for each in rules if each is not rule]
            account.world.send("PATCH", path, {"rules": left})
            with account.world.control_plane.rights_seen():
                pass
            code, out, err = helm_test()
            (resource,) = rule["resources"]
            assert rule["verbs"] == ["list"]
            assert (code, out) == (1, "")
            assert f"refused to list {resource}" in err
            taken.append(resource)
        account.world.send("PATCH", path, {"rules": rules})
    assert sorted(taken) == ["nodes", "pods"]
