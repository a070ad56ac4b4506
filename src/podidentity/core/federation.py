"""Whose token a federated identity is signed in by.

Entra trusts the cluster's tokens for one exact subject a credential, and twenty credentials an
identity. With the subject `pod` that is the pod's own service account; with `identity` it is a
service account that stands for the AzureIdentity, in a namespace where no pod runs: one credential,
however many pods.

https://learn.microsoft.com/entra/workload-id/workload-identity-federation-considerations
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha256

from podidentity.core.ids import ObjectRef
from podidentity.core.resources import AssertionSubject, AzureIdentity, Federation, IdentityType
from podidentity.core.tokens import Grant

IDENTITIES_NAMESPACE = "podidentity-identities"
"""Where the service accounts of identities are."""


@lru_cache(maxsize=4096)
def account_name(identity: ObjectRef) -> str:
    """Return the name of an identity's own service account: a hash of where it is and its name.

    It is `podidentity-` and the first 32 hex digits of the SHA-256 of `NAMESPACE/NAME`: known
    before the identity is made, and nobody can make another identity of the same.
    """
    return f"podidentity-{sha256(str(identity).encode()).hexdigest()[:32]}"


def subject_of(grant: Grant, federation: Federation, namespace: str) -> ObjectRef:
    """Return the service account that signs in; `namespace` is that of identities' own."""
    if federation.subject is AssertionSubject.IDENTITY:
        return ObjectRef(namespace, account_name(grant.identity.ref))
    return ObjectRef(grant.pod.ref.namespace, grant.pod.service_account)


def has_an_account(identity: AzureIdentity) -> bool:
    """Return whether a service account of its own signs in for it: not where `via` stands in."""
    federation = identity.entra.federation if identity.entra else None
    if federation is None or federation.via is not None:
        return False
    return federation.subject is AssertionSubject.IDENTITY


def stand_in(identity: AzureIdentity, federation: Federation) -> AzureIdentity | None:
    """Return the managed identity that stands in for the cluster's token, if `via` names one."""
    if federation.via is None:
        return None
    return AzureIdentity(
        ref=identity.ref, type=IdentityType.USER_ASSIGNED, resource_id=federation.via
    )
