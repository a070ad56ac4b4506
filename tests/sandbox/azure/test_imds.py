"""IMDS: identities, caches, quota, its other endpoints, the request log, and what it refuses."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest

from podidentity_sandbox.azure.state import ScaleSet
from tests.sandbox.azure.direct import ASK, METADATA, TOKEN, Direct, ask, claims_of


async def token(direct: Direct, query: str = "", **more: Any) -> Any:
    reply, body = await ask(direct, f"{TOKEN}?{ASK}{query}", **more)
    assert reply.status == 200, body
    return body


async def test_the_single_attached_identity_is_the_default_and_so_a_pod_gets_the_nodes(
    direct: Direct,
) -> None:
    scale_set = direct.world.find(ScaleSet, direct.plan.scale_set_id)
    assert scale_set is not None
    (kubelet,) = scale_set.identity.user
    body = await token(direct)
    assert list(body) == [
        "access_token",
        "client_id",
        "expires_in",
        "expires_on",
        "ext_expires_in",
        "not_before",
        "resource",
        "token_type",
    ]
    assert {type(value) for value in body.values()} == {str}
    assert (body["client_id"], body["expires_in"]) == (kubelet.client_id, "86399")
    claims = claims_of(body["access_token"])
    assert (claims["appid"], claims["oid"]) == (kubelet.client_id, kubelet.principal_id)
    assert (claims["aud"], claims["xms_mirid"]) == ("https://vault.azure.net", kubelet.id)


async def test_of_several_identities_one_must_be_named_and_any_of_its_ids_names_it(
    direct: Direct,
) -> None:
    mine = direct.identity("mine")
    direct.attach(mine)
    _, body = await ask(direct, f"{TOKEN}?{ASK}")
    assert body["error_description"].startswith("Multiple user assigned identities exist")
    names = {
        "client_id": mine.client_id.upper(),
        "object_id": mine.principal_id,
        "msi_res_id": mine.id.upper(),
        "mi_res_id": mine.id,
    }
    got = {(await token(direct, f"&{key}={value}"))["client_id"] for key, value in names.items()}
    assert got == {mine.client_id}


async def test_an_identity_that_arm_did_not_attach_or_that_was_deleted_is_not_found(
    direct: Direct,
) -> None:
    other, gone = direct.identity("other"), direct.identity("gone")
    direct.attach(gone)
    direct.made("DELETE", gone.id)
    for identity in (other, gone):
        reply, body = await ask(direct, f"{TOKEN}?{ASK}&client_id={identity.client_id}")
        assert (reply.status, body["error_description"]) == (400, "Identity not found")


async def test_a_token_is_kept_for_the_node_that_asked_until_half_its_life_is_over(
    direct: Direct,
) -> None:
    first = await token(direct)
    direct.clock.now += 100
    again = await token(direct)
    other_node = await token(direct, source="127.0.1.7")
    fresh = await token(direct, "&bypass_cache=true")
    assert again["access_token"] == first["access_token"]
    assert again["expires_in"] == str(int(first["expires_in"]) - 100)
    assert len({first["access_token"], other_node["access_token"], fresh["access_token"]}) == 3
    direct.clock.now += 43_201
    assert (await token(direct))["expires_in"] == "86399"


async def test_a_node_has_20_identity_requests_a_second_and_another_node_has_its_own(
    direct: Direct,
) -> None:
    for _ in range(20):
        await token(direct)
    reply, body = await ask(direct, f"{TOKEN}?{ASK}")
    assert (reply.status, body["error"]) == (429, "too_many_requests")
    await token(direct, source="127.0.1.7")
    direct.clock.now += 1
    await token(direct)


async def test_other_metadata_has_5_requests_a_second(direct: Direct) -> None:
    statuses = [(await ask(direct, "/metadata/versions"))[0].status for _ in range(6)]
    assert statuses == [200, 200, 200, 200, 200, 429]


async def test_every_request_is_in_the_journal_with_its_node_and_what_it_got(
    direct: Direct,
) -> None:
    headers = {**METADATA, "x-nonce": "7"}
    await ask(direct, f"{TOKEN}?{ASK}", headers=headers)
    await ask(direct, "/latest", source="10.9.9.9", headers={})
    first, second = direct.imds.journal
    assert first["node"] == "node-0"
    assert first["target"] == f"{TOKEN}?{ASK}"
    assert (first["headers"], first["status"]) == (headers, 200)
    assert (second["node"], second["source"], second["status"]) == ("", "10.9.9.9", 401)


@pytest.mark.parametrize(
    "status",
    [500, 429, 410],
)
async def test_a_fault_answers_in_place_of_imds(direct: Direct, status: int) -> None:
    direct.weather(f"imds=[{{effect: {status}, seconds: 3}}]")
    reply, body = await ask(direct, f"{TOKEN}?{ASK}")
    assert (reply.status, bool(body["error_description"])) == (status, True)
    assert reply.headers.get("Retry-After") == ("3" if status == 429 else None)


# ---- What IMDS refuses, as a table, and the little that it does not mind.

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
    Case("text", "/metadata/instance?api-version=2021-02-01&format=text", 400, "Bad request."),
    Case("IMDSv2", "/metadata/identity/getplatformmetadata", 404, "Not found"),
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


async def test_metadata_is_matched_without_case_and_its_header_too(direct: Direct) -> None:
    target = f"/MetaData/identity/oauth2/token/?{ASK}"
    reply, _ = await ask(direct, target, headers={"metadata": "TRUE"})
    assert reply.status == 200
