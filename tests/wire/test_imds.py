from __future__ import annotations

import json
from dataclasses import replace
from posixpath import normpath
from typing import Any
from urllib.parse import unquote

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from podidentity.core.errors import (
    InvalidRequest,
    NotYetKnown,
    TokenRefused,
    TokenSourceDown,
    TokenThrottled,
    TokenUnavailable,
)
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    ClientId,
    ObjectId,
    ResourceId,
    TokenRequest,
)
from podidentity.settings import METADATA_ALLOWED
from podidentity.wire.imds import (
    TOKEN_PATH,
    AllowList,
    Claims,
    Route,
    Target,
    claims_of,
    classify,
    error_of,
    fields_of,
    names_the_internet,
    parse_answer,
    parse_request,
    render_answer,
    render_answers,
    render_error,
    render_request,
    without_user_data,
)
from tests.core.worlds import occurs
from tests.fakes import CLIENT, NOW, OTHER_CLIENT, RESOURCE_ID, VAULT, identity
from tests.jwts import jwt

DEFAULT = AllowList(METADATA_ALLOWED)


@pytest.mark.parametrize(
    "path",
    [
        TOKEN_PATH,
        "/" + TOKEN_PATH,
        "/METADATA/identity/oauth2/token",
        "//Metadata/identity/oauth2/token/",
    ],
)
def test_the_token_path_is_ours_in_the_spellings_that_clients_use(path: str) -> None:
    target = classify(f"{path}?api-version=2018-02-01", DEFAULT)
    assert (target.route, target.query) == (Route.TOKEN, "api-version=2018-02-01")


def test_a_query_that_is_not_forwarded_may_have_any_visible_characters() -> None:
    target = classify(f"{TOKEN_PATH}?resource=api://a?b=(c)!", DEFAULT)
    assert (target.route, target.query) == (Route.TOKEN, "resource=api://a?b=(c)!")


@pytest.mark.parametrize(
    "path",
    [
        "/metadata/identity",
        "/metadata/identity/",
        "/metadata/identity/oauth2",
        "/metadata/identity/getplatformmetadata",
        "/metadata/identity/issuecredential",
        "/metadata/Identity/issuecredential",
        "/Metadata/IDENTITY/issuecredential/",
        "/metadata/identity/info/more",
        "/metadata/identity/INFO",
        "/",
        "/latest/meta-data",
        "/host",
        "/host/tokens",
        "/Host/token",
        "/host/token/x",
        "/healthz",
    ],
)
def test_a_path_that_nobody_serves_is_unknown(path: str) -> None:
    assert classify(path, DEFAULT).route is Route.UNKNOWN


@pytest.mark.parametrize(
    "path",
    [
        "/metadata\\identity\\oauth2\\token",
        "/metadata/identity\\oauth2\\token",
        "/metadata/identity/oauth2%2ftoken",
        "/metadata%2Fidentity/oauth2/token",
        "/metadata/identity/oauth2%5Ctoken",
        "/metadata/%69dentity/oauth2/token",
        "/metadata/instance/../identity/oauth2/token",
        "/metadata/instance/./compute",
        "/metadata/instance//compute",
        "/metadata/identity/../instance",
        "/metadata/identity/..",
        "/metadata/identity/.",
        "/metadata/identity/./info",
        "/latest/../metadata/instance",
        "///metadata/identity/oauth2/token",
        "/metadata//identity/issuecredential",
        "/metadata/identity/oauth2/tokens",
        "/metadata/identity/oauth2/token/x",
        "/metadata/Identity/oauth2/token",
        "/metadata/identity/OAuth2/Token",
        "/metadata/identity/x/oauth2/y/token",
        "/metadata/instance;/identity/issuecredential",
        "/metadata/instance\t",
        "/metadata/instance/caf\xe9",
        "/metadata/instance#/identity",
        "http://169.254.169.254/metadata/instance",
        "metadata/instance",
        "*",
        "",
        "/metadata/instance?a b",
        "/metadata/instance?a#b",
        "/metadata/instance?\x7f",
        "/metadata/instance/~/metadata/identity/oauth2/token",
        "/metadata/instance/metadata/identity/oauth2/token",
        "/metadata/instance/compute/identity",
        "/metadata/instance/compute/issueCredential",
        "/metadata/instance/metadata",
        "/metadata/instance/oauth2",
        "/metadata/instance/Token",
        "/metadata/instance/compute:vmId",
        "/metadata/versions/v1.0",
        "/metadata/instance?/..\\/metadata/identity/oauth2/token",
        "/metadata/instance?api-version=1&x=\\",
        "/metadata/instance?api-version=1&x=http://169.254.169.254/",
        "/metadata/instance?a?b",
        f"{TOKEN_PATH}?resource=a b",
        f"{TOKEN_PATH}?resource=a#b",
        f"{TOKEN_PATH}?resource=\x7f",
        f"{TOKEN_PATH}?resource=caf\xe9",
    ],
)
def test_a_path_that_another_parser_may_read_otherwise_is_suspicious(path: str) -> None:
    assert classify(path, DEFAULT).route is Route.SUSPICIOUS


@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/metadata/versions", "/metadata/versions"),
        ("/metadata/instance", "/metadata/instance"),
        ("/Metadata/instance/compute/vmId", "/metadata/instance/compute/vmId"),
        ("//metadata/instance/", "/metadata/instance/"),
        ("/metadata/identity/info", "/metadata/identity/info"),
    ],
)
def test_what_is_allowed_is_asked_in_its_normal_spelling(path: str, asked: str) -> None:
    target = classify(path, DEFAULT)
    assert (target.route, target.path) == (Route.FORWARD, asked)


@pytest.mark.parametrize(
    "path",
    [
        "/metadata",
        "/metadata/attested/document",
        "/metadata/scheduledevents",
        "/metadata/loadbalancer",
        "/metadata/instancex",
        "/metadata/instance/compute/userData",
        "/metadata/INSTANCE/Compute/USERDATA/",
        "/metadata/instance/compute/customData",
    ],
)
def test_other_metadata_is_blocked(path: str) -> None:
    assert classify(path, DEFAULT).route is Route.BLOCKED


def test_what_is_allowed_by_name_is_forwarded_and_nothing_else() -> None:
    allow = AllowList(["/metadata/attested", "/metadata/instance/compute/userData"])
    assert classify("/metadata/attested/document", allow).route is Route.FORWARD
    assert classify("/metadata/instance/compute/userData", allow).route is Route.FORWARD
    assert classify("/metadata/instance/compute", allow).route is Route.BLOCKED
    assert classify("/metadata/versions", allow).route is Route.BLOCKED


@pytest.mark.parametrize("path", ["/metadata", "/metadata/identity", "/metadata/Identity/x"])
def test_the_nodes_tokens_cannot_be_allowed(path: str) -> None:
    with pytest.raises(ValueError, match="would open the tokens of the whole node"):
        AllowList([path])


@pytest.mark.parametrize(
    "path",
    [
        "/x",
        "a",
        "metadata/instance",
        "/metadata/../x",
        "/metadata//instance",
        "/metadata/./instance",
        "/metadata/instance//",
        "/metadata/instance/token",
        "/metadata/instance/a-b",
    ],
)
def test_what_is_no_path_of_metadata_cannot_be_allowed(path: str) -> None:
    with pytest.raises(ValueError, match="is no metadata path such as /metadata/instance"):
        AllowList([path])


def test_a_query_that_is_forwarded_has_what_imds_has_names_for_and_nothing_else() -> None:
    asked = "api-version=2021-02-01&format=text&a_b=%20.~+,:"
    found = classify(f"/metadata/instance?{asked}", DEFAULT)
    assert found == Target(Route.FORWARD, "/metadata/instance", asked)
    for each in ("/metadata/identity", "a;b", "a\\b", "a'b"):
        assert classify(f"/metadata/instance?{each}", DEFAULT).route is Route.SUSPICIOUS


# Dense on purpose: most of them begin as a path that is forwarded.
WORDS = ["metadata", "identity", "Identity", "oauth2", "token", "issuecredential", "info"]
WORDS += ["instance", "versions", "compute", "userData", "vmId"]
TRICKS = ["..", ".", "", "%2f", "%2e%2e", "\\", "%5c", ";", "?", "#", "%00", "é", "%69dentity"]
BEGINNINGS = st.sampled_from(["/metadata/instance", "/Metadata/versions", "//metadata", ""])
SEPARATORS = st.sampled_from(["/"] * 6 + ["//", "\\", "%2F"])
PIECES = st.tuples(SEPARATORS, st.sampled_from(WORDS * 3 + TRICKS)).map("".join)
PATHS = st.tuples(BEGINNINGS, st.lists(PIECES, max_size=5).map("".join)).map("".join)


@given(PATHS | st.text())
@example("/metadata/instance/%2e%2e/identity/issuecredential")
@example("/metadata/identity/info")
def test_nothing_that_any_parser_reads_as_a_token_path_is_forwarded(path: str) -> None:
    target = classify(path, AllowList(["/metadata/versions", "/metadata/instance"]))
    if target.route is not Route.FORWARD or target.path == "/metadata/identity/info":
        return
    readings = {target.path, unquote(target.path), unquote(unquote(target.path))}
    for reading in readings:
        resolved = normpath(reading.lower().replace("\\", "/"))
        assert resolved.startswith(("/metadata/versions", "/metadata/instance"))
        assert not resolved.startswith("/metadata/instance/compute/userdata")


@pytest.mark.parametrize("path", ["/metadata/instance", "/metadata/versions", "/x"])
def test_a_path_of_more_than_512_bytes_is_refused_whatever_it_begins_with(path: str) -> None:
    longest = path + "/" + "a" * (511 - len(path))
    assert len(longest) == 512
    assert classify(longest, DEFAULT).path == longest
    assert classify(longest + "a", DEFAULT) == Target(Route.SUSPICIOUS, "", "")


def test_the_paths_of_the_property_do_reach_what_is_forwarded() -> None:
    deep = occurs(PATHS, lambda path: classify(path, DEFAULT).path.count("/") > 2)
    assert classify(deep, DEFAULT).route is not Route.SUSPICIOUS
    occurs(PATHS, lambda path: classify(path, DEFAULT).route is Route.FORWARD)


@pytest.mark.parametrize(
    ("path", "stripped"),
    [
        ("/metadata/instance", True),
        ("/metadata/instance/", True),
        ("/metadata/Instance/COMPUTE", True),
        ("/metadata/instance/network", False),
        ("/metadata/versions", False),
    ],
)
def test_user_data_is_looked_for_where_it_can_be(path: str, stripped: bool) -> None:
    assert DEFAULT.strips(path) is stripped
    assert not AllowList(["/metadata/instance", "/metadata/instance/compute/userData"]).strips(path)


def test_user_data_is_taken_out_of_an_instance_document() -> None:
    whole = {"compute": {"vmId": "v", "userData": "czNjcmV0", "customData": "x"}, "network": {}}
    assert json.loads(without_user_data(json.dumps(whole).encode())) == {
        "compute": {"vmId": "v"},
        "network": {},
    }
    assert json.loads(without_user_data(b'{"userData":"x","vmId":"v"}')) == {"vmId": "v"}


def test_user_data_is_allowed_by_its_own_name_beside_what_is_above_it() -> None:
    path = "/metadata/instance/compute/userData"
    assert AllowList(["/metadata/instance", path]).holds(path)
    assert not AllowList(["/metadata/instance"]).holds(path)
    assert AllowList(["/metadata/instance"]).holds("/metadata/instance/network/userData")


@pytest.mark.parametrize("body", [b"compute/\nnetwork/", b"[1]", b"", b"\xff", b"[" * 10_000])
def test_a_list_of_names_passes_as_it_is(body: bytes) -> None:
    assert without_user_data(body) == body


@pytest.mark.parametrize(
    ("path", "route"),
    [
        ("/metadata/identity/oauth2/token", Route.TOKEN),
        ("/metadata/identity/oauth2/token/", Route.TOKEN),
        ("/METADATA/identity/oauth2/token/", Route.TOKEN),
        ("/host/token", Route.HOST_TOKEN),
        ("/host/token/", Route.HOST_TOKEN),
        ("/metadata/instance", Route.FORWARD),
        ("/METADATA/instance", Route.FORWARD),
        ("/metadata/instance/", Route.FORWARD),
        # Its default was to pass on whatever is left; ours is not to.
        ("/metadata/IDENTITY/oauth2/token/", Route.SUSPICIOUS),
        ("/metadata/", Route.BLOCKED),
        # CVE-2022-23551.
        (r"/metadata/identity\oauth2/token/", Route.SUSPICIOUS),
        (r"/metadata/identity/oauth2\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\oauth2\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\oauth2/\token/", Route.SUSPICIOUS),
        (r"/metadata/identity\\\oauth2\\token/", Route.SUSPICIOUS),
    ],
)
def test_a_path_goes_where_the_archived_project_led_it_or_nowhere(path: str, route: Route) -> None:
    assert classify(path, AllowList(METADATA_ALLOWED)).route is route


# Token requests of pods, and what they are answered.


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
        ("resource=a&&" + "".join(f"&x{n}=1" for n in range(31)), "a"),
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
        ("resource=%zz", "resource is missing"),
        ("resource=a%2", "resource is missing"),
        ("resource=a&client_id=%zz", "client_id must be"),
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
        (
            f"resource=a&client_id={CLIENT}&object_id={CLIENT}",
            "only one of client_id, object_id may",
        ),
        (
            f"resource=a&client_id={CLIENT}&mi_res_id={RESOURCE_ID}",
            "only one of client_id, msi_res_id may",
        ),
        ("resource=a&client_id=x", "client_id must be a GUID, not 'x'"),
        ("resource=a&object_id=x", "object_id must be a GUID"),
        ("resource=%ff", "the query is not UTF-8"),
        ("resource=a&%ff=b", "the query is not UTF-8"),
        ("resource=a&msi_res_id=/subscriptions/s", "msi_res_id must match /subscriptions/"),
        ("resource=a" + "".join(f"&x{n}=1" for n in range(32)), "more than 32 parameters"),
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
        ("&authority=https://login.example/CONTOSO.FOX//", "contoso.fox"),
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


def test_a_token_whose_client_is_not_known_says_none() -> None:
    assert json.loads(render_answer(token(client_id=None), VAULT, NOW))["client_id"] == ""


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


# Our token requests, and what the real service answers.


ID = ClientId.parse(CLIENT)
OF = identity(resource_id=None)
GOOD: dict[str, Any] = {
    "access_token": jwt(appid=CLIENT),
    "client_id": CLIENT,
    "expires_in": "86317",
    "expires_on": str(int(NOW) + 86_317),
    "ext_expires_in": "86399",
    "not_before": str(int(NOW) - 300),
    "resource": VAULT,
    "token_type": "Bearer",
}


def parse(
    status: int, body: bytes, retry_after: str = "", of: AzureIdentity | None = None
) -> AccessToken:
    return parse_answer(
        status, body, identity=of or OF, resource=VAULT, now=NOW, retry_after=retry_after
    )


def answer(**changes: Any) -> bytes:
    fields = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return json.dumps(fields).encode()


def test_a_request_names_the_identity_and_encodes_the_resource() -> None:
    assert render_request(OF, "api://a?b=c&d") == (
        "/metadata/identity/oauth2/token?api-version=2018-02-01"
        f"&resource=api%3A%2F%2Fa%3Fb%3Dc%26d&client_id={CLIENT}"
    )
    assert render_request(OF, "a", bypass_cache=True).endswith("&bypass_cache=true")
    asked = render_request(OF, "a")
    selector = f"&client_id={CLIENT}"
    by_object = replace(OF, client_id=None, resource_id=None, object_id=ObjectId.parse(CLIENT))
    assert render_request(by_object, "a") == asked.replace(selector, f"&object_id={CLIENT}")
    by_name = replace(by_object, resource_id=ResourceId.parse(RESOURCE_ID))
    encoded = RESOURCE_ID.replace("/", "%2F")
    assert render_request(by_name, "a") == asked.replace(selector, f"&msi_res_id={encoded}")
    unnamed = replace(by_object, object_id=None)
    assert render_request(unnamed, "a") == asked.removesuffix(selector), "the node's own"


def test_an_answer_becomes_a_token_with_its_life() -> None:
    assert parse(200, answer()) == AccessToken(
        value=GOOD["access_token"],
        client_id=ID,
        expires_on=int(NOW) + 86_317,
        not_before=int(NOW) - 300,
        resource=VAULT,
        ext_expires_in=82,
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"expires_in": 86_317, "expires_on": int(NOW) + 86_317, "not_before": int(NOW) - 300},
        {"expires_on": None},
        {"expires_on": str(int(NOW) + 2 * 86_317)},
        {"expires_in": "172634"},
        {"expires_on": "", "expires_in": "86317.9"},
        {"client_id": None},
        {"client_id": CLIENT.upper()},
        {"access_token": jwt(azp=CLIENT)},
        {"access_token": jwt(appid=CLIENT.upper(), exp=1)},
        {"access_token": jwt(appid=CLIENT, oid="???>>>~~~")},  # has - and _
        {"ext_expires_in": None, "token_type": None},
    ],
)
def test_spellings_of_imds_through_the_years_are_read(changes: dict[str, Any]) -> None:
    assert parse(200, answer(**changes)).expires_on == int(NOW) + 86_317


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": OTHER_CLIENT},
        {"access_token": jwt(appid=OTHER_CLIENT)},
        {"access_token": jwt(appid=OTHER_CLIENT), "client_id": OTHER_CLIENT},
        {"access_token": jwt(oid=CLIENT)},
        {"access_token": "opaque"},
        {"access_token": "a.b.c"},
        {"access_token": "a.ééé.c"},
        {"access_token": jwt(appid=3)},
        {"access_token": "..", "client_id": CLIENT},
    ],
)
def test_a_token_that_is_not_provably_the_asked_identitys_is_not_handed_out(
    changes: dict[str, Any],
) -> None:
    with pytest.raises(TokenSourceDown, match="not handed out") as caught:
        parse(200, answer(**changes))
    assert jwt(appid=OTHER_CLIENT) not in str(caught.value)


MACHINE = "/subscriptions/s/resourcegroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/v"
ELSEWHERE = RESOURCE_ID.replace("orders", "payments")
IDS: dict[str, Any] = {
    "client": ID,
    "resource": ResourceId.parse(RESOURCE_ID),
    "object": ObjectId.parse(OTHER_CLIENT),
}


def whose(*ids: str, **changes: Any) -> AzureIdentity:
    """Return an identity of which these ids are known."""
    known = {f"{name}_id": IDS[name] if name in ids else None for name in IDS}
    return identity(**{**known, **changes})


@pytest.mark.parametrize(
    ("of", "claims"),
    [
        (whose("client"), {}),
        (whose("client"), {"xms_mirid": ELSEWHERE, "oid": "x"}),
        (whose("client", "resource"), {}),
        (whose("client", "resource"), {"xms_mirid": RESOURCE_ID.upper()}),
        (whose("client", "object"), {"oid": "x"}),
        (whose("resource"), {"xms_mirid": RESOURCE_ID}),
        (whose("resource", "object"), {"xms_mirid": RESOURCE_ID, "oid": "x"}),
        (whose("object"), {"oid": OTHER_CLIENT}),
        (whose(system_assigned=True), {"xms_mirid": MACHINE}),
    ],
)
def test_a_token_is_the_identitys_whose_known_ids_it_bears(
    of: AzureIdentity, claims: dict[str, str]
) -> None:
    body = answer(access_token=jwt(appid=CLIENT, **claims))
    assert parse(200, body, of=of).client_id == ID


@pytest.mark.parametrize(
    ("of", "claims", "field"),
    [
        (whose("client", "resource"), {"xms_mirid": ELSEWHERE}, "resourceID"),
        (whose("client", "resource"), {"xms_mirid": MACHINE}, "resourceID"),
        (whose("resource"), {"xms_mirid": ELSEWHERE}, "resourceID"),
        (whose("resource"), {}, "resourceID"),
        (whose("resource", "object"), {"oid": OTHER_CLIENT}, "resourceID"),
        (whose("object"), {"oid": CLIENT}, "objectID"),
        (whose("object"), {"xms_mirid": RESOURCE_ID}, "objectID"),
        (whose(system_assigned=True), {"xms_mirid": RESOURCE_ID}, "resourceID"),
        (whose(system_assigned=True), {"xms_mirid": RESOURCE_ID.upper()}, "resourceID"),
        (whose(system_assigned=True), {}, "resourceID"),
    ],
)
def test_a_token_that_bears_another_id_is_refused_with_the_field_to_correct(
    of: AzureIdentity, claims: dict[str, str], field: str
) -> None:
    body = answer(access_token=jwt(appid=CLIENT, **claims))
    with pytest.raises(TokenRefused, match="it is not handed out") as caught:
        parse(200, body, of=of)
    assert (caught.value.status, caught.value.error) == (403, "access_denied")
    assert str(caught.value).startswith("AzureIdentity orders: ")
    assert str(caught.value).endswith(f"Correct spec.{field}.")


@pytest.mark.parametrize("of", [whose("resource"), whose("object"), whose(system_assigned=True)])
def test_a_token_that_says_of_no_client_that_it_is_its_own_is_not_handed_out(
    of: AzureIdentity,
) -> None:
    machine = MACHINE if of.system_assigned else RESOURCE_ID
    nobodys = jwt(xms_mirid=machine, oid=OTHER_CLIENT)
    with pytest.raises(TokenSourceDown, match="does not say whose it is; it is not handed out"):
        parse(200, answer(access_token=nobodys, client_id=None), of=of)


def test_the_owner_in_an_answer_and_in_its_token_are_compared_without_case() -> None:
    grown = "AAAAAAAA-2222-3333-4444-555555555555"
    of = whose("resource")
    body = answer(access_token=jwt(appid=grown.lower(), xms_mirid=RESOURCE_ID), client_id=grown)
    assert str(parse(200, body, of=of).client_id) == grown.lower()


def test_the_claims_of_a_token_are_read_whatever_their_length_and_letters() -> None:
    for length in range(40):
        assert claims_of(jwt(oid="x" * length)).oid == "x" * length
    assert claims_of(jwt(oid="\u043f?~" * 20)).oid == "\u043f?~" * 20


@pytest.mark.parametrize("token", ["", "a.b", "a.b.c.d", "a.!.c", "a.bnVsbA.c"])
def test_what_is_no_jwt_claims_nothing(token: str) -> None:
    assert claims_of(token) == Claims()


@pytest.mark.parametrize("body", [b"", b"[]", b"nothing", b"{}"])
def test_what_is_no_refusal_gives_no_reason(body: bytes) -> None:
    assert error_of(fields_of(body)) == ("", "")


@pytest.mark.parametrize("left", [-1, 0, 1])
def test_a_token_needs_a_second_of_life(left: int) -> None:
    body = answer(expires_on=str(int(NOW) + left), expires_in=None)
    if left > 0:
        assert parse(200, body).expires_on == int(NOW) + left
        return
    with pytest.raises(TokenSourceDown, match="no life left"):
        parse(200, body)


def test_what_an_answer_leaves_out_is_from_now_on_and_a_bearers() -> None:
    found = parse(200, answer(not_before=None, ext_expires_in=None, token_type=None))
    assert (found.not_before, found.ext_expires_in, found.token_type) == (int(NOW), 0, "Bearer")
    assert parse(200, answer(token_type="pop")).token_type == "pop"


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "no JSON object"),
        (b"<html>", "no JSON object"),
        (b"[]", "no JSON object"),
        (b"\xff", "no JSON object"),
        (b"[" * 10_000, "no JSON object"),
        (answer(access_token=None), "without an access_token"),
        (answer(access_token=["x"]), "without an access_token"),
        (answer(access_token=""), "without an access_token"),
        (answer(expires_on=str(int(NOW) - 1)), "no life left"),
        (answer(expires_on="", expires_in=""), "no life left"),
        (answer(expires_on="11/25/2026", expires_in="soon"), "no life left"),
    ],
)
def test_an_answer_that_makes_no_sense_counts_as_none(body: bytes, why: str) -> None:
    with pytest.raises(TokenSourceDown, match=why):
        parse(200, body)


@pytest.mark.parametrize(
    ("status", "body", "error", "told"),
    [
        (
            400,
            {"error": "invalid_resource", "error_description": "AADSTS500011: no\n such"},
            "invalid_resource",
            "IMDS: AADSTS500011: no such",
        ),
        (
            401,
            {"error": "unknown_source", "error_description": "Unknown Source x"},
            "unknown_source",
            "IMDS: Unknown Source x",
        ),
        (403, {}, "invalid_request", "IMDS: status 403 without a reason"),
        (
            400,
            {"error": "Bad request. api-version is invalid"},
            "invalid_request",
            "IMDS: Bad request. api-version is invalid",
        ),
    ],
)
def test_a_refusal_of_imds_is_passed_on(
    status: int, body: dict[str, str], error: str, told: str
) -> None:
    with pytest.raises(TokenRefused) as caught:
        parse(status, json.dumps(body).encode())
    assert (caught.value.status, caught.value.error, str(caught.value)) == (status, error, told)
    assert not isinstance(caught.value, NotYetKnown)


def test_an_identity_that_imds_does_not_know_may_come_yet() -> None:
    body = {"error": "invalid_request", "error_description": "Identity not found"}
    with pytest.raises(NotYetKnown):
        parse(400, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("header", "seconds"),
    [("7", 7), ("", 1), ("0", 1), ("999999999", 60), ("Wed, 25 Nov 2026 12:00:00 GMT", 1)],
)
def test_a_throttled_answer_says_when_to_ask_again(header: str, seconds: int) -> None:
    with pytest.raises(TokenThrottled) as caught:
        parse(429, b"{}", header)
    assert caught.value.retry_after == seconds


@pytest.mark.parametrize("status", [100, 204, 301, 404, 405, 410, 500, 503, 599])
def test_any_other_status_counts_as_no_answer(status: int) -> None:
    with pytest.raises(TokenSourceDown, match=str(status)):
        parse(status, b'{"error":"unknown"}')


@given(st.integers(100, 599), st.binary(max_size=200), st.text(max_size=5))
def test_whatever_imds_answers_it_is_a_token_or_unavailable(
    status: int, body: bytes, header: str
) -> None:
    with pytest.raises(TokenUnavailable):
        parse(status, body, header)


@pytest.mark.parametrize(
    ("host", "of_a_page"),
    [
        ("169.254.169.254", False),
        ("169.254.169.254:80", False),
        ("169.254.169.254.", False),
        ("[fe80::1]:80", False),
        ("[::ffff:169.254.169.254]", False),
        ("", False),
        ("localhost:2579", False),
        ("nmi.localhost:2579", False),
        ("printer.local", False),
        ("imds", False),
        ("nmi.kube-system.svc", False),
        ("nmi.kube-system.svc.cluster.local", False),
        ("metadata.azure.internal", False),
        ("evil.example", True),
        ("EVIL.EXAMPLE.:80", True),
        ("internal.evil.example", True),
        ("metadata.INTERNAL.", False),
        ("metadata.internalX", True),
        ("169.254.169.254.nip.io", True),
        ("xn--e1afmkfd.xn--p1ai", True),
    ],
)
def test_only_a_name_that_somebody_can_have_in_the_internet_is_one_of_a_page(
    host: str, *, of_a_page: bool
) -> None:
    assert names_the_internet(host) is of_a_page
