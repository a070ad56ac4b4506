"""`podidentity delete`: undo `add`.

The binding goes first, so that no pod is entitled any more; then what Azure has, and the
permission; last the AzureIdentity, because it carries the record of the attached hosts. A run that
fails half way can be repeated.

A tenant who may write an AzureIdentity can write that record, too, and any ARM id beside it; but
Azure is changed with the rights of the person at the shell. So of the record only this counts: an
identity that the namespace was granted, by the client id that Azure says of it, goes from
machines of the groups in which this cluster's nodes are. No tenant makes a grant for himself. An
`add` that ended before its last step has attached and not granted yet: its ClusterRole, which
nobody has, counts as well.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import click

from podidentity.cli import azure_access
from podidentity.cli.add_request import binding_ref
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.azure_access import asking, detach_command, detach_from, host_name, on_each
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.controller import who_attaches
from podidentity.cli.federation import remove_account
from podidentity.cli.objects import (
    Object,
    apply,
    called,
    find,
    find_all,
    identity_of,
    ref_of,
    remove,
    spec_of,
)
from podidentity.cli.use_roles import Roles, take_unneeded
from podidentity.core.authorities import Cloud
from podidentity.core.federation import has_an_account
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import AzureIdentity, ObjectRef, ResourceId
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS, NODES

if TYPE_CHECKING:
    from collections.abc import Sequence

    from podidentity.adapters.arm import Arm
    from podidentity.adapters.kube import Kube

_NEEDED = f"you need {Roles.RIGHT}"


def delete(
    *,
    target: ClusterTarget,
    namespace: str,
    name: str,
    keep_attached: bool,
    timeout: float,
    cloud: Cloud | None,
) -> None:
    """Take an identity from the pods of a namespace; raise CommandError."""
    ref = ObjectRef(namespace, name)
    on_cluster(target, lambda kube: _delete(kube, ref, keep_attached, cloud, timeout))


async def _delete(
    kube: Kube, ref: ObjectRef, keep_attached: bool, cloud: Cloud | None, seconds: float
) -> None:
    await _delete_binding(kube, ref)
    identity = await find(kube, AZURE_IDENTITIES, *ref)
    if identity is None:
        click.echo(f"azureidentity.aadpodidentity.k8s.io/{ref.name} not found")
        return
    if not keep_attached:
        # Before the permission goes: it is what lets the identity be detached.
        await _detach(kube, ref, identity, cloud, seconds)
    await take_unneeded(kube, ref, identity)
    parsed = identity_of(identity)
    if isinstance(parsed, AzureIdentity) and has_an_account(parsed):
        choices = await choices_of_nmi(kube)
        await remove_account(kube, parsed, choices.identities_namespace)
    await remove(kube, identity)
    click.echo(f"{called(identity)} deleted")
    await _say_left(kube, ref)


async def _delete_binding(kube: Kube, ref: ObjectRef) -> None:
    binding = await find(kube, AZURE_IDENTITY_BINDINGS, *binding_ref(ref))
    if binding is None:
        return
    if spec_of(binding).get("azureIdentity") != ref.name:
        click.echo(f"{called(binding)} kept: it names another AzureIdentity")
        return
    await remove(kube, binding)
    click.echo(f"{called(binding)} deleted")


async def _say_left(kube: Kube, ref: ObjectRef) -> None:
    """Print the bindings of other people that have no identity now."""
    for binding in await find_all(kube, AZURE_IDENTITY_BINDINGS, ref.namespace):
        if spec_of(binding).get("azureIdentity") == ref.name:
            click.echo(f"{called(binding)} still names it and has no effect", err=True)


async def _detach(
    kube: Kube, ref: ObjectRef, identity: Object, cloud: Cloud | None, seconds: float
) -> None:
    """Detach the recorded hosts, or move the record to another AzureIdentity that needs them."""
    hosts = azure_access.recorded_hosts(identity)
    parsed = identity_of(identity)
    if not hosts:
        return
    if not isinstance(parsed, AzureIdentity) or parsed.resource_id is None:
        names = ", ".join(map(host_name, hosts))
        click.echo(f"stays attached to {names}: it names no managed identity", err=True)
        return
    same = azure_access.identities_of(await find_all(kube, AZURE_IDENTITIES), parsed.resource_id)
    heirs = [each for each in same if ref_of(each) != ref]
    if heirs:
        click.echo(f"kept attached: AzureIdentity {ref_of(heirs[0])} needs it, too")
        azure_access.record_hosts(heirs[0], [*azure_access.recorded_hosts(heirs[0]), *hosts])
        await apply(kube, heirs[0])
        return
    if attaches := await who_attaches(kube):
        names = ", ".join(map(host_name, hosts))
        click.echo(
            f"stays attached to {names}: {attaches} alone changes machines, and detaches what it "
            "attached itself",
            err=True,
        )
        return
    await _detach_recorded(
        kube, hosts, parsed.resource_id, namespace=ref.namespace, cloud=cloud, seconds=seconds
    )


async def _detach_recorded(
    kube: Kube,
    hosts: Sequence[Host],
    identity: ResourceId,
    *,
    namespace: str,
    cloud: Cloud | None,
    seconds: float,
) -> None:
    """Detach an identity from those of `hosts` from which it may be, and name the others."""
    roles = await Roles.read(kube)
    if roles is None:
        for host in hosts:
            _say_stays(host, identity, f"whether it was granted is not known: {_NEEDED}")
        return
    groups = await _groups_of_nodes(kube)
    near = []
    for host in hosts:
        if (host.subscription, host.group) in groups:
            near.append(host)
        else:
            why = "no node of this cluster is in its resource group"
            _say_stays(host, identity, why)
    if near:
        cloud = cloud or (await choices_of_nmi(kube)).cloud
        async with azure_access.azure(cloud, seconds) as arm:
            granted = partial(_detach_granted, arm, identity, namespace, roles)
            await on_each(near, granted)


async def _groups_of_nodes(kube: Kube) -> set[tuple[str, str]]:
    """Return the subscriptions and resource groups in which the cluster's nodes are."""
    found = set()
    for node in await find_all(kube, NODES):
        with suppress(NotAnAzureNode):
            host = Host.of_node(node.get("spec", {}).get("providerID", ""))
            found.add((host.subscription, host.group))
    return found


async def _detach_granted(
    arm: Arm, identity: ResourceId, namespace: str, roles: Roles, host: Host
) -> None:
    """Detach an identity that its namespace was granted; say so of another one."""
    where = host_name(host)
    with asking(f"read the identities of {where}", identity):
        try:
            found = await arm.host(host)
        except ArmError as error:
            if not error.gone:
                raise
            click.echo(f"{where} is gone")
            return
    client = found.clients.get(identity.folded, "")
    if found.has(identity) and not _may_be_of_add(roles, namespace, client):
        why = f"namespace {namespace} was not granted {client or 'it'}, so it may be of others"
        _say_stays(host, identity, why)
        return
    await detach_from(arm, host, identity)


def _may_be_of_add(roles: Roles, namespace: str, client: str) -> bool:
    """Whether `add` may have attached for a namespace what has this client id; "": not known."""
    if not client:
        return False
    return roles.prepared(client) or not roles.lacking(namespace, [client])


def _say_stays(host: Host, identity: ResourceId, why: str) -> None:
    command = detach_command(host, str(identity))
    click.echo(f"stays attached to {host_name(host)}: {why}. To detach it: {command}", err=True)
