"""Which service account or managed identity signs in for a federated identity.

Entra trusts the cluster's tokens by federated credentials: one exact subject each, and twenty of
them for an identity at most. The subject is the pod's own service account (`pod`), or a service
account that stands for the AzureIdentity (`identity`), in a namespace without pods: then one
credential is enough for any number of pods.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from podidentity.core.resources import (
    AssertionSubject,
    AzureIdentity,
    Federation,
    Grant,
    IdentityType,
    ObjectRef,
)

IDENTITIES_NAMESPACE = "podidentity-identities"
"""Default namespace of the service accounts that stand for identities."""


@lru_cache(maxsize=4096)
def account_name(identity: ObjectRef) -> str:
    """Return the name of the service account that stands for an AzureIdentity.

    It is `podidentity-` and the first 32 hex digits of the SHA-256 of `NAMESPACE/NAME`: known
    before the identity exists, and no other identity can have the same.
    """
    return f"podidentity-{sha256(str(identity).encode()).hexdigest()[:32]}"


def subject_of(grant: Grant, federation: Federation, namespace: str) -> ObjectRef:
    """Return the service account that signs in; `namespace` holds those of identities."""
    if federation.subject is AssertionSubject.IDENTITY:
        return ObjectRef(namespace, account_name(grant.identity.ref))
    return ObjectRef(grant.pod.ref.namespace, grant.pod.service_account)


def has_an_account(identity: AzureIdentity) -> bool:
    """Return whether a service account of its own signs in for it; not if it has `via`."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is not None:
        return False
    return federation.subject is AssertionSubject.IDENTITY


def stand_in(identity: AzureIdentity, federation: Federation) -> AzureIdentity | None:
    """Return the managed identity named by `via`; its token replaces the cluster's token."""
    if federation.via is None:
        return None
    return AzureIdentity(
        ref=identity.ref, type=IdentityType.USER_ASSIGNED, resource_id=federation.via
    )
