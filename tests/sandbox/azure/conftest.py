"""An Azure of its own for each test: on loopback sockets, or without any."""

from __future__ import annotations

import contextlib
import shutil
import socket
import ssl
import tempfile
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import dns.asyncquery
import dns.message
import dns.rcode
import pytest

from podidentity_sandbox.azure.client import AzureOperator
from podidentity_sandbox.azure.main import Listeners, azure
from podidentity_sandbox.azure.state import World
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.authority import write_certificates
from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.plans import Clock, make_plan


def listeners() -> Listeners:
    dns = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    dns.bind(("127.0.0.1", 0))
    tcp = [socket.create_server(("127.0.0.1", 0)) for _ in range(3)]
    return Listeners(https=tcp[0], imds=tcp[1], proxy=tcp[2], dns=dns)


@dataclass(frozen=True)
class Azure:
    """A running Azure: where it is, and what it holds."""

    plan: Plan
    world: World
    clock: Clock
    https_port: int
    imds: str
    """URL of IMDS."""
    dns_port: int

    @property
    def proxy(self) -> str:
        return f"http://127.0.0.1:{self.plan.azure_proxy_port}"

    @property
    def trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.plan.ca_certificate))


@pytest.fixture
def direct(folder: Path) -> Direct:
    return Direct(folder)


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: the path of a Unix socket has at most 107 bytes.
    path = Path(tempfile.mkdtemp(prefix="azure-"))
    yield path
    shutil.rmtree(path)


@contextlib.asynccontextmanager
async def running(folder: Path) -> AsyncIterator[Azure]:
    sockets, clock = listeners(), Clock()
    port = sockets.proxy.getsockname()[1]
    plan = replace(make_plan(folder), azure_proxy_port=port)
    write_certificates(plan)
    https, imds, dns = (s.getsockname()[1] for s in (sockets.https, sockets.imds, sockets.dns))
    async with azure(plan, sockets, clock=clock) as world:
        yield Azure(
            plan=plan,
            world=world,
            clock=clock,
            https_port=https,
            imds=f"http://127.0.0.1:{imds}",
            dns_port=dns,
        )


async def resolve(cloud: Azure, name: str, kind: str = "A") -> tuple[str, list[str]]:
    """Ask the DNS for a name; return the code and the addresses of its answer."""
    query = dns.message.make_query(name, kind)
    reply = await dns.asyncquery.udp(query, "127.0.0.1", port=cloud.dns_port, timeout=60)
    found = [str(record) for records in reply.answer for record in records]
    return dns.rcode.to_text(reply.rcode()), found


@pytest.fixture
async def cloud(folder: Path) -> AsyncIterator[Azure]:
    async with running(folder) as cloud:
        yield cloud


@pytest.fixture
async def operator(cloud: Azure) -> AsyncIterator[AzureOperator]:
    async with AzureOperator(cloud.plan) as operator:
        yield operator
