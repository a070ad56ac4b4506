"""Whether MIC may do in Azure what it is there for, before a pod waits for it in vain.

MIC attaches whatever is bound, to whichever machine a pod comes to: it must be allowed to assign
each bound identity, and to read and write each machine of a node. Which role allows that, a
built-in one or another, at the resource or above it, and by a group or not, does not matter.

https://learn.microsoft.com/azure/role-based-access-control/scope-overview
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from podidentity.cli.azure_access import host_name
from podidentity.cli.chain import is_assigned
from podidentity.cli.checks.findings import CheckReason, Finding
from podidentity.core.hosts import Host
from podidentity.core.resources import AzureIdentity, ObjectRef, ResourceId
from podidentity.wire.arm import RolePermission

_IDENTITIES = "Microsoft.ManagedIdentity/userAssignedIdentities"
_MACHINES = "Microsoft.Compute/{kind}/{verb}"


@dataclass(frozen=True, slots=True, kw_only=True)
class NeededRole:
    """What MIC does with a resource of Azure."""

    scope: str
    """ARM id of the resource."""
    called: str
    """The resource, for people."""
    actions: tuple[str, ...]
    role: str
    """The built-in role with these actions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MicPrincipal:
    """As whom MIC signs in to Azure."""

    object_id: str
    called: str
    """For people: `application …`."""


def needed(identities: Iterable[AzureIdentity], hosts: Iterable[Host]) -> list[NeededRole]:
    managed: dict[str, ResourceId] = {}
    for each in identities:
        if is_assigned(each) and each.resource_id is not None:
            managed.setdefault(each.resource_id.folded, each.resource_id)
    machines = {each.folded: each for each in hosts}
    needs = [
        NeededRole(
            scope=each.spelling,
            called=f"managed identity {each.name}",
            actions=(f"{_IDENTITIES}/read", f"{_IDENTITIES}/assign/action"),
            role="Managed Identity Operator",
        )
        for _, each in sorted(managed.items())
    ]
    for _, host in sorted(machines.items()) if managed else ():
        kind = "virtualMachineScaleSets" if host.is_scale_set else "virtualMachines"
        needs.append(
            NeededRole(
                scope=host.resource_id,
                called=host_name(host),
                actions=tuple(_MACHINES.format(kind=kind, verb=verb) for verb in ("read", "write")),
                role="Virtual Machine Contributor",
            )
        )
    return needs


def lacking(
    mic: ObjectRef, principal: MicPrincipal, need: NeededRole, held: Sequence[RolePermission]
) -> Iterator[Finding]:
    """Yield which of the actions the permissions that MIC has at the resource do not grant."""
    missing = [each for each in need.actions if not any(one.allows(each) for one in held)]
    if missing:
        command = shlex.join(
            [
                *("az", "role", "assignment", "create", "--role", need.role),
                *("--assignee-object-id", principal.object_id),
                *("--assignee-principal-type", "ServicePrincipal", "--scope", need.scope),
            ]
        )
        yield Finding(
            kind="Deployment",
            about=mic,
            reason=CheckReason.LACKS_ROLE,
            what=f"MIC signs in as {principal.called}, which may not do {', '.join(missing)} at "
            f"{need.called}.",
            mend=f"Run {command}.",
        )
