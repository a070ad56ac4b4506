"""The routes of managed clusters: reading them, and ordering a change, which AKS then carries out.

https://learn.microsoft.com/rest/api/aks/managed-clusters. A change answers 200 with the state
Updating and the place to ask after it; while one is under way, another is refused.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from podidentity_sandbox.azure.aks import document, profile
from podidentity_sandbox.azure.aks.model import KIND, ManagedCluster
from podidentity_sandbox.azure.arm import operations
from podidentity_sandbox.azure.arm.call import ArmError, Call, tags_of
from podidentity_sandbox.azure.arm.features import POD_IDENTITY, registered
from podidentity_sandbox.azure.messages import Reply


def get_cluster(call: Call) -> Reply:
    """Return a cluster."""
    return Reply.json(document.rendered(call.world, _existing(call)))


def list_clusters(call: Call) -> Reply:
    """List the clusters of a resource group, or of the subscription."""
    found = call.listed(ManagedCluster, KIND)
    return Reply.json({"value": [document.rendered(call.world, one) for one in found]})


def put_cluster(call: Call) -> Reply:
    """Order a change of tags and of the pod identity add-on."""
    body = call.body()
    cluster = _to_change(call)
    properties = body.get("properties") or {}
    _check_unchanged(call, cluster, body)
    changed = replace(cluster, state="Updating")
    if body.get("tags") is not None:
        changed = replace(changed, tags=tags_of(body))
    sent = properties.get("podIdentityProfile")
    if sent is not None:
        changed = replace(changed, add_on=profile.wanted(sent, cluster.add_on))
    _check_feature(call, changed)
    call.world.put(changed)
    operation = operations.start(call, delay=math.inf, subject=cluster.id)
    call.world.orders.put_nowait(operation.id)
    where = f"{call.world.subscription}/providers/Microsoft.ContainerService/locations"
    headers = operations.status_headers(call, operation, f"{where}/{cluster.location}/operations")
    return Reply.json(document.rendered(call.world, changed), headers=headers)


def user_credential(call: Call) -> Reply:
    """Return the kubeconfig of a user."""
    return _credential(call, "clusterUser")


def admin_credential(call: Call) -> Reply:
    """Return the kubeconfig of an administrator."""
    return _credential(call, "clusterAdmin")


def list_pools(call: Call) -> Reply:
    """List the pools of nodes of a cluster."""
    return Reply.json({"value": [_pool(call)]})


def get_pool(call: Call) -> Reply:
    """Return a pool of nodes."""
    pool = _pool(call)
    if call.params["pool"].lower() != pool["name"]:
        message = f"Could not find agent pool {call.params['pool']}."
        raise ArmError(404, "NotFound", message)
    return Reply.json(pool)


def _to_change(call: Call) -> ManagedCluster:
    call.group()
    cluster = call.world.find(ManagedCluster, call.id)
    if cluster is None:
        message = "The sandbox has the one cluster whose nodes it runs, and makes no others."
        raise ArmError(400, "BadRequest", message)
    if cluster.state == "Updating":
        # https://learn.microsoft.com/troubleshoot/azure/azure-kubernetes/error-codes/anotheroperationinprogress
        raise ArmError(
            409,
            "OperationNotAllowed",
            "Operation is not allowed: Another operation (Updating) is in progress, please wait for"
            " it to finish before starting a new operation. See"
            " https://aka.ms/aks-pending-operation for more details",
        )
    return cluster


def _check_unchanged(call: Call, cluster: ManagedCluster, body: dict[str, Any]) -> None:
    path = document.refused_change(body, document.rendered(call.world, cluster))
    if path is not None:
        message = f"Changing property '{path}' is not allowed."
        raise ArmError(400, "PropertyChangeNotAllowed", message)


def _check_feature(call: Call, cluster: ManagedCluster) -> None:
    asks = cluster.add_on and cluster.add_on.enabled
    if asks and not registered(call.world, POD_IDENTITY, call.now):
        raise profile.feature_missing()


def _credential(call: Call, role: str) -> Reply:
    value = document.kubeconfig(call.world.plan, _existing(call), role)
    return Reply.json({"kubeconfigs": [{"name": role, "value": value}]})


def _pool(call: Call) -> dict[str, Any]:
    cluster = _existing(call)
    pool = document.pool(call.world.plan)
    where = f"{cluster.id}/agentPools/{pool['name']}"
    kind = f"{KIND}/agentPools"
    return {"id": where, "name": pool.pop("name"), "type": kind, "properties": pool}


def _existing(call: Call) -> ManagedCluster:
    call.group()
    cluster = call.world.find(ManagedCluster, call.id)
    if cluster is None:
        raise call.missing(KIND)
    return cluster
