"""Whether a request is about the object, and the state of it, that the client has in mind."""

from __future__ import annotations

from podidentity_sandbox.cluster import status
from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import Address, Record


def place(kind: ResourceType, metadata: Obj, namespace: str) -> None:
    """Put a new object into the namespace of the request."""
    if not kind.namespaced:
        metadata.pop("namespace", None)
        return
    if metadata.setdefault("namespace", namespace) != namespace:
        raise status.bad_request(
            "the namespace of the provided object does not match the namespace sent on the request"
        )


def _named(name: str, wanted: str) -> None:
    if name != wanted:
        raise status.bad_request(
            f"the name of the object ({name}) does not match the name on the URL ({wanted})"
        )


def same_object(kind: ResourceType, record: Record, metadata: Obj) -> None:
    """Refuse a new state that is of another object, or of an older state of this one."""
    name = metadata.setdefault("name", record.name)
    _named(name, record.name)
    place(kind, metadata, record.namespace)
    uid = metadata.get("uid", record.uid)
    if uid != record.uid:
        cause = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {record.uid}"
        raise kind.error(status.conflict, record.name, cause)
    revision = metadata.get("resourceVersion")
    if revision is None and not kind.unconditional_update:
        fault = status.invalid("metadata.resourceVersion", 0, "must be specified for an update")
        raise status.invalid_object(kind.kind, kind.group, record.name, [fault])
    if revision is not None and revision != str(record.revision):
        raise kind.error(status.conflict, record.name)


def addressed(kind: ResourceType, config: Obj, address: Address) -> Obj:
    """Return an applied configuration with the name and namespace of its request; raise 400."""
    namespace, name = address
    given = config.get("metadata")
    metadata = {"name": name, **(given if isinstance(given, dict) else {})}
    _named(metadata["name"], name)
    place(kind, metadata, namespace)
    return {**config, "metadata": metadata}


def demanded(kind: ResourceType, record: Record, uid: str, revision: str) -> None:
    """Refuse a deletion that is meant for another object or state; "" demands nothing."""
    if uid and uid != record.uid:
        cause = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {record.uid}"
        raise kind.error(status.conflict, record.name, cause)
    if revision and revision != str(record.revision):
        cause = (
            f"Precondition failed: ResourceVersion in precondition: {revision}, "
            f"ResourceVersion in object meta: {record.revision}"
        )
        raise kind.error(status.conflict, record.name, cause)
