"""The chart, put by Helm before the sandbox's API server, without nodes' programs."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from podidentity import manifests
from tests.cli.world import CUSTOM, World, running
from tests.deploy.helm import IMAGE, RELEASE, Helm, HelmRefused

OLD = sorted((Path(__file__).parent / "old_values").glob("*.yaml"))
AUTOMATIC = Path(__file__).parents[1] / "cli/aks_automatic.yaml"
SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
RBAC = "/apis/rbac.authorization.k8s.io/v1"
ADMISSION = "/apis/admissionregistration.k8s.io/v1"


@pytest.fixture(scope="module")
def helm() -> Iterator[Helm]:
    with Helm() as found:
        yield found


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with running(tmp_path_factory.mktemp("world")) as found:
        for name in ("billing", "tenant-a", "tenant-b", "aad-pod-identity"):
            found.namespace(name)
        yield found


def install(
    helm: Helm, world: World, values: dict[str, Any], namespace: str = "kube-system"
) -> None:
    """Install with these values and an image; do not wait for pods, for there are none."""
    image = {**values.get("image", {}), "repository": IMAGE}
    helm.ask(
        "on_cluster",
        action="install",
        kubeconfig=str(world.plan.kubeconfig),
        namespace=namespace,
        name=RELEASE,
        chart=str(CHART),
        values={**values, "image": image},
    )


@pytest.mark.parametrize("path", OLD, ids=lambda path: str(path.stem))
def test_an_old_values_file_installs_unchanged(helm: Helm, world: World, path: Path) -> None:
    install(helm, world, yaml.safe_load(path.read_text()))
    daemon_sets = world.send("GET", "/apis/apps/v1/namespaces/kube-system/daemonsets")["items"]
    assert "aad-pod-identity-nmi" in {each["metadata"]["name"] for each in daemon_sets}
    helm.ask(
        "on_cluster",
        action="uninstall",
        kubeconfig=str(world.plan.kubeconfig),
        namespace="kube-system",
        name=RELEASE,
    )


def test_an_upgrade_of_the_archived_release_is_one_and_so_is_the_rollback(
    helm: Helm, world: World
) -> None:
    def ask(action: str, **options: Any) -> None:
        helm.ask(
            "on_cluster",
            action=action,
            kubeconfig=str(world.plan.kubeconfig),
            namespace="kube-system",
            name=RELEASE,
            **options,
        )

    def image() -> str:
        spec = world.get(f"{SETS}/aad-pod-identity-nmi")["spec"]["template"]["spec"]
        return str(spec["containers"][0]["image"])

    ask("install", chart=str(Path(__file__).parent / "archived_chart"))
    uid = world.get(f"{SETS}/aad-pod-identity-nmi")["metadata"]["uid"]
    values = yaml.safe_load((OLD[0].parent / "defaults-4.1.18.yaml").read_text())
    values["image"]["repository"] = IMAGE
    ask("upgrade", chart=str(CHART), values=values)
    assert image().startswith(IMAGE)
    assert world.get(f"{SETS}/aad-pod-identity-nmi")["metadata"]["uid"] == uid
    assert world.get(f"{SETS}/podidentity-probe") is not None
    ask("rollback")
    assert image() == "registry.example.com/nmi:v1.8.17"
    assert world.get(f"{SETS}/podidentity-probe") is None
    assert world.get(f"{CRDS}/azureidentities.aadpodidentity.k8s.io") is not None
    ask("uninstall")


# ---- Half an install, an interrupted upgrade, others' custom resources


DENY = "no-daemonsets"


@contextmanager
def denied(world: World, operation: str) -> Iterator[None]:
    """Have the API server refuse DaemonSets, as a policy or a quota of somebody else does."""
    rule = {"apiGroups": ["apps"], "apiVersions": ["v1"], "resources": ["daemonsets"]}
    spec = {
        "matchConstraints": {"resourceRules": [{**rule, "operations": [operation]}]},
        "validations": [{"expression": "false", "message": "no DaemonSets today"}],
    }
    policy = {"metadata": {"name": DENY}, "spec": spec}
    world.send("POST", f"{ADMISSION}/validatingadmissionpolicies", policy)
    actions = {"policyName": DENY, "validationActions": ["Deny"]}
    body = {"metadata": {"name": DENY}, "spec": actions}
    world.send("POST", f"{ADMISSION}/validatingadmissionpolicybindings", body)
    yield
    for plural in ("validatingadmissionpolicybindings", "validatingadmissionpolicies"):
        world.send("DELETE", f"{ADMISSION}/{plural}/{DENY}")


@dataclass
class Release:
    """A release of the chart in a cluster without nodes' programs."""

    helm: Helm
    world: World

    def options(self, **more: Any) -> dict[str, Any]:
        kubeconfig = str(self.world.plan.kubeconfig)
        return {"kubeconfig": kubeconfig, "namespace": "kube-system", "name": RELEASE, **more}

    def do(self, action: str, **more: Any) -> Any:
        return self.helm.ask("on_cluster", action=action, **self.options(**more))

    def values(self, **more: Any) -> dict[str, Any]:
        return {"operationMode": "managed", "image": {"repository": IMAGE}, **more}

    def put(self, action: str, **values: Any) -> None:
        self.do(action, chart=str(CHART), values=self.values(**values))

    def flags(self) -> list[str]:
        """Return NMI's flags in the cluster; [] without NMI."""
        found = self.world.get(f"{SETS}/aad-pod-identity-nmi")
        if found is None:
            return []
        arguments: list[str] = found["spec"]["template"]["spec"]["containers"][0]["args"]
        return arguments

    @property
    def status(self) -> str:
        return str(self.do("status")["status"])


@pytest.fixture
def release(helm: Helm, world: World) -> Iterator[Release]:
    yield Release(helm, world)
    with suppress(HelmRefused):
        Release(helm, world).do("uninstall")
    assert not world.send("GET", SETS)["items"]


def test_half_an_install_is_finished_by_the_same_command_again(release: Release) -> None:
    with denied(release.world, "CREATE"), pytest.raises(HelmRefused, match="no DaemonSets today"):
        release.put("install")
    assert release.status == "failed"
    assert release.flags() == []
    release.put("upgrade")
    assert release.status == "deployed"
    assert release.flags() != []


def test_half_an_install_is_taken_away_whole(release: Release) -> None:
    with denied(release.world, "CREATE"), pytest.raises(HelmRefused):
        release.put("install")
    release.do("uninstall")
    ours = {"labelSelector": f"app.kubernetes.io/instance={RELEASE}"}
    for path in (f"{RBAC}/clusterroles", f"{ADMISSION}/validatingadmissionpolicies"):
        assert release.world.send("GET", path, **ours)["items"] == []


def test_an_upgrade_that_the_cluster_refuses_leaves_nmi_as_it_was_and_can_be_repeated(
    release: Release,
) -> None:
    release.put("install")
    before = release.flags()
    changed = {"nmi": {"extraArgs": ["--hold=3"]}}
    with denied(release.world, "UPDATE"), pytest.raises(HelmRefused, match="no DaemonSets today"):
        release.put("upgrade", **changed)
    assert release.flags() == before
    release.put("upgrade", **changed)
    assert release.flags() == [*before, "--hold=3"]


def test_an_upgrade_that_is_interrupted_is_rolled_back_or_goes_on(release: Release) -> None:
    release.put("install")
    before = release.flags()
    values = release.values(nmi={"extraArgs": ["--hold=3"]})
    wanted = release.options(chart=str(CHART), values=values, wait="watcher", timeout=300)
    release.helm.begin("on_cluster", action="upgrade", **wanted)
    ends = time.monotonic() + 60
    while "--hold=3" not in release.flags():
        assert time.monotonic() < ends, "Helm changes nothing"
        time.sleep(0.02)
    release.helm.kill()
    assert release.status == "pending-upgrade"
    with pytest.raises(HelmRefused, match="in progress"):
        release.put("upgrade")
    release.do("rollback", version=1)
    assert release.status == "deployed"
    assert release.flags() == before
    release.put("upgrade", nmi={"extraArgs": ["--hold=3"]})
    assert release.flags() == [*before, "--hold=3"]


def archived(crd: Any, *, edited: bool) -> Any:
    """Return a definition as the archived chart left it: no release's, and without what we add."""
    found = json.loads(json.dumps(crd))
    found["metadata"]["labels"] = {"app.kubernetes.io/managed-by": "Helm"}
    version = found["spec"]["versions"][0]
    version.pop("subresources", None)
    fields = version["schema"]["openAPIV3Schema"]["properties"]
    for added in ("objectID", "federation", "azureIdentities"):
        fields["spec"]["properties"].pop(added, None)
    fields["status"]["properties"].pop("conditions", None)
    if edited:
        found["metadata"]["annotations"]["example.com/mine"] = "kept"
        version["additionalPrinterColumns"] = [
            {"name": "Mine", "type": "string", "jsonPath": ".spec.clientID"}
        ]
        fields["spec"]["description"] = "ours"
    return found


OLD_KINDS = [each for each in manifests.crds() if "ledgers" not in each["metadata"]["name"]]


@pytest.mark.parametrize(
    ("there", "edited"),
    [(OLD_KINDS, False), (OLD_KINDS[1:3], False), (OLD_KINDS, True)],
    ids=["archived", "some of them", "edited"],
)
def test_custom_resources_of_the_archived_project_are_taken_over_with_their_objects(
    release: Release, there: list[Any], edited: bool
) -> None:
    world, names = release.world, [each["metadata"]["name"] for each in manifests.crds()]
    helm = manager_of(world, release)
    without_definitions(world, names)
    for each in there:
        world.send("POST", CRDS, archived(each, edited=edited))
    spec = {"azureIdentity": "orders", "selector": "orders"}
    world.custom("billing", "azureidentitybindings", "orders", spec)
    with pytest.raises(HelmRefused, match="invalid ownership metadata"):
        release.put("install")
    assert release.flags() == []
    for each in there:
        take_over(world, each, helm)
    release.put("install")
    for crd in manifests.crds():
        found = world.get(f"{CRDS}/{crd['metadata']['name']}")
        schema = found["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        wanted = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        assert schema["properties"]["spec"] == wanted["properties"]["spec"]
    assert world.get(f"{CUSTOM}/namespaces/billing/azureidentitybindings/orders")["spec"] == spec
    if edited:
        kept = world.get(f"{CRDS}/{names[0]}")["metadata"]["annotations"]
        assert kept["example.com/mine"] == "kept"


def manager_of(world: World, release: Release) -> str:
    """Return as which manager of fields Helm applies."""
    release.put("install")
    release.do("uninstall")
    fields = world.get(f"{CRDS}/{OLD_KINDS[0]['metadata']['name']}")["metadata"]["managedFields"]
    (found,) = {each["manager"] for each in fields if each["operation"] == "Apply"}
    return str(found)


def take_over(world: World, crd: Any, manager: str) -> None:
    """Do what Helm does with --take-ownership and --force-conflicts; its library has neither."""
    name = crd["metadata"]["name"]
    whose = {"release-name": RELEASE, "release-namespace": "kube-system"}
    mine = {f"meta.helm.sh/{key}": value for key, value in whose.items()}
    annotations = {**crd["metadata"]["annotations"], **mine}
    labels = {"app.kubernetes.io/managed-by": "Helm"}
    metadata = {"name": name, "annotations": annotations, "labels": labels}
    response = world.api.patch(
        f"{CRDS}/{name}",
        params={"fieldManager": manager, "force": "true"},
        content=json.dumps({**crd, "metadata": metadata}),
        headers={"Content-Type": "application/apply-patch+yaml"},
    )
    assert response.is_success, response.text


def without_definitions(world: World, names: list[str]) -> None:
    for name in names:
        world.api.delete(f"{CRDS}/{name}")
    ends = time.monotonic() + 30
    while any(world.get(f"{CRDS}/{name}") for name in names):
        assert time.monotonic() < ends
        time.sleep(0.01)


@pytest.fixture
def automatic(tmp_path: Path) -> Iterator[World]:
    """A new cluster with what AKS Automatic refuses."""
    policies = yaml.safe_load(AUTOMATIC.read_text())["items"]
    with running(tmp_path) as world:
        world.namespace("podidentity")
        for each in policies:
            world.send("POST", f"{ADMISSION}/validatingadmissionpolicies", each)
            name = each["metadata"]["name"]
            binding = {
                "metadata": {"name": f"{name}-binding"},
                "spec": {"policyName": name, "validationActions": ["Deny"]},
            }
            world.send("POST", f"{ADMISSION}/validatingadmissionpolicybindings", binding)
        yield world


def test_on_aks_automatic_its_profile_is_installed_and_the_default_refused(
    helm: Helm, automatic: World
) -> None:
    with pytest.raises(HelmRefused, match="aks-managed-protect-system-namespaces"):
        install(helm, automatic, {"operationMode": "managed"})
    profile = yaml.safe_load((CHART / "profiles/aks-automatic.yaml").read_text())
    install(helm, automatic, profile, "podidentity")
    daemon_sets = automatic.send("GET", "/apis/apps/v1/namespaces/podidentity/daemonsets")["items"]
    names = {each["metadata"]["name"] for each in daemon_sets}
    assert names == {"aad-pod-identity-nmi", "podidentity-probe"}
