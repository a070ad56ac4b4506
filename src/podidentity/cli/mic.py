"""`podidentity mic`: the controller. Its options are generated from `settings.MicSettings`.

All flags of the archived project are accepted, so that its manifests need no change. `pause` and
`resume` are for people: they write one ConfigMap, which MIC watches.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.nmi import options_of
from podidentity.cli.objects import DEPLOYMENTS, Object, apply, find, find_all
from podidentity.cli.output import CommandError, examples
from podidentity.cli.parameters import Name
from podidentity.cli.rollout import is_ours
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.manifests import NAMESPACE
from podidentity.settings import OLD_FLAGS_OF_MIC, MicSettings, settings_flags
from podidentity.wire.kube import CONFIG_MAPS
from podidentity.wire.pauses import PAUSES, Pauses, parse_pauses, render_pauses

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube
    from podidentity.cli.programs import AgentPlan

PODS_OF_MIC = "app.kubernetes.io/component=mic"
"""Of MIC's pods and Deployments; those of AAD Pod Identity are among them, and not ours."""


@click.group(
    invoke_without_command=True,
    epilog=examples(
        "podidentity mic --cloudconfig=/etc/kubernetes/azure.json",
        "podidentity mic --assign=all-hosts --leader-election-namespace=$(MIC_POD_NAMESPACE)",
        "podidentity mic pause",
    ),
    context_settings={"max_content_width": 100},
)
@options_of(settings_flags(MicSettings), OLD_FLAGS_OF_MIC)
@click.version_option(None, "--version", package_name="podidentity")
def mic(**given: Any) -> AgentPlan | None:  # noqa: ANN401 - parsed by click
    """Run the controller: identities follow the pods that may use them.

    It attaches identities to the machines of pods, records them in AzureAssignedIdentities, and
    detaches what it attached itself when no pod needs it any more. Of several replicas one works.
    """
    if click.get_current_context().invoked_subcommand:
        return None
    return plan_of(settings_from(given))


def settings_from(given: dict[str, Any]) -> MicSettings:
    """Return the settings of the parsed flags; raise click.UsageError."""
    given["own_namespace"] = given["own_namespace"] or ""
    try:
        return MicSettings(**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def plan_of(settings: MicSettings) -> AgentPlan:
    """Return what `cli.main` runs."""
    from podidentity.cli.programs import AgentPlan

    return AgentPlan(
        program="mic",
        log_format=settings.log_format,
        verbose=settings.verbose,
        worker=pickle.dumps(settings),
    )


_namespace = click.option(
    "--namespace",
    type=Name(),
    metavar="NAME",
    shell_complete=completing.namespaces,
    help="Namespace of MIC. [default: where it is]",
)
_host = click.option(
    "--host",
    metavar="RESOURCE-ID|NODE",
    help="ARM id of a virtual machine or scale set, or a node on it. [default: all]",
)


@mic.command(
    epilog=examples("podidentity mic pause", "podidentity mic pause --host aks-pool1-1234-vmss0")
)
@_host
@_namespace
@cluster_options
def pause(*, target: ClusterTarget, host: str | None, namespace: str | None) -> None:
    """Have MIC change nothing in Azure, for all machines or for one, until `resume`.

    Pods that need no change go on: what is attached already is assigned. Records and conditions are
    written as before.
    """
    on_cluster(target, lambda kube: _change(kube, namespace, host, paused=True))


@mic.command(epilog=examples("podidentity mic resume"))
@_host
@_namespace
@cluster_options
def resume(*, target: ClusterTarget, host: str | None, namespace: str | None) -> None:
    """Let MIC change Azure again: all machines, those too that were paused one by one, or one."""
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
    """Return the machine or scale set of an ARM id, or of a node's name; raise CommandError."""
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
    """Return `wanted`, or the namespace in which MIC is; raise CommandError if it is in none."""
    if wanted:
        return wanted
    found = await deployments_of_mic(kube)
    if not found:
        raise CommandError(
            "MIC does not run in this cluster", "Run podidentity enable --mic, or name --namespace."
        )
    places = {each["metadata"]["namespace"] for each in found}
    return NAMESPACE if NAMESPACE in places else min(places)


async def deployments_of_mic(kube: Kube) -> list[Object]:
    """Return the Deployments of our MIC; raise KubeError."""
    found = await find_all(kube, DEPLOYMENTS, labelSelector=PODS_OF_MIC)
    return [each for each in found if is_ours(each)]
