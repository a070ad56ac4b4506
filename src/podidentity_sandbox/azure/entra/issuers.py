"""The published keys of foreign issuers, read as anybody on the internet can read them.

https://openid.net/specs/openid-connect-discovery-1_0.html#ProviderConfig. The sandbox's internet
has one issuer, its cluster's API server; a host of any other name is not even asked for.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import jwt

from podidentity_sandbox.azure.dns import APISERVER_NAMES

PATIENCE = 5.0
"""Seconds for a document."""
KEPT = 3600.0
"""Seconds for which keys are used again; one that is not among them is looked for at once."""
LIMIT = 2**16
"""Bytes of a document."""


class IssuerUnreachable(Exception):
    """The issuer's documents cannot be had, or say something else than they must."""


@dataclass(frozen=True, slots=True)
class _Kept:
    at: float
    keys: tuple[Mapping[str, Any], ...]


class PublishedKeys:
    """Reads the keys of issuers, and keeps them for a while."""

    def __init__(
        self, apiserver: str, trust: Callable[[], ssl.SSLContext], clock: Callable[[], float]
    ) -> None:
        """Find the API server at the URL `apiserver`; `trust` verifies it by its name."""
        self._apiserver = apiserver
        self._trust = trust
        self._clock = clock
        self._kept: dict[str, _Kept] = {}

    async def find(self, issuer: str, key_id: object) -> list[jwt.PyJWK]:
        """Return the issuer's keys of that id, one at most; raise IssuerUnreachable."""
        kept = self._kept.get(issuer)
        fresh = kept is not None and self._clock() - kept.at < KEPT
        if kept is None or not fresh or not _of(kept.keys, key_id):
            kept = self._kept[issuer] = _Kept(self._clock(), await self._read(issuer))
        try:
            return [jwt.PyJWK(dict(key), algorithm="RS256") for key in _of(kept.keys, key_id)]
        except jwt.PyJWTError:
            return []

    async def _read(self, issuer: str) -> tuple[Mapping[str, Any], ...]:
        timeout = aiohttp.ClientTimeout(total=PATIENCE)
        try:
            async with aiohttp.ClientSession(timeout=timeout) as session:
                where = f"{issuer.rstrip('/')}/.well-known/openid-configuration"
                configuration = await self._document(session, where)
                if configuration.get("issuer") != issuer:
                    raise IssuerUnreachable(f"{where} is of another issuer")
                jwks = await self._document(session, str(configuration.get("jwks_uri")))
                keys = jwks.get("keys")
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError) as error:
            raise IssuerUnreachable(f"{issuer}: {error}") from error
        if not isinstance(keys, list) or not all(isinstance(key, dict) for key in keys):
            raise IssuerUnreachable(f"{issuer} publishes no keys")
        return tuple(keys)

    async def _document(self, session: aiohttp.ClientSession, url: str) -> dict[str, Any]:
        asked = urlsplit(url)
        if asked.scheme != "https" or asked.netloc not in APISERVER_NAMES:
            raise IssuerUnreachable(f"the sandbox's internet has no {url}")
        where, name = asked._replace(scheme="", netloc="").geturl(), asked.netloc
        async with session.get(
            f"{self._apiserver}{where}",
            headers={"Host": name},
            server_hostname=name,
            ssl=self._trust(),
            allow_redirects=False,
        ) as response:
            if response.status != 200:
                raise IssuerUnreachable(f"{url} answers {response.status}")
            value = json.loads(await response.content.read(LIMIT))
        if not isinstance(value, dict):
            raise IssuerUnreachable(f"{url} is no object")
        return value


def _of(keys: tuple[Mapping[str, Any], ...], key_id: object) -> list[Mapping[str, Any]]:
    return [key for key in keys if isinstance(key_id, str) and key.get("kid") == key_id]
