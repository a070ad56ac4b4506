"""The options of `podidentity exception …`; `az aks` has the same verbs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from podidentity.cli import completing
from podidentity.cli.connection import cluster_options
from podidentity.cli.output import FORMATS, examples, output_option
from podidentity.cli.parameters import CLIENT_OR_RESOURCE_ID, LABEL, NAME, namespace_option

_Command = Callable[..., None]


_namespace = namespace_option("Of its pods.", required=True)


_name = click.option(
    "--name",
    type=NAME,
    required=True,
    shell_complete=completing.exceptions,
    help="Name of the exception.",
)


def _whom(command: _Command) -> _Command:
    for option in (
        click.option(
            "--identity",
            "identities",
            type=CLIENT_OR_RESOURCE_ID,
            multiple=True,
            help="Client id or ARM id that they may ask for; may be repeated.  [default: all]",
        ),
        click.option(
            "--pod-labels",
            "labels",
            type=LABEL,
            multiple=True,
            required=True,
            help="Label that the pods have, one of all that they must; may be repeated.",
        ),
        _name,
        _namespace,
    ):
        command = option(command)
    return command


@click.group(
    name="exception",
    epilog=examples(
        "podidentity exception add --namespace agents --name agent --pod-labels app=agent",
        "podidentity exception list",
    ),
)
def exception() -> None:
    """Let pods use the node's own identities."""


@exception.command(
    epilog=examples(
        "podidentity exception add --namespace agents --name agent --pod-labels app=agent",
        "podidentity exception add --namespace agents --name agent --pod-labels app=agent \\",
        "    --pod-labels tier=node --identity 11111111-2222-3333-4444-555555555555",
    )
)
@_whom
@cluster_options
def add(**given: Any) -> None:
    """Except the pods of a namespace that have all these labels.

    One that is there with these labels stays as it is; with others the command fails.
    """
    from podidentity.cli.exceptions import put

    put(exists=False, **given)


@exception.command(
    epilog=examples(
        "podidentity exception update --namespace agents --name agent --pod-labels app=other"
    )
)
@_whom
@cluster_options
def update(**given: Any) -> None:
    """Give an exception other labels and identities, in place of all that it has."""
    from podidentity.cli.exceptions import put

    put(exists=True, **given)


@exception.command(
    name="list",
    epilog=examples(
        "podidentity exception list",
        "podidentity exception list --namespace agents -o json | jq '.[].podLabels'",
    ),
)
@namespace_option("Only this namespace.")
@output_option(*FORMATS, default="table")
@cluster_options
def list_exceptions(**given: Any) -> None:
    """List the exceptions of a cluster, and say which have an effect."""
    from podidentity.cli.exceptions import list_exceptions as run

    run(**given)


@exception.command(epilog=examples("podidentity exception delete --namespace agents --name agent"))
@_namespace
@_name
@cluster_options
def delete(**given: Any) -> None:
    """Take an exception away: its pods get what is bound to them, as others. None is no failure."""
    from podidentity.cli.exceptions import delete as run

    run(**given)
