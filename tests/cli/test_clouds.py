"""In the clouds beside the public one the commands ask that cloud's own resource manager."""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest

from podidentity.adapters import azure_login
from podidentity.adapters.arm import Arm
from podidentity.adapters.clock import SystemClock
from podidentity.cli import add as add_command
from podidentity.cli import azure_access, detachment
from podidentity.cli import explain as explain_command
from podidentity.cli.agent_choices import Choices
from podidentity.core.authorities import CLOUDS, PUBLIC, Cloud
from podidentity.core.resources import BINDING_LABEL
from podidentity.wire.arm import ArmError
from tests.cli.azure import Identity
from tests.cli.binding import Run, add
from tests.cli.ids import IDENTITY
from tests.cli.world import World

MANAGERS = {
    "AzurePublicCloud": "https://management.azure.com",
    "AzureUSGovernmentCloud": "https://management.usgovcloudapi.net",
    "AzureChinaCloud": "https://management.chinacloudapi.cn",
}


class Clouds:
    """The ways to every cloud's resource manager: each ends at the sandbox's, the public cloud's.

    Whoever signs in gets the public cloud's token, whatever it is for.
    """

    def __init__(self, identity: Identity, azure: Callable[[Cloud | None], Arm]) -> None:
        self.identity = identity.id
        self._world = identity.world
        self._azure = azure
        self._asked: set[str] = set()
        self.scopes: set[str] = set()

    def asked(self) -> set[str]:
        """Return the origins that were asked, and forget them."""
        found = set(self._asked)
        self._asked.clear()
        return found

    def client(self, cloud: Cloud | None, _: float | None = None) -> Arm:
        """Return a client of the cloud's resource manager, as the commands have it."""
        if cloud is None or not cloud.resource_manager:
            return self._azure(cloud)
        return Arm(self, SystemClock(), cloud=cloud, transport=_Way(self._world, self._asked))

    async def token(self, scope: str) -> str:
        self.scopes.add(scope)
        return await azure_login.AzureLogin().token(f"{MANAGERS['AzurePublicCloud']}/.default")


class _Way(httpx2.AsyncBaseTransport):
    def __init__(self, world: World, asked: set[str]) -> None:
        trust = ssl.create_default_context(cafile=str(world.plan.ca_certificate))
        proxy = world.environment["HTTPS_PROXY"]
        self._network = httpx2.AsyncHTTPTransport(verify=trust, proxy=proxy, trust_env=False)
        self._asked = asked

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self._asked.add(f"{request.url.scheme}://{request.url.host}")
        request.url = request.url.copy_with(host="management.azure.com")
        request.headers["Host"] = "management.azure.com"
        return await self._network.handle_async_request(request)

    async def aclose(self) -> None:
        await self._network.aclose()


@pytest.fixture
def clouds(orders: Identity, monkeypatch: pytest.MonkeyPatch) -> Clouds:
    found = Clouds(orders, azure_access.azure)
    monkeypatch.setattr(azure_access, "azure", found.client)
    return found


@pytest.mark.parametrize("name", MANAGERS)
def test_add_explain_and_delete_ask_the_resource_manager_of_their_cloud(
    world: World, clouds: Clouds, ns: str, podidentity: Run, name: str
) -> None:
    manager = {MANAGERS[name]}
    ran = add(podidentity, clouds.identity, ns, "orders", f"--cloud={name}")
    assert (ran.code, ran.err) == (0, "")
    assert clouds.asked() == manager
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    ran = podidentity("explain", "pod", f"{ns}/a", "--azure", f"--cloud={name}")
    assert "according to Azure" in ran.out
    assert clouds.asked() == manager
    assert podidentity("delete", "-n", ns, "--name", "orders", f"--cloud={name}").code == 0
    assert clouds.asked() == manager
    assert clouds.scopes == {f"{MANAGERS[name]}/.default"}


def test_the_environment_names_the_cloud_as_azures_go_programs_read_it(
    clouds: Clouds,
    ns: str,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("AZURE_ENVIRONMENT", "AZUREUSGOVERNMENTCLOUD")
    assert add(podidentity, clouds.identity, ns).code == 0
    assert clouds.asked() == {MANAGERS["AzureUSGovernmentCloud"]}


def test_without_a_name_it_is_the_cloud_that_nmi_is_in(
    world: World,
    clouds: Clouds,
    ns: str,
    podidentity: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def choices(*_: object) -> Choices:
        return Choices(cloud=CLOUDS["azurechinacloud"])

    for command in (add_command, detachment, explain_command):
        monkeypatch.setattr(command, "choices_of_nmi", choices)
    china = {MANAGERS["AzureChinaCloud"]}
    assert add(podidentity, clouds.identity, ns).code == 0
    assert clouds.asked() == china
    world.pod(ns, "a", {BINDING_LABEL: "orders"}, node=1)
    podidentity("explain", "pod", f"{ns}/a", "--azure")
    assert clouds.asked() == china
    assert podidentity("delete", "-n", ns, "--name", "orders").code == 0
    assert clouds.asked() == china


def test_an_azure_stack_hub_is_described_by_its_file(
    clouds: Clouds, ns: str, podidentity: Run, tmp_path: Path
) -> None:
    file = tmp_path / "stack.json"
    stack = {
        "activeDirectoryEndpoint": "https://login.stack.example/",
        "resourceManagerEndpoint": "https://management.stack.example/",
        "tokenAudience": "https://management.stack.example/0a1b",
    }
    file.write_text(json.dumps(stack))
    where = ("--cloud=AzureStackCloud", f"--azure-environment-file={file}")
    assert add(podidentity, clouds.identity, ns, "orders", *where).code == 0
    assert clouds.asked() == {"https://management.stack.example"}
    assert clouds.scopes == {"https://management.stack.example/0a1b/.default"}


def test_where_nmi_is_in_a_stack_hub_its_file_must_be_given(
    clouds: Clouds, ns: str, podidentity: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def choices(*_: object) -> Choices:
        return Choices(cloud=None)

    monkeypatch.setattr(add_command, "choices_of_nmi", choices)
    ran = add(podidentity, IDENTITY, ns)
    assert ran.code == 1
    assert "--azure-environment-file" in ran.err
    assert clouds.asked() == set()


def test_a_file_without_a_resource_manager_is_said(
    ns: str, podidentity: Run, tmp_path: Path
) -> None:
    file = tmp_path / "stack.json"
    file.write_text(json.dumps({"activeDirectoryEndpoint": "https://login.stack.example/"}))
    where = ("--cloud=AzureStackCloud", f"--azure-environment-file={file}")
    ran = add(podidentity, IDENTITY, ns, "orders", *where)
    assert ran.code == 1
    assert "resourceManagerEndpoint" in ran.err


@pytest.mark.parametrize(
    "arguments",
    [
        ("add", "-n", "x", "--name", "x", "--system-assigned"),
        ("delete", "-n", "x", "--name", "x"),
        ("explain", "pod", "a/b"),
    ],
    ids=["add", "delete", "explain"],
)
def test_an_unknown_cloud_is_a_wrong_use(podidentity: Run, arguments: tuple[str, ...]) -> None:
    ran = podidentity(*arguments, "--cloud=AzureMoonCloud")
    assert ran.code == 2
    assert "AzureUSGovernmentCloud" in ran.err


@pytest.mark.parametrize(
    ("cloud", "authority"),
    [
        (PUBLIC, None),
        (CLOUDS["azureusgovernmentcloud"], "https://login.microsoftonline.us"),
        (CLOUDS["azurechinacloud"], "https://login.chinacloudapi.cn"),
    ],
    ids=["public", "us", "china"],
)
async def test_a_person_signs_in_at_the_authority_of_the_cloud(
    monkeypatch: pytest.MonkeyPatch, cloud: Cloud, authority: str | None
) -> None:
    """In the public cloud AZURE_AUTHORITY_HOST counts, as for every Azure tool."""
    import azure.identity

    given: list[dict[str, Any]] = []

    class Environment:
        def __init__(self, **options: Any) -> None:
            given.append(options)

        def get_token(self, *_: str) -> None:
            raise azure_login_error()

    monkeypatch.setattr(azure.identity, "EnvironmentCredential", Environment)
    for name in ("AzureCliCredential", "ManagedIdentityCredential"):
        monkeypatch.setattr(azure.identity, name, _nobody())
    with pytest.raises(ArmError):
        await azure_login.AzureLogin(authority=azure_access.authority_of(cloud)).token("x")
    (options,) = given
    assert options.get("authority") == authority


def azure_login_error() -> Exception:
    from azure.identity import CredentialUnavailableError

    return CredentialUnavailableError("nobody is signed in")


def _nobody() -> Callable[[], Any]:
    class Nobody:
        def __init__(self, **_: Any) -> None:
            pass

        def get_token(self, *_: str, **__: Any) -> None:
            raise azure_login_error()

    return Nobody
