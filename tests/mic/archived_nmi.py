"""NMI of AAD Pod Identity 1.8.17, as far as it reads AzureAssignedIdentities, from its sources.

It lists and watches those with the label `nodename=NODE`, of all namespaces, and decodes each into
types of Go: one field of another type, and the whole list is not read. It takes those whose `pod`
and `podNamespace` are the caller's, sorts the copies of their AzureIdentities by status, and
chooses one by its client id. Sources, all in
https://github.com/Azure/aad-pod-identity/tree/v1.8.17/pkg: `crd/crd.go` (the list),
`apis/aadpodidentity/v1/types.go` (the types), `k8s/client.go` and `nmi/standard.go` (the choice).
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any

Json = dict[str, Any]


class NotDecoded(ValueError):
    """Go does not decode this into the type of the field: nothing of the list is read."""


class _Struct:
    """A struct of Go's: the type of each field, `dict` and `list` being of strings."""

    def __init__(self, **fields: Any) -> None:
        self.fields = fields


_META = _Struct(
    name=str,
    generateName=str,
    namespace=str,
    uid=str,
    resourceVersion=str,
    generation=int,
    creationTimestamp=datetime,
    deletionTimestamp=datetime,
    labels=dict,
    annotations=dict,
    finalizers=list,
)
_SECRET = _Struct(name=str, namespace=str)
_IDENTITY = _Struct(
    apiVersion=str,
    kind=str,
    metadata=_META,
    spec=_Struct(
        metadata=_META,
        type=int,
        resourceID=str,
        clientID=str,
        clientPassword=_SECRET,
        tenantID=str,
        auxiliaryTenantIDs=list,
        adResourceID=str,
        adEndpoint=str,
        replicas=int,
    ),
)
_BINDING = _Struct(
    apiVersion=str,
    kind=str,
    metadata=_META,
    spec=_Struct(metadata=_META, azureIdentity=str, selector=str, weight=int),
)
_ASSIGNED = _Struct(
    apiVersion=str,
    kind=str,
    metadata=_META,
    spec=_Struct(
        metadata=_META,
        azureIdentityRef=_IDENTITY,
        azureBindingRef=_BINDING,
        pod=str,
        podNamespace=str,
        nodename=str,
        replicas=int,
    ),
    status=_Struct(metadata=_META, status=str, availableReplicas=int),
)


def identity_for(
    stored: Iterable[Json], node: str, pod: str, namespace: str, client_id: str = ""
) -> Json | None:
    """Return the AzureIdentity of which NMI on `node` gives that pod a token; None: it waits."""
    listed = [each for each in stored if _labels(each).get("nodename") == node]
    for each in listed:
        _decode(each, _ASSIGNED, "")
    by_status: dict[str, list[Json]] = {}
    for each in listed:
        spec = each["spec"]
        if (spec.get("pod"), spec.get("podNamespace")) == (pod, namespace):
            status = (each.get("status") or {}).get("status", "")
            # It has no look whether there is a copy: without one it ends.
            by_status.setdefault(status, []).append(spec["azureIdentityRef"])
    for found in (by_status.get("", []), by_status.get("Assigned", [])):
        ids = [_client_id(each).lower() for each in found]
        if found and (not client_id or client_id.lower() in ids):
            # While it waits case does not count; when it chooses it does.
            chosen = (each for each in found if client_id in {"", _client_id(each)})
            return next((each for each in chosen if _namespace(each) == namespace), None)
    return None


def _labels(stored: Json) -> Json:
    return stored["metadata"].get("labels") or {}


def _client_id(identity: Json) -> str:
    return str(identity["spec"].get("clientID", ""))


def _namespace(identity: Json) -> str:
    return str(identity["metadata"].get("namespace", ""))


def _decode(value: Any, into: Any, where: str) -> None:
    """Raise NotDecoded unless Go takes `value` for that type: `null` is nothing of any type."""
    if value is None:
        return
    kind = {_Struct: dict, datetime: str}.get(type(into) if isinstance(into, _Struct) else into)
    kind = kind or into
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise NotDecoded(f"{where}: {value!r} is no {kind.__name__}")
    if isinstance(into, _Struct):
        for name, of in into.fields.items():
            _decode(value.get(name), of, f"{where}.{name}")
    elif into in {dict, list}:
        for each in value.values() if into is dict else value:
            _decode(each, str, where)
    elif into is datetime:
        _time(value, where)


def _time(value: str, where: str) -> None:
    try:
        datetime.fromisoformat(value)
    except ValueError:
        raise NotDecoded(f"{where}: {value!r} is no time") from None
