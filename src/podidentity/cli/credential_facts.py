"""What is known of what an identity signs in with: its secret, its certificate, its account.

NMI finds a fault of these only when a pod asks. They are looked at as who is at the shell, and in
the very words of NMI; no value is shown.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import UTC, datetime

from podidentity.adapters.entra.certificates import Certificates
from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.chain import Credentials, Fact, State
from podidentity.core.errors import TokenUnavailable
from podidentity.core.federation import account_name, has_an_account
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import AzureIdentity, IdentityType
from podidentity.core.secrets import Secret, client_secret, unusable
from podidentity.wire.kube import SECRETS, SERVICE_ACCOUNTS
from podidentity.wire.secrets import parse_secret


async def credentials_of(
    kube: Kube, identities: Iterable[AzureIdentity], identities_namespace: str
) -> Credentials:
    """Return what is known of the credentials that the identities have, if they need any."""
    found: dict[ObjectRef, Fact] = {}
    for identity in identities:
        secret = identity.entra.secret if identity.entra else None
        if secret is not None:
            found[identity.ref] = await _secret(kube, identity, secret)
        elif has_an_account(identity):
            account = ObjectRef(identities_namespace, account_name(identity.ref))
            found[identity.ref] = await _account(kube, account)
    return found


async def _secret(kube: Kube, identity: AzureIdentity, ref: ObjectRef) -> Fact:
    try:
        entries = parse_secret(await kube.get(SECRETS.path(*ref)))
    except KubeError as error:
        return _unread(error, f"Secret {ref}")
    except ValueError as error:
        return Fact(State.BROKEN, f"Secret {ref} cannot be read: {error}")
    secret = Secret(ref=ref, entries=entries.data, digest="")
    try:
        if identity.type is not IdentityType.CERTIFICATE:
            client_secret(secret)
            return Fact(State.HOLDS, f"Secret {ref} has a client secret")
        certificate = await Certificates().of(secret)
        if fault := certificate.fault(time.time()):
            raise unusable(secret, fault)
    except TokenUnavailable as error:
        return Fact(State.BROKEN, str(error).rstrip("."))
    ends = datetime.fromtimestamp(certificate.ends, UTC)
    return Fact(State.HOLDS, f"Secret {ref} has a certificate, valid until {ends:%Y-%m-%d}")


async def _account(kube: Kube, ref: ObjectRef) -> Fact:
    try:
        await kube.get(SERVICE_ACCOUNTS.path(*ref))
    except KubeError as error:
        return _unread(error, f"ServiceAccount {ref}")
    return Fact(State.HOLDS, f"ServiceAccount {ref}; whether Entra trusts it, only Entra knows")


def _unread(error: KubeError, what: str) -> Fact:
    if error.forbidden:
        return Fact(State.UNKNOWN, f"you may not read {what}")
    if not error.not_found:
        raise error
    return Fact(State.BROKEN, f"{what} does not exist")
