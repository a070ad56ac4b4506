from __future__ import annotations

import json
import shlex
import uuid
from typing import Any, cast

import pytest

from podidentity.adapters.kube import Kube
from podidentity.cli import add as add_command
from podidentity.cli import azure_access
from podidentity.cli import delete as delete_command
from podidentity.cli.add_request import AddRequest
from podidentity.cli.agent_choices import Choices
from podidentity.cli.output import CommandError
from podidentity.core.authorities import CLOUDS
from podidentity.core.federation import account_name
from podidentity.core.resources import BINDING_LABEL, ObjectRef
from podidentity_sandbox.azure.client import AzureError
from tests.cli.azure import Identity
from tests.cli.binding import Run, add, binding, identity, record
from tests.cli.conftest import Ran
from tests.cli.ids import CLIENT, IDENTITY
from tests.cli.test_grants import may
from tests.cli.world import CUSTOM, World


def test_add_makes_identity_and_binding_and_attaches(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    ran = add(podidentity, orders.id, ns)
    assert (ran.code, ran.err) == (0, "")
    role = f"rbac.authorization.k8s.io/podidentity-use-{orders.client_id}"
    assert ran.out.splitlines() == [
        f"identity {orders.name} has the client id {orders.client_id}",
        f"clusterrole.{role} created",
        "azureidentity.aadpodidentity.k8s.io/orders created",
        f"attaching to scale set {world.plan.scale_set}",
        f"attached to scale set {world.plan.scale_set}",
        "azureidentitybinding.aadpodidentity.k8s.io/orders-binding created",
        f"clusterrolebinding.{role}:{ns} created",
        f"Pods of namespace {ns} labelled {BINDING_LABEL}=orders may use it.",
    ]
    found = identity(world, ns)
    assert found["spec"] == {
        "type": 0,
        "resourceID": orders.id,
        "clientID": orders.client_id,
        "objectID": orders.object_id,
    }
    assert record(found) == [world.plan.scale_set_id]
    assert binding(world, ns)["spec"] == {"azureIdentity": "orders", "selector": "orders"}
    assert orders.attached()


def test_add_may_be_repeated(orders: Identity, ns: str, podidentity: Run) -> None:
    assert add(podidentity, orders.id, ns).code == 0
    ran = add(podidentity, orders.id, ns)
    assert ran.code == 0
    assert "azureidentity.aadpodidentity.k8s.io/orders unchanged" in ran.out
    assert "already" in ran.out
    assert "azureidentitybinding.aadpodidentity.k8s.io/orders-binding unchanged" in ran.out
    ran = add(podidentity, orders.id, ns, "orders", "--binding-selector", "other")
    assert "azureidentitybinding.aadpodidentity.k8s.io/orders-binding configured" in ran.out


def test_with_client_id_and_no_attach_it_asks_nothing_of_azure(
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(azure_access, "azure", None)
    given = ("--client-id", CLIENT.upper(), "--no-attach")
    ran = add(podidentity, IDENTITY, ns, "orders", *given)
    assert (ran.code, ran.err) == (0, "")
    assert identity(world, ns)["spec"]["clientID"] == CLIENT
    assert record(identity(world, ns)) == []
    assert binding(world, ns)["spec"]["selector"] == "orders"


def test_what_others_attached_is_not_recorded_as_ours(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    orders.attach()
    assert add(podidentity, orders.id, ns).code == 0
    assert record(identity(world, ns)) == []
    assert podidentity("delete", "--namespace", ns, "--name", "orders").code == 0
    assert orders.attached()


def test_what_azure_failed_to_attach_is_not_taken_for_attached(
    orders: Identity, ns: str, podidentity: Run
) -> None:
    """The scale set names it, and the machines lack it."""
    orders.weather("failing=1")
    with pytest.raises(AzureError, match="InternalExecutionError"):
        orders.attach()
    orders.weather()
    ran = add(podidentity, orders.id, ns)
    assert (ran.code, "already" in ran.out) == (0, False)
    assert orders.attached()


def test_a_run_that_fails_half_way_entitles_nobody_and_can_be_repeated(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    orders.weather("arm=[{effect: denied, kind: PATCH *}]")
    ran = add(podidentity, orders.id, ns)
    assert ran.code == 1
    assert f"error: Cannot attach {orders.name} to scale set" in ran.err
    assert binding(world, ns) is None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]
    assert not orders.attached()
    orders.weather()
    assert add(podidentity, orders.id, ns).code == 0
    assert orders.attached()
    assert binding(world, ns) is not None
    assert record(identity(world, ns)) == [world.plan.scale_set_id]


def test_an_unknown_identity_is_said_to_be_unknown(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    wrong = f"{orders.id}-not"
    ran = add(podidentity, wrong, ns)
    assert ran.code == 1
    kind = "Microsoft.ManagedIdentity/userAssignedIdentities"
    assert ran.err == (
        f"error: Cannot look up the identity {orders.name}-not. Azure says ResourceNotFound: The"
        f" Resource '{kind}/{orders.name}-not' under resource group 'shop' was not found. For more"
        " details please go to https://aka.ms/ARMResourceNotFoundFix. "
        f"Check the id: az identity show --ids {wrong}\n"
    )
    assert identity(world, ns) is None


def test_a_client_id_that_is_not_the_identitys_is_refused(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    ran = add(podidentity, orders.id, ns, "orders", "--client-id", CLIENT)
    assert ran.code == 1
    assert f"has the client id {orders.client_id}" in ran.err
    assert identity(world, ns) is None


def test_a_name_that_stands_for_another_identity_is_not_taken_over(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    spec = {"clientID": orders.client_id, "resourceID": f"{orders.id}2"}
    world.custom(ns, "azureidentities", "orders", spec)
    ran = add(podidentity, orders.id, ns)
    assert ran.code == 1
    assert "exists and names another identity" in ran.err
    assert identity(world, ns)["spec"] == spec
    world.custom(ns, "azureidentitybindings", "other-binding", {"azureIdentity": "mine"})
    ran = add(podidentity, orders.id, ns, "other")
    assert ran.code == 1
    assert "names AzureIdentity 'mine'" in ran.err
    assert identity(world, ns, "other") is None


@pytest.mark.usefixtures("world")
def test_a_namespace_that_is_not_there_is_named(podidentity: Run) -> None:
    given = ("--client-id", CLIENT, "--no-attach")
    ran = add(podidentity, IDENTITY, "nowhere", "orders", *given)
    assert ran.code == 1
    assert "error: There is no namespace nowhere" in ran.err
    assert "Create the namespace first" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ["--identity-resource-id", "/x", "--namespace", "a", "--name", "b"],
        ["--identity-resource-id", IDENTITY, "--namespace", "A", "--name", "b"],
        ["--identity-resource-id", IDENTITY, "--namespace", "a", "--name", "b" * 64],
        ["--identity-resource-id", IDENTITY, "--namespace", "a"],
        ["--identity-resource-id", IDENTITY, "--namespace", "a", "--name", "b", "--client-id=x"],
    ],
)
def test_wrong_values_are_wrong_usage(arguments: list[str], podidentity: Run) -> None:
    assert podidentity("add", *arguments).code == 2


TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
ACCOUNTS = "/api/v1/namespaces/podidentity-identities/serviceaccounts"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> str:
    """An application that exists only in the test; Azure is not contacted."""
    monkeypatch.setattr(azure_access, "azure", None)
    return str(uuid.uuid4())


FEDERATED = ("--federated", "--client-id", CLIENT, "--tenant-id", TENANT)


PRINCIPAL = ("--tenant-id", TENANT, "--secret", "mail")


def add_in(run: Run, ns: str, *more: str, name: str = "orders") -> Ran:
    return run("add", "--namespace", ns, "--name", name, *more)


def spec(world: World, ns: str, name: str = "orders") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}")["spec"]


@pytest.mark.parametrize("flags", [[], ["--type", "1"], ["--type", "2"]], ids=str)
def test_an_application_signs_in_by_a_secret_of_its_namespace(
    world: World, ns: str, client: str, podidentity: Run, flags: list[str]
) -> None:
    principal = ("--client-id", client, "--tenant-id", TENANT, "--secret", "mail")
    ran = add_in(podidentity, ns, *principal, *flags)
    assert (ran.code, ran.err) == (0, "")
    assert spec(world, ns) == {
        "type": int(flags[-1]) if flags else 1,
        "clientID": client,
        "tenantID": TENANT,
        "clientPassword": {"name": "mail", "namespace": ns},
    }
    assert may(world, ns, "web", client)


def test_the_machines_own_identity_is_added_by_its_name(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    del client
    assert add_in(podidentity, ns, "--system-assigned").code == 0
    assert spec(world, ns) == {"type": 0, "resourceID": "system-assigned"}
    assert may(world, ns, "web", "system-assigned")
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert not may(world, ns, "web", "system-assigned")


def trust(ran: Ran) -> list[str]:
    """Return the command that the operator is left with."""
    (line,) = [each for each in ran.out.splitlines() if each.startswith("  az ")]
    return shlex.split(line)


def test_a_federated_application_trusts_the_pods_service_account(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    principal = ("--client-id", client, "--tenant-id", TENANT)
    ran = add_in(podidentity, ns, "--federated", *principal, "--service-account", "web")
    assert (ran.code, ran.err) == (0, "")
    assert spec(world, ns)["federation"] == {"subject": "pod"}
    command = trust(ran)
    assert command[:5] == ["az", "ad", "app", "federated-credential", "create"]
    assert json.loads(command[command.index("--parameters") + 1]) == {
        "name": f"{ns}-orders",
        "issuer": world.get("/.well-known/openid-configuration")["issuer"],
        "subject": f"system:serviceaccount:{ns}:web",
        "audiences": ["api://AzureADTokenExchange"],
    }


def test_an_identity_with_a_subject_of_its_own_has_a_service_account_while_it_is_there(
    world: World, orders: Identity, ns: str, podidentity: Run
) -> None:
    given = ("--tenant-id", TENANT, "--identity-resource-id", orders.id, "--subject", "identity")
    ran = add_in(podidentity, ns, "--federated", *given)
    assert (ran.code, ran.err) == (0, "")
    assert spec(world, ns)["clientID"] == orders.client_id
    command = trust(ran)
    assert command[:4] == ["az", "identity", "federated-credential", "create"]
    subject = command[command.index("--subject") + 1]
    account = subject.removeprefix("system:serviceaccount:podidentity-identities:")
    assert command[command.index("--identity-name") + 1] == orders.name
    made = world.get(f"{ACCOUNTS}/{account}")
    assert made["automountServiceAccountToken"] is False
    assert not orders.attached()
    # No pod has the account, so no node may ask for its token: NMI may, and for no other by this.
    rights = "/apis/rbac.authorization.k8s.io/v1/namespaces/podidentity-identities"
    (rule,) = world.get(f"{rights}/roles/{account}")["rules"]
    assert (rule["resources"], rule["resourceNames"]) == (["serviceaccounts/token"], [account])
    (subject,) = world.get(f"{rights}/rolebindings/{account}")["subjects"]
    assert (subject["namespace"], subject["name"]) == ("kube-system", "podidentity-nmi")
    # One that was made by an older release gets them from `enable`.
    world.send("DELETE", f"{rights}/roles/{account}")
    world.send("DELETE", f"{rights}/rolebindings/{account}")
    assert (
        f"role.rbac.authorization.k8s.io/{account} created"
        in podidentity("enable", "--no-wait").out
    )
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    for path in (f"{ACCOUNTS}/{account}", f"{rights}/roles/{account}"):
        assert world.get(path) is None
    assert world.get(f"{rights}/rolebindings/{account}") is None


def test_a_delete_takes_nmis_right_on_an_account_that_is_gone_already(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    """So a run that ended between the two can be repeated."""
    given = ("--client-id", client, "--tenant-id", TENANT, "--subject", "identity")
    assert add_in(podidentity, ns, "--federated", *given).code == 0
    account = account_name(ObjectRef(ns, "orders"))
    world.send("DELETE", f"{ACCOUNTS}/{account}")
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    rights = "/apis/rbac.authorization.k8s.io/v1/namespaces/podidentity-identities"
    for kind in ("roles", "rolebindings"):
        assert world.get(f"{rights}/{kind}/{account}") is None


def test_the_account_and_the_audience_are_those_of_nmis_flags(
    world: World, ns: str, client: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def choices(*_: object) -> Choices:
        return Choices(identities_namespace=ns, cloud=CLOUDS["azurechinacloud"])

    for command in (add_command, delete_command):
        monkeypatch.setattr(command, "choices_of_nmi", choices)
    principal = ("--client-id", client, "--tenant-id", TENANT, "--subject", "identity")
    asked = json.loads(trust(add_in(podidentity, ns, "--federated", *principal))[-1])
    assert asked["audiences"] == ["api://AzureADTokenExchangeChina"]
    assert asked["subject"].startswith(f"system:serviceaccount:{ns}:podidentity-")
    account = f"/api/v1/namespaces/{ns}/serviceaccounts/{asked['subject'].rpartition(':')[2]}"
    assert world.get(account) is not None
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert world.get(account) is None


def test_a_managed_identity_that_signs_in_for_another_needs_its_own_permission(
    world: World, ns: str, client: str, podidentity: Run
) -> None:
    principal = ("--client-id", client, "--tenant-id", "contoso.com")
    ran = add_in(podidentity, ns, "--federated", *principal, "--via", IDENTITY)
    assert ran.code == 0
    assert "  az " not in ran.out, "Entra trusts the managed identity, not the cluster"
    assert may(world, ns, "web", client)
    assert may(world, ns, "web", IDENTITY.lower())
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert not may(world, ns, "web", IDENTITY.lower())


@pytest.mark.parametrize(
    "of_release", ["azureidentities/orders", "azureidentitybindings/orders-binding"]
)
def test_add_changes_no_object_of_a_helm_release_and_says_how_to_go_on(
    world: World, ns: str, client: str, podidentity: Run, of_release: str
) -> None:
    assert add_in(podidentity, ns, *PRINCIPAL, "--client-id", client).code == 0
    path = f"{CUSTOM}/namespaces/{ns}/{of_release}"
    release = {
        "labels": {"app.kubernetes.io/managed-by": "Helm"},
        "annotations": {
            "meta.helm.sh/release-name": "platform",
            "meta.helm.sh/release-namespace": "ops",
        },
    }
    before = world.send("PATCH", path, {"metadata": release})
    everything = world.get(f"{CUSTOM}/namespaces/{ns}/azureidentitybindings")["items"]
    ran = add_in(podidentity, ns, *PRINCIPAL, "--client-id", client, "--binding-selector", "other")
    assert (ran.code, ran.out) == (1, "")
    assert f"{ns}/{of_release.split('/')[1]} is of the Helm release ops/platform" in ran.err
    assert "helm upgrade" in ran.err
    assert "podidentity grant" in ran.err
    assert world.get(path) == before
    assert world.get(f"{CUSTOM}/namespaces/{ns}/azureidentitybindings")["items"] == everything


def test_a_name_that_stands_for_another_application_is_not_taken_over(
    ns: str, client: str, podidentity: Run
) -> None:
    assert add_in(podidentity, ns, "--client-id", client, *PRINCIPAL).code == 0
    assert add_in(podidentity, ns, "--client-id", client, *PRINCIPAL).code == 0
    ran = add_in(podidentity, ns, "--client-id", str(uuid.uuid4()), *PRINCIPAL)
    assert ran.code == 1
    assert "exists and names another identity" in ran.err


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ([], "--identity-resource-id or --system-assigned is needed"),
        (["--system-assigned", "--identity-resource-id", IDENTITY], "is needed"),
        (["--system-assigned", "--client-id", CLIENT], "has no --client-id"),
        (["--type", "1", "--client-id", CLIENT], "needs --client-id, --tenant-id, --secret"),
        (["--secret", "s", "--identity-resource-id", IDENTITY], "not for type 1"),
        (["--federated", "--client-id", CLIENT], "needs --tenant-id"),
        (["--federated", "--type", "1"], "contradict"),
        (
            ["--subject", "identity", "--via", IDENTITY, *FEDERATED],
            "--subject is not for --via",
        ),
        (["--identity-resource-id", IDENTITY, "--subject", "pod"], "not for type 0"),
        (["--federated", "--tenant-id", "not a tenant"], "must be a GUID or a domain name"),
    ],
    ids=lambda value: "-".join(value).replace("/", "")[:40] if isinstance(value, list) else "",
)
def test_options_that_do_not_fit_together_are_wrong_usage(
    podidentity: Run, flags: list[str], said: str
) -> None:
    ran = add_in(podidentity, "shop", *flags)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())


async def test_a_run_that_fails_after_it_changed_machines_says_how_to_go_on_and_back(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def steps(_: object, __: object, ___: object, done: Any) -> None:
        done.lasting = True
        raise CommandError("Azure is not done")

    monkeypatch.setattr("podidentity.cli.add._steps", steps)
    wanted = AddRequest(ref=ObjectRef("shop", "orders"), selector="orders")
    with pytest.raises(CommandError):
        await add_command._add(cast("Kube", None), wanted, None, add_command._Done())
    assert capsys.readouterr().err == (
        "add did not finish. Run it again: it goes on. To take all of it back:\n"
        "  podidentity delete --namespace shop --name orders\n"
    )
