"""The Secret of AAD Pod Identity's MIC, where it has MIC sign in by a managed identity.

MIC reads that Secret as variables, which its kubelet gives it; `enable` reads it as well, because
MIC's pods have no token of their machine's identity without an AzurePodIdentityException. So it is
read only where nothing else says how MIC signs in.

https://azure.github.io/aad-pod-identity/docs/configure/deploy_aad_pod_dedicated_sp/
https://github.com/Azure/aad-pod-identity/blob/master/charts/aad-pod-identity/templates/mic-secret.yaml
"""

from __future__ import annotations

from dataclasses import dataclass
from secrets import token_bytes
from typing import TYPE_CHECKING

import click

from podidentity.cli.connection import ask_for_it, right_to
from podidentity.cli.output import CommandError
from podidentity.core.resources import ClientId, InvalidId, ObjectRef
from podidentity.core.secrets import Secret
from podidentity.manifests import ADMIN_SECRET, ADMIN_SECRET_IDENTITY, ADMIN_SECRET_MANAGED
from podidentity.wire.kube import SECRETS, KubeError
from podidentity.wire.secrets import parse_secret

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_SAY = (
    "say how MIC signs in: --mic-arg=--use-managed-identity, --mic-arg=--cloudconfig=PATH or "
    "--mic-arg=--azure-client-id=ID; or, if that Secret has a service principal's, "
    "--mic-arg=--use-managed-identity=false"
)


ADMIN_SECRET_CLIENT, ADMIN_SECRET_TENANT = "ClientID", "TenantID"


class _NotUsable(ValueError):
    """A value of the Secret is none; the message is a clause, and names no value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminSecret:
    """What the Secret says of MIC's sign-in; nothing without that Secret."""

    managed: bool = False
    client_id: str = ""
    tenant: str = ""


async def read(kube: Kube, namespace: str) -> AdminSecret:
    """Return what the Secret of `namespace` says; raise CommandError if it is not known."""
    ref = ObjectRef(namespace, ADMIN_SECRET)
    try:
        found = parse_secret(await kube.get(SECRETS.path(*ref)), key=token_bytes())
        return AdminSecret(
            managed=managed(found),
            client_id=_text(found, ADMIN_SECRET_CLIENT),
            tenant=_text(found, ADMIN_SECRET_TENANT),
        )
    except KubeError as error:
        if error.not_found:
            return AdminSecret()
        if not error.forbidden:
            raise
        raise CommandError(
            f"Whether Secret {ref} has MIC sign in by a managed identity is not known: "
            f"{right_to('get', 'secrets', namespace)}",
            f"{ask_for_it()} Or {_SAY}.",
        ) from error
    except ValueError as error:
        raise CommandError(
            f"Secret {ref} cannot be used: {error}", f"Mend it; or {_SAY}."
        ) from error


def managed(secret: Secret) -> bool:
    """Return whether it has MIC sign in by a managed identity, as MIC itself reads it.

    Raises ValueError, which names no value.
    """
    text = _text(secret, ADMIN_SECRET_MANAGED)
    try:
        wanted = bool(text) and click.BOOL.convert(text, None, None)
    except click.BadParameter:
        raise _NotUsable(f"its key {ADMIN_SECRET_MANAGED} is neither true nor false") from None
    named = _text(secret, ADMIN_SECRET_IDENTITY)
    if wanted and named:
        try:
            ClientId.parse(named)
        except InvalidId:
            raise _NotUsable(f"its key {ADMIN_SECRET_IDENTITY} is no client id") from None
    return wanted


def _text(secret: Secret, key: str) -> str:
    try:
        return secret.entries.get(key, b"").decode().strip()
    except UnicodeDecodeError:
        raise _NotUsable(f"its key {key} is no text") from None
