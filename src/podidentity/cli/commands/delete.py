"""The options of `podidentity delete`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples
from podidentity.cli.parameters import (
    cloud_options,
    identity_option,
    namespace_option,
    timeout_option,
)


@click.command(
    epilog=examples(
        "podidentity delete --namespace shop --name orders",
        "podidentity delete --namespace shop --name orders --keep-attached",
    )
)
@namespace_option("Namespace of the identity.", required=True)
@identity_option
@click.option("--keep-attached", is_flag=True, help="Leave it on the nodes' machines.")
@timeout_option
@cloud_options
@cluster_options
def delete(**given: Any) -> None:
    """Take an identity from the pods of a namespace.

    Deletes AzureIdentityBinding NAME-binding and AzureIdentity NAME. Revokes the permission that
    `podidentity add` granted, and detaches the identity from the machines that `add` attached it
    to, unless another AzureIdentity needs it there. If some stays attached that somebody could
    detach, AzureIdentity and permission stay, too. Missing objects are no failure.
    """
    from podidentity.cli.delete import delete as run

    run(**given)
