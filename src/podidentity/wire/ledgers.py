"""The AzureIdentityLedger: what MIC itself attached to one host, from JSON to a value and back.

One object a host, in MIC's namespace, written by MIC alone. Nobody else should write one: what it
names may be detached. One that cannot be read is a lost ledger, and nothing is detached by it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec

from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ledger import Ledger, LedgerEntry
from podidentity.core.resources import InvalidId, ResourceId
from podidentity.wire import BROKEN_JSON

KIND = "AzureIdentityLedger"
_API_VERSION = "aadpodidentity.k8s.io/v1"
_LONGEST_STEM = 180


class NotALedger(ValueError):
    """Why a ledger cannot be read, as a clause."""


class _Entry(msgspec.Struct, rename="camel"):
    id: str
    since: str = ""
    client_id: str = msgspec.field(name="clientID", default="")


class _Spec(msgspec.Struct):
    host: str
    attached: list[_Entry] | None = None
    attaching: list[_Entry] | None = None
    detaching: list[_Entry] | None = None


class _Object(msgspec.Struct):
    spec: _Spec


class _HostOnly(msgspec.Struct):
    host: str = ""


class _Loose(msgspec.Struct):
    spec: _HostOnly = msgspec.field(default_factory=_HostOnly)


_OBJECT = msgspec.json.Decoder(_Object)
_LOOSE = msgspec.json.Decoder(_Loose)


def ledger_name(host: Host) -> str:
    """Return the name of a host's ledger: the host's own for people, and a digest of its id."""
    stem = "".join(each if each.isalnum() and each.isascii() else "-" for each in host.name.lower())
    digest = sha256(host.folded.encode()).hexdigest()[:16]
    return f"{stem[:_LONGEST_STEM].strip('-') or 'host'}-{digest}"


def parse_ledger(raw: bytes | msgspec.Raw) -> Ledger:
    """Return the ledger in `raw`; raise NotALedger."""
    try:
        spec = _OBJECT.decode(raw).spec
        host = Host.parse(spec.host)
        ledger = Ledger(
            host=host,
            attached=_entries(spec.attached),
            attaching=_entries(spec.attaching),
            detaching=_entries(spec.detaching),
        )
    except BROKEN_JSON as error:
        raise NotALedger(f"it is no {KIND}: {error}") from error
    except (NotAnAzureNode, InvalidId, ValueError) as error:
        raise NotALedger(str(error)) from error
    parts = (ledger.attached, ledger.attaching, ledger.detaching)
    if sum(map(len, parts)) != len(set().union(*parts)):
        raise NotALedger("it has an identity twice")
    return ledger


def host_of(raw: bytes | msgspec.Raw) -> Host | None:
    """Return the host that a ledger is about, also of one that cannot be read; None: it says none.

    The name must be that host's: else the writer of one ledger could hide another's.
    """
    try:
        return Host.parse(_LOOSE.decode(raw).spec.host)
    except (*BROKEN_JSON, NotAnAzureNode):
        return None


def render_ledger(ledger: Ledger, namespace: str, version: str = "") -> dict[str, Any]:
    """Return the object; with a `version` it is a merge patch that is refused at another one."""
    metadata: dict[str, Any] = {"name": ledger_name(ledger.host), "namespace": namespace}
    if version:
        metadata["resourceVersion"] = version
    return {
        "apiVersion": _API_VERSION,
        "kind": KIND,
        "metadata": metadata,
        "spec": {
            "host": ledger.host.resource_id,
            "attached": _rendered(ledger.attached),
            "attaching": _rendered(ledger.attaching),
            "detaching": _rendered(ledger.detaching),
        },
    }


def _entries(found: list[_Entry] | None) -> dict[str, LedgerEntry]:
    entries = {}
    for each in found or ():
        identity = ResourceId.parse(each.id)
        entries[identity.folded] = LedgerEntry(
            spelling=identity.spelling,
            since=datetime.fromisoformat(each.since).timestamp() if each.since else 0.0,
            client_id=each.client_id.lower(),
        )
    return entries


def _rendered(entries: Mapping[str, LedgerEntry]) -> list[dict[str, str]]:
    made = []
    for _, entry in sorted(entries.items()):
        one = {"id": entry.spelling, "since": _time(entry.since)}
        made.append({**one, "clientID": entry.client_id} if entry.client_id else one)
    return made


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat()
