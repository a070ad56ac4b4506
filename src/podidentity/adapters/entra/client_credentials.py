"""How each type of identity proves itself to Entra: by secret, certificate or federation."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol
from uuid import uuid4

from podidentity.adapters.entra.assertions import Assertions
from podidentity.adapters.entra.certificates import Certificates
from podidentity.core.authorities import EXCHANGE_AUDIENCES, Cloud
from podidentity.core.federation import stand_in, subject_of
from podidentity.core.ids import ObjectRef
from podidentity.core.ports import Clock, Secrets
from podidentity.core.resources import AssertionSubject, Entra, Federation
from podidentity.core.secrets import Secret, client_secret, unusable
from podidentity.core.tokens import Grant
from podidentity.wire.entra import Client, ClientCredential


class ClientCredentials(Protocol):
    """Proves the clients of one type of identity."""

    def key(self, grant: Grant, entra: Entra) -> tuple[Hashable, ...] | None:
        """Return what tells this proof from all others; None where it must be read first."""

    async def ready(self, entra: Entra) -> None:
        """Read what `key` needs; raise a TokenUnavailable."""

    async def prove(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return the proof as it is now; raise a TokenUnavailable."""

    def forget(self, proof: ClientCredential) -> bool:
        """Forget a proof that has become too old; return whether a new one is another."""


class _SecretBacked:
    """What secrets and certificates have in common."""

    kind = ""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def key(self, grant: Grant, entra: Entra) -> tuple[Hashable, ...] | None:
        """Return a digest of the secret's bytes."""
        del grant
        secret = self._secrets.known(_ref(entra))
        return None if secret is None else (self.kind, secret.digest)

    async def ready(self, entra: Entra) -> None:
        """Read the secret."""
        await self._secrets.read(_ref(entra))

    def forget(self, proof: ClientCredential) -> bool:
        """Forget nothing: the secret is as it is."""
        del proof
        return False

    async def _secret(self, entra: Entra) -> Secret:
        # Known, it is taken before anything is awaited: the token belongs to the key of now.
        return self._secrets.known(_ref(entra)) or await self._secrets.read(_ref(entra))


class SecretCredentials(_SecretBacked):
    """Type 1."""

    kind = "secret"

    async def prove(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return the client secret."""
        del grant, client
        return ClientCredential(text=client_secret(await self._secret(entra)), assertion=False)


class CertificateCredentials(_SecretBacked):
    """Type 2."""

    kind = "certificate"

    def __init__(self, secrets: Secrets, certificates: Certificates, clock: Clock) -> None:
        super().__init__(secrets)
        self._certificates = certificates
        self._clock = clock

    async def prove(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return an assertion that the certificate's key has signed."""
        del grant
        secret = await self._secret(entra)
        certificate = await self._certificates.of(secret)
        now = self._clock.time()
        if fault := certificate.fault(now):
            raise unusable(secret, fault)
        text = certificate.assertion(client, now=now, unique=str(uuid4()))
        return ClientCredential(text=text, assertion=True)


class FederatedCredentials:
    """Type 3, and the annotated service accounts of azure-workload-identity."""

    def __init__(self, assertions: Assertions, *, cloud: Cloud, namespace: str) -> None:
        """`namespace` is where the service accounts of identities are."""
        self._assertions = assertions
        self._cloud = cloud
        self._namespace = namespace

    def key(self, grant: Grant, entra: Entra) -> tuple[Hashable, ...]:
        """Return the exact subject, and the audience."""
        federation = _federation(entra)
        audience = self._audience(entra, federation)
        if federation.via is not None:
            return ("via", federation.via.folded, audience)
        return ("federated", *subject_of(grant, federation, self._namespace), audience)

    async def ready(self, entra: Entra) -> None:
        """Read nothing: what must be read is part of no key."""

    async def prove(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return the token of the service account, or of the managed identity."""
        del client
        federation = _federation(entra)
        audience = self._audience(entra, federation)
        managed = stand_in(grant.identity, federation)
        if managed is not None:
            text = await self._assertions.of_identity(managed, audience, grant.pod)
        else:
            account = subject_of(grant, federation, self._namespace)
            pod = grant.pod if federation.subject is AssertionSubject.POD else None
            text = await self._assertions.of_account(account, audience, pod)
        return ClientCredential(text=text, assertion=True)

    def forget(self, proof: ClientCredential) -> bool:
        """Forget an assertion that has expired before its time."""
        return self._assertions.forget(proof.text)

    def _audience(self, entra: Entra, federation: Federation) -> str:
        own = self._cloud.exchange_audience
        if federation.audience or entra.authority is None:
            return federation.audience or own
        return EXCHANGE_AUDIENCES.get(entra.authority.url, own)


def _ref(entra: Entra) -> ObjectRef:
    if entra.secret is None:
        raise ValueError("an identity of type 1 or 2 names a secret")
    return entra.secret


def _federation(entra: Entra) -> Federation:
    return entra.federation or Federation()
