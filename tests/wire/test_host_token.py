"""The request of the CSI driver's provider, and the answer that its Go types can read."""

from __future__ import annotations

import json

import pytest

from podidentity.core.errors import InvalidRequest
from podidentity.core.resources import AccessToken, ObjectRef
from podidentity.wire.host_token import parse_pod_name, render_host_answer
from tests.fakes import CLIENT, NOW, VAULT

TOKEN = AccessToken(
    value="token-1",
    client_id=None,
    expires_on=int(NOW) + 3599,
    not_before=int(NOW),
    resource=VAULT,
)


def test_the_answer_is_the_archived_projects_byte_for_byte() -> None:
    assert render_host_answer(TOKEN, CLIENT, VAULT, NOW) == (
        b'{"token":{"access_token":"token-1","refresh_token":"","expires_in":"3599",'
        b'"expires_on":"1795603599","not_before":"1795600000",'
        b'"resource":"https://vault.azure.net","token_type":"Bearer"},'
        b'"clientid":"11111111-2222-3333-4444-555555555555"}'
    )


def test_each_time_is_a_whole_number_in_a_string_even_of_a_token_that_has_expired() -> None:
    token = json.loads(render_host_answer(TOKEN, CLIENT, VAULT, NOW + 9_999))["token"]
    times = [token[name] for name in ("expires_in", "expires_on", "not_before")]
    assert times[0] == "0"
    assert all(time.isdigit() for time in times)


def test_the_pod_is_named_by_two_headers() -> None:
    headers = {"podns": ["shop"], "podname": ["orders-0.a"], "host": ["localhost:2579"]}
    assert parse_pod_name(headers) == ObjectRef("shop", "orders-0.a")


@pytest.mark.parametrize(
    ("headers", "why"),
    [
        ({}, "missing 'podname' and 'podns' from request header"),
        ({"podns": ["shop"]}, "missing 'podname' and 'podns' from request header"),
        ({"podname": ["orders-0"]}, "missing 'podname' and 'podns' from request header"),
        ({"podns": ["shop"], "podname": [""]}, "missing 'podname' and 'podns'"),
        ({"podns": ["shop"], "podname": ["a", "b"]}, "'podname' must be one name"),
        ({"podns": ["shop"], "podname": ["Orders"]}, "'podname' must be one name"),
        ({"podns": ["../shop"], "podname": ["a"]}, "'podns' must be one name"),
        ({"podns": ["shop"], "podname": ["a" * 254]}, "'podname' must be one name"),
        ({"podns": ["caf\xe9"], "podname": ["a"]}, "'podns' must be one name"),
    ],
)
def test_what_names_no_one_pod_is_an_invalid_request(
    headers: dict[str, list[str]], why: str
) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parse_pod_name(headers)
