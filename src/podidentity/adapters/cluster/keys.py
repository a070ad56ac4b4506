"""What objects are found by beside their names: what a request knows when it looks for them."""

from __future__ import annotations

from collections.abc import Iterable

from podidentity.core.ids import ObjectRef
from podidentity.core.resources import (
    AzureAssignedIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
    Malformed,
)


def keys_of_binding(binding: AzureIdentityBinding | Malformed) -> Iterable[object]:
    """Return namespace and selector; its namespace alone where it cannot be used."""
    if isinstance(binding, Malformed):
        return (binding.ref.namespace,)
    return ((binding.ref.namespace, binding.selector), ("", binding.selector))


def keys_of_exception(found: AzurePodIdentityException | Malformed) -> Iterable[str]:
    """Return the namespace in which it has effect."""
    return () if isinstance(found, Malformed) else (found.ref.namespace,)


def keys_of_record(found: AzureAssignedIdentity | Malformed) -> Iterable[ObjectRef]:
    """Return the pod that it is about."""
    return () if isinstance(found, Malformed) else (found.pod,)
