"""Identities of every type, in pods: each gets a token that a vault takes, and nobody else's."""

from __future__ import annotations

import asyncio
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.demo.prepare import SECRET_VALUE
from tests.acceptance.directory import Directory, bound, manifest, pod, register, secret
from tests.acceptance.sandbox import Sandbox, opened
from tests.jwts import claims
from tests.sandboxes import own

NAME = own("types")
SDK = (
    "from azure.identity import ManagedIdentityCredential as C;"
    "print(C(client_id='{client_id}').get_token('https://vault.azure.net/.default').token)"
)

PROXY_PORT, PROXY_LOGIN = 3128, "me:pass@word"
PROGRAM = Path(__file__).with_name("forwarding.py")
PROXY = manifest(
    "v1",
    "Pod",
    "proxy",
    spec={
        "containers": [
            {
                "name": "main",
                "image": "idle",
                "command": ["sh", "-c", '"$@" & echo $! >/tmp/pid; sleep infinity', "sh"],
                "args": [
                    *(sys.executable, "-c", PROGRAM.read_text()),
                    *(str(PROXY_PORT), PROXY_LOGIN),
                ],
                "readinessProbe": {"tcpSocket": {"port": PROXY_PORT}, "periodSeconds": 1},
            }
        ]
    },
)


Open = tuple[Sandbox, AzureOperator, asyncio.Runner]


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Open]:
    with opened(NAME) as found:
        yield found


@pytest.fixture(scope="module")
def loop(sandbox: Open) -> asyncio.Runner:
    return sandbox[2]


@pytest.fixture(scope="module")
def here(sandbox: Open) -> Directory:
    place, azure, loop = sandbox
    place.run("podidentity", "enable")
    return loop.run(register(place, azure))


def test_scenario_21_a_service_principal_with_a_secret_reads_the_vault(
    here: Directory, loop: asyncio.Runner
) -> None:
    assert loop.run(here.read(here.client_ids["by-secret"])) == SECRET_VALUE


@pytest.mark.parametrize("name", ["by-pfx", "by-pem", "by-pod", "by-identity"])
def test_certificates_and_federation_read_the_vault(
    here: Directory, loop: asyncio.Runner, name: str
) -> None:
    assert loop.run(here.read(here.client_ids[name])) == SECRET_VALUE


def test_a_managed_identity_signs_in_to_another_tenant(
    here: Directory, loop: asyncio.Runner
) -> None:
    client_id = here.client_ids["via"]
    status, body = loop.run(here.token(client_id))
    assert status == 200, body
    found = claims(body["access_token"])
    assert (found["appid"], found["tid"]) == (client_id, here.azure.tenants.partner.id)


def test_a_pod_of_workload_identity_is_served_as_it_is(
    here: Directory, loop: asyncio.Runner
) -> None:
    client_id = here.client_ids["annotated"]
    assert loop.run(here.read(client_id, pod="annotated")) == SECRET_VALUE


def test_an_sdk_that_knows_only_imds_is_served_in_a_pod_of_workload_identity(
    here: Directory, loop: asyncio.Runner
) -> None:
    program = SDK.format(client_id=here.client_ids["annotated"])
    token = loop.run(here.inside("annotated", f'{sys.executable} -c "{program}"')).strip()
    assert loop.run(here.read_with(token, pod="annotated")) == SECRET_VALUE


def test_a_secret_that_is_rotated_takes_effect_at_once(
    here: Directory, loop: asyncio.Runner
) -> None:
    app = here.apps["by-secret"]
    assert loop.run(here.token(app.client_id))[0] == 200
    new = loop.run(here.azure.add_secret(app))
    loop.run(here.azure.clear_entra_requests())
    assert loop.run(here.token(app.client_id))[0] == 200
    assert loop.run(here.entra_calls(app.client_id)) == []
    here.apply(secret("by-secret", clientSecret=new.value.encode()))
    assert loop.run(here.token(app.client_id))[0] == 200
    (asked,) = loop.run(here.entra_calls(app.client_id))
    assert (asked["credential"], asked["status"]) == ("secret", 200)
    here.apply(secret("by-secret", clientSecret=b"wr-ong"))
    status, body = loop.run(here.token(app.client_id))
    assert (status, body["error"]) == (401, "invalid_client")
    assert "AADSTS7000215" in body["error_description"]
    assert "wr-ong" not in body["error_description"]
    here.apply(secret("by-secret", clientSecret=new.value.encode()))
    assert loop.run(here.token(app.client_id))[0] == 200


def test_a_wrong_secret_under_somebodys_client_id_gets_nothing_and_spoils_nothing(
    here: Directory, loop: asyncio.Runner
) -> None:
    victim = here.apps["by-secret"]
    assert loop.run(here.token(victim.client_id))[0] == 200
    spec: dict[str, Any] = {
        "type": 1,
        "clientID": victim.client_id,
        "tenantID": here.azure.tenants.home.id,
    }
    # Even allowed to use it, as a neighbour of the same team may be.
    here.apply('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}}')
    here.grant("evil", victim.client_id)
    here.apply(
        secret("guess", "evil", clientSecret=b"a-guess"),
        *bound("guess", "evil", clientPassword={"name": "guess"}, **spec),
        pod("thief", "evil"),
    )
    status, body = loop.run(here.token(victim.client_id, pod="thief", namespace="evil"))
    assert (status, body["error"]) == (401, "invalid_client")
    loop.run(here.azure.clear_entra_requests())
    assert loop.run(here.read(victim.client_id)) == SECRET_VALUE
    assert loop.run(here.entra_calls(victim.client_id)) == []


def test_a_managed_identity_is_no_credential_of_whoever_names_it(
    here: Directory, loop: asyncio.Runner
) -> None:
    mine = loop.run(here.app("mine"))
    here.apply('{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "evil"}}')
    here.grant("evil", mine.client_id)
    spec: dict[str, Any] = {"type": 3, "tenantID": here.azure.tenants.home.id}
    here.apply(
        *bound("mine", "evil", clientID=mine.client_id, federation={"via": here.managed}, **spec),
        pod("borrower", "evil"),
    )
    status, body = loop.run(here.token(mine.client_id, pod="borrower", namespace="evil"))
    assert (status, body["error"]) == (403, "access_denied")
    assert here.managed.lower() in body["error_description"]
    assert loop.run(here.entra_calls(mine.client_id)) == []


@pytest.mark.parametrize(
    ("mode", "resource", "status"),
    [
        ("redirect", "https://management.azure.com", 503),
        ("html", "https://management.azure.com/", 503),
        ("rubbish", "https://graph.microsoft.com", 503),
        ("types", "https://graph.microsoft.com/", 503),
        ("cut", "https://storage.azure.com", 503),
        ("reset", "https://storage.azure.com/", 503),
        ("503", "https://database.windows.net", 503),
        ("429", "https://database.windows.net/", 429),
        ("hang", "https://management.core.windows.net/", 503),
    ],
)
def test_while_entra_fails_it_is_told_and_what_is_kept_is_served(
    here: Directory, loop: asyncio.Runner, mode: str, resource: str, status: int
) -> None:
    client_id = here.client_ids["by-secret"]
    assert loop.run(here.token(client_id))[0] == 200
    here.azure.weather(f"entra=[{{effect: {mode}}}]")
    try:
        found, body = loop.run(here.token(client_id, resource=resource))
        assert found == status, body
        # Both the request and its question to Entra have nine seconds: either may end first.
        told = "login.microsoftonline.com|Entra did not answer in time"
        assert re.search(told, body["error_description"]), body
        assert loop.run(here.token(client_id))[0] == 200
    finally:
        here.azure.weather("entra=[]")


def test_a_secret_without_its_key_is_told_to_the_pod_without_a_value(
    here: Directory, loop: asyncio.Runner
) -> None:
    client_id = here.client_ids["by-pem"]
    here.apply(secret("keyless", a=b"x", b=b"y"))
    spec: dict[str, Any] = {
        "type": 1,
        "clientID": client_id,
        "tenantID": here.azure.tenants.home.id,
    }
    here.apply(
        *bound("keyless", label="keyless", clientPassword={"name": "keyless"}, **spec),
        pod("keyless", label="keyless"),
    )
    status, body = loop.run(here.token(client_id, pod="keyless"))
    assert (status, body["error_description"]) == (
        401,
        "Secret keyless cannot be used: it has no key clientSecret, only: a, b.",
    )


def test_behind_a_proxy_entra_alone_is_asked_by_it_and_nothing_is_without_it(
    here: Directory, loop: asyncio.Runner
) -> None:
    here.apply(PROXY)
    seen = json.loads(here.place.run("kubectl", "get", "pod", "proxy", "-o", "json"))
    proxy = f"{seen['status']['podIP']}:{PROXY_PORT}"
    url = f"http://{PROXY_LOGIN.replace('@', '%40', 1)}@{proxy}".encode()
    # Nobody is spared by NO_PROXY.
    here.apply(secret("podidentity-proxy", "kube-system", HTTPS_PROXY=url))
    here.place.run("podidentity", "enable", "--proxy-secret", "podidentity-proxy")
    loop.run(here.azure.clear_imds_requests())
    loop.run(here.azure.clear_entra_requests())
    # The new NMI has no token, and has asked for no permission.
    for name in ("by-secret", "by-pfx", "by-pod", "by-identity", "via"):
        assert loop.run(here.token(here.client_ids[name]))[0] == 200, name
        assert loop.run(here.entra_calls(here.client_ids[name])), name
    assert loop.run(here.azure.imds_requests())
    asked = set(here.place.run("kubectl", "logs", "proxy").splitlines())
    assert asked == {"CONNECT login.microsoftonline.com:443 HTTP/1.1"}

    loop.run(here.inside("proxy", "kill $(cat /tmp/pid)"))
    other = "https://storage.azure.com"
    status, body = loop.run(here.token(here.client_ids["by-pod"], resource=other))
    assert status == 503, body
    assert f"the proxy {proxy} of HTTPS_PROXY cannot be reached" in body["error_description"]
    here.apply(pod("managed", label="managed"))
    own = loop.run(here.azure.arm("GET", here.managed))["properties"]["clientId"]
    status, body = loop.run(here.token(own, pod="managed"))
    assert status == 200, ("IMDS is asked directly", body)
    told = here.place.run("kubectl", "logs", "-n", "kube-system", "daemonset/nmi", "-c", "serve")
    assert "login.microsoftonline.com" in told
    assert not any(secret in told + str(body) for secret in ("pass@word", "pass%40word"))
