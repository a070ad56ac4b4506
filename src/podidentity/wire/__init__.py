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
from typing import Any, TypeVar

import msgspec

_T = TypeVar("_T")

BROKEN_JSON = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)
"""The errors of a msgspec decoder: other JSON than expected, no UTF-8, nesting without end."""
_DEEPEST = 9000
_LEVELS = 10_100
"""Of nesting. API servers accept 10,000 (https://github.com/golang/go/issues/31789)."""
_PIECE = 64 << 10
_STEPS = bytes({0x5B: 1, 0x7B: 1, 0x5D: 255, 0x7D: 255}.get(byte, 0) for byte in range(256))
"""What each byte adds to the depth, as signed bytes."""
ANY = msgspec.json.Decoder(float_hook=float)
"""For whatever a tenant wrote: msgspec's own floats take 8 µs for `1e308`, Python's 0.1 µs."""
ANY_FIELDS = msgspec.json.Decoder(dict[str, Any], float_hook=float)


def decoded(decoder: msgspec.json.Decoder[_T], body: bytes | msgspec.Raw) -> _T:
    """Return what `decoder` reads of untrusted JSON; raise BROKEN_JSON.

    It is for decoders that skip whatever a tenant may nest. Python's limit of recursion is raised
    for the decoder. CPython 3.12 and 3.13 have a fixed limit of 10,000 levels instead, so lists and
    events with an object at the limit of the API server are cut (`shallow`).
    """
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(_LEVELS)
    try:
        return decoder.decode(body)
    finally:
        sys.setrecursionlimit(limit)


def shallow(body: bytes, deepest: int = _DEEPEST) -> bytes:
    """Return the JSON in `body` with `null` for each array and object below `deepest` levels.

    It takes 0.1 s for a megabyte, and never holds the interpreter for longer than a millisecond
    or two: so in a thread it keeps nobody else waiting.
    """
    plain = body.replace(b"\\\\", b"__").replace(b'\\"', b"__")
    kept: list[bytes] = []
    depth = in_string = at = 0
    cut = False
    for begin in range(0, len(plain), _PIECE):
        parts = plain[begin : begin + _PIECE].split(b'"')
        parts[1 - in_string :: 2] = map(bytes, map(len, parts[1 - in_string :: 2]))
        in_string ^= 1 - len(parts) % 2
        steps = memoryview(b'"'.join(parts).translate(_STEPS)).cast("b")
        depths = array("i", accumulate(steps, initial=depth))
        depth, found = depths[-1], 0
        with suppress(ValueError):
            while True:
                found = depths.index(deepest if cut else deepest + 1, found + 1)
                if cut:
                    at = begin + found
                else:
                    kept += [body[at : begin + found - 1], b"null"]
                    at = len(body)
                cut = not cut
    return b"".join([*kept, body[at:]])
