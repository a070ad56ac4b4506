"""Formats of other systems, as pure functions from bytes to core values and back.

Each module knows one format and no other (`entra` reads the answers that IMDS passes on, too):

    kube                        lists, watches and errors of the Kubernetes API
    manifests, pods, secrets    its objects
    rbac, reviews               roles and bindings; SubjectAccessReview and TokenReview
    service_account_tokens      TokenRequest
    debug_access                who may read `/debug` of an NMI through the API server
    events                      events about pods
    imds                        pods' requests to IMDS and our answers, ours to it and its own
    host_token                  token requests of the CSI driver, and our answers
    entra                       token requests to Entra, and its answers
    arm, azure_environment      Azure Resource Manager; the file that describes an Azure Stack Hub
    cloud_config                the cloud provider's file on a node
    leases, ledgers, pauses     who leads; what MIC attached; what people paused
    net                         the messages between `serve` and `net`
"""

from __future__ import annotations

import sys
from array import array
from contextlib import suppress
from itertools import accumulate
from typing import TypeVar

import msgspec

_T = TypeVar("_T")

BROKEN_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of a msgspec decoder: other JSON than expected, no UTF-8, nesting without end."""
_DEEPEST = 9000
_LEVELS = 10_100
"""Of nesting. API servers accept 10,000 (https://github.com/golang/go/issues/31789)."""
MOST_SCANNED = 2 << 20
"""Bytes of JSON that are cut where they are too deep; no API server stores a larger object."""
_STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))
"""What each byte adds to the depth, as signed bytes."""


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    """Return what `decoder` reads of untrusted JSON, however deep the JSON is; raise BROKEN_JSON.

    It is for decoders that skip whatever a tenant may nest. Python's limit of recursion is raised
    for the decoder. CPython 3.12 and 3.13 have a fixed limit of 10,000 levels instead, so an object
    at the limit of the API server is cut. Raises RecursionError if it is too large for that, too.
    """
    try:
        return decoder.decode(body)
    except RecursionError:
        pass
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(_LEVELS)
    try:
        return decoder.decode(body)
    except RecursionError:
        if len(body) > MOST_SCANNED:
            raise
        return decoder.decode(shallow(bytes(body)))
    finally:
        sys.setrecursionlimit(limit)


def shallow(body: bytes, deepest: int = _DEEPEST) -> bytes:
    """Return the JSON in `body` with `null` for each array and object below `deepest` levels.

    Each step is one compiled pass, 0.1 s in all for the largest object on a slow machine.
    """
    plain = body.replace(b"\\\\", b"__").replace(b'\\"', b"__").split(b'"')
    plain[1::2] = map(bytes, map(len, plain[1::2]))
    steps = memoryview(b'"'.join(plain).translate(_STEPS)).cast("b")
    del plain
    depths = array("i", accumulate(steps))
    kept, at = [], 0
    with suppress(ValueError):
        while True:
            begin = depths.index(deepest + 1, at)
            kept += [body[at:begin], b"null"]
            at = len(body)
            at = depths.index(deepest, begin) + 1
    return b"".join([*kept, body[at:]])
