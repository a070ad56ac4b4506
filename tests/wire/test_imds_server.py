from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.errors import InvalidRequest
from podidentity.core.resources import ClientId, ObjectId, ResourceId
from podidentity.core.tokens import AccessToken, TokenRequest
from podidentity.wire.imds_server import parse_request, render_answer, render_answers, render_error
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, RESOURCE_ID, VAULT

ENCODED_ID = RESOURCE_ID.replace("/", "%2F")


def test_a_request_for_a_resource_alone_names_no_identity() -> None:
    found = parse_request(f"api-version=2018-02-01&resource={VAULT}")
    assert found == TokenRequest(resource=VAULT)
    assert found.asked is None


@pytest.mark.parametrize(
    ("query", "asked"),
    [
        (f"client_id={CLIENT}", ClientId.parse(CLIENT)),
        (f"clientid={CLIENT.upper()}", ClientId.parse(CLIENT)),
        (f"object_id={CLIENT}", ObjectId.parse(CLIENT)),
        (f"principal_id={CLIENT}", ObjectId.parse(CLIENT)),
        (f"msi_res_id={RESOURCE_ID}", ResourceId.parse(RESOURCE_ID)),
        (f"mi_res_id={ENCODED_ID}", ResourceId.parse(RESOURCE_ID)),
        (f"msi-res-id={ENCODED_ID}", ResourceId.parse(RESOURCE_ID)),
        (f"resource_id={RESOURCE_ID.upper()}", ResourceId.parse(RESOURCE_ID)),
        (f"client_id={CLIENT}&clientid={CLIENT}", ClientId.parse(CLIENT)),
        (f"msi_res_id={RESOURCE_ID}&mi_res_id={ENCODED_ID}", ResourceId.parse(RESOURCE_ID)),
        (f"client%5Fid={CLIENT}", ClientId.parse(CLIENT)),
        ("client_id=", None),
        ("unknown=1&xms=2", None),
    ],
)
def test_an_identity_is_asked_for_by_every_name_that_clients_use(query: str, asked: object) -> None:
    assert parse_request(f"resource={VAULT}&{query}").asked == asked


@pytest.mark.parametrize(
    ("query", "resource"),
    [
        (f"resource={VAULT}", VAULT),
        (f"resource={VAULT}/", VAULT + "/"),
        ("resource=https%3A%2F%2Fvault.azure.net%2F", VAULT + "/"),
        ("resource=https%3a%2f%2fmanagement.azure.com%2f%2f", "https://management.azure.com//"),
        ("api%2Dversion=2018-02-01&resource=api://a?b=c", "api://a?b=c"),
        ("Resource=x", "x"),
        ("resource=" + "r" * 512, "r" * 512),
    ],
)
def test_the_resource_is_kept_exactly_as_it_was_asked(query: str, resource: str) -> None:
    assert parse_request(query).resource == resource


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("", "resource is missing"),
        ("api-version=2018-02-01", "resource is missing"),
        ("resource=", "resource is missing"),
        ("resource=" + "r" * 513, "longer than 512"),
        ("resource=a%20b", "white space"),
        ("resource=a+b", "white space"),
        ("resource=a%0d%0aX:1", "white space"),
        ("resource=a%00", "white space"),
        ("resource=a%C2%85b", "white space"),
        ("resource=%ff", "not UTF-8"),
        ("resource=a&resource=a", "'resource' is given twice"),
        ("resource=a&api-version=1&api%2Dversion=1", "'api-version' is given twice"),
        (f"resource=a&client_id={CLIENT}&client_id={CLIENT}", "'client_id' is given twice"),
        (f"resource=a&client_id={CLIENT}&clientid={OTHER_CLIENT}", "two different identities"),
        (f"resource=a&client_id={CLIENT}&object_id={CLIENT}", "only one of client_id, object_id"),
        (f"resource=a&client_id={CLIENT}&mi_res_id={RESOURCE_ID}", "only one of"),
        ("resource=a&client_id=x", "client_id must be a GUID, not 'x'"),
        ("resource=a&object_id=x", "object_id must be a GUID"),
        ("resource=a&msi_res_id=/subscriptions/s", "msi_res_id must match /subscriptions/"),
        ("resource=a" + "".join(f"&x{n}=1" for n in range(40)), "more than 32 parameters"),
        ("resource=a&authority=contoso.example", "authority must be https://HOST/TENANT"),
        ("resource=a&authority=https://login.example", "authority must be"),
        ("resource=a&authority=https://login.example/", "authority must be"),
        ("resource=a&authority=https://login.example/common", "authority must be"),
        ("resource=a&authority=http://login.example/contoso.example", "authority must be"),
        ("resource=a&authority=https://login.example/a/contoso.example", "authority must be"),
        ("resource=a&authority=https://u@login.example/contoso.example", "authority must be"),
        ("resource=a&authority=https://login.example/contoso.example?x", "authority must be"),
        ("resource=a&authority=" + "x" * 5_000, "authority must be"),
    ],
)
def test_what_imds_would_not_accept_is_invalid_and_says_why(query: str, why: str) -> None:
    with pytest.raises(InvalidRequest, match=why.replace("(", r"\(")):
        parse_request(query)


@given(st.text() | st.from_regex(r"(resource|client_id|msi_res_id)=[^&]*(&[^&=]*=[^&]*)*"))
def test_whatever_is_asked_it_is_a_request_or_invalid(query: str) -> None:
    try:
        found = parse_request(query)
    except InvalidRequest:
        return
    assert 0 < len(found.resource) <= 512
    assert not any(character.isspace() for character in found.resource)


@pytest.mark.parametrize(("value", "bypass"), [("true", True), ("TRUE", True), ("1", False)])
def test_bypass_cache_is_read(value: str, bypass: bool) -> None:
    assert parse_request(f"resource=a&bypass_cache={value}").bypass_cache is bypass


@pytest.mark.parametrize(
    ("query", "tenant"),
    [
        ("", None),
        ("&authority=", None),
        ("&authority=https://login.microsoftonline.com/contoso.example", "contoso.example"),
        (f"&authority=https%3A%2F%2Flogin.microsoftonline.us%2F{CLIENT.upper()}%2F", CLIENT),
        ("&authority=https://stack.example:8443/adfs/", "adfs"),
    ],
)
def test_a_tenant_is_named_by_an_authority(query: str, tenant: str | None) -> None:
    found = parse_request(f"resource=a{query}").tenant
    assert (str(found) if found else None) == tenant


def test_tokens_of_several_tenants_are_an_array_in_their_order() -> None:
    first, second = token(), token(value="SECOND")
    found = json.loads(render_answers([first, second], VAULT, NOW))
    assert [each["access_token"] for each in found] == ["TOKEN", "SECOND"]
    assert found[0] == json.loads(render_answer(first, VAULT, NOW))


def token(**changes: object) -> AccessToken:
    fields: dict[str, object] = {
        "value": "TOKEN",
        "client_id": ClientId.parse(CLIENT),
        "expires_on": int(NOW) + 86_399,
        "not_before": int(NOW) - 300,
        "resource": VAULT,
        "ext_expires_in": 60,
    }
    return AccessToken(**(fields | changes))  # type: ignore[arg-type]


def test_an_answer_is_byte_for_byte_what_every_client_was_measured_to_accept() -> None:
    assert render_answer(token(), VAULT + "/", NOW) == (
        b'{"access_token":"TOKEN","client_id":"11111111-2222-3333-4444-555555555555",'
        b'"expires_in":"86399","expires_on":"1795686399","ext_expires_in":"86459",'
        b'"not_before":"1795599700","resource":"https://vault.azure.net/",'
        b'"token_type":"Bearer"}'
    )


def test_the_life_in_an_answer_is_what_is_left_of_it() -> None:
    late = json.loads(render_answer(token(), VAULT, NOW + 86_300.9))
    assert (late["expires_in"], late["expires_on"]) == ("99", "1795686399")


@given(st.text(min_size=1).filter(lambda text: text.isprintable()))
def test_a_resource_is_echoed_whatever_it_holds(resource: str) -> None:
    assert json.loads(render_answer(token(), resource, NOW))["resource"] == resource


def test_an_error_is_flat_and_compact() -> None:
    assert render_error("invalid_request", 'a "b"') == (
        b'{"error":"invalid_request","error_description":"a \\"b\\""}'
    )
