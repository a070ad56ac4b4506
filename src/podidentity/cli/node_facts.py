"""What is known of a pod's node: its machine's identities, and its NMI."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from podidentity.adapters.arm import Arm
from podidentity.adapters.kube import Kube, KubeError
from podidentity.cli.azure_access import asking, host_name
from podidentity.cli.chain import Fact, Node, State, on_machine
from podidentity.cli.objects import find, find_all
from podidentity.cli.rollout import NAMESPACE, PODS_OF_NMI, ready, trouble
from podidentity.core.entitlements import Entitlement
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ids import ObjectRef
from podidentity.core.resources import AzureIdentity, Pod
from podidentity.wire.kube import NODES, PODS

Records = Mapping[ObjectRef, Sequence[Host]]
"""For each AzureIdentity, the hosts that podidentity attached it to."""


async def node_of(
    kube: Kube,
    pod: Pod,
    entitlements: Sequence[Entitlement],
    records: Records,
    azure: Callable[[], Arm] | None,
) -> Node:
    """Return what is known of the node of `pod`; `azure` connects to Azure, to ask it as well."""
    identities = [each.identity for each in entitlements if on_machine(each)]
    if not pod.node:
        unknown = Fact(State.UNKNOWN, "the pod is on no node yet")
        return Node(attached={each.ref: unknown for each in identities}, nmi=unknown)
    if not identities:
        return Node(attached={}, nmi=await _nmi(kube, pod.node))
    host = await _host(kube, pod.node)
    attached: dict[ObjectRef, Fact] = {}
    for identity in identities:
        if isinstance(host, Fact):
            attached[identity.ref] = host
        elif azure:
            async with azure() as arm:
                attached[identity.ref] = await _asked(arm, host, identity)
        else:
            attached[identity.ref] = _recorded(host, records.get(identity.ref, ()))
    return Node(attached=attached, nmi=await _nmi(kube, pod.node))


async def _host(kube: Kube, node: str) -> Host | Fact:
    try:
        found = await find(kube, NODES, "", node)
        return Host.of_node((found or {}).get("spec", {}).get("providerID", ""))
    except NotAnAzureNode as error:
        return Fact(State.UNKNOWN, f"node {node} is no Azure machine: {error}")
    except KubeError as error:
        if not error.forbidden:
            raise
        return Fact(State.UNKNOWN, f"you may not read node {node}")


async def _asked(arm: Arm, host: Host, identity: AzureIdentity) -> Fact:
    if identity.resource_id is None:
        return Fact(State.UNKNOWN, "it has no resourceID that Azure could be asked for")
    where = host_name(host)
    with asking(f"read the identities of {where}", identity.resource_id):
        if (await arm.host(host)).has(identity.resource_id):
            return Fact(State.HOLDS, f"attached to {where}, as Azure says")
    return Fact(State.BROKEN, f"not attached to {where}, as Azure says; podidentity add does it")


def _recorded(host: Host, hosts: Sequence[Host]) -> Fact:
    if host in hosts:
        return Fact(State.HOLDS, f"attached to {host_name(host)} by podidentity add")
    return Fact(State.UNKNOWN, f"whether {host_name(host)} has it, --azure asks")


async def _nmi(kube: Kube, node: str) -> Fact:
    try:
        pods = await find_all(
            kube,
            PODS,
            NAMESPACE,
            labelSelector=PODS_OF_NMI,
            fieldSelector=f"spec.nodeName={node}",
        )
    except KubeError as error:
        if not error.forbidden:
            raise
        return Fact(State.UNKNOWN, f"you may not read the pods of {NAMESPACE}")
    if not pods:
        return Fact(State.BROKEN, f"no NMI on node {node}; podidentity enable brings it")
    pods.sort(key=ready)
    name = pods[-1]["metadata"]["name"]
    if ready(pods[-1]):
        return Fact(State.HOLDS, f"{name} is ready on node {node}")
    return Fact(State.BROKEN, f"{name} on node {node} is not ready: {trouble(pods[-1])}")
