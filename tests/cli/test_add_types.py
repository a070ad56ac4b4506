"""Identities of every type, added from the command line."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.cli import add as add_command
from podidentity.cli import azure_access
from podidentity.cli import delete as delete_command
from podidentity.cli.agent_choices import Choices
from podidentity.core.authorities import CLOUDS
from tests.cli.conftest import Ran
from tests.cli.scripted import CLIENT, IDENTITY, ScriptedArm
from tests.cli.test_grants import may
from tests.cli.world import CUSTOM, World

Run = Callable[..., Ran]
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
ACCOUNTS = "/api/v1/namespaces/podidentity-identities/serviceaccounts"


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> str:
    """An application that nobody but the test knows; Azure is asked nothing."""
    monkeypatch.setattr(azure_access, "azure", None)
    return str(uuid.uuid4())


FEDERATED = ("--federated", "--client-id", CLIENT, "--tenant-id", TENANT)


def add(run: Run, ns: str, *more: str, name: str = "orders") -> Ran:
    return run("add", "--namespace", ns, "--name", name, *more)


def spec(world: World, ns: str, name: str = "orders") -> Any:
    return world.get(f"{CUSTOM}/namespaces/{ns}/azureidentities/{name}")["spec"]


@pytest.mark.parametrize("flags", [[], ["--type", "1"], ["--type", "2"]], ids=str)
def test_an_application_signs_in_by_a_secret_of_its_namespace(
    world: World, ns: str, client: str, podidentity: Run, flags: list[str]
) -> None:
    principal = ("--client-id", client, "--tenant-id", TENANT, "--secret", "mail")
    ran = add(podidentity, ns, *principal, *flags)
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
    assert add(podidentity, ns, "--system-assigned").code == 0
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
    ran = add(podidentity, ns, "--federated", *principal, "--service-account", "web")
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
    world: World, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scripted = ScriptedArm(world.plan.scale_set_id)
    monkeypatch.setattr(azure_access, "azure", scripted.client)
    given = ("--tenant-id", TENANT, "--identity-resource-id", IDENTITY, "--subject", "identity")
    ran = add(podidentity, ns, "--federated", *given)
    assert (ran.code, ran.err) == (0, "")
    assert spec(world, ns)["clientID"] == CLIENT
    command = trust(ran)
    assert command[:4] == ["az", "identity", "federated-credential", "create"]
    subject = command[command.index("--subject") + 1]
    account = subject.removeprefix("system:serviceaccount:podidentity-identities:")
    assert command[command.index("--identity-name") + 1] == "orders"
    made = world.get(f"{ACCOUNTS}/{account}")
    assert made["automountServiceAccountToken"] is False
    assert scripted.patches() == [], "nothing is attached"
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert world.get(f"{ACCOUNTS}/{account}") is None


def test_the_account_and_the_audience_are_those_of_nmis_flags(
    world: World, ns: str, client: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def choices(_: object) -> Choices:
        return Choices(identities_namespace=ns, cloud=CLOUDS["azurechinacloud"])

    for command in (add_command, delete_command):
        monkeypatch.setattr(command, "choices_of_nmi", choices)
    principal = ("--client-id", client, "--tenant-id", TENANT, "--subject", "identity")
    asked = json.loads(trust(add(podidentity, ns, "--federated", *principal))[-1])
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
    ran = add(podidentity, ns, "--federated", *principal, "--via", IDENTITY)
    assert ran.code == 0
    assert "  az " not in ran.out, "Entra trusts the managed identity, not the cluster"
    assert may(world, ns, "web", client)
    assert may(world, ns, "web", IDENTITY.lower())
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert not may(world, ns, "web", IDENTITY.lower())


def test_a_name_that_stands_for_another_application_is_not_taken_over(
    ns: str, client: str, podidentity: Run
) -> None:
    principal = ("--tenant-id", TENANT, "--secret", "mail")
    assert add(podidentity, ns, "--client-id", client, *principal).code == 0
    assert add(podidentity, ns, "--client-id", client, *principal).code == 0
    ran = add(podidentity, ns, "--client-id", str(uuid.uuid4()), *principal)
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
    ran = add(podidentity, "shop", *flags)
    assert ran.code == 2
    assert said in " ".join(ran.err.split())
