"""Whether managed identities are attached to the machines of their pods, by what Azure says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from podidentity.cli.azure_access import host_name
from podidentity.cli.chain import is_assigned
from podidentity.cli.checks.findings import CheckReason, Finding, named
from podidentity.core.decision import Match
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import ObjectRef, ResourceId


@dataclass(frozen=True, slots=True, order=True)
class WantedIdentity:
    """An AzureIdentity that pods of a host use, and the managed identity that it names."""

    identity: ObjectRef
    managed: ResourceId


Needed = Mapping[Host, Mapping[WantedIdentity, Sequence[ObjectRef]]]
"""What each host must have, with the pods for whom."""


def needed(matched: Sequence[Match], hosts: Mapping[str, Host]) -> Needed:
    """Return which identities the hosts of the nodes need; `hosts` are those of nodes by name."""
    found: dict[Host, dict[WantedIdentity, list[ObjectRef]]] = {}
    for match in matched:
        host = hosts.get(match.pod.node)
        if host is None:
            continue  # no machine of Azure's, and that is no fault of an identity
        for each in match.entitlements:
            if is_assigned(each.identity) and each.identity.resource_id is not None:
                need = WantedIdentity(each.identity.ref, each.identity.resource_id)
                found.setdefault(host, {}).setdefault(need, []).append(match.pod.ref)
    return found


def unattached(
    host: Host, wanted: Mapping[WantedIdentity, Sequence[ObjectRef]], has: HostIdentities
) -> Iterator[Finding]:
    """Yield the identities that a host lacks."""
    for need, pods in sorted(wanted.items(), key=lambda each: each[0].identity):
        if not has.has(need.managed):
            yield Finding(
                kind="AzureIdentity",
                about=need.identity,
                reason=CheckReason.NOT_ATTACHED,
                what=f"{need.managed.name} is not attached to {host_name(host)}, on which it is "
                f"wanted by {named(sorted(map(str, pods)), 'pods')}: IMDS does not find it.",
                mend="Run podidentity add again, which attaches it; where MIC runs, see its log.",
            )
