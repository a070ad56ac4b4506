"""What each client really sends, byte for byte, and what it must get.

Requests were recorded from the clients named, or read in their sources where they could not be run.
"""

from __future__ import annotations

import json

import pytest

from podidentity.core.ids import ClientId, ObjectId
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, RESOURCE_ID, VAULT, binding, identity, pod
from tests.nmi.agents import agent

PATH = "/metadata/identity/oauth2/token"
ENCODED = "https%3A%2F%2Fvault.azure.net"
ENCODED_ID = RESOURCE_ID.replace("/", "%2F")
MSAL = """
    x-client-SKU: MSAL.Python
    x-client-Ver: 1.39.0
    x-ms-client-request-id: 3c4f5a1e-0000-4000-8000-000000000000
"""
OBJECT = "77777777-2222-3333-4444-555555555555"

# name → request; all get the pod's one identity.
TOKEN_REQUESTS = {
    "az 2.91": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED} HTTP/1.1{MSAL}",
    "az 2.91 --client-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&client_id={CLIENT} HTTP/1.1{MSAL}",
    "az 2.91 --resource-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1{MSAL}",
    "az 2.91 --object-id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&object_id={OBJECT} HTTP/1.1{MSAL}",
    "azure-identity 1.27 sync": f"GET {PATH}?api-version=2018-02-01&resource={VAULT} HTTP/1.1{MSAL}"
    "User-Agent: azsdk-python-identity/1.27.0 Python/3.11.7",
    "azure-identity 1.27 sync, by resource id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&msi_res_id={RESOURCE_ID} HTTP/1.1{MSAL}",
    "azure-identity 1.27 aio, resource_id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&resource_id={RESOURCE_ID} HTTP/1.1",
    "azure-identity 1.27 aio, mi_res_id": f"GET {PATH}?api-version=2018-02-01"
    f"&resource={VAULT}&mi_res_id={RESOURCE_ID} HTTP/1.1",
    "@azure/identity": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED} HTTP/1.1\n"
    "Content-Type: application/x-www-form-urlencoded",
    "@azure/identity, by client id": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&client_id={CLIENT} HTTP/1.1",
    "go-autorest adal": f"GET {PATH}?api-version=2018-02-01&mi_res_id={ENCODED_ID}"
    f"&resource={ENCODED} HTTP/1.1\nUser-Agent: Go/go1.24 (amd64-linux) go-autorest/adal/v1.0.0",
    "azidentity for Go": f"GET {PATH}?api-version=2018-02-01&claims=%7B%7D&client_id={CLIENT}"
    f"&resource={ENCODED} HTTP/1.1",
    "MSAL.NET": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}&client_id={CLIENT}"
    " HTTP/1.1\nx-client-SKU: MSAL.NetCore",
    "msal4j": f"GET /{PATH}?resource={ENCODED}%2F&api-version=2018-02-01&client_id={CLIENT}"
    " HTTP/1.1",
    "java.net.http": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}%2F HTTP/1.1\n"
    "Connection: Upgrade, HTTP2-Settings\nUpgrade: h2c\nHTTP2-Settings: AAEAAEAAAAIAAAAA",
    "AppAuthentication for .NET": f"GET {PATH}?resource={VAULT}&api-version=2019-11-01"
    f"&client_id={CLIENT} HTTP/1.1",
    "msrestazure": f"GET {PATH}?resource={ENCODED}&api-version=2018-02-01"
    f"&msi_res_id={ENCODED_ID} HTTP/1.1",
    "Terraform": f"GET {PATH}?api-version=2018-02-01&client_id={CLIENT}&resource={ENCODED}"
    " HTTP/1.1\nX-Ms-Identity: 1",
    "AzCopy": f"GET {PATH}?api-version=2018-02-01&client_id={CLIENT.upper()}&resource={ENCODED}"
    " HTTP/1.1",
    "curl": f"GET {PATH}?api-version=2018-02-01&resource={VAULT}/ HTTP/1.1\n"
    "User-Agent: curl/8.14.1\nAccept: */*",
    "encoded parameter names": f"GET {PATH}?api%2Dversion=2018-02-01&resource={ENCODED} HTTP/1.1",
    "metadata in capitals": f"GET /METADATA/identity/oauth2/token?resource={ENCODED} HTTP/1.1",
}

ASKED_WITH_SLASH = {"msal4j", "java.net.http", "curl"}

# name → request of those that only look whether somebody is there.
PROBES = {
    "azure-identity's chain": f"GET {PATH}?api-version=2018-02-01&resource={VAULT} HTTP/1.1",
    "@azure/identity's chain": f"GET {PATH} HTTP/1.1",
    "go-autorest's MSIAvailable": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1",
    "Azure.Identity for .NET's chain": f"GET {PATH}?api-version=2018-02-01&resource={ENCODED}"
    f"&msi-res-id={ENCODED_ID} HTTP/1.1",
    "azure-identity for Java's chain": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1",
    "azure-identity 1.5": f"GET {PATH} HTTP/1.1\nMetadata: true",
    "MSAL.NET's source detection": f"GET {PATH}?api-version=2018-02-01 HTTP/1.1\nMetadata: true",
}

OBJECTS = (
    pod(addresses=("127.0.0.1",)),
    identity(object_id=ObjectId.parse(OBJECT)),
    binding(),
    identity("heavier", client_id=ClientId.parse(OTHER_CLIENT), resource_id=None),
)


@pytest.mark.parametrize("name", TOKEN_REQUESTS)
async def test_a_clients_request_gets_the_eight_strings(name: str) -> None:
    request = TOKEN_REQUESTS[name]
    async with agent(*OBJECTS) as nmi:
        reply = await nmi.ask(f"{request}\nHost: 169.254.169.254\nMetadata: true")
    assert reply.status == 200, reply.body
    assert reply.header("Content-Type") == ["application/json"]
    assert list(reply.json.items()) == [
        ("access_token", "token-1"),
        ("client_id", CLIENT),
        ("expires_in", "86399"),
        ("expires_on", str(int(NOW) + 86_399)),
        ("ext_expires_in", "86399"),
        ("not_before", str(int(NOW))),
        ("resource", VAULT + ("/" if name in ASKED_WITH_SLASH else "")),
        ("token_type", "Bearer"),
    ]
    assert reply.body == json.dumps(reply.json, separators=(",", ":")).encode()


@pytest.mark.parametrize("known", [None, CLIENT])
async def test_an_object_id_is_only_ever_answered_with_its_own_identity(known: str | None) -> None:
    object_id = ObjectId.parse(known) if known else None
    async with agent(OBJECTS[0], identity(object_id=object_id), binding()) as nmi:
        request = f"GET {PATH}?resource={VAULT}&object_id={OBJECT} HTTP/1.1"
        reply = await nmi.ask(f"{request}\nHost: 169.254.169.254\nMetadata: true")
        assert nmi.tokens.asked == []
    assert (reply.status, reply.json["error"]) == (403, "access_denied")
    assert f"It may use: orders ({CLIENT})" in reply.json["error_description"]


@pytest.mark.parametrize("name", PROBES)
async def test_a_probe_gets_400_at_once_and_waits_for_nothing(name: str) -> None:
    unknown = pod(addresses=("10.0.0.1",))
    async with agent(unknown) as nmi:
        reply = await nmi.ask(f"{PROBES[name]}\nHost: 169.254.169.254")
        assert nmi.clock.slept == []
    assert reply.status == 400
    assert reply.json["error"] == "invalid_request"
    assert "Identity not found" not in reply.json["error_description"]
    assert reply.header("Retry-After") == []


@pytest.mark.parametrize("header", ["", "\nMetadata: true"])
@pytest.mark.parametrize("name", ["getplatformmetadata", "issuecredential"])
async def test_imds_v2_is_not_offered(name: str, header: str) -> None:
    """MSAL takes a 400 for `IMDSv2 is there`, and anything but 404 for more of an answer."""
    for method in ("GET", "POST"):
        async with agent() as nmi:
            reply = await nmi.ask(
                f"{method} /metadata/identity/{name}?cred-api-version=2.0 HTTP/1.1\nHost: x{header}"
            )
        assert reply.status == 404
        assert nmi.metadata.asked == []


@pytest.mark.parametrize("value", ["true", "True", "TRUE", " true "])
async def test_the_header_counts_in_any_case(value: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {PATH}?resource=a HTTP/1.1\nHost: x\nmetadata:{value}")
    assert reply.status == 200


@pytest.mark.parametrize("header", ["Metadata: false", "Metadata:", "Metadata: true, true", "X: y"])
async def test_another_value_of_the_header_is_none(header: str) -> None:
    async with agent() as nmi:
        reply = await nmi.ask(f"GET {PATH}?resource=a HTTP/1.1\nHost: x\n{header}")
    assert reply.status == 400
    assert reply.body == (
        b'{"error":"invalid_request","error_description":"Required metadata header not specified"}'
    )
