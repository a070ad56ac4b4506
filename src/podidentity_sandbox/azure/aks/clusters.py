"""Managed clusters in ARM: their document, and the routes that read and change it.

https://learn.microsoft.com/rest/api/aks/managed-clusters. A change answers 200 with the state
Updating and the place to ask after it; while one is under way, another is refused. A PUT carries
the whole document back; here it changes tags and the pod identity add-on, and nothing else of the
one cluster.
"""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import yaml

from podidentity_sandbox.azure.aks import profile
from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.arm.call import ArmCall, ArmError, tags_of
from podidentity_sandbox.azure.arm.operations import start, status_headers
from podidentity_sandbox.azure.arm.subscription import POD_IDENTITY
from podidentity_sandbox.azure.messages import Reply
from podidentity_sandbox.azure.state import UserAssignedIdentity, World
from podidentity_sandbox.plan import NodePlan, Plan, kubeconfig
from podidentity_sandbox.weather import Outcome

# ---- The document

_CHANGED_OTHERWISE = ("tags", "properties.podIdentityProfile", "properties.provisioningState")


def shown(call: ArmCall, cluster: ManagedCluster) -> dict[str, Any]:
    identity = {
        "type": "SystemAssigned",
        "principalId": cluster.principal.object_id,
        "tenantId": call.world.plan.tenant_id,
    }
    return cluster.shown(
        sku={"name": "Base", "tier": "Free"},
        identity=identity,
        properties=_properties(call.world, cluster),
    )


def _properties(world: World, cluster: ManagedCluster) -> dict[str, Any]:
    plan = world.plan
    answer: dict[str, Any] = {
        "provisioningState": cluster.state,
        "powerState": {"code": "Running"},
        "kubernetesVersion": plan.kubernetes_version,
        "currentKubernetesVersion": plan.kubernetes_version,
        "dnsPrefix": cluster.name,
        "fqdn": f"{cluster.name}.hcp.{cluster.location}.azmk8s.io",
        "agentPoolProfiles": pool_documents(plan),
        "nodeResourceGroup": plan.node_group,
        "enableRBAC": True,
        "supportPlan": "KubernetesOfficial",
        "networkProfile": {
            "networkPlugin": "azure",
            "networkPluginMode": "overlay",
            "podCidr": "10.244.0.0/16",
            "loadBalancerSku": "standard",
            "outboundType": "loadBalancer",
        },
        "servicePrincipalProfile": {"clientId": "msi"},
        "identityProfile": _kubelet(world, cluster),
    }
    if cluster.add_on:
        answer["podIdentityProfile"] = profile.rendered(cluster.add_on)
    return answer


def pool_documents(plan: Plan) -> list[dict[str, Any]]:
    pools: dict[str, list[NodePlan]] = {}
    for node in plan.nodes:
        pools.setdefault(node.pool, []).append(node)
    version = plan.kubernetes_version
    return [_pool_document(name, nodes, version) for name, nodes in pools.items()]


def _pool_document(name: str, nodes: Sequence[NodePlan], version: str) -> dict[str, Any]:
    of_a_set = nodes[0].is_instance or nodes[0].scale_set
    return {
        "name": name,
        "count": len(nodes),
        "vmSize": "Standard_D2s_v5",
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "mode": "System" if nodes[0].index == 0 else "User",
        "type": "VirtualMachineScaleSets" if of_a_set else "VirtualMachines",
        "orchestratorVersion": version,
        "currentOrchestratorVersion": version,
        "provisioningState": "Succeeded",
        "powerState": {"code": "Running"},
    }


def _kubelet(world: World, cluster: ManagedCluster) -> dict[str, Any]:
    identity = world.find(UserAssignedIdentity, cluster.kubelet_id)
    if identity is None:
        return {}
    return {
        "kubeletidentity": {
            "resourceId": identity.id,
            "clientId": identity.client_id,
            "objectId": identity.principal_id,
        }
    }


def _differences(sent: object, have: object, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Yield the paths of values of a document that is sent that differ and may not."""
    where = ".".join(path)
    if sent is None or where in _CHANGED_OTHERWISE:
        return
    if isinstance(sent, dict) and isinstance(have, dict):
        for key, value in sent.items():
            yield from _differences(value, have.get(key), (*path, key))
    elif isinstance(sent, list) and isinstance(have, list) and len(sent) == len(have):
        for value, known in zip(sent, have, strict=True):
            yield from _differences(value, known, path)
    elif str(sent).lower() != str(have).lower() and (have is not None or sent):
        yield where


# ---- The routes


def put_cluster(call: ArmCall) -> Reply:
    body = call.body()
    cluster = _to_change(call)
    for path in _differences(body, shown(call, cluster)):
        message = f"Changing property '{path}' is not allowed."
        raise ArmError(400, "PropertyChangeNotAllowed", message)
    changed = replace(cluster, state="Updating")
    if body.get("tags") is not None:
        changed = replace(changed, tags=tags_of(body))
    sent = (body.get("properties") or {}).get("podIdentityProfile")
    if sent is not None:
        changed = replace(changed, add_on=profile.wanted(sent, cluster.add_on))
    asks = changed.add_on and changed.add_on.enabled
    if asks and call.world.features.get(POD_IDENTITY.lower(), math.inf) > call.now:
        raise ArmError(
            400,
            "BadRequest",
            f"PodIdentity addon is not allowed since feature '{POD_IDENTITY}' is not enabled."
            " Please see https://aka.ms/aks/previews for how to enable features.",
        )
    call.world.put(changed)
    operation = start(call, cluster.id, Outcome(seconds=math.inf))
    call.world.orders.put_nowait(operation.id)
    return Reply.json(shown(call, changed), headers=status_headers(call, operation, cluster))


def user_credential(call: ArmCall) -> Reply:
    """Return a kubeconfig with a token of the caller, who may do what the cluster's RBAC allows.

    The kubeconfig of a real cluster with Entra has no token, but the program that fetches one:
    https://learn.microsoft.com/azure/aks/kubelogin-authentication
    """
    mine = call.world.plan.person_token(call.caller.object_id)
    return _credential(call, "clusterUser", {"token": mine})


def admin_credential(call: ArmCall) -> Reply:
    """Return the kubeconfig of an administrator, as of local accounts.

    That is a client certificate and a token: the sandbox's own API server reads tokens alone.
    """
    certificate, key = map(_base64, call.world.plan.administrator_files)
    proof = {"client-certificate-data": certificate, "client-key-data": key}
    proof["token"] = call.world.plan.admin_token
    return _credential(call, "clusterAdmin", proof)


def list_pools(call: ArmCall) -> Reply:
    cluster = call.existing(ManagedCluster)
    pools = [
        {
            "id": f"{cluster.id}/agentPools/{pool['name']}",
            "name": pool.pop("name"),
            "type": f"{cluster.TYPE}/agentPools",
            "properties": pool,
        }
        for pool in pool_documents(call.world.plan)
    ]
    return Reply.json({"value": pools})


def _to_change(call: ArmCall) -> ManagedCluster:
    cluster = call.find(ManagedCluster)
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


def _credential(call: ArmCall, role: str, proof: Mapping[str, str]) -> Reply:
    """Return a kubeconfig; `proof` is how its user, of this role, authenticates."""
    plan, name = call.world.plan, call.existing(ManagedCluster).name
    user = f"{role}_{plan.cluster_group}_{name}"
    where = {
        "server": f"https://127.0.0.1:{plan.apiserver_port}",
        "certificate-authority-data": _base64(plan.ca_certificate),
    }
    document = kubeconfig(where, proof, name=name, who=user)
    value = base64.b64encode(yaml.safe_dump(document, sort_keys=False).encode()).decode()
    return Reply.json({"kubeconfigs": [{"name": role, "value": value}]})


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
