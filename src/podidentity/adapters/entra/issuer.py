"""Tokens of service principals and of federated identities, from Entra."""

from __future__ import annotations

from collections.abc import Hashable, Mapping

from podidentity.adapters.entra.client_credentials import ClientCredentials
from podidentity.adapters.entra.endpoint import TokenEndpoint
from podidentity.core.authorities import Cloud
from podidentity.core.ids import ClientId
from podidentity.core.ports import Clock
from podidentity.core.resources import Entra, IdentityType
from podidentity.core.tokens import AccessToken, Grant
from podidentity.wire.entra import (
    Client,
    ClientCredential,
    StaleAssertion,
    parse_answer,
    render_request,
)


class EntraIssuer:
    """Issues for the types that have a prover; a core.ports.TokenIssuer."""

    def __init__(
        self,
        endpoint: TokenEndpoint,
        provers: Mapping[IdentityType, ClientCredentials],
        *,
        clock: Clock,
        cloud: Cloud,
    ) -> None:
        """`cloud` is where identities belong that name no authority."""
        self._endpoint = endpoint
        self._provers = provers
        self._clock = clock
        self._cloud = cloud

    def credential(self, grant: Grant) -> Hashable | None:
        """Return all that decides which token it is; None while its secret is not read.

        Asked for every request: it only puts together texts that are there.
        """
        client_id, entra = _parts(grant)
        credential = self._provers[grant.identity.type].key(grant, entra)
        if credential is None:
            return None
        authority = entra.authority or self._cloud.authority
        tenant = grant.tenant or entra.tenant
        return ("entra", client_id.text, tenant.text, authority.url, *credential)

    async def ready(self, grant: Grant) -> Hashable:
        """Return the same, after reading the secret; raise a TokenUnavailable."""
        _, entra = _parts(grant)
        await self._provers[grant.identity.type].ready(entra)
        return self.credential(grant)

    async def issue(
        self, grant: Grant, resource: str, *, bypass_cache: bool = False
    ) -> AccessToken:
        """Return a new token; raise a TokenUnavailable. Entra keeps none that could be by-passed.

        The secret is taken before anything is awaited, so the token belongs to what `credential`
        returns just before.
        """
        del bypass_cache
        client_id, entra = _parts(grant)
        client = Client(
            client_id=client_id,
            tenant=grant.tenant or entra.tenant,
            authority=entra.authority or self._cloud.authority,
        )
        prover = self._provers[grant.identity.type]
        credential = await prover.prove(grant, entra, client)
        try:
            return await self._exchanged(client, resource, credential)
        except StaleAssertion:
            if not prover.forget(credential):
                raise
            credential = await prover.prove(grant, entra, client)
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
