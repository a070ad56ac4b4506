"""How MIC signs in: from which configuration, with files that are replaced, and what goes wrong."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from podidentity.adapters.entra.issuer import Reply, TokenEndpoint
from podidentity.core.authorities import CLOUDS, PUBLIC, Cloud
from podidentity.core.errors import TokenRefused, TokenSourceDown, TokenUnavailable
from podidentity.core.resources import AccessToken, ClientId, Grant, ObjectRef
from podidentity.mic.signin import (
    AGAIN,
    AHEAD,
    LOOK,
    Configured,
    Credential,
    Method,
    NoCredential,
    SignIn,
    credential_of,
)
from podidentity.wire.arm import ArmError
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, FakeClock
from tests.jwts import jwt

TENANT = "aaaaaaaa-0000-0000-0000-000000000000"
SCOPE = "https://management.azure.com/.default"
SECRET = Configured(client_id=CLIENT, client_secret="s3cr3t", tenant=TENANT)


def reply(status: int, body: bytes, retry_after: str = "") -> Reply:
    return Reply(status=status, body=body, retry_after=retry_after)


@dataclass
class Entra(TokenEndpoint):
    """Answers each form with the next reply; the last one stays."""

    replies: list[Reply | TokenUnavailable]
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)

    async def post(self, url: str, form: bytes) -> Reply:
        fields = {name: values[0] for name, values in parse_qs(form.decode()).items()}
        self.asked.append((url, fields))
        reply = self.replies[0] if len(self.replies) == 1 else self.replies.pop(0)
        if isinstance(reply, TokenUnavailable):
            raise reply
        return reply


@dataclass
class Machine:
    """IMDS of the machine."""

    asked: list[tuple[Grant, str]] = field(default_factory=list)
    error: TokenUnavailable | None = None

    async def issue(self, grant: Grant, resource: str) -> AccessToken:
        self.asked.append((grant, resource))
        if self.error:
            raise self.error
        return AccessToken(
            value="of-the-machine",
            client_id=ClientId(CLIENT),
            expires_on=int(NOW) + 86_400,
            not_before=int(NOW),
            resource=resource,
        )


def granted(name: str, seconds: int = 3600) -> Reply:
    token = jwt(appid=CLIENT, tid=TENANT, exp=int(NOW) + seconds, nbf=int(NOW), unique=name)
    body = {"access_token": token, "expires_in": seconds, "token_type": "Bearer"}
    return reply(200, json.dumps(body).encode())


def refused(code: int = 7000215) -> Reply:
    body = {
        "error": "invalid_client",
        "error_description": f"AADSTS{code}: Invalid client secret provided. Trace ID: x",
        "error_codes": [code],
    }
    return reply(401, json.dumps(body).encode())


@dataclass
class Scene:
    configured: Configured
    entra: Entra
    machine: Machine = field(default_factory=Machine)
    clock: FakeClock = field(default_factory=FakeClock)
    cloud: Cloud = PUBLIC

    def __post_init__(self) -> None:
        self.sign_in = SignIn(
            lambda: credential_of(self.configured),
            endpoint=self.entra,
            imds=self.machine,
            cloud=self.cloud,
            clock=self.clock,
            own=ObjectRef("kube-system", "mic-1"),
        )


# Which credential


def test_a_managed_identity_comes_before_a_secret_and_that_before_federation(
    tmp_path: Path,
) -> None:
    token = tmp_path / "token"
    token.write_text("assertion\n")
    every = Configured(
        token_file=str(token),
        client_id=CLIENT,
        client_secret="s3cr3t",
        tenant=TENANT,
        managed=True,
        managed_client_id=OTHER_CLIENT,
    )
    found = credential_of(every)
    assert (found.method, str(found.client_id)) == (Method.MANAGED_IDENTITY, OTHER_CLIENT)
    by_secret = credential_of(replace(every, managed=False))
    assert (by_secret.method, by_secret.text) == (Method.SECRET, "s3cr3t")
    federated = credential_of(replace(every, managed=False, client_secret=""))
    assert (federated.method, federated.text) == (Method.FEDERATION, "assertion")


def test_what_an_old_secret_has_in_place_of_a_clients_secret_is_none(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("assertion")
    given = Configured(token_file=str(token), client_id=CLIENT, client_secret="msi", tenant=TENANT)
    assert credential_of(given).method is Method.FEDERATION
    file = tmp_path / "azure.json"
    file.write_text(json.dumps({"aadClientSecret": "of the file"}))
    assert credential_of(replace(given, cloud_config=str(file))).text == "of the file"
    with pytest.raises(NoCredential, match="no credential for Azure"):
        credential_of(replace(given, token_file=""))


def test_without_a_tenant_there_is_no_credential() -> None:
    with pytest.raises(NoCredential, match="tenant"):
        credential_of(Configured(client_id=CLIENT, client_secret="s3cr3t"))


def test_without_a_client_id_the_managed_identity_is_the_machines_own() -> None:
    assert credential_of(Configured(managed=True)) == Credential(method=Method.MANAGED_IDENTITY)


@pytest.mark.parametrize(
    ("configured", "says"),
    [
        (Configured(), "no credential for Azure"),
        (Configured(token_file="/somewhere"), "no credential for Azure"),
        (Configured(client_id="msi", client_secret="x", tenant=TENANT), "must be a GUID"),
        (Configured(client_id=CLIENT, client_secret="x", tenant="a/b"), "The tenant"),
        (Configured(client_id=CLIENT, token_file="/no/token", tenant=TENANT), "No such file"),
        (Configured(managed=True, managed_client_id="mine"), "must be a GUID"),
        (Configured(cloud_config="/no/azure.json"), "--cloudconfig /no/azure.json"),
    ],
)
def test_what_is_missing_is_named_with_the_ways_to_sign_in(
    configured: Configured, says: str
) -> None:
    with pytest.raises(NoCredential, match=says):
        credential_of(configured)


def test_an_empty_token_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("")
    with pytest.raises(NoCredential, match="is empty"):
        credential_of(
            Configured(token_file=str(tmp_path / "token"), client_id=CLIENT, tenant=TENANT)
        )


def test_the_file_of_the_cloud_provider_counts_before_the_variables(tmp_path: Path) -> None:
    file = tmp_path / "azure.json"
    file.write_text(json.dumps({"tenantId": TENANT, "aadClientId": CLIENT, "aadClientSecret": "f"}))
    found = credential_of(
        Configured(cloud_config=str(file), client_id=OTHER_CLIENT, client_secret="v", tenant="t.x")
    )
    assert (str(found.client_id), found.text, str(found.tenant)) == (CLIENT, "f", TENANT)


@pytest.mark.parametrize(("by_file", "by_flag"), [(True, False), (False, True), (False, False)])
def test_file_or_flag_may_say_that_the_machines_identity_signs_in(
    tmp_path: Path, *, by_file: bool, by_flag: bool
) -> None:
    file = tmp_path / "azure.json"
    told = {"tenantId": TENANT, "aadClientId": CLIENT, "aadClientSecret": "f"}
    file.write_text(json.dumps({**told, "useManagedIdentityExtension": by_file}))
    found = credential_of(Configured(cloud_config=str(file), managed=by_flag))
    assert (found.method is Method.MANAGED_IDENTITY) is (by_file or by_flag)


def test_a_credential_shows_no_secret() -> None:
    for shown in (repr(SECRET), repr(credential_of(SECRET)), str(credential_of(SECRET))):
        assert "s3cr3t" not in shown


# Tokens


async def test_a_secret_is_sent_to_the_clouds_authority_and_the_token_kept() -> None:
    scene = Scene(SECRET, Entra([granted("a"), granted("b")]), cloud=CLOUDS["azurechinacloud"])
    first = await scene.sign_in.token(SCOPE)
    assert await scene.sign_in.token(SCOPE) == first
    ((url, form),) = scene.entra.asked
    assert url == f"https://login.chinacloudapi.cn/{TENANT}/oauth2/v2.0/token"
    assert (form["client_secret"], form["scope"]) == ("s3cr3t", SCOPE)
    scene.clock.advance(3600 - AHEAD + 1)
    assert await scene.sign_in.token(SCOPE) != first


async def test_by_federation_the_file_is_read_anew_for_each_token(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("one")
    configured = Configured(token_file=str(file), client_id=CLIENT, tenant=TENANT)
    scene = Scene(configured, Entra([granted("a"), granted("b")]))
    await scene.sign_in.token(SCOPE)
    replacement = tmp_path / "new"
    replacement.write_text("two")
    replacement.rename(file)
    await scene.sign_in.token(SCOPE)
    assert [form["client_assertion"] for _, form in scene.entra.asked] == ["one", "two"]


@pytest.mark.parametrize("how", ["written over", "renamed"])
async def test_a_rotated_secret_is_used_with_the_next_token(tmp_path: Path, how: str) -> None:
    file = tmp_path / "azure.json"

    def content(secret: str) -> str:
        return json.dumps({"tenantId": TENANT, "aadClientId": CLIENT, "aadClientSecret": secret})

    file.write_text(content("old"))
    scene = Scene(Configured(cloud_config=str(file)), Entra([refused(), granted("b")]))
    with pytest.raises(ArmError):
        await scene.sign_in.token(SCOPE)
    if how == "renamed":
        (tmp_path / "new").write_text(content("new"))
        (tmp_path / "new").rename(file)
    else:
        file.write_text(content("new"))
    await scene.sign_in.token(SCOPE)
    assert [form["client_secret"] for _, form in scene.entra.asked] == ["old", "new"]
    assert scene.sign_in.problems() == ()


async def test_a_managed_identity_is_asked_of_imds_for_the_audience() -> None:
    scene = Scene(Configured(managed=True, managed_client_id=CLIENT), Entra([]))
    assert await scene.sign_in.token(SCOPE) == "of-the-machine"
    ((grant, resource),) = scene.machine.asked
    assert (str(grant.identity.client_id), resource) == (CLIENT, "https://management.azure.com")
    own = Scene(Configured(managed=True), Entra([]))
    await own.sign_in.token(SCOPE)
    assert own.machine.asked[0][0].identity.system_assigned


async def test_a_refusal_names_cause_and_next_step_and_is_not_asked_for_again_at_once() -> None:
    scene = Scene(SECRET, Entra([refused()]))
    for _ in range(3):
        with pytest.raises(ArmError, match="AADSTS7000215") as told:
            await scene.sign_in.token(SCOPE)
        assert "Renew the client secret" in str(told.value)
        assert "s3cr3t" not in str(told.value)
        assert (told.value.code, told.value.status) == ("SignIn", 401)
    assert len(scene.entra.asked) == 1
    (problem,) = scene.sign_in.problems()
    assert "AADSTS7000215" in problem
    scene.clock.advance(AGAIN)
    with pytest.raises(ArmError):
        await scene.sign_in.token(SCOPE)
    assert len(scene.entra.asked) == 2


@pytest.mark.parametrize(
    ("error", "says", "status"),
    [
        (TokenRefused("IMDS: no", status=400, error="invalid_request"), "Attach the identity", 401),
        (TokenSourceDown("IMDS did not answer"), "IMDS did not answer", 503),
    ],
)
async def test_what_imds_says_is_told(error: TokenUnavailable, says: str, status: int) -> None:
    scene = Scene(Configured(managed=True), Entra([]), Machine(error=error))
    with pytest.raises(ArmError, match=says) as told:
        await scene.sign_in.token(SCOPE)
    assert (told.value.code, told.value.status) == ("SignIn", status)


async def test_a_missing_configuration_is_a_problem_until_it_is_there() -> None:
    scene = Scene(Configured(), Entra([granted("a")]))
    with pytest.raises(ArmError, match="no credential"):
        await scene.sign_in.token(SCOPE)
    assert scene.sign_in.problems()
    scene.configured = SECRET
    await scene.sign_in.token(SCOPE)
    assert not scene.sign_in.problems()


async def test_a_token_that_azure_does_not_take_is_not_offered_again() -> None:
    scene = Scene(SECRET, Entra([granted("a"), granted("b")]))
    first = await scene.sign_in.token(SCOPE)
    scene.sign_in.rejected()
    assert await scene.sign_in.token(SCOPE) != first


async def test_many_calls_at_once_ask_for_one_token() -> None:
    scene = Scene(SECRET, Entra([granted("a")]))
    tokens: list[Any] = await asyncio.gather(*(scene.sign_in.token(SCOPE) for _ in range(20)))
    assert (len(set(tokens)), len(scene.entra.asked)) == (1, 1)


async def test_a_token_is_there_ahead_of_the_first_call_and_is_renewed_ahead_of_its_end() -> None:
    scene = Scene(SECRET, Entra([granted("first"), granted("second", 7200)]))
    standby = asyncio.create_task(scene.sign_in.run())
    await scene.clock.somebody_slept(LOOK, 1)
    ((_, fields),) = scene.entra.asked
    assert fields["scope"] == SCOPE
    looks = int((3600 - AHEAD) / LOOK)
    for look in range(looks):
        assert len(scene.entra.asked) == 1
        scene.clock.advance(LOOK)
        await scene.clock.somebody_slept(LOOK, look + 2)
    assert len(scene.entra.asked) == 2
    await scene.sign_in.token(SCOPE)
    assert len(scene.entra.asked) == 2
    standby.cancel()


async def test_a_standby_that_cannot_sign_in_says_so_and_tries_again() -> None:
    """Entra knows a federated credential within a minute: MIC is soon ready after that."""
    scene = Scene(SECRET, Entra([*[refused()] * 5, granted("first")]))
    standby = asyncio.create_task(scene.sign_in.run())
    for pause, times in (
        (AGAIN, 1),
        (2 * AGAIN, 1),
        (4 * AGAIN, 1),
        (4 * AGAIN, 2),
        (4 * AGAIN, 3),
    ):
        await scene.clock.somebody_slept(pause, times)
        assert "AADSTS7000215" in scene.sign_in.problems()[0]
        scene.clock.advance(pause)
    await scene.clock.somebody_slept(LOOK, 1)
    assert not scene.sign_in.problems()
    assert len(scene.entra.asked) == 6
    standby.cancel()
