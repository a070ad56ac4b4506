"""`podidentity mic pause` and `resume`: people write one ConfigMap, which MIC watches."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.impostors import genuine
from podidentity.cli.objects import DEPLOYMENTS, Object, apply, find, find_all
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import is_ours
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.manifests import NAMESPACE
from podidentity.wire.kube import CONFIG_MAPS
from podidentity.wire.pauses import PAUSES, Pauses, parse_pauses, render_pauses

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_PROBE_PORT = 8080
"""By MIC's default, where its pod says none."""
PODS_OF_MIC = "app.kubernetes.io/component=mic"
"""Of MIC's pods and Deployments; those of AAD Pod Identity are among them, and not ours."""


def pause(*, target: ClusterTarget, host: str | None, namespace: str | None) -> None:
    on_cluster(target, lambda kube: _change(kube, namespace, host, paused=True))


def resume(*, target: ClusterTarget, host: str | None, namespace: str | None) -> None:
    on_cluster(target, lambda kube: _change(kube, namespace, host, paused=False))


async def _change(kube: Kube, wanted: str | None, host: str | None, *, paused: bool) -> None:
    namespace = await namespace_of_mic(kube, wanted)
    found = await find(kube, CONFIG_MAPS, namespace, PAUSES)
    before = parse_pauses(found)
    if host is None:
        after = Pauses(all=paused, hosts=before.hosts if paused else frozenset())
    else:
        named = frozenset({(await _host_of(kube, host)).folded})
        if not paused and before.all:
            raise CommandError(
                "MIC is paused for all machines", "Run podidentity mic resume without --host."
            )
        after = Pauses(
            all=before.all, hosts=before.hosts | named if paused else before.hosts - named
        )
    await apply(kube, render_pauses(namespace, after))
    click.echo(str(after))


async def _host_of(kube: Kube, text: str) -> Host:
    from podidentity.wire.kube import NODES

    try:
        if text.startswith("/"):
            return Host.parse(text)
        node = await find(kube, NODES, "", text)
        if node is None:
            raise CommandError(f"There is no node {text}", "Name a node, or the ARM id of a host.")
        return Host.of_node(str(node["spec"].get("providerID", "")))
    except NotAnAzureNode as error:
        raise CommandError(str(error), "Name a virtual machine or a scale set.") from error


async def namespace_of_mic(kube: Kube, wanted: str | None = None) -> str:
    if wanted:
        return wanted
    found = await deployments_of_mic(kube)
    if not found:
        raise CommandError(
            "MIC does not run in this cluster",
            "Run podidentity enable --mic (docs/how-to/run-mic.md), or name --namespace.",
        )
    places = {each["metadata"]["namespace"] for each in found}
    return NAMESPACE if NAMESPACE in places else min(places)


def probe_port_of(pod: Object) -> int:
    """Return the port of the pages of MIC in this pod: that at which its kubelet asks."""
    probes = [each.get("readinessProbe") or {} for each in pod["spec"]["containers"]]
    ports = [each.get("httpGet", {}).get("port") for each in probes]
    return next((each for each in ports if isinstance(each, int)), _PROBE_PORT)


async def deployments_of_mic(kube: Kube) -> list[Object]:
    found = await find_all(kube, DEPLOYMENTS, labelSelector=PODS_OF_MIC)
    return await genuine(kube, [each for each in found if is_ours(each)])
