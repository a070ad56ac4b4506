"""A Kubernetes Secret, and which of its entries an identity needs.

The keys are `clientSecret`, and `certificate` with `password`, in any case. The only entry of a
Secret is used under any key, as in the archived project; with several entries the key must match.

https://azure.github.io/aad-pod-identity/docs/configure/service_principal/
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from podidentity.core.errors import TokenRefused
from podidentity.core.resources import ObjectRef

CLIENT_SECRET = "clientSecret"  # noqa: S105 - the name of a key
CERTIFICATE = "certificate"
PASSWORD = "password"  # noqa: S105 - the name of a key
_MOST_NAMED = 5
"""Keys that a message names: a Secret may have thousands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Secret:
    """A Secret in its current version."""

    ref: ObjectRef
    entries: Mapping[str, bytes] = field(repr=False, hash=False)
    digest: str
    """A keyed digest of the entries: equal only for equal entries, and reveals nothing of them."""


def client_secret(secret: Secret) -> str:
    """Return the client secret; raise TokenRefused if the Secret has none."""
    value = _entry(secret, CLIENT_SECRET)
    try:
        # `echo` and editors append a newline, which is part of no secret of Entra.
        text = value.decode().strip()
    except UnicodeDecodeError:
        text = ""
    if not text:
        raise unusable(secret, f"its key {CLIENT_SECRET} holds no text")
    return text


def certificate(secret: Secret) -> tuple[bytes, bytes | None]:
    """Return PKCS#12 or PEM, and its password; raise TokenRefused if the Secret has none."""
    others = {name: value for name, value in secret.entries.items() if name.lower() != PASSWORD}
    password = _find(secret.entries, PASSWORD)
    without = Secret(ref=secret.ref, entries=others, digest=secret.digest)
    return _entry(without, CERTIFICATE), password


def unusable(secret: Secret, why: str) -> TokenRefused:
    """Return the refusal of a Secret that cannot be used; `why` must contain none of its values."""
    return TokenRefused(
        f"Secret {secret.ref.name} cannot be used: {why}.", status=401, error="invalid_client"
    )


def _entry(secret: Secret, name: str) -> bytes:
    found = _find(secret.entries, name)
    if found is not None:
        return found
    if len(secret.entries) == 1:
        return next(iter(secret.entries.values()))
    names = sorted(secret.entries)
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    has = ", ".join(names[:_MOST_NAMED]) + more or "nothing"
    raise unusable(secret, f"it has no key {name}, only: {has}")


def _find(entries: Mapping[str, bytes], name: str) -> bytes | None:
    if name in entries:
        return entries[name]
    folded = {key.lower(): value for key, value in sorted(entries.items())}
    return folded.get(name.lower())
