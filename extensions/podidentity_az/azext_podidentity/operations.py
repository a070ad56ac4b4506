"""The commands: read the cluster, change its profile, put it back whole, as AKS wants it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from knack.log import get_logger
from knack.util import CLIError

from azext_podidentity import profile
from azext_podidentity.update import aks_update as aks_update  # az finds commands in this module

logger = get_logger(__name__)

PROPAGATION = 600
"""Seconds until a new role assignment counts, at most:
https://learn.microsoft.com/azure/role-based-access-control/troubleshooting."""
PAUSE = 10
BLIND = 30
"""Seconds that aks-preview waited for it, whatever came of that."""


def show_cluster(cmd: Any, client: Any, resource_group_name: str, cluster_name: str) -> Any:
    """Return the cluster, which holds its identities and exceptions."""
    del cmd  # az hands it to every command
    return client.get(resource_group_name, cluster_name)


def pod_identity_add(
    cmd: Any,
    client: Any,
    resource_group_name: str,
    cluster_name: str,
    identity_name: str,
    identity_namespace: str,
    identity_resource_id: str,
    binding_selector: str | None = None,
    no_wait: bool = False,
    aks_custom_headers: str | None = None,
) -> Any:
    """Let pods of a namespace use a managed identity."""
    from azure.cli.command_modules.acs._helpers import get_user_assigned_identity_by_resource_id

    from azext_podidentity.permission import ensure_operator

    cluster = client.get(resource_group_name, cluster_name)
    with _in_words():
        profile.require_enabled(cluster)
    found = get_user_assigned_identity_by_resource_id(cmd.cli_ctx, identity_resource_id)
    granted = ensure_operator(cmd, cluster, found.id)
    identity = _model(cmd, "ManagedClusterPodIdentity")(
        name=identity_name,
        namespace=identity_namespace,
        binding_selector=binding_selector,
        identity=_model(cmd, "UserAssignedIdentity")(
            resource_id=found.id, client_id=found.client_id, object_id=found.principal_id
        ),
    )
    with _in_words():
        profile.put_identity(cluster, identity)
    if granted and no_wait:
        logger.warning("Wait %d seconds for identity role assignment propagation.", BLIND)
        time.sleep(BLIND)
    change = (client, resource_group_name, cluster_name, cluster, no_wait, aks_custom_headers)
    end = time.monotonic() + PROPAGATION
    made = _put(*change)
    if not granted or no_wait:
        return made
    while profile.lacks_the_role(made := made.result(), identity) and time.monotonic() < end:
        logger.warning("Azure does not know the role assignment yet: again in %d seconds.", PAUSE)
        time.sleep(PAUSE)
        made = _put(*change)
    return made


def pod_identity_delete(
    cmd: Any,
    client: Any,
    resource_group_name: str,
    cluster_name: str,
    identity_name: str,
    identity_namespace: str,
    no_wait: bool = False,
    aks_custom_headers: str | None = None,
) -> Any:
    """Take a managed identity from the pods of a namespace."""
    del cmd
    change = _changing(profile.remove_identity, identity_namespace, identity_name)
    return _change(client, resource_group_name, cluster_name, change, no_wait, aks_custom_headers)


def exception_add(
    cmd: Any,
    client: Any,
    resource_group_name: str,
    cluster_name: str,
    exc_name: str,
    exc_namespace: str,
    pod_labels: dict[str, str],
    no_wait: bool = False,
    aks_custom_headers: str | None = None,
) -> Any:
    """Let pods with labels reach the instance metadata service directly."""
    exception = _exception(cmd, exc_name, exc_namespace, pod_labels)
    change = _changing(profile.put_exception, exception)
    return _change(client, resource_group_name, cluster_name, change, no_wait, aks_custom_headers)


def exception_update(
    cmd: Any,
    client: Any,
    resource_group_name: str,
    cluster_name: str,
    exc_name: str,
    exc_namespace: str,
    pod_labels: dict[str, str],
    no_wait: bool = False,
    aks_custom_headers: str | None = None,
) -> Any:
    """Change the labels of an exception."""
    exception = _exception(cmd, exc_name, exc_namespace, pod_labels)
    change = _changing(profile.change_exception, exception)
    return _change(client, resource_group_name, cluster_name, change, no_wait, aks_custom_headers)


def exception_delete(
    cmd: Any,
    client: Any,
    resource_group_name: str,
    cluster_name: str,
    exc_name: str,
    exc_namespace: str,
    no_wait: bool = False,
    aks_custom_headers: str | None = None,
) -> Any:
    """Take an exception away."""
    del cmd
    change = _changing(profile.remove_exception, exc_namespace, exc_name)
    return _change(client, resource_group_name, cluster_name, change, no_wait, aks_custom_headers)


def _changing(rule: Callable[..., None], *what: Any) -> Callable[[Any], None]:
    return lambda cluster: rule(cluster, *what)


def _change(
    client: Any,
    group: str,
    name: str,
    change: Callable[[Any], None],
    no_wait: bool,
    headers: str | None,
) -> Any:
    cluster = client.get(group, name)
    with _in_words():
        change(cluster)
    return _put(client, group, name, cluster, no_wait, headers)


def _put(
    client: Any, group: str, name: str, cluster: Any, no_wait: bool, headers: str | None
) -> Any:
    from azure.cli.core.util import sdk_no_wait

    put = client.begin_create_or_update
    return sdk_no_wait(no_wait, put, group, name, cluster, headers=_headers(headers))


def _headers(text: str | None) -> dict[str, str]:
    from azure.cli.command_modules.acs._validators import extract_comma_separated_string

    pairs = extract_comma_separated_string(
        text,
        enable_strip=True,
        extract_kv=True,
        default_value={},
        allow_appending_values_to_same_key=True,
    )
    return dict(pairs)


def _exception(cmd: Any, name: str, namespace: str, labels: dict[str, str]) -> Any:
    model = _model(cmd, "ManagedClusterPodIdentityException")
    return model(name=name, namespace=namespace, pod_labels=labels)


def _model(cmd: Any, name: str) -> Any:
    from azure.cli.core.profiles import ResourceType

    kind = ResourceType.MGMT_CONTAINERSERVICE
    return cmd.get_models(name, resource_type=kind, operation_group="managed_clusters")


@contextmanager
def _in_words() -> Iterator[None]:
    """Let az show a refusal as its own."""
    try:
        yield
    except profile.NotAllowed as refusal:
        raise CLIError(str(refusal)) from refusal
