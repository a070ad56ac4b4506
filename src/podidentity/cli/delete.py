"""`podidentity delete`: undo `add`.

The binding goes first, so that no pod is entitled any more; then what Azure has, and the
permission; last the AzureIdentity, because it carries the record of the attached hosts. A run that
fails half way can be repeated. While something stays attached about which a person can do
something, the AzureIdentity stays, too: nothing else says what `add` has attached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podidentity.cli.add_request import binding_ref
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.detachment import detach_recorded
from podidentity.cli.federation import remove_account
from podidentity.cli.objects import called, find, find_all, identity_of, remove, spec_of
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
    ref = ObjectRef(namespace, name)
    on_cluster(target, lambda kube: _delete(kube, ref, keep_attached, cloud, timeout))


async def _delete(
    kube: Kube, ref: ObjectRef, keep_attached: bool, cloud: Cloud | None, seconds: float
) -> None:
    own = await find(kube, AZURE_IDENTITY_BINDINGS, *binding_ref(ref))
    if own is not None and spec_of(own).get("azureIdentity") != ref.name:
        click.echo(f"{called(own)} kept: it names another AzureIdentity")
    elif own is not None:
        await remove(kube, own)
        click.echo(f"{called(own)} deleted")
    identity = await find(kube, AZURE_IDENTITIES, *ref)
    if identity is None:
        click.echo(f"azureidentity.aadpodidentity.k8s.io/{ref.name} not found")
        return
    if not keep_attached:
        # Before the permission goes: it is what lets the identity be detached.
        await detach_recorded(kube, identity, cloud, seconds)
    await take_unneeded(kube, ref, identity)
    parsed = identity_of(identity)
    if isinstance(parsed, AzureIdentity) and has_an_account(parsed):
        choices = await choices_of_nmi(kube)
        await remove_account(kube, parsed, choices.identities_namespace)
    await remove(kube, identity)
    click.echo(f"{called(identity)} deleted")
    for binding in await find_all(kube, AZURE_IDENTITY_BINDINGS, ref.namespace):
        if spec_of(binding).get("azureIdentity") == ref.name:  # of other people
            click.echo(f"{called(binding)} still names it and has no effect", err=True)
