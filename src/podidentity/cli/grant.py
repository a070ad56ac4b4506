"""`podidentity grant` and `revoke`: the permission to use an identity.

An AzureIdentity is only a request. The permission needs a cluster administrator, because the API
server lets nobody grant a permission that he does not hold.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import click

from podidentity.cli import completing
from podidentity.cli.connection import ClusterTarget, cluster_options, on_cluster
from podidentity.cli.output import documents, examples, output_option
from podidentity.cli.parameters import Name, Permission
from podidentity.cli.use_roles import Roles, give, take
from podidentity.wire.rbac import Giver, Grantee, binding, role

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_Command = Callable[..., None]


def _whom(command: _Command) -> _Command:
    """Add the options for an identity and its grantee to `command`."""
    for option in (
        click.option(
            "--identity",
            type=Permission(),
            shell_complete=completing.client_ids,
            required=True,
            help="Client id; system-assigned; or the ARM id of a managed identity that is the "
            "credential of another one (federation.via).",
        ),
        click.option(
            "--service-account",
            type=Name(),
            shell_complete=completing.service_accounts,
            help="Only pods with this account.",
        ),
        click.option(
            "-n",
            "--namespace",
            type=Name(),
            required=True,
            shell_complete=completing.namespaces,
            help="Namespace of the pods.",
        ),
    ):
        command = option(command)
    return command


@click.command(
    epilog=examples(
        "podidentity grant --namespace shop --identity 11111111-2222-3333-4444-555555555555",
        "podidentity grant --namespace shop --service-account web --identity system-assigned",
        "podidentity grant --namespace shop --identity GUID --dry-run | kubectl apply -f -",
    )
)
@_whom
@click.option("--dry-run", is_flag=True, help="Print the objects, and apply nothing.")
@output_option("yaml", "json", default="yaml")
@cluster_options
def grant(
    *,
    target: ClusterTarget,
    namespace: str,
    service_account: str | None,
    identity: str,
    dry_run: bool,
    output: str,
) -> None:
    """Let the pods of a namespace use an identity.

    Creates a ClusterRole for the identity and a ClusterRoleBinding for those pods. They get tokens
    as soon as an AzureIdentity and a binding of their namespace name the identity too. It may be
    run again at any time.
    """
    grantee = Grantee(namespace, service_account or "")
    if dry_run:
        manifests = [role(identity), binding(identity, grantee, Giver.GRANT)]
        click.echo(documents(manifests, output))
        return
    on_cluster(target, lambda kube: give(kube, [identity], grantee, Giver.GRANT))
    click.echo(f"Pods of {grantee} may use {identity}.")


@click.command(
    epilog=examples(
        "podidentity revoke --namespace shop --identity 11111111-2222-3333-4444-555555555555",
        "podidentity revoke --namespace shop --service-account web --identity system-assigned",
    )
)
@_whom
@cluster_options
def revoke(
    *, target: ClusterTarget, namespace: str, service_account: str | None, identity: str
) -> None:
    """Revoke the permission of a namespace's pods to use an identity.

    Without --service-account it revokes all grants in the namespace. Within a minute NMI stops
    giving tokens; those that a pod has already are valid until they expire. A missing grant is no
    failure.
    """
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
