"""Entra as a client on the wire meets it: faults, the journal, the operator's own calls."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from podidentity_sandbox.azure.client import AzureError, AzureOperator
from podidentity_sandbox.azure.faults import REDIRECTED
from podidentity_sandbox.azure.registrations import App, AppSecret
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.registered import certified

VAULT = "https://vault.azure.net"


@pytest.fixture
async def app(operator: AzureOperator) -> tuple[App, AppSecret]:
    made = await operator.make_app("mine")
    return made, await operator.add_secret(made)


async def token(
    cloud: Azure, who: tuple[App, AppSecret], *, host: str = "login.microsoftonline.com"
) -> tuple[int, str, Mapping[str, str]]:
    app, secret = who
    form = {
        "grant_type": "client_credentials",
        "client_id": app.client_id,
        "client_secret": secret.value,
        "scope": f"{VAULT}/.default",
    }
    url = f"https://{host}/{app.tenant.id}/oauth2/v2.0/token"
    async with (
        aiohttp.ClientSession() as session,
        session.post(
            url, data=form, proxy=cloud.proxy, ssl=cloud.trust, allow_redirects=False
        ) as response,
    ):
        return response.status, await response.text(), response.headers


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("rubbish", (200, "<html>")),
        ("cut", (200, '{"token_type":"Bearer","expires_in":"86')),
        ("types", (200, '"access_token":7')),
        ("html", (502, "502 Bad Gateway")),
        ("500", (500, "AADSTS90033")),
        ("503", (503, "AADSTS90033")),
        ("429", (429, "AADSTS90055")),
    ],
)
async def test_a_fault_answers_in_place_of_entra(
    cloud: Azure,
    operator: AzureOperator,
    app: tuple[App, AppSecret],
    mode: str,
    expected: tuple[int, str],
) -> None:
    await operator.entra_fault(mode, seconds=7)
    got, text, headers = await token(cloud, app)
    assert (got, expected[1] in text) == (expected[0], True)
    assert headers.get("Retry-After") == ("7" if mode in {"429", "503"} else None)
    await operator.entra_fault()
    assert (await token(cloud, app))[0] == 200


async def test_a_redirect_leads_to_another_host(
    cloud: Azure, operator: AzureOperator, app: tuple[App, AppSecret]
) -> None:
    await operator.entra_fault("redirect")
    status, _, headers = await token(cloud, app)
    assert (status, headers["Location"]) == (307, REDIRECTED)


async def test_a_fault_may_strike_a_few_requests_only(
    cloud: Azure, operator: AzureOperator, app: tuple[App, AppSecret]
) -> None:
    await operator.entra_fault("500", times=2)
    assert [(await token(cloud, app))[0] for _ in range(3)] == [500, 500, 200]


async def test_a_reset_and_a_hang_are_seen_by_the_client(
    cloud: Azure, operator: AzureOperator, app: tuple[App, AppSecret]
) -> None:
    await operator.entra_fault("reset")
    with pytest.raises(aiohttp.ClientError):
        await token(cloud, app)
    await operator.entra_fault("hang")
    await operator.clear_entra_requests()
    waiting = asyncio.create_task(token(cloud, app))
    while not await operator.entra_requests():
        pass  # each question is a round trip, in which the request comes further
    assert not waiting.done()
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_the_journal_counts_requests_and_holds_no_secret(
    cloud: Azure, operator: AzureOperator, app: tuple[App, AppSecret]
) -> None:
    await operator.clear_entra_requests()
    await token(cloud, app)
    await token(cloud, (app[0], AppSecret(key_id="", value="wrong")))
    first, second = await operator.entra_requests()
    assert {key: first[key] for key in ("grant_type", "client_id", "tenant", "scope")} == {
        "grant_type": "client_credentials",
        "client_id": app[0].client_id,
        "tenant": app[0].tenant.id,
        "scope": f"{VAULT}/.default",
    }
    assert (first["credential"], first["status"], first["code"]) == ("secret", 200, 0)
    assert (second["status"], second["code"]) == (401, 7000215)
    assert app[1].value not in str([first, second])


async def test_the_operator_registers_in_every_tenant(
    cloud: Azure, operator: AzureOperator
) -> None:
    for tenant in operator.tenants.all:
        made = await operator.make_app("there", tenant=tenant)
        who = made, await operator.add_secret(made)
        status, text, _ = await token(cloud, who, host=tenant.cloud.logins[-1])
        national = tenant.cloud is not operator.tenants.home.cloud
        assert (status, "AADSTS500011" in text) == ((400, True) if national else (200, False))


async def test_the_operator_sets_up_all_kinds_of_credentials(
    cloud: Azure, operator: AzureOperator
) -> None:
    app = await operator.make_app("several", multi_tenant=True)
    assert await operator.provision(app, operator.tenants.partner)
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    certificate = certified(key, starts=timedelta(0), ends=timedelta(days=1))
    await operator.add_certificate(app, certificate.public_bytes(serialization.Encoding.PEM))
    expired = await operator.add_secret(app, ends=datetime.now(UTC) - timedelta(days=1))
    assert "AADSTS7000222" in (await token(cloud, (app, expired)))[1]
    await operator.remove_secret(app, expired.key_id)
    await operator.remove_certificates(app)
    await operator.create_group("demo")
    identity = await operator.create_identity("demo", "mine")
    for owner in (app, identity["id"]):
        await operator.add_federated_credential(owner, "k8s", issuer="https://i", subject="s")
        await operator.delete_federated_credential(owner, "k8s")
    with pytest.raises(AzureError, match="must have 1 to 600 characters"):
        await operator.add_federated_credential(app, "k8s", issuer="", subject="s")
    await operator.token_lifetime(60)
    await operator.credential_delay(5)
    assert (cloud.world.token_lifetime, cloud.world.credential_delay) == (60, 5)
