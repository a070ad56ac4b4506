"""What the commands need in Azure: they run with the roles that are printed, and need each action.

The person is an application with custom roles at the identity and at the machines of the nodes (a
scale set, or a virtual machine), and nowhere else; the Azure is the sandbox's.
"""

from __future__ import annotations

import asyncio
import json
import re
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import pytest

from podidentity.cli.needed_rights import COMMANDS
from podidentity.cli.parts import AzureScope
from podidentity.core.hosts import Host
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.manifests import crds, mic
from podidentity.wire.ledgers import render_ledger
from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.plan import Pool, PoolKind
from podidentity_sandbox.world.principals import give_role
from tests.cli.azure import operator
from tests.cli.conftest import Ran
from tests.cli.world import CUSTOM, World, running

Run = Callable[..., Ran]
AUTHORIZATION = "providers/Microsoft.Authorization"


@dataclass(frozen=True)
class Person:
    """An application, and the identity that it is to give to pods."""

    client_id: str
    secret: str
    object_id: str
    identity: dict[str, str]


@dataclass(frozen=True)
class Case:
    command: str
    line: str
    parts: tuple[str, ...]
    attached: bool = False
    """Whether `add` has attached the identity before, as an administrator of Azure."""
    ledger: bool = False
    """Whether MIC has attached it before, by its ledger."""
    mic: bool = False
    """Whether MIC is there, and signs in by that identity, with the roles that it needs."""
    kind: str = "virtualMachineScaleSets"
    """The nodes' machines: these, or `virtualMachines`."""

    @property
    def actions(self) -> list[tuple[AzureScope, str]]:
        """Return what it needs where the nodes are of this kind."""
        needed = COMMANDS[self.command].of(self.parts).azure
        found = [(each.scope, each.action) for each in needed]
        return [
            one
            for one in found
            if not one[1].startswith("Microsoft.Compute/") or f"/{self.kind}/" in one[1]
        ]

    def __str__(self) -> str:
        single = "" if self.kind == "virtualMachineScaleSets" else ",machines"
        return f"{self.command}[{','.join(self.parts)}{single}]"


NAMED = "--namespace {ns} --name orders"
ADD = Case("add", f"add {NAMED} --identity-resource-id {{id}}", ("grant", "attach"))
CASES: tuple[Case, ...] = (
    ADD,
    Case(
        "add",
        f"add {NAMED} --identity-resource-id {{id}} --federated --tenant-id contoso.com",
        ("look-up",),
    ),
    Case("delete", f"delete {NAMED}", ("detach",), attached=True),
    Case("explain", "explain pod {ns}/a --azure", ("azure",), attached=True),
    Case("disable", "disable --detach", ("detach-all",), attached=True, ledger=True),
)
CASES += (Case("check", "check -o json --azure", ("azure",), attached=True),)
CASES += tuple(
    replace(each, kind="virtualMachines") for each in CASES if each.parts != ("look-up",)
)
OF_MIC = Case("check", "check -o json --azure", ("azure", "mic-roles"), attached=True, mic=True)


@dataclass(frozen=True)
class Place:
    """A world, and the person in it."""

    world: World
    person: Person
    machine: str
    """ARM id of the scale set, or of the virtual machine, of its nodes."""


@pytest.fixture(scope="module")
def places(
    shared_world: World, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Place]]:
    """One of a scale set, and one of a virtual machine."""
    pools = [Pool(kind=PoolKind.MACHINES, nodes=1)]
    with running(tmp_path_factory.mktemp("machines"), pools, definitions=crds()) as single:
        machine = single.plan.nodes[0].provider_id.removeprefix("azure://")
        yield {
            "virtualMachineScaleSets": Place(
                shared_world, made_in(shared_world), shared_world.plan.scale_set_id
            ),
            "virtualMachines": Place(single, made_in(single), machine),
        }


def made_in(world: World) -> Person:
    """Make the person, and the identity."""

    async def made(azure: AzureOperator) -> Person:
        app = await azure.make_app(f"deployer-{uuid.uuid4().hex[:6]}")
        secret = (await azure.add_secret(app)).value
        await azure.create_group("shop")
        identity = await azure.create_identity("shop", f"orders-{uuid.uuid4().hex[:6]}")
        return Person(app.client_id, secret, app.principal_id, identity)

    return operator(world, made)


def give(place: Place, actions: list[tuple[AzureScope, str]]) -> None:
    """Let the person do these actions and no others: one role at the identity, one at the machines.

    A role of the same name is changed, so that nothing of an earlier call remains.
    """
    person, plan = place.person, place.world.plan
    where = {AzureScope.IDENTITY: person.identity["id"], AzureScope.MACHINES: place.machine}
    for scope, at in where.items():
        mine = [action for each, action in actions if each is scope]
        role = {"Name": f"test {scope}", "Actions": mine, "AssignableScopes": [at]}
        asyncio.run(give_role(plan, role, person.object_id))


@pytest.fixture
def place(places: dict[str, Place], case: Case, monkeypatch: pytest.MonkeyPatch) -> Place:
    """The place of a case, this process being an administrator's shell in it."""
    found = places[case.kind]
    found.world.put_back()
    for name, value in found.world.environment.items():
        monkeypatch.setenv(name, value)
    return found


@pytest.fixture
def run(
    place: Place, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[[Case, list[tuple[AzureScope, str]]], Ran]]:
    world, person = place.world, place.person
    ns = world.namespace(f"n-{uuid.uuid4().hex[:8]}")
    words = {"ns": ns, "id": person.identity["id"]}

    def as_person(case: Case, actions: list[tuple[AzureScope, str]]) -> Ran:
        if case.attached:
            ran = podidentity(*ADD.line.format(**words).split())
            assert ran.code == 0, ran.err
            world.pod(ns, "a", {"aadpodidbinding": "orders"})
        if case.ledger:
            write_ledger(place)
        if case.command == "check":
            trusted(world, ns, person)
        if case.mic:
            put_mic(place)
        give(place, actions)
        with monkeypatch.context() as shell:
            shell.setenv("AZURE_CLIENT_ID", person.client_id)
            shell.setenv("AZURE_CLIENT_SECRET", person.secret)
            return podidentity(*case.line.format(**words).split())

    yield as_person
    world.api.delete(LEDGERS)
    world.api.delete(MIC)
    world.api.delete(f"{PODS_OF_MIC}/mic-0", params={"gracePeriodSeconds": "0"})
    podidentity("delete", "--namespace", ns, "--name", "orders")
    world.send("DELETE", f"/api/v1/namespaces/{ns}/pods", gracePeriodSeconds="0")
    for plural in ("azureidentities", "azureidentitybindings"):
        world.send("DELETE", f"{CUSTOM}/namespaces/{ns}/{plural}")
    operator(world, lambda azure: detached(azure, place.machine, person.identity["id"]))


MIC = "/apis/apps/v1/namespaces/kube-system/deployments/mic"
PODS_OF_MIC = "/api/v1/namespaces/kube-system/pods"
OPERATOR = "f1a07417-d97a-45cb-824c-7a7467783830"
"""Managed Identity Operator."""
CONTRIBUTOR = "9980e02c-c2be-4d73-94e8-173b1dc7cf3c"
"""Virtual Machine Contributor."""


def put_mic(place: Place) -> None:
    """Put MIC into the cluster, which signs in by the identity; it has the roles that it needs."""
    world, identity = place.world, place.person.identity
    flags = ["--use-managed-identity", f"--managed-identity-client-id={identity['clientId']}"]
    deployment = mic(extra_args=flags)[-1]
    world.send("POST", MIC.rpartition("/")[0], deployment)
    world.pod("kube-system", "mic-0", deployment["spec"]["template"]["metadata"]["labels"])
    roles_of_mic(place, "PUT")


def roles_of_mic(place: Place, method: str) -> None:
    """Give MIC its roles, or take them (DELETE)."""
    subscription, identity = (
        f"/subscriptions/{place.world.plan.subscription_id}",
        place.person.identity,
    )

    async def change(azure: AzureOperator) -> None:
        for role, scope in ((OPERATOR, identity["id"]), (CONTRIBUTOR, place.machine)):
            name = uuid.uuid5(uuid.NAMESPACE_URL, f"{scope}{role}")
            path = f"{scope}/{AUTHORIZATION}/roleAssignments/{name}"
            properties = {
                "roleDefinitionId": f"{subscription}/{AUTHORIZATION}/roleDefinitions/{role}",
                "principalId": identity["principalId"],
            }
            await azure.arm(method, path, {"properties": properties} if method == "PUT" else None)

    operator(place.world, change)


LEDGERS = "/apis/aadpodidentity.k8s.io/v1/namespaces/kube-system/azureidentityledgers"


def write_ledger(place: Place) -> None:
    """Have MIC's ledger say that MIC attached the identity."""
    entry = LedgerEntry(place.person.identity["id"], 0.0)
    ledger = Ledger(host=Host.parse(place.machine), attached={entry.spelling.lower(): entry})
    place.world.api.delete(LEDGERS)
    place.world.send("POST", LEDGERS, render_ledger(ledger, "kube-system"))


async def detached(azure: AzureOperator, machine: str, identity: str) -> None:
    """Take the identity from the scale set or the machine, if it has it."""
    have = (await azure.arm("GET", machine))["identity"]["userAssignedIdentities"]
    mine = [each for each in have if each.lower() == identity.lower()]
    if mine:
        block = {"type": "UserAssigned", "userAssignedIdentities": dict.fromkeys(mine)}
        await azure.arm("PATCH", machine, {"identity": block})


def trusted(world: World, ns: str, person: Person) -> None:
    """Make a federated AzureIdentity of the same managed identity, and a pod that uses it."""
    managed = {"resourceID": person.identity["id"], "clientID": person.identity["clientId"]}
    spec = {"type": 3, "tenantID": "contoso.com", **managed}
    world.custom(ns, "azureidentities", "trusted", spec)
    bound = {"azureIdentity": "trusted", "selector": "trusted"}
    world.custom(ns, "azureidentitybindings", "trusted", bound)
    world.pod(ns, "b", {"aadpodidbinding": "trusted"})


def whole(ran: Ran) -> bool:
    return "error:" not in ran.err and "Azure says" not in ran.out


@pytest.mark.parametrize("case", [*CASES, OF_MIC], ids=str)
def test_a_command_runs_with_the_actions_that_are_printed(case: Case, run: Any) -> None:
    ran = run(case, case.actions)
    assert whole(ran), (ran.out, ran.err)


@pytest.mark.parametrize(
    ("case", "lacking"),
    [
        *((case, one) for case in CASES for one in case.actions),
        *((OF_MIC, one) for one in OF_MIC.actions if "Authorization" in one[1]),
    ],
    ids=lambda value: (
        f"{value[0]}:{value[1].partition('/')[2]}" if isinstance(value, tuple) else str(value)
    ),
)
def test_a_command_names_the_action_that_it_lacks(
    case: Case, lacking: tuple[AzureScope, str], run: Any
) -> None:
    ran = run(case, [each for each in case.actions if each != lacking])
    assert (ran.code, whole(ran)) == (1, False)
    said = ran.err + ran.out
    assert f"'{lacking[1]}'" in said
    assert f"(podidentity rights {case.command} lists the actions that it needs)" in said


@pytest.mark.parametrize("case", [ADD], ids=str)
def test_an_add_that_azure_refuses_half_way_prints_the_command_that_undoes_it(
    case: Case, place: Place, run: Any, podidentity: Run
) -> None:
    ran = run(case, [each for each in case.actions if not each[1].endswith("/write")])
    assert ran.code == 1
    (ns,) = re.findall(r"podidentity delete --namespace (\S+) --name orders", ran.err)
    undo = f"podidentity delete --namespace {ns} --name orders"
    assert f"Run it again: it goes on. To take all of it back:\n  {undo}\n" in ran.err
    objects = f"/apis/aadpodidentity.k8s.io/v1/namespaces/{ns}"
    assert place.world.get(f"{objects}/azureidentities/orders") is not None
    assert place.world.get(f"{objects}/azureidentitybindings/orders-binding") is None, (
        "nobody is entitled"
    )
    assert podidentity(*undo.split()[1:]).code == 0
    assert place.world.get(f"{objects}/azureidentities/orders") is None


@pytest.mark.parametrize("case", [OF_MIC], ids=str)
def test_each_role_that_mic_lacks_is_named_with_the_command_that_gives_it(
    case: Case, run: Any, place: Place, podidentity: Run
) -> None:
    def lacks(ran: Ran) -> dict[str, str]:
        found = [each for each in json.loads(ran.out) if each["reason"] == "LacksRole"]
        return {each["nextStep"].rpartition("--scope ")[2]: each["nextStep"] for each in found}

    assert lacks(run(case, case.actions)) == {}
    roles_of_mic(place, "DELETE")
    said = lacks(podidentity(*case.line.split()))
    mine, machine = said[f"{place.person.identity['id']}."], said[f"{place.machine}."]
    create = "Run az role assignment create --role"
    assert mine.startswith(f"{create} 'Managed Identity Operator' --assignee-object-id")
    assert machine.startswith(f"{create} 'Virtual Machine Contributor' --assignee-object-id")
    assert f" {place.person.identity['principalId']} " in mine


def test_the_printed_role_is_one_that_azure_takes(world: World, podidentity: Run) -> None:
    subscription = f"/subscriptions/{world.plan.subscription_id}"
    ran = podidentity("rights", "add", "delete", "--azure", "machines", "--scope", subscription)
    made = json.loads(ran.out)
    properties = {
        "roleName": made["Name"],
        "type": "CustomRole",
        "permissions": [{"actions": made["Actions"], "notActions": made["NotActions"]}],
        "assignableScopes": made["AssignableScopes"],
    }
    path = f"{subscription}/{AUTHORIZATION}/roleDefinitions/{uuid.uuid4()}"

    async def put(azure: AzureOperator) -> None:
        await azure.arm("PUT", path, {"properties": properties})
        await azure.arm("DELETE", path)

    operator(world, put)
    assert set(made["Actions"]) == {
        f"Microsoft.Compute/{kind}/{verb}"
        for kind in ("virtualMachineScaleSets", "virtualMachines")
        for verb in ("read", "write")
    }
