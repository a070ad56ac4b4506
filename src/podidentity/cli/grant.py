"""`podidentity grant` and `revoke`: the permission to use an identity.

An AzureIdentity is only a request. The permission needs a cluster administrator, because the API
server lets nobody grant a permission that he does not hold.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.output import documents
from podidentity.cli.use_roles import Roles, give, revoke_command, take
from podidentity.wire.rbac import Giver, Grantee, binding, role

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


def grant(
    *,
    target: ClusterTarget,
    namespace: str,
    service_account: str | None,
    identity: str,
    dry_run: bool,
    output: str,
) -> None:
    grantee = Grantee(namespace, service_account or "")
    if dry_run:
        manifests = [role(identity), binding(identity, grantee, Giver.GRANT)]
        click.echo(documents(manifests, output))
        return
    on_cluster(
        target,
        lambda kube: give(kube, [identity], grantee, Giver.GRANT),
        undo=lambda _: f"  {revoke_command(identity, grantee)}",
    )
    click.echo(f"Pods of {grantee} may use {identity}.")


def revoke(
    *, target: ClusterTarget, namespace: str, service_account: str | None, identity: str
) -> None:
    grantee = Grantee(namespace, service_account or "")
    left = on_cluster(target, lambda kube: _revoke(kube, identity, grantee))
    if left is None:
        click.echo(f"could not check what else grants it: you need {Roles.RIGHT}", err=True)
        return
    for each in left:
        click.echo(f"still granted by {each}", err=True)
    click.echo(f"Pods of {grantee} may {'still' if left else 'not'} use {identity}.")


async def _revoke(kube: Kube, name: str, grantee: Grantee) -> list[str] | None:
    """Return the bindings that still grant it: of other people, or of a wider grantee.

    None if they cannot be read.
    """
    if not await take(kube, name, grantee):
        click.echo(f"nothing was granted to {grantee} by podidentity")
    roles = await Roles.read(kube)
    if roles is None:
        return None
    return [
        f"clusterrolebinding.rbac.authorization.k8s.io/{each.binding} to {each.grantee}"
        for each in roles.holders(name)
        if each.grantee.includes(grantee) or grantee.includes(each.grantee)
    ]
