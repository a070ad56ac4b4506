"""What IMDS refuses, as a table, and the little that it does not mind."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from tests.sandbox.azure.direct import Direct
from tests.sandbox.azure.imds_requests import ASK, METADATA, TOKEN, ask

INVALID = "invalid_request"


@dataclass(frozen=True)
class Case:
    because: str
    target: str
    status: int
    error: str
    description: str = ""
    method: str = "GET"
    headers: dict[str, str] = field(default_factory=lambda: METADATA)
    source: str = "127.0.0.7"


REFUSED = [
    Case("no header", f"{TOKEN}?{ASK}", 400, INVALID, "Required metadata header not", headers={}),
    Case("false", f"{TOKEN}?{ASK}", 400, INVALID, "Required", headers={"metadata": "false"}),
    Case(
        "forwarded",
        f"{TOKEN}?{ASK}",
        400,
        INVALID,
        "X-Forwarded-For",
        headers={**METADATA, "x-forwarded-for": "10.0.0.1"},
    ),
    Case("no version", f"{TOKEN}?resource=x", 400, INVALID, "'api-version' is missing"),
    Case("odd version", f"{TOKEN}?api-version=2018-02-02&resource=x", 400, "Bad request. api-ver"),
    Case("before identities", f"{TOKEN}?api-version=2017-12-01&resource=x", 400, "Bad request."),
    Case("no resource", f"{TOKEN}?api-version=2018-02-01", 400, INVALID, "'resource' is missing"),
    Case("empty", f"{TOKEN}?api-version=2018-02-01&resource=", 400, INVALID, "'resource' is miss"),
    Case("twice", f"{TOKEN}?{ASK}&Resource=x", 400, INVALID, "'resource' is given more than once"),
    Case("two ids", f"{TOKEN}?{ASK}&client_id=a&object_id=b", 400, INVALID, "Only one of"),
    Case("empty id", f"{TOKEN}?{ASK}&client_id=", 400, INVALID, "is empty"),
    Case("unknown id", f"{TOKEN}?{ASK}&client_id=a", 400, INVALID, "Identity not found"),
    Case(
        "unknown resource",
        f"{TOKEN}?api-version=2018-02-01&resource=https://nowhere.example",
        400,
        "invalid_resource",
        "AADSTS500011",
    ),
    Case("POST", f"{TOKEN}?{ASK}", 405, "method_not_allowed", method="POST"),
    Case("no such path", "/metadata/identity/oauth2/tokens", 404, "Not found"),
    Case("case counts here", f"/metadata/Identity/oauth2/token?{ASK}", 404, "Not found"),
    Case("not metadata", "/latest/meta-data", 404, "Not found", headers={}),
    Case("encoded", f"/metadata/identity%2foauth2/token?{ASK}", 404, "Not found"),
    Case("no machine", f"{TOKEN}?{ASK}", 401, "unknown_source", "10.9.9.9", source="10.9.9.9"),
    Case("instance", "/metadata/instance", 400, "Bad request. api-version is invalid"),
    Case("instance bare", "/metadata/instance?api-version=2021-02-01", 400, "Bad", headers={}),
    Case("no field", "/metadata/instance/compute/x?api-version=2021-02-01", 404, "Not found"),
    Case("leaf", "/metadata/instance/compute/name?api-version=2021-02-01", 400, "Bad request."),
    Case("no IMDSv2", "/metadata/identity/getplatformmetadata", 400, INVALID, "cred-api-version"),
]


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.because)
async def test_a_request_that_breaks_a_rule_is_refused(direct: Direct, case: Case) -> None:
    reply, body = await ask(
        direct, case.target, method=case.method, headers=case.headers, source=case.source
    )
    assert reply.status == case.status
    assert body["error"].startswith(case.error)
    assert case.description in body.get("error_description", "")
    assert reply.headers["Server"].startswith("IMDS/")


async def test_a_bad_version_is_told_the_newest_ones(direct: Direct) -> None:
    _, body = await ask(direct, "/metadata/instance?api-version=1999-01-01")
    assert body["newest-versions"] == ["2025-04-07", "2024-07-17", "2024-03-15"]


async def test_metadata_is_matched_without_case_and_its_header_too(direct: Direct) -> None:
    target = f"/MetaData/identity/oauth2/token/?{ASK}"
    reply, _ = await ask(direct, target, headers={"metadata": "TRUE"})
    assert reply.status == 200
