"""How lists and maps of the built-in types are merged: the tags of their Go structs, as tables.

Each row is a line of the types in https://github.com/kubernetes/api (v0.32), such as
`Containers []Container `patchStrategy:"merge" patchMergeKey:"name"`` under `+listType=map
+listMapKey=name`. Lists that are in no table are atomic for server-side apply, and replaced by a
strategic merge patch.
"""

from __future__ import annotations

LIST_KEYS: dict[str, tuple[str, ...]] = {
    "Container.env": ("name",),
    "Container.ports": ("containerPort", "protocol"),
    "Container.volumeDevices": ("devicePath",),
    "Container.volumeMounts": ("mountPath",),
    "ContainerStatus.allocatedResourcesStatus": ("name",),
    "ContainerStatus.volumeMounts": ("mountPath",),
    "CustomResourceDefinitionStatus.conditions": ("type",),
    "DaemonSetStatus.conditions": ("type",),
    "DeploymentStatus.conditions": ("type",),
    "EphemeralContainer.env": ("name",),
    "EphemeralContainer.ports": ("containerPort", "protocol"),
    "EphemeralContainer.volumeDevices": ("devicePath",),
    "EphemeralContainer.volumeMounts": ("mountPath",),
    "NamespaceStatus.conditions": ("type",),
    "NodeStatus.addresses": ("type",),
    "NodeStatus.conditions": ("type",),
    "ObjectMeta.ownerReferences": ("uid",),
    "PodSpec.containers": ("name",),
    "PodSpec.ephemeralContainers": ("name",),
    "PodSpec.hostAliases": ("ip",),
    "PodSpec.imagePullSecrets": ("name",),
    "PodSpec.initContainers": ("name",),
    "PodSpec.resourceClaims": ("name",),
    "PodSpec.schedulingGates": ("name",),
    "PodSpec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "PodSpec.volumes": ("name",),
    "PodStatus.conditions": ("type",),
    "PodStatus.podIPs": ("ip",),
    "PodStatus.resourceClaimStatuses": ("name",),
    "ReplicaSetStatus.conditions": ("type",),
    "ResourceRequirements.claims": ("name",),
    "ResourceStatus.resources": ("resourceID",),
    "ServiceAccount.secrets": ("name",),
    "ServiceSpec.ports": ("port", "protocol"),
    "ServiceStatus.conditions": ("type",),
}
"""Lists whose items are owned one by one (`+listType=map`), and what tells them apart."""

SETS = frozenset(
    {
        "CSIDriverSpec.volumeLifecycleModes",
        "NodeSpec.podCIDRs",
        "ObjectMeta.finalizers",
    }
)
"""Lists of scalars that are owned one by one (`+listType=set`)."""

ATOMIC = frozenset(
    {
        "ConfigMapKeySelector",
        "LabelSelector",
        "LocalObjectReference",
        "NodeSelector",
        "NodeSelectorTerm",
        "ObjectFieldSelector",
        "ObjectReference",
        "OwnerReference",
        "PodSpec.nodeSelector",
        "ResourceFieldSelector",
        "RoleRef",
        "SecretKeySelector",
        "ServiceSpec.selector",
        "Subject",
        "TypedLocalObjectReference",
    }
)
"""Structs and maps with one owner for all that is in them (`+structType`, `+mapType=atomic`)."""

PATCHED: dict[str, tuple[str, str]] = {
    "Container.env": ("merge", "name"),
    "Container.ports": ("merge", "containerPort"),
    "Container.volumeDevices": ("merge", "devicePath"),
    "Container.volumeMounts": ("merge", "mountPath"),
    "ContainerStatus.allocatedResourcesStatus": ("merge", "name"),
    "ContainerStatus.volumeMounts": ("merge", "mountPath"),
    "DaemonSetStatus.conditions": ("merge", "type"),
    "DeploymentSpec.strategy": ("retainKeys", ""),
    "DeploymentStatus.conditions": ("merge", "type"),
    "EphemeralContainer.env": ("merge", "name"),
    "EphemeralContainer.ports": ("merge", "containerPort"),
    "EphemeralContainer.volumeDevices": ("merge", "devicePath"),
    "EphemeralContainer.volumeMounts": ("merge", "mountPath"),
    "NamespaceStatus.conditions": ("merge", "type"),
    "NodeSpec.podCIDRs": ("merge", ""),
    "NodeStatus.addresses": ("merge", "type"),
    "NodeStatus.conditions": ("merge", "type"),
    "ObjectMeta.finalizers": ("merge", ""),
    "ObjectMeta.ownerReferences": ("merge", "uid"),
    "PodSpec.containers": ("merge", "name"),
    "PodSpec.ephemeralContainers": ("merge", "name"),
    "PodSpec.hostAliases": ("merge", "ip"),
    "PodSpec.imagePullSecrets": ("merge", "name"),
    "PodSpec.initContainers": ("merge", "name"),
    "PodSpec.resourceClaims": ("merge,retainKeys", "name"),
    "PodSpec.schedulingGates": ("merge", "name"),
    "PodSpec.topologySpreadConstraints": ("merge", "topologyKey"),
    "PodSpec.volumes": ("merge,retainKeys", "name"),
    "PodStatus.conditions": ("merge", "type"),
    "PodStatus.hostIPs": ("merge", "ip"),
    "PodStatus.podIPs": ("merge", "ip"),
    "PodStatus.resourceClaimStatuses": ("merge,retainKeys", "name"),
    "ReplicaSetStatus.conditions": ("merge", "type"),
    "ServiceAccount.secrets": ("merge", "name"),
    "ServiceSpec.ports": ("merge", "port"),
    "ServiceStatus.conditions": ("merge", "type"),
}
"""`patchStrategy` and `patchMergeKey` of strategic merge patches; "" where there is no key."""

DEFAULTS = {"ContainerPort.protocol": "TCP", "ServicePort.protocol": "TCP"}
"""What the part of a key is that an item leaves out (`+default="TCP"`)."""

STRUCTS = frozenset(
    {
        "CSIDriver.spec",
        "CustomResourceDefinition.spec",
        "CustomResourceDefinition.status",
        "CustomResourceDefinitionSpec.names",
        "CustomResourceDefinitionStatus.acceptedNames",
        "DaemonSet.spec",
        "DaemonSet.status",
        "DaemonSetSpec.template",
        "DaemonSetSpec.updateStrategy",
        "Deployment.spec",
        "Deployment.status",
        "DeploymentSpec.strategy",
        "DeploymentSpec.template",
        "Event.source",
        "Lease.spec",
        "Namespace.spec",
        "Namespace.status",
        "Node.spec",
        "Node.status",
        "NodeDaemonEndpoints.kubeletEndpoint",
        "NodeStatus.daemonEndpoints",
        "NodeStatus.nodeInfo",
        "Pod.spec",
        "Pod.status",
        "PodTemplateSpec.metadata",
        "PodTemplateSpec.spec",
        "ReplicaSet.spec",
        "ReplicaSet.status",
        "ReplicaSetSpec.template",
        "Service.spec",
        "Service.status",
        "ServiceStatus.loadBalancer",
    }
)
"""Fields that a new, empty object has already: structs that are no pointers in Go."""

NULL_LISTS = frozenset({"PodSpec.containers"})
"""Lists that a new, empty object has as null, since Go writes them always (no `omitempty`)."""

INT64 = frozenset(
    {
        "activeDeadlineSeconds",
        "deletionGracePeriodSeconds",
        "expirationSeconds",
        "fsGroup",
        "generation",
        "observedGeneration",
        "runAsGroup",
        "runAsUser",
        "terminationGracePeriodSeconds",
        "tolerationSeconds",
    }
)
"""Whole numbers of 64 bits, by the names of their fields; the others have 32."""
