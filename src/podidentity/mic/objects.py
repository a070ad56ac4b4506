"""The objects that MIC reads and writes, between JSON and the values of its calls.

An AzureAssignedIdentity holds whole copies of the AzureIdentity and the binding, as its readers
expect: NMI of AAD Pod Identity knows them from there alone. Whether a copy is current is told by a
digest of what decides: the spec, and the annotation that makes an identity namespaced.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from sys import intern
from typing import Any
from zlib import crc32

import msgspec

from podidentity.core.budgets import BUDGETS
from podidentity.core.refusals import LONGEST
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import (
    PLAIN,
    About,
    Condition,
    Oddities,
    Record,
    StoredRecord,
    TellEvent,
)
from podidentity.wire import ANY, ANY_FIELDS, BROKEN_JSON, decoded
from podidentity.wire.events import CustomResource, Happening, render_event, stamp
from podidentity.wire.manifests import (
    API_VERSION,
    ASSIGNED_KIND,
    FINALIZER,
    NODE_LABEL,
    short_fields,
)

COMPONENT = "aadpodidentity.k8s.io"
"""Source of the events, as before."""
BEHAVIOR = "aadpodidentity.k8s.io/Behavior"
TYPES = {About.IDENTITY: "Ready", About.BINDING: "Ready", About.EXCEPTION: "Effective"}
_LONGEST_NAME = 253
"""Characters of a name of Kubernetes: MIC keeps those of all records."""
_LONGEST_COPY = 2 << 10
"""Bytes: of a longer one what is known is copied. MIC keeps the copies of thousands of objects of a
namespace, and each pod has a record with two."""
_LONGEST_FIELD = 2048
"""Bytes of a field in it; no field that means something has as many."""
_LONGEST_PART = 64 << 10
"""Bytes of a status, and of a field of the metadata, that are decoded. Of annotations, of which
Kubernetes allows 256 KiB, and of a record's finalizers each byte is."""
_KNOWN = frozenset(
    {
        *("type", "clientID", "resourceID", "objectID", "tenantID", "auxiliaryTenantIDs"),
        *("clientPassword", "federation", "adEndpoint", "adResourceID"),
        *("azureIdentity", "selector", "podLabels", "azureIdentities"),
    }
)
_DEAD = frozenset({"metadata", "replicas", "weight"})
_TEXTS = frozenset(
    {
        *("clientID", "resourceID", "tenantID", "adEndpoint", "adResourceID"),
        *("azureIdentity", "selector"),
    }
)
_KNOWN_OF_META = ("name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp")
_DROPPED = ("managedFields", "ownerReferences", "finalizers", "deletionTimestamp", "generateName")
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_SINCE = "lastTransitionTime"

Raw = bytes | msgspec.Raw
Json = dict[str, Any]


_NULL = msgspec.Raw(b"null")


class _Parts(msgspec.Struct):
    metadata: dict[str, msgspec.Raw]
    spec: msgspec.Raw = _NULL
    status: msgspec.Raw = _NULL
    old_status: msgspec.Raw = msgspec.field(name="Status", default=_NULL)


_PARTS = msgspec.json.Decoder(_Parts)
_SORTED = msgspec.json.Encoder(order="deterministic")


class UnreadableObject(ValueError):
    """The bytes are no object of the kind; the message says why."""


# AzureIdentities, bindings and exceptions


@dataclass(frozen=True, slots=True)
class Live:
    """An AzureIdentity, a binding or an exception as it is now."""

    ref: ObjectRef
    uid: str
    generation: int
    revision: str
    copy: bytes
    """What an AzureAssignedIdentity holds of it, as JSON; b"" for what none can hold."""
    condition: Condition | None
    """The one that it has, for the generation that it has."""
    place: str = "/status"
    """JSON pointer of MIC's condition, or of the first part of the way there that is missing.

    "" where the status is so long or deep that MIC lets it be.
    """
    since: tuple[str, str] = ("", "")
    """MIC's condition: its status and its lastTransitionTime."""


def parse_live(raw: Raw, about: About) -> Live:
    """Return what is needed of an object beside its meaning; raise UnreadableObject."""
    parts, meta = _parsed(raw, about.value)
    generation = meta.get("generation")
    generation = generation if isinstance(generation, int) else 0
    status = _decoded(parts.status) if len(parts.status) <= _LONGEST_PART else None
    place, mine = "", Json()
    if status is not None or parts.status == _NULL:
        place, mine = _own_condition(status, TYPES[about])
    if len(parts.spec) > BUDGETS[about].object:
        parts.spec = short_fields(parts.spec)
    copied = _copied({"metadata": meta, "spec": _decoded(parts.spec)}, about)
    copy = msgspec.json.encode(copied)
    if len(copy) > _LONGEST_COPY:
        copied = _short(copied)
        copy = msgspec.json.encode(copied)
    return Live(
        ref=_named({"metadata": meta}),
        uid=str(meta.get("uid", "")),
        generation=generation,
        revision=_revision(copied),
        copy=copy,
        condition=_condition(mine) if mine.get("observedGeneration") == generation else None,
        place=place,
        since=(
            str(mine.get("status", ""))[:_LONGEST_NAME],
            str(mine.get(_SINCE, ""))[:_LONGEST_NAME],
        ),
    )


def _copied(found: Json, about: About) -> Json:
    meta = {name: value for name, value in found["metadata"].items() if name not in _DROPPED}
    annotations = meta.get("annotations")
    if isinstance(annotations, dict):
        kept = {name: each for name, each in annotations.items() if name != _LAST_APPLIED}
        meta["annotations"] = kept
    # An embedded object must say its kind: the API server refuses it otherwise.
    head = {"apiVersion": API_VERSION, "kind": about.value, "metadata": meta}
    return {**head, "spec": _readable_spec(found)}


def _readable_spec(whole: Json) -> Json:
    """Return the fields that NMI of AAD Pod Identity can read, in the spelling of 1.6 and later.

    It decodes all records of its node at once, and has none where one field of one copy is of
    another type than https://github.com/Azure/aad-pod-identity/blob/v1.8.17/pkg/apis says. Where
    its definitions are those of 1.5 the API server keeps whatever a tenant writes.
    """
    spec = whole.get("spec")
    found: Json = {}
    if not isinstance(spec, dict):
        return found
    for name, each in spec.items():
        spelled = f"{name[:1].lower()}{name[1:]}"
        if spelled not in _KNOWN | _DEAD:
            found[name] = each
        elif each is not None and (name == spelled or spec.get(spelled) is None):
            found[spelled] = each
    return {name: each for name, each in found.items() if _is_readable(name, each)}


def _is_readable(name: str, value: object) -> bool:
    if name in _TEXTS:
        return isinstance(value, str)
    if name == "clientPassword":
        parts = [value.get("name"), value.get("namespace")] if isinstance(value, dict) else [1]
        return all(isinstance(each, str | None) for each in parts)
    if name == "auxiliaryTenantIDs":
        return isinstance(value, list) and all(isinstance(each, str) for each in value)
    return name not in _DEAD


def _short(copied: Json) -> Json:
    """Return a copy without what nobody knows, and without what is too long to mean anything."""
    whole, spec = copied["metadata"], copied["spec"]
    meta = {name: whole[name] for name in _KNOWN_OF_META if name in whole}
    annotations = whole.get("annotations")
    if isinstance(annotations, dict) and BEHAVIOR in annotations:
        meta["annotations"] = {BEHAVIOR: annotations[BEHAVIOR]}
    known = {name: each for name, each in spec.items() if name in _KNOWN}
    return {**copied, "metadata": _without_long(meta), "spec": _without_long(known)}


def _without_long(fields: Json) -> Json:
    sizes = {name: len(msgspec.json.encode(each)) for name, each in fields.items()}
    return {name: each for name, each in fields.items() if sizes[name] <= _LONGEST_FIELD}


def _revision(found: Json) -> str:
    meta = found.get("metadata")
    annotations = meta.get("annotations") if isinstance(meta, dict) else None
    behavior = annotations.get(BEHAVIOR) if isinstance(annotations, dict) else None
    decides = [_readable_spec(found), behavior]
    return blake2b(_SORTED.encode(decides), digest_size=12).hexdigest()


def _own_condition(status: object, kind: str) -> tuple[str, Json]:
    """Return where MIC's condition is, or is to be added, and the condition, {} for none."""
    if not isinstance(status, dict):
        return "/status", {}
    listed = status.get("conditions")
    if not isinstance(listed, list):
        return "/status/conditions", {}
    for number, condition in enumerate(listed):
        if isinstance(condition, dict) and condition.get("type") == kind:
            return f"/status/conditions/{number}", condition
    return "/status/conditions/-", {}


def _condition(mine: Json) -> Condition:
    return Condition(
        holds=mine.get("status") == "True",
        reason=str(mine.get("reason", ""))[:_LONGEST_NAME],
        # One character more than MIC writes, so that a longer text is not taken for its own.
        message=str(mine.get("message", ""))[: LONGEST + 1],
    )


def render_condition(live: Live, about: About, condition: Condition, now: float) -> list[Json]:
    """Return the JSON patch that writes MIC's condition, and fails if its place is another's."""
    kind = TYPES[about]
    status = "True" if condition.holds else "False"
    value: Any = {
        "type": kind,
        "status": status,
        "reason": condition.reason,
        "message": condition.message,
        "observedGeneration": live.generation,
        _SINCE: live.since[1] if live.since[0] == status and live.since[1] else stamp(now),
    }
    write = {"op": "add", "path": live.place, "value": value}
    if live.place.endswith("/-"):
        return [write]
    if live.place == "/status":
        write["value"] = {"conditions": [value]}
    elif live.place == "/status/conditions":
        write["value"] = [value]
    else:
        test = {"op": "test", "path": f"{live.place}/type", "value": kind}
        return [test, {**write, "op": "replace"}]
    return [{"op": "test", "path": live.place, "value": None}, write]


# AzureAssignedIdentities


_UNLABELLED = Oddities(unlabelled=True)


def parse_record(raw: Raw) -> StoredRecord:
    """Return the AzureAssignedIdentity in `raw`; raise UnreadableObject if it has no name."""
    parts, meta = _parsed(raw, ASSIGNED_KIND)
    size = len(parts.spec) + len(parts.status) + len(parts.old_status)
    ref = _named({"metadata": meta})
    if not ref.name:
        raise UnreadableObject(f"not an {ASSIGNED_KIND}: it has no name")
    finalizers = _decoded(parts.metadata.get("finalizers", _NULL))
    listed = isinstance(finalizers, list) and FINALIZER in finalizers
    place = finalizers.index(FINALIZER) if listed else None
    unlabelled = bytes(memoryview(parts.metadata.get("labels", _NULL))[:1]) != b"{"
    usual = _UNLABELLED if unlabelled else PLAIN
    return StoredRecord(
        ref=ref,
        uid=str(meta.get("uid", "")),
        version=str(meta.get("resourceVersion", "")),
        # What is too large says nothing to NMI either, so it is written anew.
        record=_record(ref, parts) if size <= BUDGETS[ASSIGNED_KIND].object else None,
        odd=usual if place is None else Oddities(place, unlabelled),
        deleting=bool(meta.get("deletionTimestamp")),
    )


def _record(ref: ObjectRef, parts: _Parts) -> Record | None:
    """Return what a record says; None if that cannot be read."""
    spec, status = _decoded(parts.spec), _decoded(parts.status) or _decoded(parts.old_status)
    if not isinstance(spec, dict):
        return None
    identity = _copy_in(spec, "azureIdentityRef")
    binding = _copy_in(spec, "azureBindingRef")
    told = (status.get("status") if isinstance(status, dict) else None) or Assignment.ASSIGNED
    texts = (spec.get("pod"), spec.get("podNamespace"), spec.get("nodename"))
    if identity is None or binding is None:
        return None
    if not isinstance(told, str) or told not in set(Assignment):
        return None
    pod, namespace, node = texts
    if not (isinstance(pod, str) and isinstance(namespace, str) and isinstance(node, str)):
        return None
    names = (_named(identity), _named(binding))
    if any(len(each) > _LONGEST_NAME for each in (pod, namespace, node, *names[0], *names[1])):
        return None
    return Record(
        ref=ref,
        pod=ObjectRef(namespace, pod),
        identity=names[0],
        binding=names[1],
        node=node,
        state=Assignment(told),
        identity_revision=_revision(identity),
        binding_revision=_revision(binding),
    )


def _copy_in(spec: Json, name: str) -> Json | None:
    copy = spec.get(name) or spec.get(name.lower())
    whole = isinstance(copy, dict) and isinstance(copy.get("metadata"), dict)
    return copy if whole else None


def _named(copy: Json) -> ObjectRef:
    meta = copy["metadata"]
    # Thousands of objects share one.
    return ObjectRef(intern(str(meta.get("namespace", ""))), str(meta.get("name", "")))


def render_record(record: Record, identity: Live, binding: Live) -> Json:
    return {
        "apiVersion": API_VERSION,
        "kind": ASSIGNED_KIND,
        "metadata": {
            "name": record.ref.name,
            "namespace": record.ref.namespace,
            "labels": {NODE_LABEL: record.node},
        },
        "spec": _spec(record, identity, binding),
        "status": _status(record),
    }


def render_update(
    stored: tuple[str, str], record: Record | None, copies: tuple[Live, Live] | None, odd: Oddities
) -> list[Json]:
    """Return the JSON patch that makes a record say `record`, at this uid and version alone.

    The finalizer of the archived controller goes; without a `record` that is all.
    """
    uid, version = stored
    patch: list[Json] = [
        {"op": "test", "path": "/metadata/uid", "value": uid},
        # The API server refuses a change that names another version than the object's.
        {"op": "add", "path": "/metadata/resourceVersion", "value": version},
    ]
    if odd.finalizer is not None:
        place = f"/metadata/finalizers/{odd.finalizer}"
        patch += [
            {"op": "test", "path": place, "value": FINALIZER},
            {"op": "remove", "path": place},
        ]
    if record is not None and copies is not None:
        label: Json = {"op": "add", "path": f"/metadata/labels/{NODE_LABEL}", "value": record.node}
        if odd.unlabelled:
            label = {"op": "add", "path": "/metadata/labels", "value": {NODE_LABEL: record.node}}
        patch += [
            label,
            {"op": "add", "path": "/spec", "value": _spec(record, *copies)},
            {"op": "add", "path": "/status", "value": _status(record)},
        ]
    return patch


def _spec(record: Record, identity: Live, binding: Live) -> Json:
    return {
        "azureIdentityRef": ANY.decode(identity.copy),
        "azureBindingRef": ANY.decode(binding.copy),
        "pod": record.pod.name,
        "podNamespace": record.pod.namespace,
        "nodename": record.node,
    }


def _status(record: Record) -> Json:
    return {"status": record.state.value, "availableReplicas": 1}


# Events


def render_told(event: TellEvent, live: Live, now: float, host: str) -> Json:
    """Return the event, found by `kubectl describe` of the object that it is about."""
    mark = crc32(f"{live.uid}/{event.reason}/{event.note}".encode())
    happening = Happening(
        about=CustomResource(API_VERSION, event.about.value, event.ref, live.uid),
        reason=event.reason,
        type=event.type,
        note=event.note,
        first=now,
        last=now,
        count=1,
    )
    # A reason is told more than once, each time as an event of its own.
    name = f"{event.ref.name[:220]}.{int(now * 1e6):x}{mark:08x}"
    metadata = {"name": name, "namespace": event.ref.namespace}
    return {**render_event(happening, host, COMPONENT), "metadata": metadata}


def _parsed(raw: Raw, kind: str) -> tuple[_Parts, Json]:
    """Return an object and the short fields of its metadata; raise UnreadableObject."""
    try:
        parts = decoded(_PARTS, raw)
    except BROKEN_JSON as error:
        raise UnreadableObject(f"not an {kind}: {error}") from error
    return parts, {
        name: _decoded(value)
        for name, value in parts.metadata.items()
        if len(value) <= _LONGEST_PART or name == "annotations"
    }


def _decoded(raw: msgspec.Raw) -> Any:  # noqa: ANN401 - whatever somebody wrote
    """Return a part of an object; None where it is no JSON, or nested without end."""
    try:
        return ANY.decode(raw)
    except BROKEN_JSON:
        return None


def parse_config_map(raw: Raw) -> Mapping[str, Any]:
    try:
        return ANY_FIELDS.decode(raw)
    except BROKEN_JSON as error:
        raise UnreadableObject(f"not a ConfigMap: {error}") from error
