"""What each command makes of a cluster's podIdentityProfile: pure changes of az's own model.

The rules and words are those of aks-preview, which Azure's service expects:
https://github.com/Azure/azure-cli-extensions/blob/main/src/aks-preview/azext_aks_preview/_podidentity.py.
One rule is stricter: adding what is there already replaces it, where aks-preview sent it twice.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

NOT_ENABLED = (
    "The pod identity addon is not enabled for this managed cluster yet.\n"
    'To enable, run "az aks update --enable-pod-identity'
)
NEEDS_CONSENT = (
    "--enable-pod-identity-with-kubenet is required for enabling pod identity addon when using"
    " Kubenet network plugin"
)


class NotAllowed(Exception):
    """The cluster does not allow the change: the message is for the person."""


def enable(cluster: Any, *, kubenet: bool, new_profile: Callable[..., Any]) -> None:
    """Turn the add-on on; what it held stays. Raises NotAllowed."""
    profile = cluster.pod_identity_profile
    if not profile or not profile.enabled:
        profile = new_profile(enabled=True)
    _consent(cluster, profile, kubenet=kubenet)
    _complete(profile)
    cluster.pod_identity_profile = profile


def disable(cluster: Any, *, new_profile: Callable[..., Any]) -> None:
    """Turn the add-on off: identities and exceptions are forgotten."""
    cluster.pod_identity_profile = new_profile(enabled=False)


def require_enabled(cluster: Any) -> None:
    """Raise NotAllowed where the add-on is off."""
    _enabled(cluster)


def put_identity(cluster: Any, identity: Any) -> None:
    """Add a pod identity, in place of one of the same name and namespace. Raises NotAllowed."""
    profile = _enabled(cluster)
    rest = _others(profile.user_assigned_identities, identity.namespace, identity.name)
    profile.user_assigned_identities = [*rest, identity]


def lacks_the_role(cluster: Any, identity: Any) -> bool:
    """Whether the service could not assign a pod identity, as the cluster has no right to do so.

    A role that was granted just now may count only minutes later.
    """
    known = cluster.pod_identity_profile.user_assigned_identities or []
    return any(
        _code(one) == "LinkedAuthorizationFailed"
        for one in known
        if (one.namespace, one.name) == (identity.namespace, identity.name)
    )


def remove_identity(cluster: Any, namespace: str, name: str) -> None:
    """Take a pod identity away, if it is there. Raises NotAllowed."""
    profile = _enabled(cluster)
    profile.user_assigned_identities = _others(profile.user_assigned_identities, namespace, name)


def put_exception(cluster: Any, exception: Any) -> None:
    """Add an exception, in place of one of the same name and namespace. Raises NotAllowed."""
    profile = _enabled(cluster)
    known = profile.user_assigned_identity_exceptions
    rest = _others(known, exception.namespace, exception.name)
    profile.user_assigned_identity_exceptions = [*rest, exception]


def change_exception(cluster: Any, exception: Any) -> None:
    """Change an exception, which must be there. Raises NotAllowed."""
    known = _enabled(cluster).user_assigned_identity_exceptions or []
    named = (exception.namespace, exception.name)
    if named not in [(one.namespace, one.name) for one in known]:
        where = f"{exception.namespace}/{exception.name}"
        raise NotAllowed(f"pod identity exception {where} not found")
    put_exception(cluster, exception)


def remove_exception(cluster: Any, namespace: str, name: str) -> None:
    """Take an exception away, if it is there. Raises NotAllowed."""
    profile = _enabled(cluster)
    known = profile.user_assigned_identity_exceptions
    profile.user_assigned_identity_exceptions = _others(known, namespace, name)


def _code(identity: Any) -> str:
    """Return the code of the error for which it is `Failed`; "" where it is not."""
    outer = identity.provisioning_info and identity.provisioning_info.error
    return str((outer and outer.error and outer.error.code) or "")


def _enabled(cluster: Any) -> Any:
    profile = cluster.pod_identity_profile
    if not profile or not profile.enabled:
        raise NotAllowed(NOT_ENABLED)
    _consent(cluster, profile, kubenet=False)
    _complete(profile)
    return profile


def _consent(cluster: Any, profile: Any, *, kubenet: bool) -> None:
    network = cluster.network_profile
    if not network or (network.network_plugin or "").lower() != "kubenet":
        return
    # A consent given once is remembered by the cluster.
    if not kubenet and not profile.allow_network_plugin_kubenet:
        raise NotAllowed(NEEDS_CONSENT)
    profile.allow_network_plugin_kubenet = True


def _complete(profile: Any) -> None:
    """Give exceptions without labels an empty map: the service refuses none at all."""
    for exception in profile.user_assigned_identity_exceptions or []:
        if exception.pod_labels is None:
            exception.pod_labels = {}


def _others(known: Any, namespace: str, name: str) -> list[Any]:
    # An empty name is the service's to give, so it stands for no other.
    return [
        one for one in known or [] if not name or (one.namespace, one.name) != (namespace, name)
    ]
