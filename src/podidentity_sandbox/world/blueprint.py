"""Decides everything that a sandbox's parts must agree on, and writes it down.

Ids are the same at each `up` of a name, so that a person's notes stay true; secrets are new.
"""

from __future__ import annotations

import base64
import secrets
from dataclasses import replace

import yaml

from podidentity_sandbox.plan import MINORS, Network, NodePlan, Plan, stable_guid

MOST_NODES = 50
"""More would outrun the link's addresses, and any laptop."""
ROUTED_GATEWAY = "169.254.1.1"
"""Azure CNI's and Calico's: Azure/azure-container-networking, network/
transparent_endpointclient_linux.go, "virtualGwIPString"."""


def draw_plan(
    name: str,
    folder: str,
    *,
    nodes: int,
    rootless: bool,
    apiserver_port: int,
    azure_proxy_port: int,
    cgroup_root: str = "",
    memory_root: str = "",
    azure_cli: str = "",
    network: Network = Network.ROUTED,
    kubernetes_minor: int = MINORS[0],
    init_taints: str = "",
) -> Plan:
    """Return the plan of a sandbox with `nodes` nodes."""
    plan = Plan(
        name=name,
        folder=folder,
        rootless=rootless,
        tenant_id=stable_guid(name, "tenant"),
        subscription_id=stable_guid(name, "subscription"),
        operator_id=stable_guid(name, "operator"),
        # It is typed after --password: one that starts with a hyphen would be an option.
        operator_secret=secrets.token_hex(20),
        admin_token=secrets.token_urlsafe(30),
        nodes=(),
        aks_token=secrets.token_urlsafe(30),
        apiserver_port=apiserver_port,
        azure_proxy_port=azure_proxy_port,
        cgroup_root=cgroup_root,
        memory_root=memory_root,
        azure_cli=azure_cli,
        kubernetes_minor=kubernetes_minor,
    )
    return replace(
        plan, nodes=tuple(_node(plan, each, network, init_taints) for each in range(nodes))
    )


def _node(plan: Plan, index: int, network: Network, init_taints: str) -> NodePlan:
    """Return a node, named and numbered as AKS does it: `…vmss000000`, 10.240.0.4."""
    return NodePlan(
        name=f"{plan.scale_set}{_base36(index):0>6}",
        index=index,
        address=f"10.240.0.{4 + index}",
        pod_cidr=f"10.244.{index}.0/24",
        gateway=f"10.244.{index}.1" if network is Network.BRIDGE else ROUTED_GATEWAY,
        provider_id=f"azure://{plan.scale_set_id}/virtualMachines/{index}",
        token=secrets.token_urlsafe(30),
        network=network,
        init_taints=init_taints,
    )


def _base36(number: int) -> str:
    """Scale sets number their machines' names to the base of 36.

    Source: https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-instance-ids.
    """
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < len(digits) else _base36(number // 36) + digits[number % 36]


def write_kubeconfig(plan: Plan) -> None:
    """Write the administrator's kubeconfig, for the host; mode 0600."""
    authority = base64.b64encode(plan.ca_certificate.read_bytes()).decode()
    server = f"https://127.0.0.1:{plan.apiserver_port}"
    context = f"sandbox-{plan.name}"
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": context,
        "clusters": [
            {
                "name": context,
                "cluster": {"server": server, "certificate-authority-data": authority},
            }
        ],
        "users": [{"name": f"{context}-admin", "user": {"token": plan.admin_token}}],
        "contexts": [
            {"name": context, "context": {"cluster": context, "user": f"{context}-admin"}}
        ],
    }
    plan.kubeconfig.touch(mode=0o600)
    plan.kubeconfig.write_text(yaml.safe_dump(document, sort_keys=False))
