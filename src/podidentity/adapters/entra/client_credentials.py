"""How each type of identity authenticates to Entra: by secret, certificate or federation.

The assertions of federation are signed by others: by the cluster for its service accounts, by IMDS
for its identities. Each is kept for most of its life, under exactly the values that it was
requested for: the service account, the pod that it is bound to, and the audience.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable
from typing import Protocol
from uuid import uuid4

from podidentity.adapters.entra.certificates import Certificates
from podidentity.core.authorities import EXCHANGE_AUDIENCES, Cloud
from podidentity.core.errors import (
    CredentialUnknown,
    TokenRefused,
    TokenSourceDown,
    TokenUnavailable,
)
from podidentity.core.federation import stand_in, subject_of
from podidentity.core.ports import Clock, Secrets, TokenIssuer
from podidentity.core.rate_limits import FairCache, kib
from podidentity.core.resources import (
    AssertionSubject,
    AzureIdentity,
    Entra,
    Federation,
    Grant,
    ObjectRef,
    Pod,
)
from podidentity.core.secrets import Secret, client_secret, unusable
from podidentity.wire.entra import Client, ClientCredential
from podidentity.wire.kube import KubeApi, KubeError
from podidentity.wire.service_account_tokens import (
    Minted,
    parse_token_request,
    render_token_request,
    token_path,
)

MOST = 2000
"""KiB of assertions in the cache, of some two each."""
SHARE = 0.8
"""Part of its lifetime during which an assertion is used: Entra must still find it valid."""


class CredentialSource(Protocol):
    """The client credentials of one type of identity."""

    def key(self, grant: Grant, entra: Entra) -> tuple[Hashable, ...] | None:
        """Return a key that differs for different credentials; None if a secret is not read yet."""

    async def ready(self, entra: Entra) -> None:
        """Read the secret that `key` needs; raise a TokenUnavailable."""

    async def credential(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return the current credential; raise a TokenUnavailable."""

    def forget(self, credential: ClientCredential) -> bool:
        """Drop an expired credential from the cache; return whether there can be a newer one."""


class _SecretBacked:
    """The common part of client secrets and certificates: a Kubernetes Secret."""

    kind = ""

    def __init__(self, secrets: Secrets) -> None:
        self._secrets = secrets

    def key(self, grant: Grant, entra: Entra) -> tuple[Hashable, ...] | None:
        del grant
        secret = self._secrets.known(_ref(entra))
        return None if secret is None else (self.kind, secret.digest)

    async def ready(self, entra: Entra) -> None:
        await self._secrets.read(_ref(entra))

    def forget(self, credential: ClientCredential) -> bool:
        """Drop nothing: a secret does not expire by itself."""
        del credential
        return False

    async def _secret(self, entra: Entra) -> Secret:
        # A known secret is taken without an await, so that the token belongs to the current key.
        return self._secrets.known(_ref(entra)) or await self._secrets.read(_ref(entra))


class SecretCredentials(_SecretBacked):
    """Client secrets, for identities of type 1."""

    kind = "secret"

    async def credential(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        del grant, client
        return ClientCredential(text=client_secret(await self._secret(entra)), assertion=False)


class CertificateCredentials(_SecretBacked):
    """Certificates, for identities of type 2."""

    kind = "certificate"

    def __init__(self, secrets: Secrets, certificates: Certificates, clock: Clock) -> None:
        super().__init__(secrets)
        self._certificates = certificates
        self._clock = clock

    async def credential(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
        """Return an assertion signed with the certificate's key."""
        del grant
        secret = await self._secret(entra)
        certificate = await self._certificates.of(secret)
        now = self._clock.time()
        if fault := certificate.fault(now):
            raise unusable(secret, fault)
        text = certificate.assertion(client, now=now, unique=str(uuid4()))
        return ClientCredential(text=text, assertion=True)


class FederatedCredentials:
    """Assertions, for identities of type 3 and annotated service accounts."""

    def __init__(self, assertions: Assertions, *, cloud: Cloud, namespace: str) -> None:
        """`namespace` holds the service accounts of identities."""
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
        """Read nothing: the key needs no secret."""

    async def credential(self, grant: Grant, entra: Entra, client: Client) -> ClientCredential:
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
            text = await self._assertions.of_account(
                account, audience, pod, grant.pod.ref.namespace
            )
        return ClientCredential(text=text, assertion=True)

    def forget(self, credential: ClientCredential) -> bool:
        """Drop an assertion that expired early."""
        return self._assertions.forget(credential.text)

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


class Assertions:
    """Requests assertions and caches them."""

    def __init__(
        self, server: KubeApi, imds: TokenIssuer, clock: Clock, *, as_node: KubeApi | None = None
    ) -> None:
        """`as_node` is the API server, asked as the node: for tokens that are bound to its pods.

        Without it these, too, are asked for by NMI's own right. There is no fall-back.
        """
        self._server = server
        self._of_pods = as_node or server
        self._imds = imds
        self._clock = clock
        self._kept: FairCache[object, tuple[str, float]] = FairCache(MOST)

    async def of_account(
        self, account: ObjectRef, audience: str, pod: Pod | None, owner: str = ""
    ) -> str:
        """Return a service account's token, bound to `pod`; raise a TokenUnavailable.

        It counts for the namespace `owner`, by default that of the account.
        """
        key = (account, audience, pod.uid if pod else "")
        owner = owner or account.namespace
        return await self._kept_or(key, owner, lambda: self._requested(account, audience, pod))

    async def of_identity(self, identity: AzureIdentity, audience: str, pod: Pod) -> str:
        """Return the token of a managed identity of the node; raise a TokenUnavailable."""
        key = (identity.resource_id, audience)
        grant = Grant(identity=identity, pod=pod)
        return await self._kept_or(key, pod.ref.namespace, lambda: self._issued(grant, audience))

    def forget(self, assertion: str) -> bool:
        """Drop an assertion that was not accepted; return whether it was in the cache."""
        for key, (text, _) in self._kept.items():
            if text == assertion:
                self._kept.drop(key)
                return True
        return False

    async def _kept_or(
        self, key: object, namespace: str, mint: Callable[[], Awaitable[Minted]]
    ) -> str:
        text, until = self._kept.get(key, ("", 0.0))
        if self._clock.time() < until:
            self._kept.use(key)
            return text
        begun = self._clock.time()
        made = await mint()
        until = begun + SHARE * (made.expires_on - begun)
        self._kept.put(key, (made.text, until), namespace, kib(made.text))
        return made.text

    async def _requested(self, account: ObjectRef, audience: str, pod: Pod | None) -> Minted:
        request = render_token_request(audience, pod)
        server = self._server if pod is None else self._of_pods
        try:
            return parse_token_request(await server.ask(token_path(account), request))
        except KubeError as error:
            raise _refusal(account, error, of_caller=pod is not None) from error
        except ValueError as error:
            raise TokenSourceDown(str(error)) from error

    async def _issued(self, grant: Grant, audience: str) -> Minted:
        token = await self._imds.issue(grant, audience)
        return Minted(text=token.value, expires_on=token.expires_on)


def _refusal(account: ObjectRef, error: KubeError, *, of_caller: bool) -> TokenUnavailable:
    """Return the error for the pod; `of_caller`: the token would have been bound to that pod."""
    # 409 Conflict: a new pod of the same name has another uid.
    if error.not_found or (error.conflict and of_caller):
        return CredentialUnknown(
            f"ServiceAccount {account} does not exist, or the pod is gone",
            status=401,
            error="invalid_client",
            of_caller=of_caller,
        )
    if error.forbidden:
        return TokenRefused(
            f"the API server does not let NMI request tokens of ServiceAccount {account}",
            status=403,
            error="access_denied",
        )
    return TokenSourceDown(f"the API server gave no token of ServiceAccount {account}")
