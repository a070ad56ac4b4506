from __future__ import annotations

import json
from posixpath import normpath
from urllib.parse import unquote

import pytest
from hypothesis import example, find, given
from hypothesis import strategies as st

from podidentity.wire.metadata import AllowList, Route, classify, without_user_data

TOKEN = "/metadata/identity/oauth2/token"
DEFAULT = AllowList()


@pytest.mark.parametrize(
    "path",
    [TOKEN, "/" + TOKEN, "/METADATA/identity/oauth2/token", "//Metadata/identity/oauth2/token/"],
)
def test_the_token_path_is_ours_in_the_spellings_that_clients_use(path: str) -> None:
    target = classify(f"{path}?api-version=2018-02-01", DEFAULT)
    assert (target.route, target.query) == (Route.TOKEN, "api-version=2018-02-01")


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
        "/metadata/instance/compute:vmId",
        "/metadata/versions/v1.0",
        "/metadata/instance?/..\\/metadata/identity/oauth2/token",
        "/metadata/instance?api-version=1&x=\\",
        "/metadata/instance?api-version=1&x=http://169.254.169.254/",
        "/metadata/instance?a?b",
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


@pytest.mark.parametrize(
    "path", ["/metadata", "/metadata/identity", "/metadata/Identity/x", "/x", "a", "/metadata/../x"]
)
def test_the_nodes_tokens_cannot_be_allowed(path: str) -> None:
    with pytest.raises(ValueError, match="metadata"):
        AllowList([path])


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
    assert classify(longest + "a", DEFAULT) == classify("", DEFAULT)


def test_the_paths_of_the_property_do_reach_what_is_forwarded() -> None:
    deep = find(PATHS, lambda path: classify(path, DEFAULT).path.count("/") > 2)
    assert classify(deep, DEFAULT).route is not Route.SUSPICIOUS
    assert find(PATHS, lambda path: classify(path, DEFAULT).route is Route.FORWARD)


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
    assert classify(path, AllowList()).route is route
