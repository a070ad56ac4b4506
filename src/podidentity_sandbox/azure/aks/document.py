"""A managed cluster as ARM shows it, and what of it a request may not change.

https://learn.microsoft.com/rest/api/aks/managed-clusters/get. A PUT carries the whole document
back; here it changes tags and the pod identity add-on, and nothing else of the one cluster.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from podidentity_sandbox.azure.aks import profile
from podidentity_sandbox.azure.aks.model import KIND, ManagedCluster
from podidentity_sandbox.azure.state import UserAssignedIdentity, World
from podidentity_sandbox.plan import Plan

KUBERNETES = "1.32.3"
POOL = "nodepool1"
_CHANGED_ELSEWHERE = ("properties.podIdentityProfile", "properties.provisioningState")


def rendered(world: World, cluster: ManagedCluster) -> dict[str, Any]:
    """Return the document of a cluster."""
    return {
        "id": cluster.id,
        "name": cluster.name,
        "type": KIND,
        "location": cluster.location,
        "tags": dict(cluster.tags),
        "sku": {"name": "Base", "tier": "Free"},
        "identity": {
            "type": "SystemAssigned",
            "principalId": cluster.principal.object_id,
            "tenantId": world.plan.tenant_id,
        },
        "properties": _properties(world, cluster),
    }


def _properties(world: World, cluster: ManagedCluster) -> dict[str, Any]:
    plan = world.plan
    answer: dict[str, Any] = {
        "provisioningState": cluster.state,
        "powerState": {"code": "Running"},
        "kubernetesVersion": KUBERNETES,
        "currentKubernetesVersion": KUBERNETES,
        "dnsPrefix": cluster.name,
        "fqdn": f"{cluster.name}.hcp.{cluster.location}.azmk8s.io",
        "agentPoolProfiles": [pool(plan)],
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


def pool(plan: Plan) -> dict[str, Any]:
    """Return the cluster's one pool of nodes."""
    return {
        "name": POOL,
        "count": len(plan.nodes),
        "vmSize": "Standard_D2s_v5",
        "osType": "Linux",
        "osSKU": "Ubuntu",
        "mode": "System",
        "type": "VirtualMachineScaleSets",
        "orchestratorVersion": KUBERNETES,
        "currentOrchestratorVersion": KUBERNETES,
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


def refused_change(sent: Mapping[str, Any], have: Mapping[str, Any]) -> str | None:
    """Return the path of the first value of `sent` that differs and may not, if there is one."""
    return next(_differences({key: sent[key] for key in sent if key != "tags"}, have, ""), None)


def _differences(sent: Mapping[str, Any], have: Mapping[str, Any], above: str) -> Iterator[str]:
    for key, value in sent.items():
        path, known = f"{above}{key}", have.get(key)
        if value is None or path in _CHANGED_ELSEWHERE:
            continue
        if isinstance(value, dict) and isinstance(known, dict):
            yield from _differences(value, known, f"{path}.")
        elif not _same(value, known):
            yield path


def _same(value: object, known: object) -> bool:
    if isinstance(value, list) and isinstance(known, list) and len(value) == len(known):
        return all(map(_same, value, known))
    if isinstance(value, dict) and isinstance(known, dict):
        return not any(_differences(value, known, ""))
    if value in (False, [], {}) and known is None:
        return True
    return str(value).lower() == str(known).lower()


def kubeconfig(plan: Plan, cluster: ManagedCluster, role: str) -> str:
    """Return, in base64, how a person of the role `clusterUser` or `clusterAdmin` gets in."""
    authority = base64.b64encode(plan.ca_certificate.read_bytes()).decode()
    user = f"{role}_{plan.cluster_group}_{cluster.name}"
    where = {
        "server": f"https://127.0.0.1:{plan.apiserver_port}",
        "certificate-authority-data": authority,
    }
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": cluster.name, "cluster": where}],
        "users": [{"name": user, "user": {"token": plan.admin_token}}],
        "contexts": [{"name": cluster.name, "context": {"cluster": cluster.name, "user": user}}],
        "current-context": cluster.name,
    }
    return base64.b64encode(yaml.safe_dump(document, sort_keys=False).encode()).decode()
