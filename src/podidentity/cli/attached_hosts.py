"""The record of what podidentity attached, so that `delete` detaches that and nothing else.

It is an annotation on each AzureIdentity that names the same Azure identity: the ids of the hosts,
as a JSON list. It is written before Azure is asked, so that a crash in between forgets nothing.
What others attached before, as the kubelet's own identity is, never gets into it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable

from podidentity.cli.objects import Object
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ids import ResourceId
from podidentity.core.resources import AzureIdentity
from podidentity.wire.manifests import parse_identity

ANNOTATION = "aadpodidentity.k8s.io/attached-to"


def read(identity: Object) -> list[Host]:
    """Return the hosts that `identity` records; what is no id of a host counts for nothing."""
    text = (identity["metadata"].get("annotations") or {}).get(ANNOTATION, "[]")
    try:
        ids = json.loads(text)
    except ValueError:
        return []
    return [host for each in ids if (host := _host(each))] if isinstance(ids, list) else []


def write(identity: Object, hosts: Iterable[Host]) -> None:
    """Put `hosts` into the annotation of `identity`."""
    ids = sorted(host.resource_id for host in set(hosts))
    identity["metadata"].setdefault("annotations", {})[ANNOTATION] = json.dumps(ids)


def of_same(identities: Iterable[Object], wanted: ResourceId) -> list[Object]:
    """Return those of `identities` that name the Azure identity `wanted`."""
    found = []
    for each in identities:
        parsed = parse_identity(json.dumps(each).encode())
        if isinstance(parsed, AzureIdentity) and parsed.resource_id == wanted:
            found.append(each)
    return found


def _host(resource_id: object) -> Host | None:
    try:
        return Host.parse(str(resource_id))
    except NotAnAzureNode:
        return None
