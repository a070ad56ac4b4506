"""The token request of the Secrets Store CSI driver's Azure provider, and our answer to it.

The provider's Go code was measured: the three times must be whole numbers in strings, because ""
fails the whole mount (`json.Number`), and so does an empty or missing `clientid`.

Request and types: pkg/auth/auth.go of
https://github.com/Azure/secrets-store-csi-driver-provider-azure
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import msgspec

from podidentity.core.errors import InvalidRequest
from podidentity.core.resources import AccessToken, ObjectRef

_NAME = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", re.ASCII)


class _Token(msgspec.Struct):
    # In the order of the archived project's answer.
    access_token: str
    refresh_token: str
    expires_in: str
    expires_on: str
    not_before: str
    resource: str
    token_type: str


class _Answer(msgspec.Struct):
    token: _Token
    clientid: str


def parse_pod_name(headers: Mapping[str, Sequence[str]]) -> ObjectRef:
    """Return the pod that the headers name; `headers` has keys in lower case.

    Raises InvalidRequest.
    """
    return ObjectRef(_name(headers, "podns"), _name(headers, "podname"))


def render_host_answer(token: AccessToken, client_id: str, resource: str, now: float) -> bytes:
    """Return the body of a successful answer; `resource` is echoed as the client sent it."""
    return msgspec.json.encode(
        _Answer(
            token=_Token(
                access_token=token.value,
                refresh_token="",
                expires_in=str(token.life(now)),
                expires_on=str(token.expires_on),
                not_before=str(token.not_before),
                resource=resource,
                token_type=token.token_type,
            ),
            clientid=client_id,
        )
    )


def _name(headers: Mapping[str, Sequence[str]], header: str) -> str:
    values = headers.get(header, ())
    if not values or not values[0]:
        raise InvalidRequest("missing 'podname' and 'podns' from request header")
    if len(values) > 1 or not _NAME.fullmatch(values[0]):
        raise InvalidRequest(f"header {header!r} must be one name of Kubernetes")
    return values[0]
