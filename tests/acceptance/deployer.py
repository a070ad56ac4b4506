"""Who runs podidentity in these tests: a principal with the rights that it prints, and no others.

Groups, vaults, namespaces and pods are made by the sandbox's operator, who may do everything: by
`podidentity sandbox`, kubectl and az.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import shutil
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

from podidentity.cli.main import podidentity
from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.demo.prepare import GROUP
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import Api, Object
from podidentity_sandbox.world.apply import Applier, documents
from podidentity_sandbox.world.principals import give_role, make_principal

PROGRAM = """#!/bin/sh
# The sandbox's own commands are its operator's, all others the deployer's.
if [ "$1" != sandbox ]; then
{exports}
fi
exec {program} "$@"
"""
MANAGED_IDENTITIES = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
REVIEWS = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
PATIENCE = 120.0
"""Seconds until the rights hold: Azure's may take a minute in real weather."""


def folder_of_deployer(plan: Plan) -> Path:
    """Make the deployer, once; return a folder for PATH whose `podidentity` acts as it."""
    folder = plan.path / "deployer"
    if not folder.exists():
        with ThreadPoolExecutor(1) as thread:  # the caller may be in an event loop
            variables = thread.submit(asyncio.run, _deployer(plan)).result()
        real = shutil.which("podidentity")
        assert real is not None
        exports = "\n".join(
            f"  export {name}={shlex.quote(value)}" for name, value in variables.items()
        )
        folder.mkdir(mode=0o700)
        program = folder / "podidentity"
        program.write_text(PROGRAM.format(exports=exports, program=real))
        program.chmod(0o700)
    return folder


async def _deployer(plan: Plan) -> dict[str, str]:
    variables = await make_principal(plan, "deployer")
    who = variables["OBJECT_ID"]
    roles = list(documents(_printed("-o", "yaml", "--user", who)))
    for each in roles:
        Applier(Api(plan), "default").apply(each)
    async with AzureOperator(plan) as azure:
        identities = await azure.create_group(GROUP)
    groups = {
        each.provider_id.removeprefix("azure://").partition("/providers/")[0] for each in plan.nodes
    }
    for part, scopes in (("identity", {identities}), ("machines", groups)):
        at = [f"--scope={each}" for each in scopes]
        await give_role(plan, json.loads(_printed("--azure", part, *at)), who)
    _until_the_cluster_knows(plan, who, roles)
    await _until_azure_knows(plan, variables, identities)
    return variables


def _printed(*options: str) -> str:
    """Return what `podidentity rights` prints."""
    ran = CliRunner().invoke(podidentity, ["rights", *options], prog_name="podidentity")
    assert ran.exit_code == 0, ran.output
    return ran.stdout


def _until_the_cluster_knows(plan: Plan, who: str, roles: list[Object]) -> None:
    """Return when the API server counts each role with its binding."""
    api = Api(replace(plan, admin_token=plan.person_token(who)))
    ends = time.monotonic() + PATIENCE
    for role in (each for each in roles if "rules" in each):
        while not api.request("POST", REVIEWS, _review(role))["status"]["allowed"]:
            assert time.monotonic() < ends, f"{role['kind']} does not count"
            time.sleep(0.2)


def _review(role: Object) -> Object:
    """Return the question whether the asker has the first right of a role."""
    rule = next(each for each in role["rules"] if "resources" in each)
    attributes = {
        "namespace": role["metadata"].get("namespace", ""),
        "group": rule["apiGroups"][0],
        "resource": rule["resources"][0],
        "verb": rule["verbs"][0],
        "name": rule.get("resourceNames", [""])[0],
    }
    return {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }


async def _until_azure_knows(plan: Plan, variables: Mapping[str, str], identities: str) -> None:
    """Return when both roles count."""
    mine = replace(
        plan,
        operator_id=variables["AZURE_CLIENT_ID"],
        operator_secret=variables["AZURE_CLIENT_SECRET"],
    )
    ends = time.monotonic() + PATIENCE
    async with AzureOperator(mine) as azure:
        for path in (f"{identities}/{MANAGED_IDENTITIES}/none", plan.scale_set_id):
            while not await _may_read(azure, path):
                assert time.monotonic() < ends, f"the role at {path} does not count"
                await asyncio.sleep(0.5)


async def _may_read(azure: AzureOperator, path: str) -> bool:
    try:
        await azure.arm("GET", path)
    except AzureError as error:
        return error.status == 404
    return True
