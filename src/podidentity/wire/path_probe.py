"""The fixed request of a probe of the data path, and what its answer says (`core.data_path`).

The request lacks `Metadata: true`, so IMDS answers it with 400 and gives away nothing:
https://learn.microsoft.com/azure/virtual-machines/instance-metadata-service#security-and-authentication
"""

from __future__ import annotations

import re

from podidentity.core.data_path import Answerer

_PATH = "/metadata/versions"
_TARGET = re.compile(rf"{_PATH}\?probe=([0-9a-f]{{32}})", re.ASCII)

ANSWER = b'{"podidentity":"probe"}'
"""The body with which `serve` answers, always the same."""
LONGEST_REPLY = 2048
"""Bytes of an answer that are looked at: more than `serve` sends, and than an error of IMDS has."""

# Hosts of Azure say `Server: IMDS/150.870.65.1103`, older ones Microsoft-IIS/10.0; the body of a
# 400 begins so: https://github.com/MicrosoftDocs/azure-docs/issues/91624. Ours says neither.
_OF_IMDS = re.compile(rb'(?im)^server: *(?:imds|microsoft-iis)/|"error": *"bad request')


def render_request(nonce: str) -> bytes:
    """Return the request with a nonce of 32 hexadecimal digits."""
    return (
        f"GET {_PATH}?probe={nonce} HTTP/1.1\r\n"
        "Host: 169.254.169.254\r\n"
        "User-Agent: podidentity-probe\r\n"
        "Connection: close\r\n\r\n"
    ).encode()


def nonce_of(target: str) -> str:
    """Return the nonce in the target of a request; "" if it is no probe's."""
    found = _TARGET.fullmatch(target)
    return found[1] if found else ""


def answerer_of(received: bytes) -> Answerer:
    """Say whose answer these bytes are, of which any program may be the author.

    They are compared, and not parsed.
    """
    if not received:
        return Answerer.NONE
    if received.startswith(b"HTTP/1.1 200 ") and received.endswith(b"\r\n\r\n" + ANSWER):
        return Answerer.OURS
    if received.startswith(b"HTTP/1.") and _OF_IMDS.search(received):
        return Answerer.IMDS
    return Answerer.ANOTHER
