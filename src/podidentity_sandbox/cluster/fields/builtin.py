"""The fields of the built-in types: what the models tell, and how changes of them are merged."""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, models
from podidentity_sandbox.cluster.models import Model, ModelField
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.shapes import GO_TYPE

# ---- Merging of lists and maps of the built-in types: the tags of their Go structs, as tables
#
# Each row is a line of the types in https://github.com/kubernetes/api (v0.32), such as
# `Containers []Container `patchStrategy:"merge" patchMergeKey:"name"`` under `+listType=map
# +listMapKey=name`. Lists that are in no table are atomic for server-side apply, and replaced by a
# strategic merge patch.

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
"""Defaults of the parts of a key that an item leaves out (`+default="TCP"`)."""

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


# ---- The fields

STRUCT = "x-go-struct"
"""Marks a field that a new object has already, see `merging.STRUCTS`."""
_SCALARS: dict[str, Schema] = {
    "str": {"type": "string"},
    "int": {"type": "integer", "format": "int32"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Time": {"type": "string", "format": "date-time"},
    "MicroTime": {"type": "string", "format": "date-time"},
    "Quantity": {"x-kubernetes-int-or-string": True},
    "IntOrString": {"x-kubernetes-int-or-string": True},
    "dict": {"type": "object", "additionalProperties": True},
}
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""Fields without a type."""


def schema(group: str, version: str, kind: str) -> Schema:
    """Return the fields of a built-in type; raise LookupError for one that is not known."""
    model = models.find(group, version, kind)
    if model is None:
        raise LookupError(kind)
    return _of_model(model)


def metadata() -> Schema:
    """Return the fields that the metadata of every object has."""
    return _of_model(models.METADATA)


def blank(fields: Schema) -> Obj:
    """Return an object of a built-in type before anything is said about it: its empty structs."""
    properties = fields.get("properties", {})
    return {
        name: blank(field) if field["type"] == "object" else None
        for name, field in properties.items()
        if field.get(STRUCT)
    }


_made: dict[Model, Schema] = {}
"""They refer to each other: JSONSchemaProps holds itself."""


def _of_model(model: Model) -> Schema:
    made = _made.get(model)
    if made is not None:
        return made
    properties: dict[str, Schema] = {}
    new = _made[model] = {"type": "object", "properties": properties, GO_TYPE: model.name}
    if model.name in ATOMIC:
        new["x-kubernetes-map-type"] = "atomic"
    for field in model.fields:
        properties[field.key] = _annotated(f"{model.name}.{field.key}", _of_type(field))
    return new


def _of_type(field: ModelField) -> Schema:
    """Return the schema of a field's type."""
    found = _of_model(field.model) if field.model else _SCALARS.get(field.scalar, _ANYTHING)
    return {"type": "array", "items": found} if field.many else found


def _annotated(path: str, found: Schema) -> Schema:
    """Return a field's schema with the field's rows of the tables."""
    extra: Schema = {}
    if keys := LIST_KEYS.get(path):
        extra = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}
    if path in SETS:
        extra["x-kubernetes-list-type"] = "set"
    if path in ATOMIC:
        extra["x-kubernetes-map-type"] = "atomic"
    if path in PATCHED:
        strategy, key = PATCHED[path]
        extra |= {"x-kubernetes-patch-strategy": strategy, "x-kubernetes-patch-merge-key": key}
    if path.rpartition(".")[2] in INT64:
        extra["format"] = "int64"
    if path in STRUCTS or path in NULL_LISTS:
        extra[STRUCT] = True
    if path in DEFAULTS:
        extra["default"] = DEFAULTS[path]
    return {**found, **extra} if extra else found
