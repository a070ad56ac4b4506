from __future__ import annotations

import json
import socket
import ssl
from collections.abc import AsyncIterator, Hashable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import parse_qs

import pytest

from podidentity.adapters.azure_transport import AzureTransport
from podidentity.adapters.entra.certificates import Certificates
from podidentity.adapters.entra.client_credentials import (
    Assertions,
    CertificateCredentials,
    CredentialSource,
    FederatedCredentials,
    SecretCredentials,
)
from podidentity.adapters.entra.issuer import EntraIssuer, Reply, TokenEndpoint
from podidentity.adapters.token_cache import TokenCache
from podidentity.core.authorities import CLOUDS, PUBLIC, Cloud
from podidentity.core.errors import NotYetKnown, TokenRefused, TokenSourceDown
from podidentity.core.federation import account_name
from podidentity.core.resources import (
    AssertionSubject,
    Authority,
    AzureIdentity,
    Federation,
    Grant,
    IdentityType,
    Origin,
    ResourceId,
    Tenant,
)
from podidentity.wire.entra import LONGEST_ANSWER, StaleAssertion
from podidentity.wire.kube import KubeError
from tests.adapters.entra.test_client_credentials import Minting
from tests.adapters.scripted import Turn, answers, cuts, hangs, resets, scripted
from tests.fakes import CLIENT, NOW, RESOURCE_ID, VAULT, FakeClock, FakeTokenSource, pod
from tests.jwts import jwt
from tests.principals import (
    REF,
    TENANT,
    FakeSecrets,
    certificate_of,
    federated,
    pem_of,
    principal,
    rsa_key,
    secret,
)

CERTIFICATE = IdentityType.CERTIFICATE
STALE = {"error": "invalid_client", "error_description": "old", "error_codes": [700024]}


class Posted(TokenEndpoint):
    """Answers as the test says, else with a token of the client that asks."""

    def __init__(self) -> None:
        super().__init__(user_agent="ours/1", transport=AzureTransport())
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answers: list[tuple[int, dict[str, Any]]] = []

    async def post(self, url: str, form: bytes) -> Reply:
        fields = {name: only for name, (only,) in parse_qs(form.decode()).items()}
        self.asked.append((url, fields))
        tenant = url.split("/")[3]
        token = jwt(appid=fields["client_id"], tid=tenant, exp=int(NOW) + 3599)
        status, body = 200, {"access_token": token, "expires_in": 3599}
        if self.answers:
            status, body = self.answers.pop(0)
        return Reply(status=status, body=json.dumps(body).encode(), retry_after="")


class Setting:
    """An issuer with everything around it."""

    def __init__(self, *secrets: Any, cloud: Cloud = PUBLIC) -> None:
        self.clock = FakeClock()
        self.secrets = FakeSecrets(*secrets)
        self.server, self.imds, self.endpoint = Minting(self.clock), FakeTokenSource(), Posted()
        assertions = Assertions(self.server, self.imds, self.clock)
        sources: dict[IdentityType, CredentialSource] = {
            IdentityType.SERVICE_PRINCIPAL: SecretCredentials(self.secrets),
            CERTIFICATE: CertificateCredentials(
                self.secrets, Certificates(seconds=100), self.clock
            ),
            IdentityType.FEDERATED: FederatedCredentials(assertions, cloud=cloud, namespace="ours"),
        }
        self.issuers = {
            kind: EntraIssuer(self.endpoint, source, clock=self.clock, cloud=cloud)
            for kind, source in sources.items()
        }

    def credential(self, identity: AzureIdentity, **of_grant: Any) -> Hashable | None:
        grant = Grant(identity=identity, **{"pod": pod(), **of_grant})
        return self.issuers[identity.type].credential(grant)

    async def issue(self, identity: AzureIdentity, **of_grant: Any) -> dict[str, str]:
        """Return the form that Entra was asked with at last."""
        grant = Grant(identity=identity, **{"pod": pod(), **of_grant})
        await self.issuers[identity.type].issue(grant, VAULT)
        return self.endpoint.asked[-1][1]

    @property
    def audience(self) -> str:
        """Of the assertion that the cluster minted at last."""
        (found,) = self.server.asked[-1][1]["spec"]["audiences"]
        return str(found)


SIGNED_IN = secret(clientSecret=b"s3cret")


async def test_a_secret_is_exchanged_for_a_token_of_the_identitys_tenant() -> None:
    world = Setting(SIGNED_IN)
    form = await world.issue(principal())
    assert (form["client_id"], form["client_secret"]) == (CLIENT, "s3cret")
    assert world.endpoint.asked[0][0] == f"{PUBLIC.authority}/{TENANT}/oauth2/v2.0/token"


async def test_authority_and_tenant_are_the_identitys_or_the_grants() -> None:
    world = Setting(SIGNED_IN)
    other = Tenant.parse("bbbbbbbb-2222-3333-4444-555555555555")
    await world.issue(principal(authority=Authority.parse("https://login.windows.net")))
    await world.issue(principal(), tenant=other)
    assert [url.partition("/oauth2")[0] for url, _ in world.endpoint.asked] == [
        f"https://login.windows.net/{TENANT}",
        f"https://login.microsoftonline.com/{other}",
    ]


async def test_a_certificate_is_exchanged_by_an_assertion_of_its_own_each_time() -> None:
    data = pem_of(rsa_key(), certificate_of(rsa_key()))
    world = Setting(secret(certificate=data))
    texts = {(await world.issue(principal(CERTIFICATE)))["client_assertion"] for _ in range(2)}
    assert len(texts) == 2


async def test_an_expired_certificate_is_not_even_sent() -> None:
    data = pem_of(rsa_key(), certificate_of(rsa_key(), ends=NOW - 1))
    world = Setting(secret(certificate=data))
    with pytest.raises(TokenRefused, match="orders-secret cannot be used: the certificate expired"):
        await world.issue(principal(CERTIFICATE))
    assert world.endpoint.asked == []


async def test_a_pod_signs_in_as_its_service_account_or_as_the_identity() -> None:
    world = Setting()
    by_identity = federated(Federation(subject=AssertionSubject.IDENTITY))
    assert (await world.issue(federated()))["client_assertion"] == "assertion-1"
    assert (await world.issue(by_identity))["client_assertion"] == "assertion-2"
    (first, bound), (second, unbound) = world.server.asked
    assert "/namespaces/shop/serviceaccounts/default/" in first
    assert f"/namespaces/ours/serviceaccounts/{account_name(by_identity.ref)}/" in second
    assert "boundObjectRef" in bound["spec"]
    assert "boundObjectRef" not in unbound["spec"]


@pytest.mark.parametrize(
    ("identity", "cloud", "audience"),
    [
        (federated(), PUBLIC, "api://AzureADTokenExchange"),
        (federated(), CLOUDS["azurechinacloud"], "api://AzureADTokenExchangeChina"),
        (
            federated(authority=Authority.parse("https://login.microsoftonline.us")),
            PUBLIC,
            "api://AzureADTokenExchangeUSGov",
        ),
        (
            federated(authority=Authority.parse("https://login.partner.microsoftonline.cn")),
            PUBLIC,
            "api://AzureADTokenExchangeChina",
        ),
        (
            federated(authority=Authority.parse("https://login.example")),
            PUBLIC,
            "api://AzureADTokenExchange",
        ),
        (federated(Federation(audience="api://own")), PUBLIC, "api://own"),
    ],
    ids=["public", "china", "authority of the us", "china's other name", "unknown", "own"],
)
async def test_the_assertion_is_made_out_to_what_the_cloud_expects(
    identity: AzureIdentity, cloud: Cloud, audience: str
) -> None:
    world = Setting(cloud=cloud)
    await world.issue(identity)
    assert world.audience == audience


async def test_a_managed_identity_signs_in_to_an_application_of_another_tenant() -> None:
    world = Setting()
    via = federated(Federation(via=ResourceId.parse(RESOURCE_ID)))
    assert (await world.issue(via))["client_assertion"] == "token-1"
    managed, audience, _ = world.imds.asked[0]
    assert (str(managed.resource_id), audience) == (RESOURCE_ID, "api://AzureADTokenExchange")
    assert world.server.asked == []


async def test_an_assertion_that_is_too_old_for_entra_is_made_anew_once() -> None:
    world = Setting()
    world.endpoint.answers = [(401, STALE)]
    assert (await world.issue(federated()))["client_assertion"] == "assertion-2"
    world.endpoint.answers = [(401, STALE), (401, STALE)]
    with pytest.raises(StaleAssertion):
        await world.issue(federated())
    assert len(world.endpoint.asked) == 4


async def test_a_certificates_assertion_that_is_too_old_is_a_matter_of_the_clock() -> None:
    world = Setting(secret(certificate=pem_of(rsa_key(), certificate_of(rsa_key()))))
    world.endpoint.answers = [(401, STALE)]
    with pytest.raises(StaleAssertion):
        await world.issue(principal(CERTIFICATE))
    assert len(world.endpoint.asked) == 1


async def test_a_secret_that_is_not_read_yet_is_read_first() -> None:
    world = Setting()
    grant = Grant(identity=principal(), pod=pod())
    issuer = world.issuers[grant.identity.type]
    assert issuer.credential(grant) is None
    world.secrets.to_read[REF] = NotYetKnown("no such secret", status=401, error="invalid_client")
    with pytest.raises(NotYetKnown):
        await issuer.ready(grant)
    world.secrets.to_read[REF] = SIGNED_IN
    assert await issuer.ready(grant) == issuer.credential(grant) is not None


def test_whatever_changes_the_token_changes_the_credential() -> None:
    world = Setting(SIGNED_IN)
    other = Tenant.parse("fabrikam.onmicrosoft.com")
    via = Federation(via=ResourceId.parse(RESOURCE_ID))
    found = [
        world.credential(principal()),
        world.credential(principal(CERTIFICATE)),
        world.credential(principal(), tenant=other),
        world.credential(principal(tenant=other, authority=Authority("https://login.example"))),
        world.credential(federated()),
        world.credential(federated(), pod=pod(service_account="web")),
        world.credential(federated(Federation(audience="api://own"))),
        world.credential(federated(Federation(subject=AssertionSubject.IDENTITY))),
        world.credential(federated(via)),
    ]
    world.secrets.of[REF] = secret("d2", clientSecret=b"rotated")
    found.append(world.credential(principal()))
    assert len(set(found)) == len(found)
    assert "s3cret" not in repr(found)


def test_what_changes_no_token_changes_no_credential() -> None:
    world = Setting(SIGNED_IN)
    assert world.credential(federated(), pod=pod("another")) == world.credential(federated())
    assert world.credential(principal(authority=PUBLIC.authority)) == world.credential(principal())


@pytest.mark.parametrize("status", [404, 409], ids=["deleted", "made again"])
async def test_that_one_pod_is_gone_is_not_told_to_the_others_of_its_service_account(
    status: int,
) -> None:
    """The assertion is bound to a pod; the token that Entra gives for it is not."""
    world = Setting()
    gone, stays = pod("gone"), pod("stays")
    cache = TokenCache(world.issuers, world.clock)
    identity = federated()
    world.server.failure = KubeError("no such pod", status=status)
    with pytest.raises(NotYetKnown, match="gone"):
        await cache.fetch(Grant(identity=identity, pod=gone), VAULT)
    world.server.failure = None
    found = await cache.fetch(Grant(identity=identity, pod=stays), VAULT)
    assert found[1] is Origin.ENTRA
    # And the token itself is everybody's.
    assert (await cache.fetch(Grant(identity=identity, pod=pod("new")), VAULT))[1] is Origin.CACHE
    await cache.close()


FORM = b"client_secret=s3cret"


@asynccontextmanager
async def opened(seconds: float = 60) -> AsyncIterator[TokenEndpoint]:
    endpoint = TokenEndpoint(user_agent="ours/1", transport=AzureTransport(), seconds=seconds)
    try:
        yield endpoint
    finally:
        await endpoint.close()


async def test_a_form_is_posted_and_nothing_more_is_said() -> None:
    async with scripted(answers({"a": 1}, 400, "Retry-After: 7\r\n")) as server, opened() as entra:
        reply = await entra.post(f"{server.url}/t/oauth2/v2.0/token", FORM)
    assert (reply.status, reply.body, reply.retry_after) == (400, b'{"a": 1}', "7")
    (asked,) = server.asked
    assert (asked.method, asked.target, asked.body) == ("POST", "/t/oauth2/v2.0/token", FORM)
    lines = asked.head.strip().split("\r\n")[1:]
    assert {"Accept: application/json", "User-Agent: ours/1"} <= {*lines}
    names = {line.split(":")[0].lower() for line in lines}
    assert names == {
        "host",
        "accept",
        "accept-encoding",
        "connection",
        "content-length",
        "content-type",
        "user-agent",
    }
    assert "s3cret" not in repr(reply)


async def test_a_redirect_is_not_followed() -> None:
    async with scripted(answers(b"elsewhere")) as elsewhere, opened() as entra:
        turn = answers(b"", 307, f"Location: {elsewhere.url}/take\r\n")
        async with scripted(turn) as server:
            assert (await entra.post(server.url, FORM)).status == 307
    assert elsewhere.asked == []


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    async with scripted(answers({})) as server, opened() as entra:
        reply = await entra.post(server.url, FORM)
    assert (reply.status, reply.retry_after) == (200, "")


@pytest.mark.parametrize("ends", [cuts, resets])
async def test_a_kept_connection_that_is_closed_costs_no_request(ends: Turn) -> None:
    async with scripted(answers({}), ends, answers({})) as server, opened() as entra:
        await entra.post(server.url, FORM)
        await entra.post(server.url, FORM)
    assert len(server.asked) == 3


@pytest.mark.parametrize(
    ("turn", "seconds", "why"),
    [
        (hangs, 0.2, "did not answer within 0.2 s"),
        (cuts, 60, "cannot be asked"),
        (answers(b"x" * (LONGEST_ANSWER + 1)), 60, f"sent more than {LONGEST_ANSWER} bytes"),
    ],
    ids=["hangs", "resets", "never ends"],
)
async def test_what_fails_is_named_and_says_nothing_of_the_secret(
    turn: Turn, seconds: float, why: str
) -> None:
    async with scripted(turn) as server, opened(seconds=seconds) as entra:
        with pytest.raises(TokenSourceDown, match=why) as caught:
            await entra.post(f"{server.url}/t", FORM)
    assert f"127.0.0.1:{server.port}" in str(caught.value)
    assert "s3cret" not in f"{caught.value!r} {caught.value.__cause__!r}"


async def test_nobody_there_is_down() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    async with opened() as entra:
        with pytest.raises(TokenSourceDown, match="cannot be asked: Connection refused"):
            await entra.post(f"http://127.0.0.1:{port}", FORM)


async def test_the_machines_authorities_are_read_at_first_use_only() -> None:
    asked = 0

    def trust() -> ssl.SSLContext:
        nonlocal asked
        asked += 1
        return ssl.create_default_context()

    endpoint = TokenEndpoint(user_agent="ours/1", transport=AzureTransport(trust=trust))
    assert asked == 0
    async with scripted(answers({})) as server:
        for _ in range(2):
            await endpoint.post(server.url, FORM)
    assert asked == 1
    await endpoint.close()
