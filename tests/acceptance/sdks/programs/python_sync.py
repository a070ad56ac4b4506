"""Runs in a pod: calls of Azure's SDK for Python, and what came of each, as a list in JSON.

Its argument is a list in JSON of: credential (a class of azure.identity), with (its arguments),
call (a function below), ask (its arguments). A chain's argument is a list, of managed identities.
"""

import base64
import json
import sys
import time

import azure.identity
from azure.keyvault.secrets import SecretClient
from azure.storage.blob import BlobServiceClient


def whose(credential, scope):
    claims = credential.get_token(scope).token.split(".")[1]
    return json.loads(base64.urlsafe_b64decode(claims + "=="))["appid"]


def secret(credential, vault, name):
    with SecretClient(vault, credential) as client:
        return client.get_secret(name).value


def blob(credential, account, container, name, text):
    with BlobServiceClient(account, credential=credential) as service:
        held = service.get_container_client(container)
        held.upload_blob(name, text.encode(), overwrite=True)
        return held.download_blob(name).readall().decode()


def credential_of(task):
    made = getattr(azure.identity, task["credential"])
    if isinstance(task["with"], dict):
        return made(**task["with"])
    return made(*(azure.identity.ManagedIdentityCredential(**each) for each in task["with"]))


def outcome_of(task):
    began = time.monotonic()
    try:
        with credential_of(task) as credential:
            outcome = {"value": globals()[task["call"]](credential, **task["ask"])}
    except Exception as error:  # noqa: BLE001 - whatever it is, the test judges it
        outcome = {"error": type(error).__name__, "message": str(error)}
    return {**outcome, "seconds": time.monotonic() - began}


sys.stdout.write(json.dumps([outcome_of(task) for task in json.loads(sys.argv[1])]))
