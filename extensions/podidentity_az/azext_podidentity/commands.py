"""Which words are commands, and how their answers look as a table."""

from __future__ import annotations

from typing import Any


def load_command_table(loader: Any, _: Any) -> None:
    """Name the commands to az."""
    from azure.cli.command_modules.acs._client_factory import cf_managed_clusters

    with loader.command_group("aks", client_factory=cf_managed_clusters) as group:
        group.custom_command("update", "aks_update", supports_no_wait=True)
    with loader.command_group("aks pod-identity", client_factory=cf_managed_clusters) as group:
        group.custom_command("add", "pod_identity_add", supports_no_wait=True)
        group.custom_command("delete", "pod_identity_delete", supports_no_wait=True)
        group.custom_command("list", "show_cluster", table_transformer=identity_rows)
    with loader.command_group(
        "aks pod-identity exception", client_factory=cf_managed_clusters
    ) as group:
        group.custom_command("add", "exception_add", supports_no_wait=True)
        group.custom_command("update", "exception_update", supports_no_wait=True)
        group.custom_command("delete", "exception_delete", supports_no_wait=True)
        group.custom_command("list", "show_cluster", table_transformer=exception_rows)


def identity_rows(cluster: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each pod identity of a cluster as az shows it."""
    return [
        {
            "namespace": one["namespace"],
            "name": one["name"],
            "provisioningState": one.get("provisioningState") or "",
            "identity": (one.get("identity") or {}).get("resourceId") or "",
        }
        for one in _listed(cluster, "userAssignedIdentities")
    ]


def exception_rows(cluster: dict[str, Any]) -> list[dict[str, str]]:
    """Return a row for each exception of a cluster as az shows it."""
    return [
        {
            "namespace": one["namespace"],
            "name": one["name"],
            "podLabels": " ".join(
                f"{name}={value}" for name, value in (one.get("podLabels") or {}).items()
            ),
        }
        for one in _listed(cluster, "userAssignedIdentityExceptions")
    ]


def _listed(cluster: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    return (cluster.get("podIdentityProfile") or {}).get(kind) or []
