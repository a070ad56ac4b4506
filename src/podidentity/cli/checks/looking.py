"""Looks at a whole cluster, group by group of checks, and prints what they find as it is found."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import click

from podidentity.adapters.kube import Kube
from podidentity.cli import azure_access
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.checks import bundle as archives
from podidentity.cli.checks import printing
from podidentity.cli.checks.check import Group, perform
from podidentity.cli.checks.findings import Finding, Severity
from podidentity.cli.checks.groups import GROUPS, OF_A_NAMESPACE, PROBES
from podidentity.cli.checks.groups_azure import of_azure
from podidentity.cli.checks.reading import Reading
from podidentity.cli.objects import NAMESPACES, find, unless_forbidden
from podidentity.cli.output import CommandError, printable
from podidentity.cli.version import facts
from podidentity.core.authorities import Cloud
from podidentity.manifests import NAMESPACE

Found = list[tuple[Group, Finding]]
"""What is wrong, and which group of checks has found it."""


async def before(kube: Kube, agents: str | None, output: str) -> Found:
    choices = Choices(namespace=agents or NAMESPACE)
    # Its table of all commands' rights is made at the import, which takes 40 ms.
    from podidentity.cli.checks.groups_before import BEFORE

    return await _look(Reading(kube, choices), output, BEFORE)


async def of_namespace(kube: Kube, namespace: str, agents: str | None, output: str) -> Found:
    reading = Reading(kube, await choices_of_nmi(kube, agents), only=namespace)
    cluster = await reading.cluster()
    # Only a list that is empty can be of a namespace that is not there: most people may not ask.
    if not (cluster.pods() or cluster.all_bindings() or cluster.all_identities()):
        there = find(kube, NAMESPACES, "", namespace)
        if await unless_forbidden(there, namespace) is None:
            raise CommandError(
                f"There is no namespace {namespace}", "kubectl get namespaces lists them."
            )
    return await _look(reading, output, OF_A_NAMESPACE)


@dataclass(frozen=True, slots=True, kw_only=True)
class MoreChecks:
    """What somebody wants besides the checks that are always made."""

    bundle: Path | None
    probes: bool
    azure: bool
    cloud: Cloud | None
    """None: NMI's."""


async def after(wanted: MoreChecks, kube: Kube, agents: str | None, output: str) -> Found:
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
    with archives.new_archive(bundle) as archive:
        await archives.collect(kube, reading.choices, archive)
        few, more = printing.first_alike(each for _, each in found)
        with archive.objects("findings.json") as add:
            for group, each in found:
                if each in few:
                    add(printing.plain(group.title, each))
        for told in more:
            archive.lacks("findings.json", told)
        archive.text("versions.json", json.dumps(facts(), indent=1))
    click.echo(f"Wrote {bundle}: {len(archive.files)} files, without secrets.", err=True)
    for missing in archive.missing:
        click.echo(f"not in it: {missing}", err=True)
    return found


def _without_secrets(group: Group) -> Group:
    return replace(group, checks=tuple(each for each in group.checks if not each.reads_secrets))


async def _look(reading: Reading, output: str, groups: Sequence[Group]) -> Found:
    """Return what all checks find, and print each as it is done if that is for people.

    What is no fault stands among the lines for people; beside data it is on stderr.
    """
    people = output == "table"
    found: Found = []
    for group in groups:
        if people:
            click.echo(printing.head(group.title))
        outcomes = []
        for each in group.checks:
            outcome = await perform(each, reading)
            outcomes.append(outcome)
            found += [(group, finding) for finding in outcome.findings]
            told = printing.lines(each, outcome, sys.stdout.encoding)
            _echo(told if people else map(printable, outcome.lines), err=not people)
        if people:
            _echo([*printing.not_made(outcomes), ""])
    return found


def _echo(lines: Iterable[str], *, err: bool = False) -> None:
    for line in lines:
        click.echo(line, err=err)


def is_wrong(finding: Finding) -> bool:
    """Whether a finding is more than a warning; what may not be read is, too."""
    return finding.severity is not Severity.WARNING
