"""The fields of each type, and how its lists and maps are merged.

Patches, server-side apply and the validation of unknown fields read this, of built-in types and of
custom ones in the same form: an openAPIV3Schema as in a CustomResourceDefinition, with the
extensions of https://kubernetes.io/docs/reference/using-api/server-side-apply/#merge-strategy and,
for built-in types, those of strategic merge patches.
"""

from __future__ import annotations

import importlib.util
import sys
from functools import cache, lru_cache
from types import ModuleType

import msgspec

from podidentity_sandbox.cluster import Obj
from podidentity_sandbox.cluster.registry import ResourceType
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


# ---- The fields of built-in types, as lightkube's generated models tell them: names and types.
#
# They are those of https://github.com/kubernetes/kubernetes/blob/v1.37.0/api/openapi-spec/swagger.json.
# Only annotations are read; objects are never made of them.

STRUCT = "x-go-struct"
"""Marks a field that a new object has already, see STRUCTS."""
_TEXT: Schema = {"type": "string"}
_TIME: Schema = {"type": "string", "format": "date-time"}
_SCALARS: dict[str, Schema] = {
    "str": _TEXT,
    "int": {"type": "integer", "format": "int32"},
    "float": {"type": "number"},
    "bool": {"type": "boolean"},
    "Time": _TIME,
    "MicroTime": _TIME,
    "Quantity": QUANTITY,
    "IntOrString": {"x-kubernetes-int-or-string": True},
}
_ANYTHING: Schema = {"x-kubernetes-preserve-unknown-fields": True}
"""Fields without a type: FieldsV1, RawExtension and JSON."""


def without_client() -> None:
    """Have `lightkube` without what its `__init__` loads, in a process that reads its models alone.

    That is its client, and httpx2: a quarter of what the start of the API server takes.
    """
    spec = importlib.util.find_spec("lightkube")
    assert spec is not None  # noqa: S101 - it is installed with this
    sys.modules.setdefault("lightkube", importlib.util.module_from_spec(spec))


@lru_cache(maxsize=256)
def fields_of(kind: ResourceType) -> Schema:
    """Return the schema of whole objects of a type, their metadata included."""
    if kind.schema is None:
        return built_in(kind.group, kind.version, kind.kind)
    head = {"apiVersion": _TEXT, "kind": _TEXT, "metadata": METADATA}
    properties = {**kind.schema.get("properties", {}), **head}
    return {**kind.schema, "properties": properties}


def built_in(group: str, version: str, kind: str) -> Schema:
    """Return the fields of a built-in type; raise LookupError for one that is not known."""
    module = _module(f"{group.partition('.')[0] or 'core'}_{version}")
    if not hasattr(module, kind):
        raise LookupError(kind)
    return _of_model(getattr(module, kind))


def blank(fields: Schema) -> Obj:
    """Return an object of a built-in type before anything is said about it: its empty structs."""
    properties = fields.get("properties", {})
    return {
        name: blank(field) if field["type"] == "object" else None
        for name, field in properties.items()
        if field.get(STRUCT)
    }


@cache
def _module(name: str) -> ModuleType:
    return importlib.import_module(f"lightkube.models.{name}")


_made: dict[type[msgspec.Struct], Schema] = {}
"""They refer to each other: JSONSchemaProps holds itself."""


def _of_model(model: type[msgspec.Struct]) -> Schema:
    """Return the fields of a class of the models, such as PodSpec of core_v1."""
    if model in _made:
        return _made[model]
    properties: dict[str, Schema] = {}
    new = _made[model] = {"type": "object", "properties": properties, GO_TYPE: model.__name__}
    if model.__name__ in ATOMIC:
        new["x-kubernetes-map-type"] = "atomic"
    names = zip(model.__struct_fields__, model.__struct_encode_fields__, strict=True)
    for name, key in names:
        path = f"{model.__name__}.{key}"
        found = _of_type(path, sys.modules[model.__module__], model.__annotations__[name])
        properties[key] = _annotated(path, found)
    return new


def _of_type(path: str, module: ModuleType, annotation: str) -> Schema:
    """Return the schema of the type of a field at `path`, such as PodSpec.nodeSelector.

    Annotations are like `str`, `List[Container]` and `Optional[meta_v1.Time]`.
    """
    inner = annotation.removeprefix("Optional[")
    listed = inner.removeprefix("List[")
    place, _, name = listed.rstrip("]").rpartition(".")
    if name == "dict":
        return {"type": "object", "additionalProperties": VALUES.get(path, _TEXT)}
    found = _SCALARS.get(name, _ANYTHING)
    model = getattr(_module(place) if place else module, name, None)
    if found is _ANYTHING and isinstance(model, type) and issubclass(model, msgspec.Struct):
        found = _of_model(model)
    return {"type": "array", "items": found} if listed != inner else found


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


METADATA = built_in("meta", "v1", "ObjectMeta")
"""The fields that the metadata of every object has."""
