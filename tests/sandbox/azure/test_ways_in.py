"""The ways to Azure: its DNS, its TLS front, and the proxy for tools outside its world."""

from __future__ import annotations

import asyncio
import socket

import pytest

from podidentity_sandbox.azure.dns import answer
from tests.sandbox.azure.conftest import Azure, resolve


@pytest.mark.parametrize(
    ("name", "kind", "code", "addresses"),
    [
        ("login.microsoftonline.com.", "A", "NOERROR", ["203.0.113.10"]),
        ("STS.windows.net.", "A", "NOERROR", ["203.0.113.10"]),
        ("management.azure.com.", "A", "NOERROR", ["203.0.113.10"]),
        ("management.azure.com.", "AAAA", "NOERROR", []),
        ("kubernetes.default.svc.", "A", "NOERROR", ["203.0.113.6"]),
        ("kubernetes.default.svc.cluster.local.", "A", "NOERROR", ["203.0.113.6"]),
        ("no-such.vault.azure.net.", "A", "NXDOMAIN", []),
        ("example.com.", "A", "NXDOMAIN", []),
        ("management.azure.com.example.com.", "A", "NXDOMAIN", []),
    ],
)
async def test_the_worlds_names_resolve_and_no_others(
    cloud: Azure, name: str, kind: str, code: str, addresses: list[str]
) -> None:
    assert await resolve(cloud, name, kind) == (code, addresses)


@pytest.mark.parametrize("datagram", [b"", b"\0" * 5, b"\xff" * 40])
def test_a_datagram_that_is_no_query_gets_no_answer(datagram: bytes) -> None:
    assert answer(datagram, lambda _: True) is None


async def curl(*words: str) -> tuple[int, str]:
    program = await asyncio.create_subprocess_exec(
        *("curl", "-sS", "-m", "10", *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await program.communicate()
    assert program.returncode is not None
    return program.returncode, output.decode()


async def test_curl_reaches_azure_by_the_proxy_and_checks_its_certificate(cloud: Azure) -> None:
    url = f"https://login.microsoftonline.com/{cloud.plan.tenant_id}/discovery/v2.0/keys"
    code, body = await curl("-x", cloud.proxy, "--cacert", str(cloud.plan.ca_certificate), url)
    assert (code, '"kid"' in body) == (0, True)
    code, body = await curl("-x", cloud.proxy, url)
    assert (code, "certificate" in body) == (60, True)


@pytest.mark.parametrize(
    ("url", "status", "words"),
    [
        ("https://example.com/", "403", "is no name of the sandbox's Azure"),
        ("https://no-such.vault.azure.net/", "403", "or does not exist yet"),
        ("https://management.azure.com:8443/", "403", "on port 443, not on 8443"),
        ("http://example.com/", "405", "CONNECT only"),
    ],
)
async def test_the_proxy_refuses_whatever_is_not_the_sandboxs_azure_and_says_so(
    cloud: Azure, url: str, status: str, words: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", cloud.plan.azure_proxy_port)
    scheme, _, rest = url.partition("://")
    host = rest.rstrip("/")
    target = url if scheme == "http" else host if ":" in host else f"{host}:443"
    method = "GET" if scheme == "http" else "CONNECT"
    writer.write(f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
    reply = (await reader.read()).decode()
    writer.close()
    await writer.wait_closed()
    assert reply.startswith(f"HTTP/1.1 {status} ")
    assert words in reply


async def test_a_host_that_azure_does_not_have_gets_404_from_its_front(cloud: Azure) -> None:
    to = f"::127.0.0.1:{cloud.https_port}"
    words = ("--connect-to", to, "-k", "-o", "/dev/null", "-w", "%{http_code}")
    assert (await curl(*words, "https://no-such.vault.azure.net/secrets/x"))[1] == "404"


async def test_a_client_that_leaves_the_proxy_harms_nobody(cloud: Azure) -> None:
    with socket.create_connection(("127.0.0.1", cloud.plan.azure_proxy_port)) as client:
        client.send(b"CONNECT management.azure.com:443 HTT")
    url = f"https://login.microsoftonline.com/{cloud.plan.tenant_id}/discovery/v2.0/keys"
    assert (await curl("-x", cloud.proxy, "-k", url))[0] == 0
