"""OpenAPI v2, which kubectl asks for before it sends the items of a `List`.

It is a document without types: kubectl then leaves their validation to the server, which does it
in any case. A real one is 3 MB of protobuf.
https://github.com/google/gnostic-models/blob/v0.6.9/openapiv2/OpenAPIv2.proto
"""

from __future__ import annotations

from podidentity_sandbox.cluster.discovery import VERSION

PATH = "/openapi/v2"
ASKED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
CONTENT_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""What clients call it in Accept is no well-formed media type, so the answer has another name."""


def _text(number: int, content: bytes) -> bytes:
    """Return one field of protobuf, of less than 128 bytes."""
    return bytes([number << 3 | 2, len(content)]) + content


_INFO = _text(1, b"Kubernetes") + _text(2, VERSION["gitVersion"].encode())
DOCUMENT = _text(1, b"2.0") + _text(2, _INFO) + _text(8, b"")
"""swagger, info and paths."""
