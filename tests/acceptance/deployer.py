"""Who runs podidentity in these tests: a principal with the rights that it prints, and no others.

Groups, vaults, namespaces and pods are made by the sandbox's operator, who may do everything: by
`podidentity sandbox`, kubectl and az.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from podidentity.cli.commands.rights import rights
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import GROUP
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import Api
from podidentity_sandbox.world.apply import Applier
from podidentity_sandbox.world.principals import give_role, make_principal
from tests.acceptance import loaded

PROGRAM = """#!/bin/sh
# The sandbox's own commands are its operator's, all others the deployer's.
if [ "$1" = sandbox ]; then
  exec {program} "$@"
fi
{exports}
exec {loaded} "$@"
"""


def folder_of_deployer(plan: Plan) -> Path:
    """Make the deployer, once; return a folder for PATH, in which `podidentity` acts as it.

    Its rights count at once in calm weather; in any other one it would have to wait for them.
    """
    folder = plan.path / "deployer"
    if folder.exists():
        return folder
    with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop
        principal = thread.submit(asyncio.run, _with_rights(plan)).result()
    exports = "\n".join(f"export {name}={shlex.quote(it)}" for name, it in principal.items())
    real = shutil.which("podidentity")
    assert real is not None
    folder.mkdir(mode=0o700)
    program = folder / "podidentity"
    begins = shlex.join(loaded.command())
    program.write_text(PROGRAM.format(exports=exports, program=real, loaded=begins))
    program.chmod(0o700)
    (folder / "object-id").write_text(principal["OBJECT_ID"])
    return folder


def give_rights_in(plan: Plan, namespace: str) -> None:
    """Give the deployer what it needs where NMI is in a namespace of its own."""
    user = (plan.path / "deployer" / "object-id").read_text()
    name = f"podidentity-in-{namespace}"
    applier = Applier(Api(plan), "default")
    where = ("--nmi-namespace", namespace)
    for each in _printed("-o", "json", "--user", user, "--name", name, *where)["items"]:
        applier.apply(each)


async def _with_rights(plan: Plan) -> dict[str, str]:
    """Return the environment of a principal that may run all commands.

    It may assign the identities of the group in which these tests make them.
    """
    made = await make_principal(plan, "deployer")
    async with AzureOperator(plan) as azure:
        identities = await azure.create_group(GROUP)
        machines = f"{azure.subscription}/resourceGroups/{plan.node_group}"
    for part, scope in (("identity", identities), ("machines", machines)):
        await give_role(plan, _printed("--azure", part, "--scope", scope), made["OBJECT_ID"])
    applier = Applier(Api(plan), "default")
    for each in _printed("-o", "json", "--user", made["OBJECT_ID"])["items"]:
        applier.apply(each)
    return made


def _printed(*options: str) -> Any:
    """Return what `podidentity rights` prints."""
    ran = CliRunner().invoke(rights, options)
    assert ran.exit_code == 0, ran.output
    return json.loads(ran.stdout)
