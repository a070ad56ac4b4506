"""Azure's own Python SDK signs in with a certificate; tests/acceptance/sdks shows the rest."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from tests.principals import certificate_of, pem_of, rsa_key
from tests.sandbox.azure.conftest import Azure
from tests.sandbox.azure.direct import claims_of

CERTIFICATE = """
import json, sys
from azure.identity import CertificateCredential

client, path, *tenants = sys.argv[1:]
for tenant in tenants:
    for more in ({}, {"send_certificate_chain": True}):
        with CertificateCredential(tenant, client, path, **more) as credential:
            print(json.dumps(credential.get_token("https://vault.azure.net/.default").token))
"""


async def run(cloud: Azure, script: str, *words: str) -> list[Any]:
    kept = {"PATH": os.environ["PATH"]}
    trust = {"HTTPS_PROXY": cloud.proxy, "REQUESTS_CA_BUNDLE": str(cloud.plan.ca_certificate)}
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", script, *words),
        env={**kept, **trust},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()]


async def test_an_application_signs_in_with_its_certificate_in_each_of_its_tenants(
    cloud: Azure, operator: AzureOperator
) -> None:
    app = await operator.make_app("mine", multi_tenant=True)
    partner = operator.tenants.partner
    await operator.provision(app, partner)
    pem = pem_of(rsa_key(), certificate_of(rsa_key(), starts=0, ends=4_000_000_000))
    await operator.add_certificate(app, pem)
    path = cloud.plan.path / "app.pem"
    path.write_bytes(pem)
    tenants = [app.tenant.id, partner.id]
    tokens = await run(cloud, CERTIFICATE, app.client_id, str(path), *tenants)
    claims = list(map(claims_of, tokens))
    assert [one["tid"] for one in claims] == [tenants[0]] * 2 + [tenants[1]] * 2
    assert {one["appid"] for one in claims} == {app.client_id}
