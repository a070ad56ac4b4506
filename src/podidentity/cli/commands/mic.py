"""`podidentity mic`: the controller. Its options are generated from `settings.MicSettings`.

All flags of the archived project are accepted, so that its manifests need no change. `pause` and
`resume` are for people: they write one ConfigMap, which MIC watches.
"""

from __future__ import annotations

import pickle
from typing import TYPE_CHECKING, Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.nmi import options_of
from podidentity.cli.output import examples
from podidentity.cli.parameters import NAME
from podidentity.settings import OLD_FLAGS_OF_MIC, MicSettings, settings_flags

if TYPE_CHECKING:
    from podidentity.cli.programs import AgentPlan


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
def mic(**given: Any) -> AgentPlan | None:
    """Pause MIC, the controller, or let it go on; alone, run it in its pod.

    MIC attaches identities to the machines of pods, records them in AzureAssignedIdentities, and
    detaches what it attached itself when no pod needs it any more. Of several replicas one works.
    """
    if click.get_current_context().invoked_subcommand:
        return None
    return plan_of(settings_from(given))


def settings_from(given: dict[str, Any]) -> MicSettings:
    given["own_namespace"] = given["own_namespace"] or ""
    try:
        return MicSettings(**given)
    except ValueError as error:
        raise click.UsageError(str(error)) from error


def plan_of(settings: MicSettings) -> AgentPlan:
    from podidentity.cli.programs import AgentPlan

    return AgentPlan(
        program="mic",
        log_format=settings.log_format,
        verbose=settings.verbose,
        worker=pickle.dumps(settings),
    )


_namespace = click.option(
    "--namespace",
    type=NAME,
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
def pause(**given: Any) -> None:
    """Have MIC change nothing in Azure, for all machines or for one, until `resume`.

    Pods that need no change go on: what is attached already is assigned. Records and conditions are
    written as before.
    """
    from podidentity.cli.mic import pause as run

    run(**given)


@mic.command(epilog=examples("podidentity mic resume"))
@_host
@_namespace
@cluster_options
def resume(**given: Any) -> None:
    """Let MIC change Azure again: all machines, those too that were paused one by one, or one."""
    from podidentity.cli.mic import resume as run

    run(**given)
