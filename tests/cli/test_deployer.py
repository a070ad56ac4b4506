"""The deployer who runs podidentity in the acceptance tests: it has the printed rights alone."""

from __future__ import annotations

import asyncio
import os
import subprocess

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Plan
from tests.acceptance.deployer import folder_of_deployer
from tests.cli.world import World

BINDING = "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings/podidentity-commands"


async def assigned(plan: Plan, object_id: str) -> list[tuple[str, list[str]]]:
    """Return the scope and the actions of each role that a principal has in Azure."""
    found = []
    async with AzureOperator(plan) as azure:
        where = f"{azure.subscription}/providers/Microsoft.Authorization/roleAssignments"
        everyone = (await azure.arm("GET", where))["value"]
        for each in (one for one in everyone if one["properties"]["principalId"] == object_id):
            role = await azure.arm("GET", each["properties"]["roleDefinitionId"])
            actions = role["properties"]["permissions"][0]["actions"]
            found.append((each["properties"]["scope"].rpartition("/")[2], actions))
    return sorted(found)


def test_the_deployer_of_the_acceptance_tests_has_no_right_but_the_printed_ones(
    world: World,
) -> None:
    program = folder_of_deployer(world.plan) / "podidentity"
    given = {**os.environ, **world.environment}

    def run(*command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [program, *command], env=given, capture_output=True, text=True, check=False
        )

    listed = run("list", "-A")
    assert listed.returncode == 0, listed.stderr
    (subject,) = world.send("GET", BINDING)["subjects"]
    world.send("DELETE", BINDING)
    refused = run("list", "-A")
    assert refused.returncode == 1
    assert f'User "{subject["name"]}" cannot list resource' in refused.stderr
    (in_group, of_identity), (in_nodes, of_machines) = asyncio.run(
        assigned(world.plan, subject["name"])
    )
    assert (in_group, in_nodes) == ("aad-pod-identity-demo", world.plan.node_group)
    roles = {"roleAssignments", "roleDefinitions"}
    assert {each.split("/")[1] for each in of_identity} == {"userAssignedIdentities", *roles}
    assert {each.split("/")[1] for each in of_machines} == {
        "virtualMachineScaleSets",
        "virtualMachines",
        *roles,
    }
