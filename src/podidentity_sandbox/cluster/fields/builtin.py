"""The fields of the built-in types: what the models tell, and how changes of them are merged."""

from __future__ import annotations

from podidentity_sandbox.cluster import Obj, models
from podidentity_sandbox.cluster.models import Model, ModelField
from podidentity_sandbox.cluster.schema import Schema
from podidentity_sandbox.cluster.shapes import GO_TYPE, QUANTITY

# ---- Merging of lists and maps of the built-in types: the tags of their Go structs, as tables
#
# Each row is a line of the types in https://github.com/kubernetes/api (v0.32), such as
# `Containers []Container `patchStrategy:"merge" patchMergeKey:"name"`` under `+listType=map
# +listMapKey=name`. Lists that are in no table are atomic for server-side apply, and replaced by a
# strategic merge patch.

_KINDS = ("DaemonSet", "Deployment", "Namespace", "Node", "Pod", "ReplicaSet", "Service")
"""Those with a spec and a status that are no pointers in Go, and with conditions."""
_CONTAINER = {
    "env": ("name",),
    "ports": ("containerPort", "protocol"),
    "volumeDevices": ("devicePath",),
    "volumeMounts": ("mountPath",),
}
_NAMED = ("containers", "ephemeralContainers", "imagePullSecrets", "initContainers",
          "resourceClaims", "schedulingGates", "volumes")  # fmt: skip
LIST_KEYS: dict[str, tuple[str, ...]] = {
    **{f"Container.{field}": keys for field, keys in _CONTAINER.items()},
    "ContainerStatus.allocatedResourcesStatus": ("name",),
    "ContainerStatus.volumeMounts": ("mountPath",),
    "CustomResourceDefinitionStatus.conditions": ("type",),
    **{f"EphemeralContainer.{field}": keys for field, keys in _CONTAINER.items()},
    "NodeStatus.addresses": ("type",),
    "ObjectMeta.ownerReferences": ("uid",),
    **{f"PodSpec.{field}": ("name",) for field in _NAMED},
    "PodSpec.hostAliases": ("ip",),
    "PodSpec.topologySpreadConstraints": ("topologyKey", "whenUnsatisfiable"),
    "PodStatus.podIPs": ("ip",),
    "PodStatus.resourceClaimStatuses": ("name",),
    "ResourceRequirements.claims": ("name",),
    "ResourceStatus.resources": ("resourceID",),
    "ServiceAccount.secrets": ("name",),
    "ServiceSpec.ports": ("port", "protocol"),
    **{f"{kind}Status.conditions": ("type",) for kind in _KINDS},
}
"""Lists whose items are owned one by one (`+listType=map`), and what tells them apart."""

SETS = ("CSIDriverSpec.volumeLifecycleModes", "NodeSpec.podCIDRs", "ObjectMeta.finalizers")
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

_UNPATCHED = ("CustomResourceDefinitionStatus.conditions", "ResourceRequirements.claims",
              "ResourceStatus.resources")  # fmt: skip
_RETAINED = ("PodSpec.resourceClaims", "PodSpec.volumes", "PodStatus.resourceClaimStatuses")
PATCHED: dict[str, tuple[str, str]] = {
    # Where the types have both tags, they merge by the same key, or by the first of several.
    **{
        path: ("merge,retainKeys" if path in _RETAINED else "merge", keys[0])
        for path, keys in LIST_KEYS.items()
        if path not in _UNPATCHED
    },
    "DeploymentSpec.strategy": ("retainKeys", ""),
    "NodeSpec.podCIDRs": ("merge", ""),
    "ObjectMeta.finalizers": ("merge", ""),
    "PodStatus.hostIPs": ("merge", "ip"),
}
"""`patchStrategy` and `patchMergeKey` of strategic merge patches; "" where there is no key."""

DEFAULTS = {"ContainerPort.protocol": "TCP", "ServicePort.protocol": "TCP"}
"""Defaults of the parts of a key that an item leaves out (`+default="TCP"`)."""

STRUCTS = frozenset(
    {
        *(f"{kind}.{part}" for kind in _KINDS for part in ("spec", "status")),
        *(f"{kind}Spec.template" for kind in ("DaemonSet", "Deployment", "ReplicaSet")),
        *("CSIDriver.spec", "Event.source", "Lease.spec"),
        *("CustomResourceDefinition.spec", "CustomResourceDefinition.status"),
        *("CustomResourceDefinitionSpec.names", "CustomResourceDefinitionStatus.acceptedNames"),
        *("DaemonSetSpec.updateStrategy", "DeploymentSpec.strategy"),
        *("NodeDaemonEndpoints.kubeletEndpoint", "NodeStatus.daemonEndpoints"),
        *("NodeStatus.nodeInfo", "ServiceStatus.loadBalancer"),
        *("PodTemplateSpec.metadata", "PodTemplateSpec.spec"),
        "PodSpec.containers",
    }
)
"""Fields that a new, empty object has already: structs that are no pointers in Go, and a list, as
null, that Go writes always (no `omitempty`)."""

INT64 = frozenset(
    {
        *("activeDeadlineSeconds", "deletionGracePeriodSeconds", "expirationSeconds"),
        *("gracePeriodSeconds", "terminationGracePeriodSeconds", "tolerationSeconds"),
        *("fsGroup", "generation", "observedGeneration", "runAsGroup", "runAsUser"),
    }
)
"""Whole numbers of 64 bits, by the names of their fields; the others have 32."""

_TEXTS: Schema = {"type": "array", "items": {"type": "string"}}
_AMOUNTS = (
    *("ContainerStatus.allocatedResources", "PodSpec.overhead", "PodStatus.allocatedResources"),
    *("NodeStatus.allocatable", "NodeStatus.capacity"),
    *("ResourceRequirements.limits", "ResourceRequirements.requests"),
    *("VolumeResourceRequirements.limits", "VolumeResourceRequirements.requests"),
)
_SCHEMAS = ("definitions", "dependencies", "patternProperties", "properties")
VALUES: dict[str, Schema | bool] = {
    "UserInfo.extra": _TEXTS,
    "SubjectAccessReviewSpec.extra": _TEXTS,
    **dict.fromkeys(_AMOUNTS, QUANTITY),
    # `crds` checks schemas one by one.
    **{f"JSONSchemaProps.{name}": True for name in _SCHEMAS},
}
"""The values of maps that are not of texts."""


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
    "Quantity": QUANTITY,
    "IntOrString": {"x-kubernetes-int-or-string": True},
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
        path = f"{model.name}.{field.key}"
        properties[field.key] = _annotated(path, _of_type(path, field))
    return new


def _of_type(path: str, field: ModelField) -> Schema:
    """Return the schema of the type of a field at `path`, such as PodSpec.nodeSelector."""
    if field.scalar == "dict":
        return {"type": "object", "additionalProperties": VALUES.get(path, _SCALARS["str"])}
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
    if path in STRUCTS:
        extra[STRUCT] = True
    if path in DEFAULTS:
        extra["default"] = DEFAULTS[path]
    return {**found, **extra} if extra else found
