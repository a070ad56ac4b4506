"""The resources of the sandbox's Azure at its start: a cluster's groups, nodes, identity.

Everything else is made by clients, through ARM.
"""

from __future__ import annotations

from typing import Any

from podidentity_sandbox.azure.aks.profile import ManagedCluster
from podidentity_sandbox.azure.arm.roles import CONTRIBUTOR, OWNER, Role
from podidentity_sandbox.azure.state import (
    Application,
    ClientSecret,
    Group,
    IdentityBlock,
    Principal,
    RoleAssignment,
    ScaleSet,
    UserAssignedIdentity,
    VirtualMachine,
    World,
)
from podidentity_sandbox.plan import NodePlan, Plan, stable_guid

KUBELET_IDENTITY = "aks-experimental-agentpool"
"""Name of the identity that AKS gives its nodes."""


def operator_object_id(plan: Plan) -> str:
    """Return the object id of the operator's service principal at home, which no file holds."""
    return stable_guid(plan.tenant_id, "operator object id")


def seed(world: World) -> None:
    """Make the operator, who owns the subscriptions, and the cluster's part of them.

    He administers the other tenants as well, so that a story can be told of them.
    """
    _seed_operator(world)
    for group in (world.plan.cluster_group, world.plan.node_group):
        _seed_group(world, f"{world.subscription}/resourceGroups/{group}")
    _seed_nodes(world)


def _seed_operator(world: World) -> None:
    plan = world.plan
    registered = stable_guid(plan.name, "operator registration")
    secret = ClientSecret(
        key_id=stable_guid(plan.name, "operator secret"),
        name="sandbox",
        value=plan.operator_secret,
        starts=0.0,
        ends=float("inf"),
    )
    world.put(
        Application(
            id=f"/applications/{registered}",
            object_id=registered,
            app_id=plan.operator_id,
            name="operator",
            tenant_id=plan.tenant_id,
            multi_tenant=True,
            secrets=(secret,),
        )
    )
    for tenant in world.tenants.all:
        principal = Principal(
            object_id=stable_guid(tenant.id, "operator object id"),
            app_id=plan.operator_id,
            name="operator",
            tenant_id=tenant.id,
            reads_directory=True,
        )
        world.principals[principal.object_id] = principal
    for subscription in plan.subscriptions:
        owner = world.principals[operator_object_id(plan)]
        _grant(world, OWNER, owner, f"/subscriptions/{subscription}")


def _seed_cluster(world: World, kubelet: UserAssignedIdentity) -> None:
    plan = world.plan
    nodes = f"{world.subscription}/resourceGroups/{plan.node_group}"
    principal = world.new_principal(plan.cluster_name)
    group = f"{world.subscription}/resourceGroups/{plan.cluster_group}"
    world.put(
        ManagedCluster(
            id=f"{group}/providers/{ManagedCluster.TYPE}/{plan.cluster_name}",
            name=plan.cluster_name,
            location=plan.location,
            principal=principal,
            kubelet_id=kubelet.id,
        )
    )
    # AKS makes its cluster's identity Contributor of the node group, and of nothing else.
    _grant(world, CONTRIBUTOR, principal, nodes)


def _grant(world: World, role: Role, principal: Principal, scope: str) -> None:
    name = stable_guid(world.plan.name, f"{principal.name} is {role.name}")
    world.put(
        RoleAssignment(
            id=f"{scope}/providers/Microsoft.Authorization/roleAssignments/{name}",
            name=name,
            scope=scope,
            role_id=role.id,
            principal_id=principal.object_id,
        )
    )


def _seed_nodes(world: World) -> None:
    plan = world.plan
    principal = world.new_principal(KUBELET_IDENTITY)
    kubelet = UserAssignedIdentity(
        id=f"{world.subscription}/resourcegroups/{plan.node_group}/providers"
        f"/{UserAssignedIdentity.TYPE}/{KUBELET_IDENTITY}",
        name=KUBELET_IDENTITY,
        location=plan.location,
        client_id=principal.app_id,
        principal_id=principal.object_id,
    )
    world.put(kubelet)
    _seed_cluster(world, kubelet)
    block = IdentityBlock(user=(kubelet,))
    for node in plan.nodes:
        _seed_machine(world, node, block)


def _seed_machine(world: World, node: NodePlan, block: IdentityBlock) -> None:
    """Make the machine of a node, or one more instance of its scale set, in their group."""
    machine = node.provider_id.removeprefix("azure://")
    where, _, name = machine.rpartition("/")
    uniform = where.removesuffix("/virtualMachines") if node.is_instance else ""
    alike: dict[str, Any] = {"location": world.plan.location, "identity": block, "before": block}
    _seed_group(world, "/".join(machine.split("/")[:5]))
    scale_set = node.scale_set or uniform
    if scale_set:
        have = world.find(ScaleSet, scale_set)
        world.put(
            ScaleSet(
                id=scale_set,
                name=scale_set.rpartition("/")[2],
                capacity=have.capacity + 1 if have else 1,
                flexible=not uniform,
                **alike,
            )
        )
    if not uniform:
        world.put(
            VirtualMachine(
                id=machine,
                name=name,
                scale_set=node.scale_set,
                **alike,
            )
        )


def _seed_group(world: World, where: str) -> None:
    if world.find(Group, where) is None:
        name = where.rpartition("/")[2]
        world.put(Group(id=where, name=name, location=world.plan.location))
