"""Tokens of service principals and of federated identities, from Entra's token endpoints."""

from __future__ import annotations

import asyncio
from collections.abc import Hashable
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import httpx2

from podidentity.adapters.entra.client_credentials import CredentialSource
from podidentity.bounded_answers import TooLong, body_of, no_answer
from podidentity.core.authorities import Cloud
from podidentity.core.errors import TokenSourceDown
from podidentity.core.ports import Clock
from podidentity.core.resources import AccessToken, ClientId, Entra, Grant
from podidentity.wire.entra import (
    LONGEST_ANSWER,
    Client,
    ClientCredential,
    StaleAssertion,
    parse_answer,
    render_request,
)

SECONDS = 9.0
"""Timeout of a whole answer: a pod's client waits little longer."""

_TIMEOUT = httpx2.Timeout(SECONDS, connect=5)


class EntraIssuer:
    """A core.ports.TokenIssuer for one type of identity, by its CredentialSource."""

    def __init__(
        self,
        endpoint: TokenEndpoint,
        source: CredentialSource,
        *,
        clock: Clock,
        cloud: Cloud,
    ) -> None:
        """`cloud` is the cloud of identities that name no authority."""
        self._endpoint = endpoint
        self._source = source
        self._clock = clock
        self._cloud = cloud

    def credential(self, grant: Grant) -> Hashable | None:
        """Return the key of the grant's tokens, without the audience; None if a secret is not read.

        Called for each request: it only combines values in memory.
        """
        client_id, entra = _parts(grant)
        credential = self._source.key(grant, entra)
        if credential is None:
            return None
        authority = entra.authority or self._cloud.authority
        tenant = grant.tenant or entra.tenant
        return ("entra", client_id.text, tenant.text, authority.url, *credential)

    async def ready(self, grant: Grant) -> Hashable:
        """Return `credential` after reading the secret; raise a TokenUnavailable."""
        _, entra = _parts(grant)
        await self._source.ready(entra)
        return self.credential(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token; raise a TokenUnavailable. Entra has no cache to bypass.

        The secret is taken before the first await, so the token belongs to the value that
        `credential` returned just before.
        """
        del bypass_cache
        client_id, entra = _parts(grant)
        client = Client(
            client_id=client_id,
            tenant=grant.tenant or entra.tenant,
            authority=entra.authority or self._cloud.authority,
        )
        source = self._source
        credential = await source.credential(grant, entra, client)
        try:
            return await self._exchanged(client, resource, credential)
        except StaleAssertion:
            if not source.forget(credential):
                raise
            credential = await source.credential(grant, entra, client)
            return await self._exchanged(client, resource, credential)

    async def _exchanged(
        self, client: Client, resource: str, credential: ClientCredential
    ) -> AccessToken:
        form = render_request(client, resource, credential)
        reply = await self._endpoint.post(client.url, form)
        return parse_answer(
            reply.status,
            reply.body,
            client=client,
            resource=resource,
            credential=credential,
            now=self._clock.time(),
            retry_after=reply.retry_after,
        )


def _parts(grant: Grant) -> tuple[ClientId, Entra]:
    client_id, entra = grant.identity.client_id, grant.identity.entra
    if client_id is None or entra is None:
        raise ValueError("an identity of type 1, 2 or 3 has a client id and a tenant")
    return client_id, entra


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """The answer of a token endpoint."""

    status: int
    body: bytes = field(repr=False)
    retry_after: str


class TokenEndpoint:
    """Posts forms to the token endpoints of all authorities over HTTPS. Close it when done.

    Redirects are not followed: one would carry a secret to its target.
    """

    def __init__(
        self,
        *,
        user_agent: str,
        transport: httpx2.AsyncBaseTransport,
        seconds: float = SECONDS,
    ) -> None:
        """`transport` is the way there (`azure_transport.AzureTransport`)."""
        self._seconds = seconds
        self._client = httpx2.AsyncClient(
            headers={"Accept": "application/json", "User-Agent": user_agent},
            timeout=_TIMEOUT,
            trust_env=False,
            transport=transport,
            follow_redirects=False,
        )

    async def close(self) -> None:
        await self._client.aclose()

    async def post(self, url: str, form: bytes) -> Reply:
        """Return the answer to the form; raise TokenSourceDown."""
        host = urlsplit(url).netloc
        try:
            async with asyncio.timeout(self._seconds):
                try:
                    return await self._once(url, form)
                except (httpx2.RemoteProtocolError, httpx2.ReadError, httpx2.WriteError):
                    # The server closed a pooled connection just as we used it: no answer was lost.
                    return await self._once(url, form)
        except TimeoutError as error:
            raise TokenSourceDown(f"{host} did not answer within {self._seconds:g} s") from error
        except (httpx2.HTTPError, httpx2.InvalidURL, OSError) as error:
            raise TokenSourceDown(f"{host} cannot be asked: {no_answer(error)}") from error

    async def _once(self, url: str, form: bytes) -> Reply:
        headers = {"Content-Type": "application/x-www-form-urlencoded"}
        sent = self._client.stream("POST", url, content=form, headers=headers)
        async with sent as response:
            try:
                body = await body_of(response, LONGEST_ANSWER)
            except TooLong as error:
                host = urlsplit(url).netloc
                raise TokenSourceDown(f"{host} sent more than {LONGEST_ANSWER} bytes") from error
            return Reply(
                status=response.status_code,
                body=body,
                retry_after=response.headers.get("Retry-After", ""),
            )
