"""TokenRequest: a service account's token for one audience, bound to a pod.

https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-request-v1/
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from podidentity.core.resources import ObjectRef, Pod
from podidentity.wire import BROKEN_JSON

SECONDS = 3600
"""Requested lifetime; the server may choose another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Minted:
    """A service account's token."""

    text: str = field(repr=False)
    expires_on: float
    """Seconds since 1970."""


class _Status(msgspec.Struct, rename="camel"):
    token: str
    expiration_timestamp: datetime


class _Request(msgspec.Struct):
    status: _Status


_REQUEST = msgspec.json.Decoder(_Request)


def token_path(account: ObjectRef) -> str:
    return f"/api/v1/namespaces/{account.namespace}/serviceaccounts/{account.name}/token"


def render_token_request(
    audience: str, pod: Pod | None, *, seconds: int = SECONDS
) -> dict[str, Any]:
    """Return the TokenRequest; with a pod, the token is valid only while the pod exists."""
    spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": seconds}
    if pod is not None:
        spec["boundObjectRef"] = {
            "apiVersion": "v1",
            "kind": "Pod",
            "name": pod.ref.name,
            "uid": pod.uid,
        }
    return {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}


def parse_token_request(body: bytes) -> Minted:
    """Return the token in the answer; raise ValueError, which does not quote the answer."""
    try:
        status = _REQUEST.decode(body).status
    except BROKEN_JSON:
        raise ValueError("the API server answered a TokenRequest without a token") from None
    when = status.expiration_timestamp
    aware = when if when.tzinfo else when.replace(tzinfo=UTC)
    return Minted(text=status.token, expires_on=aware.timestamp())
