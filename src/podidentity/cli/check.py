"""`podidentity check`: what a cluster has that would need a grant, a change, or an old rule."""

from __future__ import annotations

from dataclasses import replace

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.chain import State
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.findings import Finding, cannot_sign_in, findings, usable_identities
from podidentity.cli.objects import DAEMON_SETS, find
from podidentity.cli.output import FORMATS, data, examples, output_option
from podidentity.cli.pod_facts import credentials_of
from podidentity.cli.rollout import DAEMON_SET, NAMESPACE, has_one_container
from podidentity.cli.use_roles import Roles
from podidentity.core.ids import ObjectRef
from podidentity.core.permission import Authorization, permission_names
from podidentity.core.refusals import Reason
from podidentity.core.resources import AzureIdentity
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    PODS,
)
from podidentity.wire.manifests import parse_binding, parse_exception, parse_identity
from podidentity.wire.pods import parse_pod


@click.command(
    epilog=examples(
        "podidentity check",
        "podidentity check -o json | jq -r '.[].switch'",
    )
)
@output_option(*FORMATS, default="table")
@cluster_options
@click.pass_context
def check(ctx: click.Context, /, *, target: ClusterTarget, output: str) -> None:
    """Say what in a cluster the rules refuse, and what would let it be.

    Identities that are bound and not granted, secrets and bindings of other namespaces, exceptions
    without effect, unknown authorities, objects and secrets that cannot be used. Before `enable` it
    says what an upgrade would change; then by NMI's own flags. Exit code 1: something was found,
    or you may not read who is granted what.
    """
    found, complete = on_cluster(target, _findings)
    if not complete:
        unread = f"whether identities are granted could not be checked: that takes {Roles.RIGHT}"
        click.echo(unread, err=True)
    if output != "table":
        click.echo(data([_as_data(each) for each in found], output))
    elif found:
        click.echo("\n\n".join(map(_shown, found)))
    elif complete:
        click.echo("Nothing that the rules refuse.")
    else:
        click.echo("Nothing else that the rules refuse.")
    ctx.exit(1 if found or not complete else 0)


async def _findings(kube: Kube) -> tuple[list[Finding], bool]:
    """Return what is found, and whether all could be looked at."""
    exceptions = await kube.list_all(AZURE_POD_IDENTITY_EXCEPTIONS.path())
    parsed = [parse_exception(each) for each in exceptions.items]
    cluster = WatchedCluster.of(
        SystemClock(),
        pods=map(parse_pod, (await kube.list_all(PODS.path())).items),
        identities=map(parse_identity, (await kube.list_all(AZURE_IDENTITIES.path())).items),
        bindings=map(parse_binding, (await kube.list_all(AZURE_IDENTITY_BINDINGS.path())).items),
    )
    choices = await choices_of_nmi(kube)
    asked = choices.authorization is not Authorization.OFF
    roles = await Roles.read(kube) if asked else None

    def lacking(namespace: str, identity: AzureIdentity) -> list[str]:
        return roles.lacking(namespace, permission_names(identity)) if roles else []

    found = findings(cluster, parsed, choices.rules, lacking)
    if choices.authorization is Authorization.OBSERVE:
        found = [_only_told(each) for each in found]
    usable = usable_identities(cluster, choices.rules)
    facts = await credentials_of(kube, usable, choices.identities_namespace)
    broken = [(ref, fact) for ref, fact in sorted(facts.items()) if fact.state is State.BROKEN]
    told = [*found, *(cannot_sign_in(ref, fact.text) for ref, fact in broken)]
    told += await _one_container(kube)
    return told, roles is not None or not asked


async def _one_container(kube: Kube) -> list[Finding]:
    """Return a finding if what parses pods' requests is root on the nodes."""
    try:
        daemon_set = await find(kube, DAEMON_SETS, NAMESPACE, DAEMON_SET)
    except KubeError as error:
        if not error.forbidden:
            raise
        return []
    if daemon_set is None or not has_one_container(daemon_set):
        return []
    finding = Finding(
        kind="DaemonSet",
        about=ObjectRef(NAMESPACE, DAEMON_SET),
        reason="OneContainer",
        what="Its pods have one container, so serve, which parses pods' requests, is user 0 "
        "(without a capability), and an update interrupts requests.",
        mend="Run podidentity enable: it makes a container of its own for serve.",
    )
    return [finding]


def _only_told(finding: Finding) -> Finding:
    """Return it without a switch that is on already, if it is about a grant."""
    if finding.reason != Reason.NOT_PERMITTED.value:
        return finding
    return replace(
        finding, what=f"{finding.what} NMI tells it only, by {finding.switch}.", switch=""
    )


def _shown(finding: Finding) -> str:
    head = f"{finding.kind} {finding.about} ({finding.reason})"
    switch = [f"  or, for all of the cluster: {finding.switch}"] if finding.switch else []
    return "\n".join([head, f"  {finding.what}", f"  {finding.mend}", *switch])


def _as_data(finding: Finding) -> dict[str, str]:
    return {
        "kind": finding.kind,
        "namespace": finding.about.namespace,
        "name": finding.about.name,
        "reason": finding.reason,
        "message": finding.what,
        "nextStep": finding.mend,
        "switch": finding.switch,
    }
