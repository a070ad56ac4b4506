"""Runs in a pod: as python_sync.py, with the SDK's asynchronous half."""

import asyncio
import base64
import json
import sys
import time

import azure.identity.aio
from azure.keyvault.secrets.aio import SecretClient
from azure.storage.blob.aio import BlobServiceClient


async def whose(credential, scope):
    claims = (await credential.get_token(scope)).token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=="))["appid"]


async def secret(credential, vault, name):
    async with SecretClient(vault, credential) as client:
        return (await client.get_secret(name)).value


async def blob(credential, account, container, name, text):
    async with BlobServiceClient(account, credential=credential) as service:
        held = service.get_container_client(container)
        await held.upload_blob(name, text.encode(), overwrite=True)
        return (await (await held.download_blob(name)).readall()).decode()


def credential_of(task):
    made = getattr(azure.identity.aio, task["credential"])
    if isinstance(task["with"], dict):
        return made(**task["with"])
    return made(*(azure.identity.aio.ManagedIdentityCredential(**each) for each in task["with"]))


async def outcome_of(task):
    began = time.monotonic()
    try:
        async with credential_of(task) as credential:
            outcome = {"value": await globals()[task["call"]](credential, **task["ask"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
        outcome = {"error": type(error).__name__, "message": str(error)}
    return {**outcome, "seconds": time.monotonic() - began}


async def main():
    return [await outcome_of(task) for task in json.loads(sys.argv[1])]


sys.stdout.write(json.dumps(asyncio.run(main())))
