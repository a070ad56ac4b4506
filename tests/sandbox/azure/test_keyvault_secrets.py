"""Secrets in a vault: versions, what is said of them, lists, and how they are deleted.

Shapes: https://learn.microsoft.com/rest/api/keyvault/secrets; the source of each error's words
stands beside it.
"""

from __future__ import annotations

import json
from typing import Any

import pytest

from podidentity_sandbox.azure.messages import Request
from podidentity_sandbox.azure.seed import operator_object_id
from podidentity_sandbox.azure.state import Vault
from tests.sandbox.azure.direct import Direct

RESOURCE = "https://vault.azure.net"
URI = "https://my-kv.vault.azure.net"


class Client:
    """A client of the vault my-kv, whose permissions are given."""

    def __init__(self, direct: Direct, *permissions: str) -> None:
        self._direct = direct
        operator = operator_object_id(direct.plan)
        policy = {"objectId": operator, "permissions": {"secrets": list(permissions)}}
        direct.world.put(
            Vault(id="/v", name="my-kv", location="westeurope", tags={}, sku={}, policies=(policy,))
        )

    def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        request = Request(
            method=method,
            target=f"{path}?api-version=7.4",
            host="my-kv.vault.azure.net",
            headers={"authorization": f"Bearer {self._direct.token(RESOURCE)}"},
            body=json.dumps(body).encode() if body is not None else b"",
        )
        reply = self._direct.vaults.handle(request)
        return reply.status, json.loads(reply.body) if reply.body else None

    def made(self, method: str, path: str, body: object = None) -> Any:
        status, answer = self.call(method, path, body)
        assert status < 300, answer
        return answer

    def refused(self, method: str, path: str, body: object = None) -> tuple[int, str, str]:
        status, answer = self.call(method, path, body)
        return status, answer["error"]["code"], answer["error"]["message"]


@pytest.fixture
def client(direct: Direct) -> Client:
    return Client(direct, "all")


def test_a_secret_keeps_what_was_said_of_it(client: Client, direct: Direct) -> None:
    body = {
        "value": "v",
        "contentType": "text/plain",
        "tags": {"a": "b"},
        "attributes": {"enabled": True, "nbf": 1, "exp": 2},
    }
    made = client.made("PUT", "/secrets/demo", body)
    assert client.made("GET", "/secrets/demo") == made
    assert made["id"].startswith(f"{URI}/secrets/demo/")
    now = int(direct.clock.now)
    assert made["attributes"] == {
        "enabled": True,
        "nbf": 1,
        "exp": 2,
        "created": now,
        "updated": now,
        "recoveryLevel": "Recoverable+Purgeable",
        "recoverableDays": 90,
    }
    assert (made["contentType"], made["tags"], made["value"]) == ("text/plain", {"a": "b"}, "v")


def test_an_update_changes_what_is_said_of_a_version_and_not_its_value(
    client: Client, direct: Direct
) -> None:
    first = client.made("PUT", "/secrets/demo", {"value": "1", "tags": {"a": "b"}})
    client.made("PUT", "/secrets/demo", {"value": "2"})
    direct.clock.now += 10
    path = first["id"].removeprefix(URI)
    changed = client.made("PATCH", path, {"contentType": "x", "attributes": {"exp": 5}})
    assert "value" not in changed
    read = client.made("GET", path)
    assert (read["value"], read["contentType"], read["tags"]) == ("1", "x", {"a": "b"})
    assert read["attributes"]["updated"] == read["attributes"]["created"] + 10
    assert "contentType" not in client.made("GET", "/secrets/demo")


def test_lists_hold_no_values(client: Client) -> None:
    for name, value in (("b", "1"), ("A", "2"), ("b", "3")):
        client.made("PUT", f"/secrets/{name}", {"value": value})
    listed = client.made("GET", "/secrets")
    assert [each["id"] for each in listed["value"]] == [f"{URI}/secrets/A", f"{URI}/secrets/b"]
    assert listed["nextLink"] is None
    versions = client.made("GET", "/secrets/b/versions")["value"]
    newest = client.made("GET", "/secrets/b")["id"]
    assert len(versions) == 2
    assert newest in [each["id"] for each in versions]
    assert "value" not in json.dumps([listed["value"], versions])


def test_a_disabled_secret_cannot_be_read_but_listed_and_enabled(client: Client) -> None:
    client.made("PUT", "/secrets/demo", {"value": "1", "attributes": {"enabled": False}})
    status, answer = client.call("GET", "/secrets/demo")
    # https://github.com/Azure/azure-sdk-for-js/issues/24756
    assert (status, answer["error"]) == (
        403,
        {
            "code": "Forbidden",
            "message": "Operation get is not allowed on a disabled secret.",
            "innererror": {"code": "SecretDisabled"},
        },
    )
    assert client.made("GET", "/secrets")["value"][0]["attributes"]["enabled"] is False
    client.made("PATCH", "/secrets/demo", {"attributes": {"enabled": True}})
    assert client.made("GET", "/secrets/demo")["value"] == "1"


def test_an_expired_secret_is_read_all_the_same(client: Client) -> None:
    # https://github.com/Azure/AzureKeyVault/issues/19
    client.made(
        "PUT", "/secrets/demo", {"value": "1", "attributes": {"exp": 1, "nbf": 4_000_000_000}}
    )
    assert client.made("GET", "/secrets/demo")["value"] == "1"


def test_a_deleted_secret_waits_to_be_recovered_or_purged(client: Client, direct: Direct) -> None:
    made = client.made("PUT", "/secrets/demo", {"value": "1"})
    gone = client.made("DELETE", "/secrets/demo")
    assert gone["recoveryId"] == f"{URI}/deletedsecrets/demo"
    assert gone["deletedDate"] == int(direct.clock.now)
    assert gone["scheduledPurgeDate"] == gone["deletedDate"] + 90 * 86_400
    assert (gone["id"], "value" in gone) == (made["id"], False)
    assert client.made("GET", "/deletedsecrets/demo") == gone
    assert client.made("GET", "/secrets")["value"] == []
    assert len(client.made("GET", "/deletedsecrets")["value"]) == 1
    # https://github.com/Azure/azure-rest-api-specs/issues/9222
    assert client.refused("PUT", "/secrets/demo", {"value": "2"}) == (
        409,
        "Conflict",
        "Secret demo is currently in a deleted but recoverable state, and its name cannot be"
        " reused; in this state, the secret can only be recovered or purged.",
    )
    client.made("POST", "/deletedsecrets/demo/recover")
    assert client.made("GET", "/secrets/demo")["value"] == "1"
    client.made("DELETE", "/secrets/demo")
    assert client.call("DELETE", "/deletedsecrets/demo") == (204, None)
    assert client.made("PUT", "/secrets/demo", {"value": "2"})["id"] != made["id"]


@pytest.mark.parametrize(
    ("asked", "body", "expected"),
    [
        # https://github.com/Azure/azure-sdk-for-net/issues/26027
        (
            "GET /deletedsecrets/demo",
            None,
            (404, "SecretNotFound", "Deleted Secret not found: demo"),
        ),
        ("DELETE /secrets/demo", None, (404, "SecretNotFound", "A secret with (name/id) demo was")),
        ("PATCH /secrets/demo", {}, (404, "SecretNotFound", "A secret with (name/id) demo was")),
        ("PUT /secrets/demo", {}, (400, "BadParameter", "Property value is required")),
        (
            "PUT /secrets/demo",
            {"value": "1", "attributes": {"enabled": "yes"}},
            (400, "BadParameter", "Property enabled has invalid value"),
        ),
        ("PUT /secrets/a_b", {"value": "1"}, (400, "BadParameter", "The request URI contains an")),
        ("GET /keys/demo", None, (404, "NotFound", "The sandbox serves secrets only.")),
    ],
)
def test_nonsense_is_refused(
    client: Client, asked: str, body: object, expected: tuple[int, str, str]
) -> None:
    method, path = asked.split(" ")
    status, code, message = client.refused(method, path, body)
    assert (status, code) == expected[:2]
    assert message.startswith(expected[2])


OPERATIONS = {
    "GET /secrets": "list",
    "GET /secrets/demo": "get",
    "GET /secrets/demo/versions": "list",
    "PUT /secrets/demo": "set",
    "PATCH /secrets/demo": "set",
    "DELETE /secrets/demo": "delete",
    "GET /deletedsecrets": "list",
    "GET /deletedsecrets/demo": "get",
    "POST /deletedsecrets/demo/recover": "recover",
    "DELETE /deletedsecrets/demo": "purge",
}


@pytest.mark.parametrize("asked", OPERATIONS)
def test_each_operation_needs_its_permission(direct: Direct, asked: str) -> None:
    # https://learn.microsoft.com/azure/key-vault/secrets/about-secrets#secret-access-control
    needed = OPERATIONS[asked]
    others = set(OPERATIONS.values()) - {needed}
    method, path = asked.split(" ")
    status, code, message = Client(direct, *others).refused(method, path, {"value": "1"})
    assert (status, code) == (403, "Forbidden")
    assert f"does not have secrets {needed} permission on key vault 'my-kv;" in message
    assert Client(direct, needed).call(method, path, {"value": "1"})[0] != 403


def test_a_deleted_vault_takes_its_secrets_along(direct: Direct) -> None:
    vault = Client(direct, "all")
    vault.made("PUT", "/secrets/demo", {"value": "1"})
    direct.world.remove("/v")
    assert Client(direct, "all").refused("GET", "/secrets/demo")[0] == 404
