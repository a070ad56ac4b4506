"""The options of `podidentity grant` and `revoke`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples, output_option
from podidentity.cli.parameters import NAME, PERMISSION, namespace_option

_Command = Callable[..., None]


def _whom(command: _Command) -> _Command:
    for option in (
        click.option(
            "--identity",
            type=PERMISSION,
            shell_complete=completing.client_ids,
            required=True,
            help="Client id; system-assigned; or the ARM id of a managed identity that is the "
            "credential of another one (federation.via).",
        ),
        click.option(
            "--service-account",
            type=NAME,
            shell_complete=completing.service_accounts,
            help="Only pods with this account.",
        ),
        namespace_option("Namespace of the pods.", required=True),
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
def grant(**given: Any) -> None:
    """Let the pods of a namespace use an identity.

    Creates a ClusterRole for the identity and a ClusterRoleBinding for those pods. They get tokens
    as soon as an AzureIdentity and a binding of their namespace name the identity too. It may be
    run again at any time.
    """
    from podidentity.cli.grant import grant as run

    run(**given)


@click.command(
    epilog=examples(
        "podidentity revoke --namespace shop --identity 11111111-2222-3333-4444-555555555555",
        "podidentity revoke --namespace shop --service-account web --identity system-assigned",
    )
)
@_whom
@cluster_options
def revoke(**given: Any) -> None:
    """Revoke the permission of a namespace's pods to use an identity.

    Without --service-account it revokes all grants in the namespace. Within a minute NMI stops
    giving tokens; those that a pod has already are valid until they expire. A missing grant is no
    failure.
    """
    from podidentity.cli.grant import revoke as run

    run(**given)
