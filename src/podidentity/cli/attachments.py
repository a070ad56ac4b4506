"""What MIC leaves behind when it goes: identities on machines; the archived one's, finalizers.

Its ledgers say what it attached itself. Whoever leaves is told of it, or has it detached, and the
ledger goes when that is done: a run that fails half way can be repeated. Ledgers count where MIC
is, or was, alone: elsewhere a tenant may write one, and Azure is changed with the rights of the
person at the shell.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import click

from podidentity.cli import azure_access
from podidentity.cli.azure_access import detach_command, detach_from, host_name, on_each
from podidentity.cli.controller import archived_mics
from podidentity.cli.mic import PODS_OF_MIC
from podidentity.cli.objects import Object, called, find_all_where_known, ref_of, remove
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import until_gone
from podidentity.core.resources import ResourceId
from podidentity.wire.kube import AZURE_ASSIGNED_IDENTITIES, AZURE_IDENTITY_LEDGERS, KubeError
from podidentity.wire.ledgers import NotALedger, parse_ledger
from podidentity.wire.manifests import FINALIZER

if TYPE_CHECKING:
    from collections.abc import Collection, Container

    from podidentity.adapters.arm import Arm
    from podidentity.adapters.kube import Kube
    from podidentity.core.authorities import Cloud
    from podidentity.core.hosts import Host


@dataclass(frozen=True, slots=True)
class Attached:
    """What a ledger says."""

    ledger: Object
    host: Host
    identities: tuple[ResourceId, ...]
    """Those too that a change under way attaches or detaches."""


async def attached(kube: Kube, places: Container[str]) -> tuple[list[Attached], list[str]]:
    """Return what MIC attached, and a line for each ledger that cannot be read; raise KubeError.

    `places` are its namespaces. Ledgers of others are named.
    """
    found, unread = [], []
    there = await find_all_where_known(kube, AZURE_IDENTITY_LEDGERS)
    elsewhere = [ref_of(each) for each in there if ref_of(each).namespace not in places]
    if elsewhere:
        more = f" (and {len(elsewhere) - 1} more elsewhere)" if len(elsewhere) > 1 else ""
        click.echo(
            f"AzureIdentityLedger {elsewhere[0]}{more} does not count: MIC is not in that "
            "namespace. If it was: podidentity disable --namespace "
            f"{elsewhere[0].namespace}",
            err=True,
        )
    for each in there:
        if ref_of(each).namespace not in places:
            continue
        try:
            ledger = parse_ledger(json.dumps(each).encode())
        except NotALedger as error:
            unread.append(
                f"AzureIdentityLedger {ref_of(each)} cannot be read, so nobody knows what MIC "
                f"attached to its machine: {error}"
            )
            continue
        parts = (ledger.attached, ledger.attaching, ledger.detaching)
        ids = [ResourceId.parse(entry.spelling) for part in parts for entry in part.values()]
        found.append(Attached(each, ledger.host, tuple(ids)))
    return found, unread


async def say_left(kube: Kube, places: Container[str], *, forgotten: bool) -> None:
    """Print what MIC of these namespaces leaves attached, and the command that detaches it.

    `forgotten`: the ledgers go as well, and nobody will know it any more.
    """
    found, unread = await attached(kube, places)
    for each in found:
        for identity in map(str, each.identities):
            click.echo(f"stays attached to {host_name(each.host)}: {identity}", err=True)
            if forgotten:
                click.echo(f"  {detach_command(each.host, identity)}", err=True)
    for line in unread:
        click.echo(line, err=True)
    if not any(each.identities for each in found):
        return
    click.echo(
        "The ledgers that say so go with the custom resources."
        if forgotten
        else "podidentity disable --detach detaches it, now or later; MIC goes on by its ledgers "
        "if it comes back.",
        err=True,
    )


async def detach(kube: Kube, cloud: Cloud | None, places: Collection[str], seconds: float) -> None:
    """Detach what MIC of these namespaces attached, and delete its ledgers; raise CommandError.

    It waits until no MIC is left there, that would attach more, or again.
    """
    for namespace in places:
        try:
            await asyncio.wait_for(until_gone(kube, namespace, PODS_OF_MIC), seconds)
        except TimeoutError as error:
            raise CommandError(
                f"Pods of MIC are still there after {seconds:.0f} s, and would attach it again",
                f"See kubectl get pods -n {namespace} -l {PODS_OF_MIC}, and run it again.",
            ) from error
    found, unread = await attached(kube, places)
    for line in unread:
        click.echo(line, err=True)
    if found:
        async with azure_access.azure(cloud) as arm:
            await on_each(found, partial(_detach, kube, arm))
    if unread:
        raise CommandError(
            "Not every ledger of MIC can be read",
            "Detach by hand what MIC attached to those machines, and delete the ledgers.",
        )
    click.echo("Nothing that MIC attached is attached any more.")


async def _detach(kube: Kube, arm: Arm, from_it: Attached) -> None:
    if from_it.identities:
        await detach_from(arm, from_it.host, *from_it.identities)
    await remove(kube, from_it.ledger)
    click.echo(f"{called(from_it.ledger)} deleted")


async def take_finalizers_off(kube: Kube) -> None:
    """Take the archived MIC's finalizer off its records, where nobody is left to do that.

    A record with it would never go, nor its namespace, nor the custom resources.
    """
    kept = [
        each
        for each in await find_all_where_known(kube, AZURE_ASSIGNED_IDENTITIES)
        if FINALIZER in (each["metadata"].get("finalizers") or ())
    ]
    if not kept or await archived_mics(kube):
        return
    changed = [each for each in kept if await _is_taken_off(kube, each)]
    click.echo(f"Took the finalizer of AAD Pod Identity's MIC off {len(changed)} records.")


async def _is_taken_off(kube: Kube, record: Object) -> bool:
    """Take the finalizer off a record; name one that somebody changes meanwhile: it may be his."""
    meta = record["metadata"]
    others = [one for one in meta["finalizers"] if one != FINALIZER]
    change = {"metadata": {"finalizers": others, "resourceVersion": meta["resourceVersion"]}}
    try:
        await kube.merge(AZURE_ASSIGNED_IDENTITIES.path(*ref_of(record)), change)
    except KubeError as error:
        if not (error.conflict or error.not_found):
            raise
        if error.conflict:
            click.echo(
                f"AzureAssignedIdentity {ref_of(record)} has it still: it was changed meanwhile. "
                "podidentity disable takes it off, when it is run again",
                err=True,
            )
        return False
    return True
