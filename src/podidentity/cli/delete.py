"""`podidentity delete`: undo `add`.

The binding goes first, so that no pod is entitled any more; then the permission, and Azure; last
the AzureIdentity, because it carries the record of the attached hosts. A run that fails half way
can be repeated.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podidentity.cli import azure_access
from podidentity.cli.add_request import binding_ref
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.azure_access import detach_from, host_name, on_each
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
)
from podidentity.cli.use_roles import take_unneeded
from podidentity.core.authorities import Cloud
from podidentity.core.federation import has_an_account
from podidentity.core.resources import AzureIdentity, ObjectRef
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


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
    await take_unneeded(kube, ref, identity)
    if not keep_attached:
        await _detach(kube, ref, identity, cloud, seconds)
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
    if binding.get("spec", {}).get("azureIdentity") != ref.name:
        click.echo(f"{called(binding)} kept: it names another AzureIdentity")
        return
    await remove(kube, binding)
    click.echo(f"{called(binding)} deleted")


async def _say_left(kube: Kube, ref: ObjectRef) -> None:
    """Print the bindings of other people that have no identity now."""
    for binding in await find_all(kube, AZURE_IDENTITY_BINDINGS, ref.namespace):
        if binding.get("spec", {}).get("azureIdentity") == ref.name:
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
    cloud = cloud or (await choices_of_nmi(kube)).cloud
    identity_id = parsed.resource_id
    async with azure_access.azure(cloud, seconds) as arm:
        await on_each(hosts, lambda host: detach_from(arm, host, identity_id))
