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
