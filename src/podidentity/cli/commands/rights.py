"""The options of `podidentity rights`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli.output import FORMATS, examples, output_option
from podidentity.cli.parameters import NAME, PERMISSION, namespace_option
from podidentity.cli.parts import NEEDING, PARTS, AzureScope
from podidentity.manifests import IDENTITIES, NAMESPACE


@click.command(
    epilog=examples(
        "podidentity rights add",
        "podidentity rights add delete -n shop --user ada@contoso.com -o yaml | kubectl apply -f -",
        "podidentity rights add --skip attach --skip grant -n shop --group shop-owners -o yaml",
        "podidentity rights add --azure machines --scope /subscriptions/S/resourceGroups/NODES",
    )
)
@click.argument("commands", metavar="[COMMAND]...", type=click.Choice(NEEDING), nargs=-1)
@namespace_option(
    "Namespace of pods, the only one that the commands are for; may be repeated.",
    "namespaces",
    multiple=True,
)
@click.option(
    "--skip",
    type=click.Choice(list(PARTS)),
    multiple=True,
    metavar="PART",
    help=f"A part of the commands' work that is not needed; may be repeated: {', '.join(PARTS)}.",
)
@click.option(
    "--identity",
    "identities",
    type=PERMISSION,
    multiple=True,
    help="Identity that may be granted, and no other; may be repeated. As for podidentity grant.",
)
@click.option("--nmi-namespace", type=NAME, default=NAMESPACE, show_default=True, help="NMI's.")
@click.option(
    "--identities-namespace",
    type=NAME,
    default=IDENTITIES,
    show_default=True,
    help="That of service accounts which stand for identities.",
)
@click.option("--user", "users", multiple=True, help="Bind the roles to this user.")
@click.option("--group", "groups", multiple=True, help="Bind the roles to this group.")
@click.option("--name", "role_name", help="Name of the roles. [default: podidentity-COMMAND]")
@click.option(
    "--azure",
    type=click.Choice([each.value for each in AzureScope]),
    help="Print a role of Azure instead, for the managed identity or for the nodes' machines.",
)
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    metavar="ID",
    help="Where that role can be assigned; may be repeated.",
)
@output_option(*FORMATS, default="table")
def rights(**given: Any) -> None:
    """Print the rights that commands need, in the cluster and in Azure.

    Without COMMAND it prints those of all commands. With -o yaml or json it prints roles for
    kubectl apply, with --azure a role for az role definition create. You need these rights yourself
    to give them away. It asks neither the cluster nor Azure.
    """
    from podidentity.cli.rights import rights as run

    run(**given)
