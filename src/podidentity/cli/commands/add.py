"""The options of `podidentity add`, which `add_request` checks against each other."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import examples
from podidentity.cli.parameters import (
    CLIENT_ID,
    NAME,
    RESOURCE_ID,
    SELECTOR,
    TENANT,
    cloud_options,
    identity_option,
    namespace_option,
    timeout_option,
)
from podidentity.core.resources import BINDING_LABEL, AssertionSubject


@click.command(
    epilog=examples(
        "podidentity add --namespace shop --name orders \\",
        '    --identity-resource-id "$(az identity show -g shop -n orders --query id -o tsv)"',
        "podidentity add --namespace shop --name orders --no-attach --client-id GUID \\",
        "    --identity-resource-id ID        # does not contact Azure",
        "podidentity add --namespace shop --name mail --client-id GUID --tenant-id contoso.com \\",
        "    --secret mail                    # a secret; with --type 2 a certificate",
        "podidentity add --namespace shop --name orders --federated --subject identity \\",
        "    --tenant-id GUID --identity-resource-id ID",
    )
)
@namespace_option("Namespace of the pods.", required=True)
@identity_option
@click.option("--identity-resource-id", type=RESOURCE_ID, help="ARM id of the managed identity.")
@click.option("--client-id", type=CLIENT_ID, help="Client id. [default: Azure is asked]")
@click.option(
    "--binding-selector",
    type=SELECTOR,
    shell_complete=completing.selectors,
    help=f"Value of the pods' label {BINDING_LABEL}. [default: NAME]",
)
@click.option("--attach/--no-attach", default=True, help="Attach it to the nodes' machines.")
@click.option("--wait/--no-wait", default=True, help="Wait until Azure has attached it.")
@timeout_option
@click.option(
    "--service-account",
    type=NAME,
    shell_complete=completing.service_accounts,
    help="Grant it only to pods with this account.",
)
@click.option("--grant/--no-grant", default=True, help="Grant the pods the permission to use it.")
@click.option("--system-assigned", is_flag=True, help="The nodes' own identity.")
@click.option(
    "--type",
    "number",
    type=click.Choice(["0", "1", "2", "3"]),
    help="0: managed identity; 1: application with a secret; 2: with a certificate; 3: "
    "federated. [default: what the other options say]",
)
@click.option("--tenant-id", type=TENANT, help="Tenant, for types 1, 2 and 3.")
@click.option(
    "--secret",
    type=NAME,
    help="Secret of the namespace with the credential of types 1 and 2.",
)
@click.option("--federated", is_flag=True, help="The same as --type 3.")
@click.option(
    "--subject",
    type=click.Choice([each.value for each in AssertionSubject]),
    help="Subject of type 3: the pod's service account, or one that stands for the identity.",
)
@click.option(
    "--via",
    type=RESOURCE_ID,
    help="Managed identity whose token is the assertion of type 3.",
)
@cloud_options
@cluster_options
def add(**given: Any) -> None:
    """Let the pods of a namespace use an identity of Azure.

    Grants the namespace, or one service account, the permission to use it; creates AzureIdentity
    NAME and AzureIdentityBinding NAME-binding; and attaches a managed identity to the scale sets
    and virtual machines of the cluster's nodes. For a federated identity it prints the command that
    makes Entra trust the cluster. It may be run again at any time.
    """
    from podidentity.cli.add import add as run

    run(**given)
