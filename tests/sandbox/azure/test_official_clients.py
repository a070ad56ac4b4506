"""Azure's own Python SDK as the judge of the judge: it takes the sandbox for Azure."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from typing import Any

from podidentity_sandbox.azure.client import AzureOperator
from tests.sandbox.azure.conftest import Azure

READ_SECRET = """
import json, sys
from azure.core.exceptions import HttpResponseError
from azure.identity import ManagedIdentityCredential
from azure.keyvault.secrets import SecretClient

client_id, *vaults = sys.argv[1:]
with ManagedIdentityCredential(client_id=client_id) as credential:
    for vault in vaults:
        with SecretClient(f"https://{vault}.vault.azure.net", credential) as client:
            try:
                print(json.dumps(client.get_secret("demo").value))
            except HttpResponseError as error:
                print(json.dumps([error.status_code, error.error.code]))
"""
SET_SECRET = """
import json, os, sys
from azure.core.exceptions import ClientAuthenticationError
from azure.identity import ClientSecretCredential
from azure.keyvault.secrets import SecretClient

tenant, client, secret, vault = sys.argv[1:]
with ClientSecretCredential(tenant, client, secret) as credential:
    with SecretClient(f"https://{vault}.vault.azure.net", credential) as vault_client:
        made = vault_client.set_secret("demo", "s3cret", tags={"a": "b"})
        read = vault_client.get_secret("demo", made.properties.version)
        print(json.dumps([read.value, read.properties.tags]))
with ClientSecretCredential(tenant, client, "wrong") as credential:
    try:
        credential.get_token("https://management.azure.com/.default")
    except ClientAuthenticationError as error:
        print(json.dumps(error.message.splitlines()[0]))
"""


async def run(cloud: Azure, script: str, *words: str) -> list[Any]:
    kept = {"PATH": os.environ["PATH"]}
    trust = {"HTTPS_PROXY": cloud.proxy, "REQUESTS_CA_BUNDLE": str(cloud.plan.ca_certificate)}
    place = {"AZURE_POD_IDENTITY_AUTHORITY_HOST": cloud.imds}
    program = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", script, *words),
        env={**kept, **trust, **place},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    output, errors = await program.communicate()
    assert program.returncode == 0, errors.decode()
    return [json.loads(line) for line in output.splitlines()]


async def test_a_managed_identity_reads_the_vault_that_grants_it_and_no_other(
    cloud: Azure, operator: AzureOperator
) -> None:
    await operator.arm_delay(0)
    await operator.create_group("demo")
    identity = await operator.create_identity("demo", "mine")
    await operator.create_vault("demo", "open-kv", readers=[identity["principalId"]])
    await operator.create_vault("demo", "closed-kv")
    await operator.put_secret("open-kv", "demo", "s3cret")
    body = {"identity": {"type": "UserAssigned", "userAssignedIdentities": {identity["id"]: {}}}}
    await operator.arm("PATCH", cloud.plan.scale_set_id, body)
    answers = await run(cloud, READ_SECRET, identity["clientId"], "open-kv", "closed-kv")
    assert answers == ["s3cret", [403, "Forbidden"]]


async def test_a_service_principal_signs_in_and_sets_a_secret(
    cloud: Azure, operator: AzureOperator
) -> None:
    await operator.create_group("demo")
    await operator.create_vault("demo", "my-kv")
    plan = cloud.plan
    words = (plan.tenant_id, plan.operator_id, plan.operator_secret, "my-kv")
    answers = await run(cloud, SET_SECRET, *words)
    assert answers[0] == ["s3cret", {"a": "b"}]
    assert "AADSTS7000215: Invalid client secret provided." in answers[1]
