"""Decides everything that a sandbox's parts must agree on, and writes it down.

Ids are the same at each `up` of a name, so that a person's notes stay true; secrets are new.
"""

from __future__ import annotations

import base64
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain, cycle, repeat
from pathlib import Path

import yaml

from podidentity_sandbox.plan import (
    OWN_VERSION,
    Network,
    NodePlan,
    Plan,
    Pool,
    PoolKind,
    kubeconfig,
    stable_guid,
)

MOST_NODES = 50
"""More would outrun the link's addresses, and any laptop."""
ROUTED_GATEWAY = "169.254.1.1"
"""Azure CNI's and Calico's: Azure/azure-container-networking, network/
transparent_endpointclient_linux.go, "virtualGwIPString"."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What is asked of a sandbox, and its plan then says."""

    nodes: int = 2
    rootless: bool = False
    network: Network = Network.ROUTED
    kubernetes: str = ""
    """Folder of the programs of a real control plane; "" for the sandbox's own."""
    real_nodes: bool = False
    """With kubelets and containerd; the pods of every second node are joined by a bridge then."""
    kubernetes_version: str = OWN_VERSION
    """That of these programs."""
    init_taints: str = ""
    pools: Sequence[Pool] = ()
    """Instead of `nodes`."""


TWO_NODES = Shape()
"""What `up` makes unless it is told otherwise."""


def draw_plan(
    name: str,
    folder: Path,
    shape: Shape,
    *,
    apiserver_port: int = 0,
    azure_proxy_port: int = 0,
    cgroup_root: str = "",
    memory_root: str = "",
    azure_cli: str = "",
) -> Plan:
    plan = Plan(
        name=name,
        folder=str(folder),
        rootless=shape.rootless,
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
        kubernetes=shape.kubernetes,
        real_nodes=shape.real_nodes,
        kubernetes_version=shape.kubernetes_version,
    )
    wanted = shape.pools or (Pool(kind=PoolKind.UNIFORM, nodes=shape.nodes),)
    machines = chain.from_iterable(
        _machines(plan, pool, number) for number, pool in enumerate(wanted, start=1)
    )
    networks = cycle(Network) if shape.real_nodes else repeat(shape.network)
    return replace(
        plan,
        nodes=tuple(
            # 10.240.0.4 is the first.
            NodePlan(
                name=name,
                index=index,
                address=f"10.240.0.{4 + index}",
                pod_cidr=f"10.244.{index}.0/24",
                gateway=f"10.244.{index}.1" if network is Network.BRIDGE else ROUTED_GATEWAY,
                provider_id=provider_id,
                token=secrets.token_urlsafe(30),
                network=network,
                pool=pool,
                scale_set=scale_set,
                init_taints=shape.init_taints,
            )
            for index, ((name, provider_id, pool, scale_set), network) in enumerate(
                zip(machines, networks, strict=False)
            )
        ),
    )


def _machines(plan: Plan, pool: Pool, number: int) -> Iterator[tuple[str, str, str, str]]:
    """Yield the machines of the pool of that number: name, provider ID, pool, Flexible scale set.

    Named as AKS names them. A provider ID has its resource group in lower case: kubernetes-sigs/
    cloud-provider-azure, pkg/provider/azure_utils.go, ConvertResourceGroupNameToLower.
    """
    name = plan.scale_set.replace("nodepool1", f"nodepool{number}")
    where = plan.subscription_id
    if pool.subscription:
        where = stable_guid(plan.name, f"subscription {pool.subscription}")
    group = pool.group or plan.node_group
    compute = f"/subscriptions/{where}/resourceGroups/{group}/providers/Microsoft.Compute"
    below = f"azure://{compute.replace(f'/{group}/', f'/{group.lower()}/')}"
    flexible = f"{compute}/virtualMachineScaleSets/{name}"
    for index in range(pool.nodes):
        node = f"{name}{_base36(index):0>6}"
        machine, scale_set = f"virtualMachines/{node}", ""
        if pool.kind is PoolKind.UNIFORM:
            machine = f"virtualMachineScaleSets/{name}/virtualMachines/{index}"
        elif pool.kind is PoolKind.FLEXIBLE:
            machine = f"virtualMachines/{name}_{stable_guid(plan.name, node)[:8]}"
            scale_set = flexible
        yield node, f"{below}/{machine}", f"nodepool{number}", scale_set


def _base36(number: int) -> str:
    """Scale sets number their machines' names to the base of 36.

    Source: https://learn.microsoft.com/azure/virtual-machine-scale-sets/virtual-machine-scale-sets-instance-ids.
    """
    digits = "0123456789abcdefghijklmnopqrstuvwxyz"
    return digits[number] if number < len(digits) else _base36(number // 36) + digits[number % 36]


def write_kubeconfig(plan: Plan, object_id: str = "") -> Path:
    """Write the administrator's kubeconfig, or that which AKS gives a principal of Entra.

    It is for the host, and its mode 0600; returns its path.
    """
    path, user, token = plan.kubeconfig, "admin", plan.admin_token
    if object_id:
        path, user = plan.path / f"kubeconfig-{object_id}", object_id
        token = plan.person_token(object_id)
    authority = base64.b64encode(plan.ca_certificate.read_bytes()).decode()
    server = f"https://127.0.0.1:{plan.apiserver_port}"
    context = f"sandbox-{plan.name}"
    cluster = {"server": server, "certificate-authority-data": authority}
    who = f"{context}-{user}"
    document = kubeconfig(cluster, {"token": token}, name=context, who=who)
    path.touch(mode=0o600)
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    return path
