"""MIC's own sign-in to Azure: by federation, by a secret, or by a managed identity of its node.

Where the credential comes from is decided by what is configured, in this order:

    `useManagedIdentityExtension`, USE_MSI                         the machine's identity, by IMDS
    client id, tenant and secret                                   a service principal
    client id, tenant, and a token file of MIC's service account   federation: no secret at all

Values come from the cloud provider's configuration file if one is named, and from flags and the
admin secret's variables where it says nothing. Files are read again when they are replaced, however
that is done: a secret that was rotated is used at once, and a token of the old one is dropped.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import Path
from typing import Protocol

from podidentity.adapters.entra.issuer import TokenEndpoint
from podidentity.backoff import backoff
from podidentity.core.authorities import Cloud
from podidentity.core.errors import TokenRefused, TokenUnavailable
from podidentity.core.ports import Clock
from podidentity.core.resources import (
    AccessToken,
    AzureIdentity,
    ClientId,
    Grant,
    IdentityType,
    InvalidId,
    ObjectRef,
    Pod,
    Tenant,
)
from podidentity.wire.arm import ArmError
from podidentity.wire.cloud_config import CloudConfig, parse_cloud_config
from podidentity.wire.entra import Client, ClientCredential, parse_answer, render_request

AHEAD = 600.0
"""Seconds before its end that a token is replaced: ARM's long operations are polled with it."""
AGAIN, LONGEST_AGAIN = 5.0, 20.0
"""Seconds for which a refusal counts, so that a wrong secret is not tried at each call, and between
two tries of its own: twice as many after each, and at most the second."""
LOOK = 60.0
"""Seconds between two looks whether a token is there that lasts."""
_DEFAULT = "/.default"

_log = logging.getLogger("podidentity.mic")


class Method(StrEnum):
    """How MIC signs in."""

    FEDERATION = "federation"
    SECRET = "secret"  # noqa: S105 - the word
    MANAGED_IDENTITY = "managed identity"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """How to sign in, complete; two that are equal give the same tokens."""

    method: Method
    client_id: ClientId | None = None
    """None: the system-assigned identity."""
    tenant: Tenant | None = None
    text: str = field(default="", repr=False)
    """The secret, or the service account's token."""

    def __str__(self) -> str:
        who = f" as {self.client_id.redacted}" if self.client_id else ""
        return f"{self.method}{who}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Configured:
    """What flags and variables say."""

    cloud_config: str = ""
    """Path of the configuration file; "" for none."""
    token_file: str = ""
    """Path of a token of MIC's service account, for federation."""
    client_id: str = ""
    client_secret: str = field(default="", repr=False)
    tenant: str = ""
    managed: bool = False
    managed_client_id: str = ""


class NoCredential(ValueError):
    """It is not configured how to sign in, or wrongly; the message has the next step."""


_NONE = "msi"
"""What an admin secret of AAD Pod Identity for a managed identity has in place of a client secret.

https://github.com/Azure/aad-pod-identity/blob/master/charts/aad-pod-identity/README.md
"""
_WAYS = (
    "Give --azure-client-id and --azure-tenant-id, with the token of MIC's service account in "
    "AZURE_FEDERATED_TOKEN_FILE or with CLIENT_SECRET; --use-managed-identity; or --cloudconfig"
)


def credential_of(given: Configured) -> Credential:
    """Return how to sign in now, reading the files; raise NoCredential."""
    told = given if given.client_secret != _NONE else replace(given, client_secret="")
    if told.cloud_config:
        file = read_cloud_config(told.cloud_config)
        told = replace(
            told,
            client_id=file.client_id or told.client_id,
            client_secret=file.client_secret or told.client_secret,
            tenant=file.tenant or told.tenant,
            managed=file.managed or told.managed,
            managed_client_id=file.managed_client_id or told.managed_client_id,
        )
    if told.managed:
        named = told.managed_client_id.strip()
        return Credential(
            method=Method.MANAGED_IDENTITY, client_id=_client_id(named) if named else None
        )
    if not told.client_secret and not (told.token_file and told.client_id):
        raise NoCredential(f"MIC has no credential for Azure. {_WAYS}.")
    by_secret = bool(told.client_secret)
    return Credential(
        method=Method.SECRET if by_secret else Method.FEDERATION,
        client_id=_client_id(told.client_id),
        tenant=_tenant(told.tenant),
        text=told.client_secret
        if by_secret
        else _read(told.token_file, "the token of MIC's service account"),
    )


def read_cloud_config(path: str) -> CloudConfig:
    """Return what the file says; raise NoCredential."""
    try:
        return parse_cloud_config(Path(path).read_bytes())
    except (OSError, ValueError) as error:
        raise NoCredential(f"--cloudconfig {path} cannot be used: {error}.") from error


def _client_id(text: str) -> ClientId:
    try:
        return ClientId.parse(text)
    except InvalidId as error:
        raise NoCredential(f"The client id to sign in to Azure with {error}. {_WAYS}.") from error


def _tenant(text: str) -> Tenant:
    try:
        return Tenant.parse(text)
    except InvalidId as error:
        raise NoCredential(f"The tenant to sign in to Azure in {error}. {_WAYS}.") from error


def _read(path: str, what: str) -> str:
    try:
        text = Path(path).read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        kind = error.strerror if isinstance(error, OSError) else "it is no text"
        raise NoCredential(f"{what} cannot be read from {path}: {kind}.") from None
    if not text:
        raise NoCredential(f"{what} is missing: {path} is empty.")
    return text


class Issuer(Protocol):
    """IMDS (`adapters.imds.Imds`)."""

    async def issue(self, grant: Grant, resource: str) -> AccessToken:
        """Return a token of a managed identity of the machine; raise a TokenUnavailable."""


class SignIn:
    """MIC's tokens for Azure Resource Manager; a core.ports.Login."""

    def __init__(
        self,
        credential: Callable[[], Credential],
        *,
        endpoint: TokenEndpoint,
        imds: Issuer,
        cloud: Cloud,
        clock: Clock,
        own: ObjectRef,
    ) -> None:
        """`credential` reads the files anew at each call, and raises NoCredential.

        `own` is MIC's pod, by which IMDS's requests are counted.
        """
        self._credential = credential
        self._endpoint = endpoint
        self._imds = imds
        self._cloud = cloud
        self._clock = clock
        self._own = own
        self._kept: tuple[Credential, str, AccessToken] | None = None
        self._refused: tuple[Credential, float, ArmError] | None = None
        self._turn = asyncio.Lock()
        self._trouble = ""

    def problems(self) -> Sequence[str]:
        return (self._trouble,) if self._trouble else ()

    async def token(self, scope: str) -> str:
        """Return an access token for `scope`; raise ArmError with the next step."""
        async with self._turn:
            try:
                credential = await asyncio.to_thread(self._credential)
                return await self._of(credential, scope)
            except NoCredential as error:
                raise self._failed(ArmError("SignIn", str(error), status=401)) from error

    async def run(self) -> None:
        """Have a token at any time, until cancelled: a new leader's first call need not wait.

        Nothing but the sign-in itself is asked for. What is wrong is logged, and a problem; it is
        tried again after 5, 10 and then 20 s, because Entra knows a new credential only later.
        """
        failed = 0
        while True:
            try:
                await self.token(self._cloud.manager_scope)
                failed = 0
            except ArmError:
                failed += 1
            await self._clock.sleep(backoff(AGAIN, failed, LONGEST_AGAIN) if failed else LOOK)

    def rejected(self) -> None:
        """Forget the token: ARM did not take it."""
        self._kept = None

    async def _of(self, credential: Credential, scope: str) -> str:
        now = self._clock.time()
        if self._kept is not None:
            known, for_scope, token = self._kept
            fresh = token.expires_on - min(AHEAD, (token.expires_on - token.not_before) / 2)
            if (known, for_scope) == (credential, scope) and now < fresh:
                return token.value
        if self._refused is not None:
            known, until, error = self._refused
            if known == credential and self._clock.monotonic() < until:
                raise ArmError(error.code, error.message, status=error.status)
        try:
            token = await self._issued(credential, scope)
        except TokenUnavailable as error:
            failure = self._failed(_worded(credential, error))
            self._refused = (credential, self._clock.monotonic() + AGAIN, failure)
            raise failure from error
        self._kept, self._refused = (credential, scope, token), None
        if self._trouble:
            _log.info("signed in to Azure again by %s", credential)
        self._trouble = ""
        return token.value

    async def _issued(self, credential: Credential, scope: str) -> AccessToken:
        resource = scope.removesuffix(_DEFAULT)
        if credential.method is Method.MANAGED_IDENTITY:
            return await self._imds.issue(self._grant(credential), resource)
        if credential.client_id is None or credential.tenant is None:
            raise NoCredential(f"The client id or the tenant is missing. {_WAYS}.")
        client = Client(
            client_id=credential.client_id,
            tenant=credential.tenant,
            authority=self._cloud.authority,
        )
        shown = ClientCredential(
            text=credential.text, assertion=credential.method is Method.FEDERATION
        )
        answer = await self._endpoint.post(client.url, render_request(client, scope, shown))
        return parse_answer(
            answer.status,
            answer.body,
            client=client,
            resource=resource,
            credential=shown,
            now=self._clock.time(),
            retry_after=answer.retry_after,
        )

    def _grant(self, credential: Credential) -> Grant:
        """Return what IMDS is asked for: an identity of the machine that MIC's own pod runs on."""
        identity = AzureIdentity(
            ref=self._own,
            type=IdentityType.USER_ASSIGNED,
            client_id=credential.client_id,
            system_assigned=credential.client_id is None,
        )
        return Grant(identity=identity, pod=Pod(ref=self._own, uid="mic"))

    def _failed(self, error: ArmError) -> ArmError:
        if error.message != self._trouble:
            _log.error("MIC cannot sign in to Azure: %s", error.message)
        self._trouble = error.message
        return error


def _worded(credential: Credential, error: TokenUnavailable) -> ArmError:
    """Return the error for the operator of MIC: cause and next step."""
    if not isinstance(error, TokenRefused):
        return ArmError("SignIn", f"by {credential}: {error}", status=503)
    steps = {
        Method.FEDERATION: (
            "Give the application a federated credential for MIC's service account: its subject is "
            "system:serviceaccount:NAMESPACE:podidentity-mic"
        ),
        Method.SECRET: "Renew the client secret where MIC has it from; it is read again at once",
        Method.MANAGED_IDENTITY: (
            "Attach the identity to the nodes on which MIC runs, and except MIC's pods there by an "
            "AzurePodIdentityException"
        ),
    }
    return ArmError("SignIn", f"by {credential}: {error}. {steps[credential.method]}.", status=401)
