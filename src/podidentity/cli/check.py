"""`podidentity check`: what is wrong in a cluster, from the custom resources to its nodes.

Groups of checks appear as they are done. Each finding says what is wrong with which object, the
next step, and where the documentation says more.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import click

from podidentity.adapters.kube import Kube
from podidentity.cli import azure_access
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.checks import bundle as archives
from podidentity.cli.checks import printing
from podidentity.cli.checks.findings import Finding, Severity, sentence
from podidentity.cli.checks.groups import GROUPS, PROBES, Group, perform
from podidentity.cli.checks.groups_azure import of_azure
from podidentity.cli.checks.reading import Reading, ReadOnce
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.output import FORMATS, data, examples, output_option
from podidentity.cli.parameters import PodRef, agents_option, cloud_options
from podidentity.cli.path_check import PodPath, path_of
from podidentity.cli.version import facts
from podidentity.core.authorities import Cloud
from podidentity.core.resources import ObjectRef
from podidentity.manifests import NAMESPACE


@click.command(
    epilog=examples(
        "podidentity check",
        "podidentity check -o json | jq -r '.[].switch'",
        "podidentity check --pod shop/orders-0",
        "podidentity check --pre",
        "podidentity check --bundle ticket.tar.gz",
    )
)
@click.option(
    "--azure",
    "ask",
    is_flag=True,
    help="Ask Azure for identities of machines, federated credentials and MIC's roles, too.",
)
@click.option("--probes", is_flag=True, help="Ask each NMI about its node, too.")
@click.option("--pre", is_flag=True, help="Look at a cluster before NMI is in it.")
@click.option(
    "--bundle",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write an archive (tar.gz) for a support ticket, too, without secrets.",
)
@click.option(
    "--pod",
    "pod",
    type=PodRef(),
    metavar="NAMESPACE/NAME",
    help="Only check where requests from this pod's network arrive, by one that NMI sends itself.",
)
@agents_option
@output_option(*FORMATS, default="table")
@cloud_options
@cluster_options
@click.pass_context
def check(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    ask: bool,
    cloud: Cloud | None,
    probes: bool,
    pre: bool,
    bundle: Path | None,
    pod: ObjectRef | None,
    agents: str | None,
    output: str,
) -> None:
    """Say what is wrong in a cluster: of the objects that the rules read, of pods, NMI and nodes.

    Each check is a line, and each finding has its next step and an entry of the documentation: what
    the rules refuse, with the flag of NMI that would allow it; pods that get no token; where NMI is
    not ready, or weaker than it could be; nodes without it. Before `enable` it shows the effects of
    an upgrade; afterwards it judges by NMI's own flags.
    With `--bundle` no Secret is read, so it is not known whether credentials can be used.
    Exit code 1: something is wrong, or you may not read all of it. Warnings alone: 0.
    """
    more = bundle or probes or ask
    if (pre and (pod or more)) or (pod and more):
        raise click.UsageError("Give one of --pre, --pod, and --azure, --bundle or --probes.")
    if pod is not None:
        _of_pod(ctx, target, pod, agents, output)
    if bundle is not None:
        archives.refuse_existing(bundle)
    wanted = _Wanted(bundle=bundle, probes=probes, azure=ask, cloud=cloud)
    look = _before if pre else partial(_after, wanted)
    found = on_cluster(target, lambda kube: look(kube, agents, output), kind=ReadOnce)
    if output == "table":
        click.echo(printing.summary([each for _, each in found]))
    else:
        click.echo(data([printing.plain(group.title, each) for group, each in found], output))
    ctx.exit(1 if any(each.severity is not Severity.WARNING for _, each in found) else 0)


_Found = list[tuple[Group, Finding]]


async def _before(kube: Kube, agents: str | None, output: str) -> _Found:
    """Return what is found in a cluster before NMI is in it."""
    # Its table of all commands' rights is made at the import, which takes 40 ms.
    from podidentity.cli.checks.groups_before import BEFORE

    choices = Choices(namespace=agents or NAMESPACE)
    return await _look(Reading(kube, choices), output, BEFORE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """What somebody wants besides the checks that are always made."""

    bundle: Path | None
    probes: bool
    azure: bool
    cloud: Cloud | None
    """None: NMI's."""


async def _after(wanted: _Wanted, kube: Kube, agents: str | None, output: str) -> _Found:
    """Return what is found in a cluster, and write an archive if one is wanted."""
    reading = Reading(kube, await choices_of_nmi(kube, agents))
    await reading.cluster()  # without the custom resources there is nothing to look at
    groups = [*GROUPS, PROBES] if wanted.probes else list(GROUPS)
    bundle = wanted.bundle
    if bundle is not None:
        groups = list(map(_without_secrets, groups))
    found = await _look(reading, output, groups)
    if wanted.azure:
        cloud = wanted.cloud or reading.choices.cloud
        async with AsyncExitStack() as stack:
            arm = await stack.enter_async_context(azure_access.azure(cloud))
            graph = azure_access.graph(cloud)
            if graph is not None:
                await stack.enter_async_context(graph)
            found += await _look(reading, output, [of_azure(arm, graph)])
    if bundle is None:
        return found
    choices = reading.choices
    contents = await archives.collect(kube, choices.namespace, choices.probe_port)
    contents.data("findings.json", [printing.plain(group.title, each) for group, each in found])
    contents.data("versions.json", facts())
    archives.write(bundle, archives.packed(contents))
    click.echo(f"Wrote {bundle}: {len(contents.files)} files, without secrets.", err=True)
    for each in contents.missing:
        click.echo(f"not in it: {each}", err=True)
    return found


def _without_secrets(group: Group) -> Group:
    return replace(group, checks=tuple(each for each in group.checks if not each.reads_secrets))


async def _look(reading: Reading, output: str, groups: Sequence[Group]) -> _Found:
    """Return what all checks find, and print each as it is done if that is for people.

    What is no fault stands among the lines for people; beside data it is on stderr.
    """
    found: _Found = []
    for group in groups:
        if output == "table":
            click.echo(printing.head(group.title))
        for each in group.checks:
            outcome = await perform(each, reading)
            found += [(group, finding) for finding in outcome.findings]
            if output == "table":
                for line in printing.lines(each, outcome, sys.stdout.encoding):
                    click.echo(line)
            else:
                for line in outcome.lines:
                    click.echo(line, err=True)
        if output == "table":
            click.echo()
    return found


def _of_pod(
    ctx: click.Context, target: ClusterTarget, pod: ObjectRef, agents: str | None, output: str
) -> None:
    """Say where requests from a pod's network arrive, and end."""
    path = on_cluster(target, lambda kube: path_of(kube, pod, agents))
    told = [] if path.arrived else [lost(path)]
    arrived = f"Pod {pod} on node {path.node}: {path.text}."
    people = arrived if path.arrived else printing.shown(told[0])
    found = [printing.plain("Pods", each) for each in told]
    click.echo(people if output == "table" else data(found, output))
    ctx.exit(1 if told else 0)


def lost(path: PodPath) -> Finding:
    """Return the finding about a pod whose request did not arrive, or could not be sent."""
    return Finding(
        kind="Pod",
        about=path.pod,
        reason=path.reason,
        what=f"On {path.node}: {path.text}.",
        mend=sentence(path.next_step or "see NMI's log there, container net"),
    )
