"""The options of `podidentity migrate …`."""

from __future__ import annotations

from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import FORMATS, examples, output_option
from podidentity.cli.parameters import NAME, namespace_option
from podidentity.manifests import NAMESPACE


@click.group(
    epilog=examples(
        "podidentity migrate plan",
        "podidentity migrate apply",
        "podidentity migrate rollback",
        "podidentity migrate adopt",
    )
)
def migrate() -> None:
    """Come from AAD Pod Identity.

    See what would be refused, grant what is missing, and take that back.
    """


_only = namespace_option(
    "Only pods of this namespace; may be repeated. [default: all]", "namespaces", multiple=True
)


_archived_namespaced = click.option(
    "--archived-namespaced/--archived-crossing",
    "namespaced",
    default=None,
    help="Whether AAD Pod Identity ran with --forceNamespaced. [default: as its NMI says; where "
    "that is gone, it did not]",
)


@migrate.command(
    epilog=examples(
        "podidentity migrate plan",
        "podidentity migrate plan -n shop",
        "podidentity migrate plan -o json | jq -r '.refused[].grants[].command'",
    )
)
@_only
@_archived_namespaced
@output_option(*FORMATS, default="table")
@cluster_options
@click.pass_context
def plan(ctx: click.Context, /, **given: Any) -> None:
    """List what works under AAD Pod Identity and would be refused here. Nothing is changed.

    For each it names the pods, and what would keep them working: a permission, which `migrate
    apply` grants, another object, or a switch of NMI, with what that switch opens. It judges by the
    flags of our NMI where that is, else by its defaults. Exit code 1: something would be refused.
    """
    from podidentity.cli.migrate import plan as run

    run(ctx, **given)


@migrate.command(
    epilog=examples("podidentity migrate apply", "podidentity migrate apply -n shop --yes")
)
@_only
@_archived_namespaced
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_options
def apply(**given: Any) -> None:
    """Grant each namespace the identities that `migrate plan` lists for it.

    A person who may make an AzureIdentity may have written any client id into it: read the plan
    before you grant it. It may be interrupted and run again; what is there already stays as it is.
    """
    from podidentity.cli.migrate import apply as run

    run(**given)


@migrate.command(
    epilog=examples("podidentity migrate rollback", "podidentity migrate rollback --yes")
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_options
def rollback(**given: Any) -> None:
    """Take back what `migrate apply` has granted, and nothing else.

    A permission that `podidentity grant` has granted since, too, stays. AAD Pod Identity needs no
    permissions: its pods go on. Where our NMI is gone, the ConfigMap podidentity-grants goes, too.
    It may be interrupted and run again.
    """
    from podidentity.cli.migrate import rollback as run

    run(**given)


@migrate.command(
    epilog=examples("podidentity migrate adopt", "podidentity migrate adopt --namespace identity")
)
@click.option(
    "--namespace",
    type=NAME,
    shell_complete=completing.namespaces,
    default=NAMESPACE,
    show_default=True,
    help="Namespace of MIC, in which its ledgers are.",
)
@click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
@cluster_options
def adopt(**given: Any) -> None:
    """Let MIC detach what the archived MIC has attached, when no pod needs it any more.

    Only what a record of the archived MIC says counts, while the record is as that writes it. The
    records do not tell what was attached before: an operator's identity among them would be
    detached, too, so read the list. It must be done while no MIC works, before ours begins. It may
    be interrupted and run again.
    """
    from podidentity.cli.adopt import adopt as run

    run(**given)
