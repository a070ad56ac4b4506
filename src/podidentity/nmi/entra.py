"""How tokens come from Entra, assembled: what the node's own metadata service cannot give."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from podidentity.adapters.entra.certificates import Certificates
from podidentity.adapters.entra.client_credentials import (
    Assertions,
    CertificateCredentials,
    CredentialSource,
    FederatedCredentials,
    SecretCredentials,
)
from podidentity.adapters.entra.issuer import EntraIssuer, TokenEndpoint
from podidentity.adapters.kube import Kube
from podidentity.core.ports import Clock, TokenIssuer
from podidentity.core.resources import IdentityType
from podidentity.nmi.sync.secret_watch import WatchedSecrets
from podidentity.settings import NmiSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class EntraSide:
    """The issuers of types 1, 2 and 3, and what must run beside them."""

    issuers: Mapping[IdentityType, TokenIssuer]
    secrets: WatchedSecrets
    run: Callable[[], Coroutine[Any, Any, None]]


def entra_side(
    settings: NmiSettings,
    clock: Clock,
    stack: AsyncExitStack,
    *,
    kube: Kube,
    imds: TokenIssuer,
    user_agent: str,
) -> EntraSide:
    """Build it; `stack` closes it. `imds` gives the tokens of identities that stand in."""
    endpoint = TokenEndpoint(user_agent=user_agent)
    stack.push_async_callback(endpoint.close)
    secrets = WatchedSecrets(kube, clock)
    federation = FederatedCredentials(
        Assertions(kube, imds, clock),
        cloud=settings.cloud,
        namespace=settings.identities_namespace,
    )
    sources: dict[IdentityType, CredentialSource] = {
        IdentityType.SERVICE_PRINCIPAL: SecretCredentials(secrets),
        IdentityType.CERTIFICATE: CertificateCredentials(secrets, Certificates(), clock),
        IdentityType.FEDERATED: federation,
    }
    issuer = EntraIssuer(endpoint, sources, clock=clock, cloud=settings.cloud)
    return EntraSide(issuers=dict.fromkeys(sources, issuer), secrets=secrets, run=secrets.run)
