"""What the answers of Entra and of IMDS have in common: loose fields, an error, a token's claims.

Numbers come as numbers, as strings and as nothing at all; so every field is read with care, and
whatever is no answer is none.

https://learn.microsoft.com/entra/identity-platform/access-token-claims-reference
"""

from __future__ import annotations

import re
from binascii import a2b_base64
from typing import Any

import msgspec

Fields = dict[str, Any]

_NUMBER = re.compile(r"[0-9]{1,15}", re.ASCII)
_BROKEN = (msgspec.MsgspecError, UnicodeDecodeError, RecursionError)


class Claims(msgspec.Struct):
    """What we read of a token; "" where it does not say."""

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
        """The client id that the token was given to."""
        return self.appid or self.azp


_FIELDS = msgspec.json.Decoder(Fields)
_CLAIMS = msgspec.json.Decoder(Claims)


def fields_of(body: bytes) -> Fields | None:
    """Return the JSON object in `body`; None where it is none."""
    try:
        return _FIELDS.decode(body)
    except _BROKEN:
        return None


def error_of(fields: Fields | None) -> tuple[str, str]:
    """Return error code and description of a refusal, both one line and short."""
    if fields is None:
        return "", ""
    code, text = fields.get("error"), fields.get("error_description")
    if not isinstance(text, str):
        code, text = "", code
    lines = (" ".join(str(part or "").split()) for part in (code, text))
    return next(lines)[:64], next(lines)[:600]


def claims_of(token: str) -> Claims:
    """Return the claims of a JWT without checking its signature: that is the audience's task."""
    parts = token.split(".")
    if len(parts) != 3:
        return Claims()
    text = parts[1].translate({ord("-"): "+", ord("_"): "/"})
    try:
        return _CLAIMS.decode(a2b_base64(text + "=" * (-len(text) % 4)))
    except (*_BROKEN, ValueError):
        return Claims()


def number(value: object) -> int:
    """Return a whole number from a string or a number; 0 where there is none."""
    text = str(value).partition(".")[0]
    return int(text) if _NUMBER.fullmatch(text) else 0
