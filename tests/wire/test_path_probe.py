from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.data_path import Answerer
from podidentity.wire.path_probe import ANSWER, LONGEST_REPLY, answerer_of, nonce_of, render_request

NONCE = "0123456789abcdef" * 2
IMDS = (
    b"HTTP/1.1 400 Bad Request\r\nContent-Type: application/json; charset=utf-8\r\n"
    b'Server: IMDS/150.870.65.1103\r\n\r\n{"error":"x"}'
)


def test_the_request_lacks_the_header_that_imds_demands() -> None:
    request = render_request(NONCE)
    assert request == (
        b"GET /metadata/versions?probe=0123456789abcdef0123456789abcdef HTTP/1.1\r\n"
        b"Host: 169.254.169.254\r\nUser-Agent: podidentity-probe\r\nConnection: close\r\n\r\n"
    )
    assert b"metadata:" not in request.lower()


def test_its_nonce_is_read_from_its_target() -> None:
    target = render_request(NONCE).split()[1].decode()
    assert nonce_of(target) == NONCE


@pytest.mark.parametrize(
    "target",
    [
        "/metadata/versions",
        "/metadata/versions?probe=",
        f"/metadata/versions?probe={NONCE}0",
        f"/metadata/versions?probe={NONCE.upper()}",
        f"/metadata/versions?probe={NONCE}\n",
        f"/metadata/versions?probe={NONCE}&resource=x",
        f"/Metadata/versions?probe={NONCE}",
        f"/metadata/identity/oauth2/token?probe={NONCE}",
    ],
)
def test_no_other_target_has_a_nonce(target: str) -> None:
    assert nonce_of(target) == ""


@pytest.mark.parametrize(
    ("received", "reply"),
    [
        (b"", Answerer.NONE),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 23\r\n\r\n" + ANSWER, Answerer.OURS),
        (b"HTTP/1.1 404 Not Found\r\n\r\n" + ANSWER, Answerer.ANOTHER),
        (b"HTTP/1.1 200 OK\r\n\r\n" + ANSWER + b" ", Answerer.ANOTHER),
        (IMDS, Answerer.IMDS),
        (
            IMDS.replace(b"Server: IMDS/150.870.65.1103", b"server:microsoft-iis/10.0"),
            Answerer.IMDS,
        ),
        (
            b'HTTP/1.1 400 Bad Request\r\n\r\n{ "error": "Bad request: . Required metadata header '
            b'not specified" }',
            Answerer.IMDS,
        ),
        # NMI's own answer to a probe that it does not expect: another NMI's.
        (
            b'HTTP/1.1 400 Bad Request\r\n\r\n{"error":"invalid_request","error_description":'
            b'"Required metadata header not specified"}',
            Answerer.ANOTHER,
        ),
        (b"SSH-2.0-OpenSSH_9.2\r\n", Answerer.ANOTHER),
        (b"SSH-2.0\r\nServer: IMDS/150\r\n", Answerer.ANOTHER),
        (b"\0", Answerer.ANOTHER),
    ],
)
def test_an_answer_is_told_by_a_few_of_its_bytes(received: bytes, reply: Answerer) -> None:
    assert answerer_of(received) is reply


@given(st.binary(min_size=1, max_size=LONGEST_REPLY))
def test_any_bytes_are_somebodys_answer_and_never_ours_by_chance(received: bytes) -> None:
    assert answerer_of(received) in {Answerer.ANOTHER, Answerer.IMDS}
