"""`podidentity add`: let the pods of a namespace use a managed identity.

The order makes a run that fails half way harmless, and repeatable: first the AzureIdentity, with
the record of what is about to be attached (`record`); then Azure; last the binding, which is what
entitles pods. So no pod is told that it may have a token before there can be one. The permission
comes before all of it, so that who may not give it learns that at once.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import click

from podidentity.adapters.arm import Arm
from podidentity.adapters.kube import Kube
from podidentity.cli import azure_access, record
from podidentity.cli.azure_access import asking, host_name, hosts_of, on_each, progress
from podidentity.cli.connection import Target, cluster_options, on_cluster
from podidentity.cli.failures import Failed
from podidentity.cli.grants import give
from podidentity.cli.objects import Object, apply, called, find, find_all
from podidentity.cli.parameters import Client, Name, Resource, Selector
from podidentity.cli.wording import examples
from podidentity.core.hosts import Host
from podidentity.core.ids import ClientId, ObjectRef, ResourceId
from podidentity.core.permission import permission_names
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    IdentityType,
)
from podidentity.wire.grants import Giver, Grantee
from podidentity.wire.kube import AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS
from podidentity.wire.manifests import render_binding, render_identity


@dataclass(frozen=True, slots=True, kw_only=True)
class Wanted:
    """What `add` is asked for."""

    ref: ObjectRef
    resource_id: ResourceId
    client_id: ClientId | None
    selector: str
    grantee: Grantee | None
    """Who is given the permission; None: it is left to others."""
    attach: bool
    wait: bool

    @property
    def identity(self) -> AzureIdentity:
        """The AzureIdentity, as far as it is known."""
        return AzureIdentity(
            ref=self.ref,
            type=IdentityType.USER_ASSIGNED,
            client_id=self.client_id,
            resource_id=self.resource_id,
        )

    @property
    def binding(self) -> AzureIdentityBinding:
        """The AzureIdentityBinding."""
        return AzureIdentityBinding(
            ref=binding_ref(self.ref), identity=self.ref.name, selector=self.selector
        )


def binding_ref(identity: ObjectRef) -> ObjectRef:
    """Return the binding that `add` makes for an identity; AKS's add-on named it so."""
    return ObjectRef(identity.namespace, f"{identity.name}-binding")


@click.command(
    epilog=examples(
        "podidentity add --namespace shop --name orders \\",
        '    --identity-resource-id "$(az identity show -g shop -n orders --query id -o tsv)"',
        "podidentity add --namespace shop --name orders --no-attach --client-id GUID \\",
        "    --identity-resource-id ID        # asks nothing of Azure",
    )
)
@click.option("-n", "--namespace", type=Name(), required=True, help="Namespace of the pods.")
@click.option("--name", type=Name(), required=True, help="Name of the AzureIdentity.")
@click.option("--identity-resource-id", type=Resource(), required=True, help="Azure's id of it.")
@click.option("--client-id", type=Client(), help="Its client id; Azure is asked if not given.")
@click.option("--binding-selector", type=Selector(), help=f"Pods' {BINDING_LABEL} [default: NAME].")
@click.option("--attach/--no-attach", default=True, help="Attach it to the nodes' machines.")
@click.option("--wait/--no-wait", default=True, help="Wait until Azure has attached it.")
@click.option("--service-account", type=Name(), help="Only its pods may use it.")
@click.option("--grant/--no-grant", default=True, help="Give the pods the permission to use it.")
@cluster_options
def add(
    *,
    target: Target,
    namespace: str,
    name: str,
    identity_resource_id: ResourceId,
    client_id: ClientId | None,
    binding_selector: str | None,
    attach: bool,
    wait: bool,
    service_account: str | None,
    grant: bool,
) -> None:
    """Let the pods of a namespace use a managed identity.

    Gives the namespace, or one service account, the permission to use it; makes AzureIdentity NAME
    and AzureIdentityBinding NAME-binding; and attaches the identity to the scale sets and virtual
    machines of the cluster's nodes. It may be run again at any time.
    """
    selector = binding_selector or Selector().convert(name, None, click.get_current_context())
    wanted = Wanted(
        ref=ObjectRef(namespace, name),
        resource_id=identity_resource_id,
        client_id=client_id,
        selector=selector,
        grantee=Grantee(namespace, service_account or "") if grant else None,
        attach=attach,
        wait=wait,
    )
    on_cluster(target, lambda kube: _add(kube, wanted))
    click.echo(f"Pods of namespace {namespace} labelled {BINDING_LABEL}={selector} may use it.")


async def _add(kube: Kube, wanted: Wanted) -> None:
    await _unclaimed(kube, wanted)
    if wanted.client_id and not wanted.attach:
        await _grant(kube, wanted, wanted.identity)
        await _apply(kube, render_identity(wanted.identity))
    else:
        async with azure_access.azure() as arm:
            identity = await _known(arm, wanted)
            await _grant(kube, wanted, identity)
            if wanted.attach:
                await _attach(kube, arm, render_identity(identity), wanted)
            else:
                await _apply(kube, render_identity(identity))
    await _apply(kube, render_binding(wanted.binding))


async def _grant(kube: Kube, wanted: Wanted, identity: AzureIdentity) -> None:
    if wanted.grantee is not None:
        await give(kube, permission_names(identity), wanted.grantee, Giver.ADD)


async def _unclaimed(kube: Kube, wanted: Wanted) -> None:
    """Raise Failed where one of the two names stands for something else already."""
    there = await find(kube, AZURE_IDENTITIES, *wanted.ref)
    if there and not record.of_same([there], wanted.resource_id):
        known = there.get("spec", {}).get("resourceID")
        raise Failed(
            f"AzureIdentity {wanted.ref} exists and names another identity ({known})",
            f"Choose another --name, or run podidentity delete --namespace {wanted.ref.namespace} "
            f"--name {wanted.ref.name} first.",
        )
    binding = await find(kube, AZURE_IDENTITY_BINDINGS, *wanted.binding.ref)
    names = (binding or {}).get("spec", {}).get("azureIdentity")
    if names and names != wanted.ref.name:
        raise Failed(
            f"AzureIdentityBinding {wanted.binding.ref} exists and names AzureIdentity {names!r}",
            "Choose another --name, or delete that binding first.",
        )


async def _known(arm: Arm, wanted: Wanted) -> AzureIdentity:
    """Return the identity with the ids that Azure knows it by."""
    with asking(f"look up the identity {wanted.resource_id.name}", wanted.resource_id):
        found = await arm.identity(wanted.resource_id)
    if wanted.client_id not in {None, found.client_id}:
        raise Failed(
            f"--client-id is {wanted.client_id}, but the identity {wanted.resource_id.name} has "
            f"the client id {found.client_id}",
            "Leave --client-id away, or correct one of the two.",
        )
    click.echo(f"identity {wanted.resource_id.name} has the client id {found.client_id}")
    return replace(wanted.identity, client_id=found.client_id, object_id=found.object_id)


async def _attach(kube: Kube, arm: Arm, manifest: Object, wanted: Wanted) -> None:
    """Apply `manifest` with the record of what is attached then, and attach it."""
    identity, wait = wanted.resource_id, wanted.wait
    hosts = await hosts_of(kube)
    same = record.of_same(await find_all(kube, AZURE_IDENTITIES), identity)
    ours = {host for each in same for host in record.read(each)}
    lacking = []
    for host in hosts:
        with asking(f"read the identities of {host_name(host)}", identity):
            if (await arm.host(host)).has(identity):
                click.echo(f"attached to {host_name(host)} already")
            else:
                lacking.append(host)
    if ours or lacking:
        record.write(manifest, ours | set(lacking))
    await _apply(kube, manifest)

    async def attach(host: Host) -> None:
        where = host_name(host)
        click.echo(f"attaching to {where}")
        with asking(f"attach {identity.name} to {where}", identity):
            await arm.attach(host, identity, wait=wait, progress=progress(f"attaching to {where}"))
        click.echo(f"attached to {where}" if wait else f"{where}: accepted, not waited for")

    await on_each(lacking, attach)


async def _apply(kube: Kube, manifest: Object) -> None:
    click.echo(f"{called(manifest)} {await apply(kube, manifest)}")
