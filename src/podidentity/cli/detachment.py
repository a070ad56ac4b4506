"""Detaches what `add` attached, as far as the record of that may be believed.

A tenant who may write an AzureIdentity can write that record, too, and any ARM id beside it; but
Azure is changed with the rights of the person at the shell. So of the record only this counts: an
identity that the namespace was granted, by the client id that Azure says of it, goes from
machines of the groups in which this cluster's nodes are, unless another AzureIdentity needs it.
That is one of the same namespace, or of one that was granted the same: any other may be a
stranger's, who would keep it attached for ever, or alter the record. No tenant makes a grant for
himself. An `add` that ended before its last step has attached and not granted yet: its
ClusterRole, which nobody has, counts as well.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import click

from podidentity.cli import azure_access
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.azure_access import asking, detach_command, detach_from, host_name, on_each
from podidentity.cli.chain import is_assigned
from podidentity.cli.connection import ask_for_it
from podidentity.cli.controller import who_attaches
from podidentity.cli.objects import Object, apply, find_all, identity_of, ref_of
from podidentity.cli.output import CommandError
from podidentity.cli.use_roles import Roles
from podidentity.core.authorities import Cloud
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import AzureIdentity, Malformed, ObjectRef, ResourceId
from podidentity.wire.arm import ArmError
from podidentity.wire.kube import AZURE_IDENTITIES, NODES

if TYPE_CHECKING:
    from podidentity.adapters.arm import Arm
    from podidentity.adapters.kube import Kube

AT_ONCE = 16
"""Machines of a record that are asked for at once: it may name thousands that never were."""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What an AzureIdentity records as attached."""

    ref: ObjectRef
    """Its own."""
    identity: ResourceId
    hosts: tuple[Host, ...]


async def detach_recorded(kube: Kube, found: Object, cloud: Cloud | None, seconds: float) -> None:
    """Detach from the recorded hosts, or hand the record to another AzureIdentity that needs it.

    Raises CommandError where something stays attached, and somebody can do something about it.
    """
    ours = _record(found)
    if ours is None:
        return
    there = azure_access.identities_of(await find_all(kube, AZURE_IDENTITIES), ours.identity)
    # The other AzureIdentities that need it on machines, without those that are going.
    namesakes = [
        each
        for each in there
        if ref_of(each) != ours.ref
        and "deletionTimestamp" not in each["metadata"]
        and isinstance(parsed := identity_of(each), AzureIdentity)
        and is_assigned(parsed)
    ]
    of_its_owner = [each for each in namesakes if ref_of(each).namespace == ours.ref.namespace]
    if of_its_owner:
        await _hand_over(kube, of_its_owner[0], ours.hosts)
    elif attaches := await who_attaches(kube):
        why = f"{attaches} alone changes machines, and detaches what it attached itself"
        _say_stays(ours.identity, dict.fromkeys(ours.hosts, why))
    else:
        await _detach_granted(kube, ours, namesakes, cloud, seconds)


def _record(found: Object) -> Recorded | None:
    """Return what an AzureIdentity records; None where nothing is, or nobody knows of what.

    Raises CommandError where it cannot be read, which can be mended.
    """
    hosts, ref = azure_access.recorded_hosts(found), ref_of(found)
    if not hosts:
        return None
    parsed, where = identity_of(found), ", ".join(map(host_name, hosts))
    if isinstance(parsed, Malformed):
        why = f"AzureIdentity {ref} cannot be used: {parsed.why}"
        click.echo(f"stays attached to {where}: {why}", err=True)
        raise _kept(ref, f"Mend it: kubectl edit azureidentity -n {ref.namespace} {ref.name}.")
    if parsed.resource_id is None:
        click.echo(f"stays attached to {where}: it names no managed identity", err=True)
        return None
    return Recorded(ref, parsed.resource_id, tuple(hosts))


async def _hand_over(kube: Kube, heir: Object, hosts: Sequence[Host]) -> None:
    """Write the record of these hosts into another AzureIdentity, too; raise KubeError."""
    click.echo(f"kept attached: AzureIdentity {ref_of(heir)} needs it, too")
    named = {key: heir["metadata"][key] for key in ("name", "namespace", "resourceVersion")}
    manifest: Object = {"apiVersion": heir["apiVersion"], "kind": heir["kind"], "metadata": named}
    azure_access.record_hosts(manifest, [*azure_access.recorded_hosts(heir), *hosts])
    await apply(kube, manifest)


async def _detach_granted(
    kube: Kube, ours: Recorded, namesakes: Sequence[Object], cloud: Cloud | None, seconds: float
) -> None:
    """Detach from each host what the namespace was granted; raise CommandError as above."""
    roles = await Roles.read(kube)
    if roles is None:
        why = f"whether it was granted is not known: you need {Roles.RIGHT}"
        _say_stays(ours.identity, dict.fromkeys(ours.hosts, why))
        raise _kept(ours.ref, ask_for_it())
    near = await _near(kube, ours.hosts)
    cloud = cloud or (await choices_of_nmi(kube)).cloud
    async with azure_access.azure(cloud, seconds) as arm:
        clients = await _clients(arm, ours, near)
        fates = {
            host: fate_of(ours, client, namesakes, roles, near=host in near)
            for host, client in clients.items()
        }
        inherited = [host for host, fate in fates.items() if fate.heir]
        if inherited:
            await _hand_over(kube, fates[inherited[0]].heir, inherited)
        going = [host for host, fate in fates.items() if fate == Fate()]
        await on_each(going, lambda host: detach_from(arm, host, ours.identity))
    if going and namesakes:
        # Somebody may wait there for a grant.
        ref, more = ref_of(namesakes[0]), len(namesakes) - 1
        others = f" (and {more} more)" if more else ""
        click.echo(
            f"AzureIdentity {ref}{others} names it, too, but namespace {ref.namespace} was not "
            "granted it. Where it is to be, run podidentity add there: that attaches it again.",
            err=True,
        )
    if staying := {host: fate.why for host, fate in fates.items() if fate.why}:
        _say_stays(ours.identity, staying)
        raise _kept(ours.ref, f"If it is for namespace {ours.ref.namespace} alone, detach it.")


@dataclass(frozen=True, slots=True)
class Fate:
    """What becomes of an identity on a machine; with neither of these it is detached."""

    why: str = ""
    """Why it stays there, as a clause."""
    heir: Object = field(default_factory=dict)
    """The AzureIdentity that needs it still."""


def fate_of(
    ours: Recorded, client: str, namesakes: Iterable[Object], roles: Roles, *, near: bool
) -> Fate:
    """Return what becomes of an identity on a host that has it.

    `client` is its client id as Azure says, "" if that says none; `near` is whether a node of the
    cluster is in the host's resource group.
    """
    names = [name for name in (client, ours.identity.folded) if name]

    def granted(namespace: str) -> bool:
        return any(not roles.lacking(namespace, [name]) for name in names)

    heir = next((each for each in namesakes if granted(ref_of(each).namespace)), None)
    if not granted(ours.ref.namespace) and not (client and roles.prepared(client)):
        of_whom = f"; AzureIdentity {ref_of(heir)} needs it" if heir else ""
        why = f"namespace {ours.ref.namespace} was not granted {client or 'it'}"
        return Fate(f"{why}, so it may be of others{of_whom}")
    if heir:
        return Fate(heir=heir)
    return Fate("" if near else "no node of this cluster is in its resource group")


async def _near(kube: Kube, hosts: Iterable[Host]) -> set[Host]:
    """Return those hosts in whose subscription and resource group a node of the cluster is."""
    groups = set()
    for node in await find_all(kube, NODES):
        with suppress(NotAnAzureNode):
            host = Host.of_node(node.get("spec", {}).get("providerID", ""))
            groups.add((host.subscription, host.group))
    return {each for each in hosts if (each.subscription, each.group) in groups}


async def _clients(arm: Arm, ours: Recorded, near: Collection[Host]) -> dict[Host, str]:
    """Return the client id of the identity on each host that has it, "" where Azure says none.

    A host that is not `near`, and may not be read, is taken to have it. Raises CommandError.
    """
    import asyncio  # with the HTTP client a tenth of a second, which help must not take

    turns, found = asyncio.Semaphore(AT_ONCE), {}

    async def look(host: Host) -> None:
        where = host_name(host)
        try:
            async with turns:
                there = await arm.host(host)
        except ArmError as error:
            if error.gone:
                click.echo(f"{where} is gone")
            elif host in near:
                with asking(f"read the identities of {where}", ours.identity):
                    raise
            else:
                found[host] = ""
            return
        if there.has(ours.identity):
            found[host] = there.clients.get(ours.identity.folded, "")
        else:
            click.echo(f"not attached to {where} any more")

    await on_each(ours.hosts, look)
    return found


def _say_stays(identity: ResourceId, whys: Mapping[Host, str]) -> None:
    for host, why in whys.items():
        command = detach_command(host, str(identity))
        click.echo(f"stays attached to {host_name(host)}: {why}. To detach it: {command}", err=True)


def _kept(ref: ObjectRef, first: str) -> CommandError:
    """Return the error of a run that ends before the record goes, with what to do `first`."""
    all_the_same = f"podidentity delete --namespace {ref.namespace} --name {ref.name}"
    return CommandError(
        f"AzureIdentity {ref} was kept, which alone records what add has attached",
        f"{first} Then run it again, or delete it all the same: {all_the_same} --keep-attached.",
    )
