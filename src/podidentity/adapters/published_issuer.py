"""What an issuer of tokens publishes, read as Entra reads it: from outside, without credentials.

https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig
https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import httpx2

from podidentity.bounded_answers import no_answer

DISCOVERY = "/.well-known/openid-configuration"
SECONDS = 5.0
"""Longest wait for an answer."""
LIMIT = 256 * 1024
"""Bytes of a document that are read."""
_SHOWN = 200
"""Characters of what is no URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedIssuer:
    """What came of the questions to an issuer."""

    issuer: str = ""
    """As its own document names it."""
    keys: int = 0
    problem: str = ""
    """What is wrong with an answer, as a clause."""
    silent: str = ""
    """Why no answer came, as a clause: an issuer may be reached from elsewhere all the same."""


class _Wrong(ValueError):
    """An answer that is not an issuer's; the message says why, as a clause."""


async def read_issuer(issuer: str, transport: httpx2.AsyncBaseTransport) -> PublishedIssuer:
    """Return what `issuer` publishes, read by that way; nothing is raised."""
    if not issuer.startswith("https://"):
        return PublishedIssuer(problem="it is not at https")
    async with httpx2.AsyncClient(timeout=SECONDS, trust_env=False, transport=transport) as client:
        named = ""
        try:
            document = await _document(client, f"{issuer.rstrip('/')}{DISCOVERY}")
            named = str(document.get("issuer", ""))
            keys = (await _document(client, str(document.get("jwks_uri", "")))).get("keys")
        except _Wrong as error:
            return PublishedIssuer(issuer=named, problem=str(error))
        except (httpx2.HTTPError, OSError) as error:
            return PublishedIssuer(issuer=named, silent=no_answer(error))
    if not isinstance(keys, list) or not keys:
        return PublishedIssuer(issuer=named, problem="it publishes no keys")
    return PublishedIssuer(issuer=named, keys=len(keys))


async def _document(client: httpx2.AsyncClient, url: str) -> dict[str, Any]:
    if not url.startswith("https://"):
        raise _Wrong(f"{url or 'the place of its keys'} is not at https")
    body = b""
    try:
        place = httpx2.URL(url)
    except httpx2.InvalidURL as error:
        raise _Wrong(f"{url[:_SHOWN]!r} is no URL") from error
    url = str(place)  # with what a terminal obeys quoted: another server has named it
    async with client.stream("GET", place) as response:
        if response.status_code != httpx2.codes.OK:
            raise _Wrong(f"{url} answers {response.status_code}")
        async for part in response.aiter_bytes():
            body += part
            if len(body) > LIMIT:
                raise _Wrong(f"{url} is larger than {LIMIT} bytes")
    try:
        found = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _Wrong(f"{url} is no JSON") from error
    if not isinstance(found, dict):
        raise _Wrong(f"{url} is no object")
    return found
