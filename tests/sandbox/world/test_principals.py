"""A principal that is made beside the operator: it may do nothing until roles say so."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.api import Api, ApiError
from podidentity_sandbox.world.principals import give_role, make_principal
from tests.cli.world import running

RBAC = "/apis/rbac.authorization.k8s.io/v1"
PODS = "/api/v1/namespaces/default/pods"


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plan]:
    with running(tmp_path_factory.mktemp("principals")) as world:
        yield world.plan


def reader(*scopes: str) -> dict[str, Any]:
    """Return a role as `az role definition create` takes it."""
    actions = ["Microsoft.Compute/virtualMachineScaleSets/read"]
    return {"Name": "reader", "Actions": actions, "AssignableScopes": list(scopes)}


def by(plan: Plan, variables: Mapping[str, str]) -> AzureOperator:
    return AzureOperator(
        replace(
            plan,
            operator_id=variables["AZURE_CLIENT_ID"],
            operator_secret=variables["AZURE_CLIENT_SECRET"],
        )
    )


def token_in(kubeconfig: str) -> str:
    """Return the token in a kubeconfig, which nobody else may read."""
    path = Path(kubeconfig)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    return str(yaml.safe_load(path.read_text())["users"][0]["user"]["token"])


async def test_two_of_a_name_are_two_and_az_can_have_a_place_in_which_nobody_is_signed_in(
    plan: Plan,
) -> None:
    made = [await make_principal(plan, "colleague", with_az=True) for _ in range(2)]
    assert {*made[0].values()} & {*made[1].values()} == set()
    folders = [Path(each["AZURE_CONFIG_DIR"]) for each in made]
    assert all(each.parent == plan.path and each != plan.az_folder for each in folders)
    assert [[file.name for file in each.iterdir()] for each in folders] == [["config"]] * 2
    assert stat.S_IMODE(folders[0].stat().st_mode) == 0o700
    assert "AZURE_CONFIG_DIR" not in await make_principal(plan, "deployer")


async def test_in_the_cluster_it_is_a_user_without_rights(plan: Plan) -> None:
    variables = await make_principal(plan, "deployer")
    who = variables["OBJECT_ID"]
    its = Api(replace(plan, admin_token=token_in(variables["KUBECONFIG"])))
    with pytest.raises(ApiError, match=f'User "{who}" cannot list resource "pods"'):
        its.request("GET", PODS)
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    Api(plan).request("POST", f"{RBAC}/clusterroles", {"metadata": {"name": "r"}, "rules": [rule]})
    given = {
        "metadata": {"name": "r"},
        "roleRef": {"apiGroup": RBAC.split("/")[2], "kind": "ClusterRole", "name": "r"},
        "subjects": [{"apiGroup": RBAC.split("/")[2], "kind": "User", "name": who}],
    }
    Api(plan).request("POST", f"{RBAC}/clusterrolebindings", given)
    assert its.request("GET", PODS)["items"] == []


async def test_in_azure_it_may_do_what_its_role_says_where_that_is_assigned(plan: Plan) -> None:
    variables = await make_principal(plan, "deployer")
    async with by(plan, variables) as its:
        with pytest.raises(AzureError, match="AuthorizationFailed"):
            await its.arm("GET", plan.scale_set_id)
        for _ in range(2):
            made = await give_role(plan, reader(plan.scale_set_id), variables["OBJECT_ID"])
            assert made == [plan.scale_set_id]
        assert (await its.arm("GET", plan.scale_set_id))["name"] == plan.scale_set
        with pytest.raises(AzureError, match="AuthorizationFailed"):
            await its.create_group("its-own")
