"""The common part of Entra's and IMDS's answers: loosely typed fields, an error, a token's claims.

Numbers arrive as numbers, as strings or not at all, so each field is converted with care. A body of
another shape is no answer.

https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Any

import msgspec

from podidentity.wire import BROKEN_JSON

Fields = dict[str, Any]

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)


class Claims(msgspec.Struct):
    """The claims of a token that we use; "" for a missing one."""

    # `appid` in tokens of version 1, `azp` in those of version 2.
    appid: str = ""
    azp: str = ""
    oid: str = ""
    tid: str = ""
    # The ARM id of the identity; of a system-assigned one, that of its machine.
    xms_mirid: str = ""
    exp: Any = None
    nbf: Any = None

    @property
    def owner(self) -> str:
        """The client id to which the token was issued."""
        return self.appid or self.azp


_FIELDS = msgspec.json.Decoder(Fields)
_CLAIMS = msgspec.json.Decoder(Claims)


def fields_of(body: bytes) -> Fields | None:
    """Return the JSON object in `body`; None for anything else."""
    try:
        return _FIELDS.decode(body)
    except BROKEN_JSON:
        return None


def error_of(fields: Fields | None) -> tuple[str, str]:
    """Return error code and description of a refusal, each in one short line."""
    if fields is None:
        return "", ""
    code, text = fields.get("error"), fields.get("error_description")
    if not isinstance(text, str):
        code, text = "", code
    lines = (" ".join(str(part or "").split()) for part in (code, text))
    return next(lines)[:64], next(lines)[:600]


def claims_of(token: str) -> Claims:
    """Return the claims of a JWT; its signature is not checked, that is the audience's task."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    text = parts[1].translate({ord("-"): "+", ord("_"): "/"})
    try:
        return _CLAIMS.decode(a2b_base64(text + "=" * (-len(text) % 4)))
    except (*BROKEN_JSON, ValueError):
        return Claims()


def number(value: object) -> int:
    """Return a whole number from a string or a number; 0 for anything else."""
    text = str(value).partition(".")[0]
    return int(text) if _NUMBER.fullmatch(text) else 0
