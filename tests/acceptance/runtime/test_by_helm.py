"""The chart, installed by Helm on a node with a real container runtime, with the image itself."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from deploy.values import CHART
from podidentity import manifests
from tests.acceptance.runtime.node import IMAGE, SERVED, SYSTEM, Node
from tests.deploy.helm import RELEASE, Helm

CRDS = ["crd", *(each["metadata"]["name"] for each in manifests.crds())]
SECONDS = 300


@pytest.fixture
def helm(machine: Node) -> Iterator[Helm]:
    """Helm, on the node without the agent of `enable`, which comes back afterwards."""
    machine.place.run("podidentity", "disable")
    machine.place.run("kubectl", "label", *CRDS, "app.kubernetes.io/managed-by=Helm")
    of = [f"meta.helm.sh/release-name={RELEASE}", f"meta.helm.sh/release-namespace={SYSTEM}"]
    machine.place.run("kubectl", "annotate", *CRDS, *of)
    with Helm() as running:
        yield running
    machine.enable()


def test_with_the_image_itself_an_install_gives_a_token_and_helm_test_says_how(
    machine: Node, helm: Helm
) -> None:
    def do(action: str, **options: Any) -> Any:
        kubeconfig = str(machine.plan.kubeconfig)
        return helm.ask(
            "on_cluster",
            action=action,
            kubeconfig=kubeconfig,
            namespace=SYSTEM,
            name=RELEASE,
            timeout=SECONDS,
            **options,
        )

    repository, _, tag = IMAGE.rpartition(":")
    image = {"repository": repository, "tag": tag, "imagePullPolicy": "Never"}
    values = {"operationMode": "managed", "image": image}
    do("install", chart=str(CHART), values=values, wait="watcher")
    machine.ready(machine.start("by-helm"))
    assert machine.ask("by-helm").status == 200
    said = do("test", logs=True)["logs"]
    (line,) = {line for line in said.splitlines() if line.startswith(machine.own.name)}
    assert line.split()[1:] == ["ready", "routed", "nftables", "kernel", "proved"]
    machine.delete("by-helm", namespace=SERVED)
    do("uninstall", wait="watcher")
