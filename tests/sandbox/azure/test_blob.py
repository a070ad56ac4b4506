"""The blob service answers as the real one: the rows of data/blob.yaml, and more."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import yaml

from podidentity_sandbox.azure.blob.call import container_id
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.tokens import Issuer
from tests.sandbox.azure.blobs import BLOCK, STORAGE, Blobs
from tests.sandbox.azure.direct import Direct

TABLES: dict[str, Any] = yaml.safe_load((Path(__file__).parent / "data/blob.yaml").read_text())
ROLES = TABLES.pop("roles")
ROWS = [(table, row) for table, rows in TABLES.items() for row in rows]
READER = "Storage Blob Data Reader"


@pytest.fixture
def blobs(direct: Direct) -> Blobs:
    return Blobs(direct)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Direct:
    """One Azure for many rows: each fills its accounts itself."""
    return Direct(tmp_path_factory.mktemp("azure"))


def sent(blobs: Blobs, row: dict[str, Any]) -> Reply:
    method, target = row["ask"].split(" ")
    account, who = row.get("account", "acct"), row["as"]
    headers = dict(row.get("headers", {}))
    if "version" in row:
        headers["x-ms-version"] = row["version"]
    body = row.get("sends", "").encode()
    keys = blobs.account(account).keys
    signing: dict[str, dict[str, Any]] = {
        "key": {},
        "key2": {"key": keys[1]},
        "wrong key": {"key": "AAAA"},
        "key of other": {"key": blobs.account("other").keys[0]},
        "key 16 minutes ago": {"age": 16 * 60},
    }
    if who in signing:
        return blobs.signed(method, target, headers, body, account=account, **signing[who])
    if who != "nobody":
        headers["authorization"] = TOKENS[who](blobs)
    return blobs.ask(method, target, headers, body, account=account)


def minted(blobs: Blobs, issuer: Issuer, lifetime: int = 3600) -> str:
    """Return the header of a reader with a token of that issuer."""
    who = blobs.somebody(READER, blobs.account().id)
    return blobs.bearer(issuer, who, STORAGE, lifetime=lifetime)


def expired(blobs: Blobs) -> str:
    return minted(blobs, blobs.direct.issuer, lifetime=-1)


TOKENS: dict[str, Callable[[Blobs], str]] = {
    "expired token": expired,
    "forged token": lambda b: minted(b, b.direct.stranger()),
    "token of another issuer": lambda b: minted(b, b.direct.of_another_tenant()),
    "token for ARM": lambda b: b.token(READER, audience="https://management.azure.com/"),
    "reader": lambda b: b.token(READER),
    "reader with a slash": lambda b: b.token(READER, audience=f"{STORAGE}/"),
    "reader of this account's name": lambda b: b.token(
        READER, audience="https://acct.blob.core.windows.net"
    ),
    "reader of another account's name": lambda b: b.token(
        READER, audience="https://other.blob.core.windows.net"
    ),
}


@pytest.mark.parametrize(("table", "row"), ROWS, ids=[f"{t}: {r['it']}" for t, r in ROWS])
def test_it_answers_as_is_written_or_was_seen(
    shared: Direct, table: str, row: dict[str, Any]
) -> None:
    assert row["source"].startswith("https://"), table
    reply = sent(Blobs(shared), row)
    headers = {name.lower(): value for name, value in reply.headers.items()}
    text = reply.body.decode()
    assert reply.status == row["status"], text
    assert headers.get("x-ms-error-code") == row.get("code", headers.get("x-ms-error-code"))
    assert ("code" in row) <= (row.get("code", "") in text)
    assert [words for words in row.get("says", []) if words not in text] == []
    assert [name for name in row.get("has", []) if name not in headers] == []
    expected = row.get("headers_are", {})
    assert {name: headers.get(name) for name in expected} == expected
    assert ("body" not in row) or text == row["body"]
    assert ("WWW-Authenticate" in reply.headers) == (row["status"] == 401)


def test_the_challenge_names_the_tenant_and_the_resource(blobs: Blobs) -> None:
    reply = blobs.ask("GET", "/private/a.txt", {"authorization": expired(blobs)})
    tenant = blobs.direct.plan.tenant_id
    assert reply.headers["WWW-Authenticate"] == (
        f"Bearer authorization_uri=https://login.microsoftonline.com/{tenant}/oauth2/authorize"
        " resource_id=https://storage.azure.com"
    )


@pytest.mark.parametrize("role", ROLES["allowed"])
def test_a_role_allows_what_it_is_documented_to_allow_and_no_more(
    shared: Direct, role: str
) -> None:
    allowed = []
    for what, asked in ROLES["operations"].items():
        blobs = Blobs(shared)
        method, target = asked.split(" ")
        token = blobs.token("" if role == "none" else role)
        headers = {"authorization": token, **(BLOCK if method == "PUT" else {})}
        reply = blobs.ask(method, target, headers, b"x" if "blob" in what else b"")
        if reply.status < 300:
            allowed.append(what)
        else:
            code = reply.headers["x-ms-error-code"]
            assert (reply.status, code) == (403, "AuthorizationPermissionMismatch")
    assert allowed == ROLES["allowed"][role]


@pytest.mark.parametrize("level", ["container", "account", "group", "subscription"])
def test_a_role_holds_at_its_scope_and_below(blobs: Blobs, level: str) -> None:
    account = blobs.account()
    scopes = {
        "container": container_id(account, "private"),
        "account": account.id,
        "group": account.id.partition("/providers/")[0],
        "subscription": blobs.direct.world.subscription,
    }
    headers = {"authorization": blobs.token(READER, scopes[level])}
    assert blobs.ask("GET", "/private/a.txt", headers).status == 200
    listed = blobs.ask("GET", "/?comp=list", headers).status
    assert listed == (403 if level == "container" else 200)
    beside = blobs.ask("GET", "/closed/a.txt", headers, account="other").status
    assert beside == (200 if level in {"group", "subscription"} else 403)


def test_who_may_only_read_learns_nothing_of_what_is_there(blobs: Blobs) -> None:
    headers = {"authorization": blobs.token("Reader")}
    for target in ("/private/a.txt", "/private/nope", "/nope/nope"):
        assert blobs.ask("GET", target, headers).status == 403


def test_a_blob_is_what_was_written_last(blobs: Blobs) -> None:
    before = blobs.signed("GET", "/private/a.txt").headers["ETag"]
    written = blobs.signed("PUT", "/private/a.txt", {**BLOCK, "if-match": before}, b"again")
    assert written.headers["ETag"] != before
    read = blobs.signed("GET", "/private/a.txt")
    assert (read.body, read.headers["ETag"]) == (b"again", written.headers["ETag"])
    assert read.headers["Content-Type"] == "application/octet-stream"
    same = {"if-none-match": read.headers["ETag"]}
    assert blobs.signed("GET", "/private/a.txt", same).status == 304
    stale = blobs.signed("PUT", "/private/a.txt", {**BLOCK, "if-match": before}, b"late")
    assert stale.status == 412


def test_names_are_kept_with_all_their_letters(blobs: Blobs) -> None:
    made = blobs.signed("PUT", "/private/dir/x%20y%2Bz%C3%A4%3C.txt", BLOCK, b"1")
    assert made.status == 201
    reply = blobs.signed("GET", "/private?restype=container&comp=list")
    root = ElementTree.fromstring(reply.body)  # noqa: S314 - our own
    names = [element.text for element in root.findall("./Blobs/*/Name")]
    assert names == ["a.txt", "dir/x y+zä<.txt"]


def test_an_error_is_xml_with_the_requests_id_and_time(blobs: Blobs) -> None:
    reply = blobs.signed("GET", "/nope/a.txt")
    assert reply.content_type == "application/xml"
    root = ElementTree.fromstring(reply.body)  # noqa: S314 - our own
    message = root.findtext("Message") or ""
    lines = message.split("\n")
    assert (root.tag, root.findtext("Code")) == ("Error", "ContainerNotFound")
    assert lines[0] == "The specified container does not exist."
    assert lines[1] == f"RequestId:{reply.headers['x-ms-request-id']}"
    assert re.fullmatch(r"Time:\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z", lines[2])
