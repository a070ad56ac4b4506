"""`check` on federation: an issuer that Entra can read, credentials that it compares by bytes."""

from __future__ import annotations

import asyncio
import json
import shlex
from typing import Any

import httpx2
import pytest

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.published_issuer import LIMIT, PublishedIssuer, read_issuer
from podidentity.cli.checks.federation import TrustedSubject, issuer_faults, untrusted, wanted
from podidentity.cli.checks.findings import Severity
from podidentity.cli.checks.machines import needed, unattached
from podidentity.cli.checks.rules import matches
from podidentity.core.decision import STRICT
from podidentity.core.federation import account_name
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import (
    AssertionSubject,
    ClientId,
    Entra,
    Federation,
    IdentityType,
    ObjectRef,
    ResourceId,
    Tenant,
)
from tests.cli.ids import IDENTITY
from tests.fakes import CLIENT, binding, cluster, identity, pod

ISSUER = "https://issuer.example/cluster/"
AUDIENCE = "api://AzureADTokenExchange"
MANAGED = ResourceId.parse(IDENTITY)
ORDERS = ObjectRef("shop", "orders")
SUBJECT = "system:serviceaccount:shop:default"
NEEDED = TrustedSubject(issuer=ISSUER, subject=SUBJECT, audience=AUDIENCE)
DOCUMENT = {"issuer": ISSUER, "jwks_uri": "https://issuer.example/keys"}
KEYS = {"keys": [{"kid": "1"}]}


def published(answers: dict[str, httpx2.Response], issuer: str = ISSUER) -> PublishedIssuer:
    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path not in answers:
            raise httpx2.ConnectError("nobody listens", request=request)
        return answers[request.url.path]

    return asyncio.run(read_issuer(issuer, httpx2.MockTransport(answer)))


def answered(document: Any = DOCUMENT, keys: Any = KEYS, status: int = 200) -> PublishedIssuer:
    where = "/cluster/.well-known/openid-configuration"
    return published(
        {where: httpx2.Response(status, json=document), "/keys": httpx2.Response(200, json=keys)}
    )


def nested(depth: int) -> PublishedIssuer:
    where = "/cluster/.well-known/openid-configuration"
    return published({where: httpx2.Response(200, content=b"[" * depth)})


def test_an_issuer_that_publishes_its_keys_is_well() -> None:
    found = answered()
    assert found == PublishedIssuer(issuer=ISSUER, keys=1)
    assert list(issuer_faults(ISSUER, found)) == []


@pytest.mark.parametrize(
    ("found", "reason", "text"),
    [
        (lambda: published({}), "IssuerSilent", "nobody listens"),
        (lambda: published({}, "http://a.example"), "IssuerUnreadable", "it is not at https"),
        (lambda: answered(status=403), "IssuerUnreadable", "answers 403"),
        (lambda: answered([1]), "IssuerUnreadable", "is no object"),
        (lambda: answered({"issuer": ISSUER}), "IssuerUnreadable", "the place of its keys"),
        (lambda: answered(keys={"keys": []}), "IssuerUnreadable", "it publishes no keys"),
        (lambda: answered({**DOCUMENT, "x": "y" * LIMIT}), "IssuerUnreadable", "is larger than"),
        (lambda: answered({**DOCUMENT, "issuer": ISSUER[:-1]}), "IssuerDiffers", "cluster'"),
        (lambda: nested(100_000), "IssuerUnreadable", "is no JSON"),
        (lambda: answered({"jwks_uri": "https://[::x/"}), "IssuerUnreadable", "is no URL"),
    ],
    ids=[
        *("silent", "http", "403", "no object", "no keys' place", "no keys", "too large", "slash"),
        *("nested without end", "keys at no URL"),
    ],
)
def test_an_issuer_that_entra_cannot_read_is_found_with_the_reason(
    found: Any, reason: str, text: str
) -> None:
    (only,) = issuer_faults(ISSUER, found())
    assert only.reason == reason
    assert text in only.what
    silent = reason == "IssuerSilent"
    assert (only.severity is Severity.WARNING) is silent, "from elsewhere it may be readable"


# ---- Federated credentials


def judged(*there: TrustedSubject, number: int = 1) -> list[Any]:
    return list(untrusted(ORDERS, MANAGED, [NEEDED], there, number))


def test_a_credential_of_these_very_bytes_is_well() -> None:
    assert judged(NEEDED) == []


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"issuer": ISSUER[:-1]}, f"its issuer '{ISSUER[:-1]}' from '{ISSUER}'"),
        ({"issuer": ISSUER.upper()}, "its issuer 'HTTPS://"),
        ({"subject": "system:serviceaccount:Shop:default"}, "its subject"),
        ({"audience": AUDIENCE.lower()}, "its audience"),
        ({"subject": f"{SUBJECT} "}, "its subject"),
    ],
)
def test_a_credential_that_differs_by_a_slash_or_a_letter_is_told_byte_for_byte(
    changes: dict[str, str], text: str
) -> None:
    near = TrustedSubject(**{"issuer": ISSUER, "subject": SUBJECT, "audience": AUDIENCE, **changes})
    (found,) = judged(near)
    assert (found.reason, found.about) == ("CredentialDiffers", ORDERS)
    assert text in found.what
    assert f"--issuer {ISSUER}" in found.mend


def test_a_subject_that_no_credential_trusts_is_found_with_the_command() -> None:
    other = TrustedSubject(
        issuer=ISSUER, subject="system:serviceaccount:bank:web", audience=AUDIENCE
    )
    (found,) = judged(other)
    assert found.reason == "NoFederatedCredential"
    assert f"--subject {SUBJECT} --audiences {AUDIENCE}" in found.mend


def test_of_an_application_the_command_is_that_for_applications() -> None:
    (found,) = untrusted(ORDERS, ClientId.parse(CLIENT), [NEEDED], [], 0)
    assert f"No federated credential of application {CLIENT} trusts {SUBJECT}" in found.what
    command = shlex.split(found.mend.removeprefix("Run ").removesuffix("."))
    assert command[:4] == ["az", "ad", "app", "federated-credential"]
    assert command[5:7] == ["--id", CLIENT]
    assert json.loads(command[-1]) == {
        "name": "shop-orders",
        "issuer": ISSUER,
        "subject": SUBJECT,
        "audiences": [AUDIENCE],
    }


@pytest.mark.parametrize(("number", "reasons"), [(19, []), (20, ["CredentialsFull"])])
def test_twenty_credentials_are_all_that_an_identity_may_have(
    number: int, reasons: list[str]
) -> None:
    assert [each.reason for each in judged(NEEDED, number=number)] == reasons


def federated(subject: AssertionSubject, audience: str = "") -> Any:
    trust = Federation(subject=subject, audience=audience)
    entra = Entra(tenant=Tenant.parse("contoso.com"), federation=trust)
    return identity(type=IdentityType.FEDERATED, entra=entra)


def test_what_entra_must_trust_are_the_accounts_of_the_pods_or_that_of_the_identity() -> None:
    pods = [
        pod("a", addresses=("10.0.0.1",)),
        pod("b", addresses=("10.0.0.2",)),
        pod("c", addresses=("10.0.0.3",), service_account="web"),
        pod("d", addresses=("10.0.0.4",), service_account="x", labels={}),
    ]

    def of(found: Any) -> list[TrustedSubject]:
        known = cluster(SystemClock(), found, binding(), *pods)
        return wanted(found, ISSUER, AUDIENCE, matches(known, STRICT), "accounts")

    assert [each.subject for each in of(federated(AssertionSubject.POD))] == [
        "system:serviceaccount:shop:default",
        "system:serviceaccount:shop:web",
    ]
    (own,) = of(federated(AssertionSubject.IDENTITY, "api://own"))
    assert own.subject == f"system:serviceaccount:accounts:{account_name(ORDERS)}"
    assert own.audience == "api://own"


# ---- Machines

SET = Host.parse(
    "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/pool"
)


def test_an_identity_that_the_machine_of_its_pods_lacks_is_found_once() -> None:
    pods = [
        pod("a", node="n", addresses=("10.0.0.1",)),
        pod("b", node="n", addresses=("10.0.0.2",)),
        pod("c", node="elsewhere", addresses=("10.0.0.3",)),
    ]
    of_machine = identity(resource_id=MANAGED)
    known = cluster(SystemClock(), of_machine, binding(), *pods)
    ((host, wanted_there),) = needed(matches(known, STRICT), {"n": SET}).items()
    assert host == SET
    lacks, has = HostIdentities(), HostIdentities(user={MANAGED.folded: str(MANAGED)})
    (found,) = unattached(SET, wanted_there, lacks)
    assert (found.reason, found.about) == ("NotAttached", ORDERS)
    assert (
        "is not attached to scale set pool, on which it is wanted by shop/a, shop/b" in found.what
    )
    assert list(unattached(SET, wanted_there, has)) == []


def test_what_an_issuer_names_writes_nothing_to_the_terminal() -> None:
    where = "/cluster/.well-known/openid-configuration"
    odd = {"jwks_uri": "https://issuer.example/keys?\x9b2J\u202e"}
    found = published(
        {where: httpx2.Response(200, json=odd), "/keys": httpx2.Response(404, json={})}
    )
    assert "answers 404" in found.problem
    assert found.problem.isprintable()
