"""The chart comes and goes without Helm's hooks and without `helm uninstall`: nothing is left over.

As Argo CD has it, which applies what `helm template` renders and deletes it in an order of its own;
and where somebody deletes the namespace of a release. docs/how-to/uninstall.md has the commands.
"""

from __future__ import annotations

import random
import shlex
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest
import yaml
from click.testing import CliRunner

from deploy.values import CHART, ROOT
from podidentity import manifests
from podidentity.cli.main import podidentity
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.wire.ledgers import render_ledger
from tests.cli.world import CUSTOM, World, running
from tests.deploy.helm import IMAGE, RELEASE, TAKE_OVER, begun, finish

CLIENT = "9d0b1f0f-4f8c-4c83-8be3-4b2f0d0a2c11"
MENU = "0c9f8a55-5a35-4f0c-8a2a-5d31c7b7c1aa"
RESOURCE = (
    "/subscriptions/0ea21a33-8bd0-45ed-94a1-1bc87f2b1a5f/resourceGroups/rg/providers"
    "/Microsoft.ManagedIdentity/userAssignedIdentities/orders"
)
VALUES = {
    "image": {"repository": IMAGE},
    "mic": {"federation": {"clientID": CLIENT, "tenantID": "contoso.com"}},
    "azureIdentities": {
        "orders": {
            "namespace": "billing",
            "resourceID": RESOURCE,
            "clientID": CLIENT,
            "binding": {"selector": "orders"},
        },
        "menu": {
            "namespace": "shop",
            "resourceID": RESOURCE,
            "clientID": MENU,
            "binding": {"selector": "menu"},
        },
    },
}
OWN = "podidentity"
"""A namespace of the release's own."""
KINDS = (
    "clusterroles,clusterrolebindings,roles,rolebindings,validatingadmissionpolicies,"
    "validatingadmissionpolicybindings,serviceaccounts,daemonsets,deployments,poddisruptionbudgets,"
    "azureidentities,azureidentitybindings,azurepodidentityexceptions,azureidentityledgers"
)
Kubectl = Callable[..., str]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """A new cluster."""
    with running(tmp_path_factory.mktemp("world")) as found:
        for name in ("billing", "shop"):
            found.namespace(name)
        yield found


@pytest.fixture
def kubectl(world: World) -> Kubectl:
    def run(*words: str, given: str = "", fails: str = "") -> str:
        command = ["kubectl", f"--kubeconfig={world.plan.kubeconfig}", *words]
        ran = subprocess.run(command, input=given, capture_output=True, text=True, check=False)
        assert bool(ran.returncode) == bool(fails), ran.stderr
        assert fails in ran.stderr
        return ran.stdout

    return run


def left(kubectl: Kubectl) -> set[str]:
    """Return what is there of us but the definitions of the custom resources."""
    found = kubectl("get", KINDS, "--all-namespaces", "-o", "name").split()
    return {each for each in found if "identity" in each}


def named_in(page: str, beginning: str) -> list[str]:
    """Return the command of a page that begins so, by its words."""
    text = (ROOT / page).read_text().replace("\\\n", "")
    (line,) = {line for line in text.splitlines() if line.startswith(beginning)}
    return shlex.split(line.partition("|")[0])


def disabled(world: World) -> str:
    """Run `podidentity disable`; return what it says beside its results."""
    end_pods(world, "kube-system")
    shell = CliRunner(env={"KUBECONFIG": str(world.plan.kubeconfig)})
    ran = shell.invoke(podidentity, ["disable"])
    assert ran.exit_code == 0, ran.output
    return ran.stderr


def end_pods(world: World, namespace: str) -> None:
    """End deleted pods, as kubelets would."""
    world.delete(f"/api/v1/namespaces/{namespace}/pods", gracePeriodSeconds="0")


def test_what_is_rendered_for_argo_has_no_hook_is_applied_and_goes_in_any_order(
    world: World, kubectl: Kubectl
) -> None:
    page = "docs/how-to/install-with-helm.md"
    _, *words = named_in(page, "helm template ")
    assert words.pop() == "VALUES"
    assert words.pop() == "--values"
    words[words.index("deploy/chart")] = str(CHART)
    text = finish(begun(*words, values=VALUES))
    assert "helm.sh/hook" not in text
    objects = [each for each in yaml.safe_load_all(text) if each]
    apply = ("apply", "--server-side", "-f", "-")
    kubectl(*apply, given=text, fails="no matches for kind")
    kubectl(*apply, given=text)
    here = left(kubectl)
    assert {
        "azureidentity.aadpodidentity.k8s.io/orders",
        "clusterrole.rbac.authorization.k8s.io/aad-pod-identity-mic",
        "daemonset.apps/aad-pod-identity-nmi",
        "deployment.apps/aad-pod-identity-mic",
    } <= here
    kept = {each["metadata"]["name"] for each in manifests.crds()}
    going = [each for each in objects if each["metadata"]["name"] not in kept]
    assert len(going) > 25
    random.Random(1).shuffle(going)  # noqa: S311 - an order, no secret
    kubectl("delete", "--wait=false", "-f", "-", given=yaml.safe_dump_all(going))
    ends = time.monotonic() + 60
    while left(kubectl):
        assert time.monotonic() < ends, left(kubectl)
        end_pods(world, "kube-system")
    assert "azureidentities" in kubectl("get", "crds", "-o", "name")


def a_permission_ends_with_its_namespace(world: World) -> None:
    """Which is made anew under its name, and has nothing."""
    bindings = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings"
    of_shop, of_billing = (
        f"{bindings}/aad-pod-identity-use-{client}:{namespace}"
        for client, namespace in ((MENU, "shop"), (CLIENT, "billing"))
    )
    assert world.get(of_shop)
    world.delete("/api/v1/namespaces/shop")
    ends = time.monotonic() + 60
    while world.get("/api/v1/namespaces/shop"):
        assert time.monotonic() < ends, "the namespace does not go"
        time.sleep(0.05)
    world.namespace("shop")
    while world.get(of_shop):
        assert time.monotonic() < ends, "the permission does not go"
        time.sleep(0.05)
    assert world.get(of_billing)


def test_with_the_namespace_of_a_release_goes_the_release_and_one_command_takes_the_rest(
    world: World, kubectl: Kubectl
) -> None:
    place = (f"--namespace={OWN}", f"--kubeconfig={world.plan.kubeconfig}")
    install = ("install", RELEASE, str(CHART), *TAKE_OVER, "--create-namespace")
    finish(begun(*install, *place, values=VALUES))
    a_permission_ends_with_its_namespace(world)
    world.custom("billing", "azureidentities", "by-hand", {"clientID": CLIENT})
    attached = {RESOURCE.lower(): LedgerEntry(RESOURCE, 0.0)}
    ledger = Ledger(host=Host.parse(world.plan.scale_set_id), attached=attached)
    ledgers = f"{CUSTOM}/namespaces/{OWN}/azureidentityledgers"
    world.send("POST", ledgers, render_ledger(ledger, OWN))
    kubectl("delete", "namespace", OWN, "--wait=false")
    ends = time.monotonic() + 60
    while world.get(f"/api/v1/namespaces/{OWN}") is not None:
        assert time.monotonic() < ends, "the namespace does not go"
        end_pods(world, OWN)
        time.sleep(0.05)
    here = left(kubectl)
    assert "clusterrolebinding.rbac.authorization.k8s.io/aad-pod-identity-nmi" in here
    assert not any("ledger" in each for each in here), "nobody knows what MIC attached"
    _, *words = named_in("docs/how-to/uninstall.md", "kubectl delete clusterrole,")
    said = disabled(world)
    assert f"the Helm release {RELEASE} give rights to service accounts of namespace {OWN}" in said
    assert shlex.join(["kubectl", *words]) in said
    assert {each for each in here if "/aad-pod-identity-" in each} <= left(kubectl)
    kubectl(*words)
    assert "Helm" not in disabled(world)
    assert left(kubectl) == {"azureidentity.aadpodidentity.k8s.io/by-hand"}
