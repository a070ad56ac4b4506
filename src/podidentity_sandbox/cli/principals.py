"""Commands that make a principal without rights, and give it roles of Azure."""

from __future__ import annotations

import asyncio
import json
from typing import TextIO

import click

from podidentity_sandbox.cli import options
from podidentity_sandbox.cli.shells import exports
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.principals import give_role, make_principal


@click.command(epilog='Example: eval "$(podidentity sandbox principal deployer)"')
@options.name
@click.option("--az", "with_az", is_flag=True, help="A place in which az can sign in as it, too.")
@click.argument("principal_name", metavar="PRINCIPAL")
def principal(name: str, principal_name: str, *, with_az: bool) -> None:
    """Make a service principal that has no rights, and print its environment.

    In a shell with this environment podidentity, kubectl and SDKs act as the principal. It is there
    beside that of `sandbox env`, whose KUBECONFIG, AZURE_CLIENT_ID and AZURE_CLIENT_SECRET it
    replaces. OBJECT_ID is for roles. The commands of the sandbox itself still act as its operator,
    and so does az: with --az it is for you to sign in by `az login`, once the principal has a role.
    """
    plan = options.plan_of(name)
    click.echo(exports(asyncio.run(make_principal(plan, principal_name, with_az=with_az))))


@click.command(epilog='Example: podidentity sandbox role --assignee "$OBJECT_ID" -f machines.json')
@options.name
@click.option("--assignee", required=True, metavar="ID", help="Object id of a principal.")
@click.option("-f", "--filename", type=click.File(), required=True, help="A file, or - for stdin.")
def role(name: str, assignee: str, filename: TextIO) -> None:
    """Make a custom role of Azure, and assign it at each scope where it is assignable.

    It stands in for `az role definition create`, whose file it takes, and `az role assignment
    create`.
    """
    try:
        definition = json.load(filename)
    except ValueError as error:
        raise SandboxError(f"this is no JSON: {error}") from error
    for scope in asyncio.run(give_role(options.plan_of(name), definition, assignee)):
        click.echo(f"{definition['Name']} assigned at {scope}")
