"""The chart, put by Helm before the sandbox's API server, without nodes' programs."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.values import CHART
from tests.cli.world import World, running
from tests.deploy.helm import IMAGE, RELEASE, Helm, HelmRefused

OLD = sorted((Path(__file__).parent / "old_values").glob("*.yaml"))
AUTOMATIC = Path(__file__).parents[1] / "cli/aks_automatic.yaml"
SETS = "/apis/apps/v1/namespaces/kube-system/daemonsets"
CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
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
