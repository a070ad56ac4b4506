"""`podidentity add`: let the pods of a namespace use a managed identity.

The order of the steps makes a run that fails half way harmless, and repeatable: the role, which
nobody has yet, so that a person without the right to grant it learns that first; the AzureIdentity,
with the record of the hosts to attach; then Azure; the binding, which entitles pods; last the
permission. So no pod may use what is not there, or half there. What a run made that fails is taken
back, unless machines were changed: then the commands are said that undo it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import click

from podidentity.cli import azure_access
from podidentity.cli.add_request import AddRequest, add_request_of
from podidentity.cli.agent_choices import Choices, choices_of_nmi
from podidentity.cli.azure_access import asking, host_name, hosts_of, on_each, progress
from podidentity.cli.changes import changing, unfinished
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.controller import who_attaches
from podidentity.cli.federation import make_account, trust_command
from podidentity.cli.objects import (
    ApplyResult,
    Object,
    apply,
    called,
    find,
    find_all,
    identity_of,
    ref_of,
    remove,
    spec_of,
)
from podidentity.cli.output import CommandError
from podidentity.cli.rollout import refuse_release
from podidentity.cli.use_roles import (
    Roles,
    bind,
    grant_command,
    make_role,
    narrower,
    uid_of_namespace,
)
from podidentity.core.authorities import Cloud
from podidentity.core.decision import permission_names
from podidentity.core.federation import has_an_account
from podidentity.core.hosts import Host
from podidentity.core.resources import BINDING_LABEL, AzureIdentity, IdentityType, ResourceId
from podidentity.wire.kube import (
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    CLUSTER_ROLES,
    KubeError,
    request_in_words,
)
from podidentity.wire.manifests import render_binding, render_identity
from podidentity.wire.rbac import Giver, role

if TYPE_CHECKING:
    from podidentity.adapters.arm import Arm
    from podidentity.adapters.kube import Kube


def add(*, target: ClusterTarget, cloud: Cloud | None, **given: Any) -> None:  # noqa: ANN401 - parsed by click
    wanted = add_request_of(given)
    done = _Done()
    identity, trust = on_cluster(
        target,
        lambda kube: _add(kube, wanted, cloud, done),
        undo=lambda unanswered: _undo(wanted, done, unanswered),
    )
    if trust:
        click.echo(f"To make Entra trust the cluster's tokens for it, run:\n  {trust}")
    pods = f"Pods of {wanted.grantee} labelled {BINDING_LABEL}={wanted.selector}"
    if wanted.grant:
        click.echo(f"{pods} may use it.")
        return
    click.echo(f"{pods} may use it only once an operator has granted it:")
    for name in permission_names(identity):
        click.echo(f"  {grant_command(name, wanted.grantee)}")


async def _add(
    kube: Kube, wanted: AddRequest, cloud: Cloud | None, done: _Done
) -> tuple[AzureIdentity, str]:
    """Return the identity, and the command that must still be run in Azure; "" if there is none.

    Where it fails half way, it takes back what it made, or says what undoes it. One that is
    interrupted takes nothing back: somebody waits for its end.
    """
    try:
        return await _steps(kube, wanted, cloud, done)
    except (CommandError, KubeError):
        # The last one first; what stays stays in `done`.
        while done.made and not done.lasting:
            try:
                await remove(kube, done.made[-1])
            except KubeError as error:
                click.echo(f"{called(done.made[-1])} could not be taken back: {error}", err=True)
                break
            click.echo(f"{called(done.made.pop())} taken back", err=True)
        if undo := _undo(wanted, done):
            click.echo(unfinished("add", undo), err=True)
        raise


@dataclass(slots=True)
class _Done:
    """What a run has done so far."""

    made: list[Object] = field(default_factory=list)
    """The objects that were not there before, in order."""
    roles: list[Object] = field(default_factory=list)
    """Those that it had to make if they were not there."""
    beyond_roles: bool = False
    """Whether it has begun with the AzureIdentity, by which `delete` finds the rest."""
    lasting: bool = False
    """Whether there is more than these: machines, or a service account of the identity."""


def _undo(wanted: AddRequest, done: _Done, unanswered: Sequence[str] = ()) -> str:
    """Return the command lines that take back what a run has made; "" if it has made nothing.

    `unanswered` are changes that may have been made, in the words of `request_in_words`.
    """
    ref, lines = wanted.ref, []
    if done.lasting or (done.beyond_roles and (done.made or unanswered)):
        lines.append(f"  podidentity delete --namespace {ref.namespace} --name {ref.name}")
    if not lines or _made(AZURE_IDENTITIES.path(*ref)) in unanswered:
        # Without an AzureIdentity `delete` does not know the role, which nobody has.
        made = {each["metadata"]["name"] for each in done.made}
        names = [each["metadata"]["name"] for each in done.roles]
        lines += [
            f"  kubectl delete clusterrole {name} --ignore-not-found"
            for name in names
            if name in made or _made(CLUSTER_ROLES.path("", name)) in unanswered
        ]
    return "\n".join(lines)


def _made(path: str) -> str:
    return request_in_words("POST", path)


async def _steps(
    kube: Kube, wanted: AddRequest, cloud: Cloud | None, done: _Done
) -> tuple[AzureIdentity, str]:
    namespace = await uid_of_namespace(kube, wanted.ref.namespace) if wanted.grant else ""
    await _unclaimed(kube, wanted)
    known = wanted.client_id or wanted.system_assigned
    asks_azure = (wanted.on_machines and wanted.attach) or not known
    choices = Choices()
    if wanted.type is IdentityType.FEDERATED or (cloud is None and asks_azure):
        choices = await choices_of_nmi(kube)
    if cloud is not None:
        choices = replace(choices, cloud=cloud)
    attaches = await who_attaches(kube) if wanted.on_machines and wanted.attach else ""
    if attaches:
        click.echo(f"{attaches} attaches it to the machines of the pods that need it")
        wanted = replace(wanted, attach=False)
    if wanted.on_machines and wanted.attach:
        async with azure_access.azure(choices.cloud, wanted.seconds) as arm:
            identity = await _known(arm, wanted)
            await _prepare_grant(kube, wanted, identity, done)
            await _attach(kube, arm, render_identity(identity), wanted, done)
    else:
        identity = wanted.identity
        if not known:
            async with azure_access.azure(choices.cloud) as arm:
                identity = await _known(arm, wanted)
        await _prepare_grant(kube, wanted, identity, done)
        await _apply(kube, render_identity(identity), done)
        if has_an_account(identity):
            done.lasting = True
            await make_account(kube, identity, choices)
    await _apply(kube, render_binding(wanted.binding), done)
    if wanted.grant:
        for name in permission_names(identity):
            await bind(kube, name, wanted.grantee, Giver.ADD, namespace)
    return identity, await trust_command(kube, wanted, identity, choices)


async def _prepare_grant(
    kube: Kube, wanted: AddRequest, identity: AzureIdentity, done: _Done
) -> None:
    """Have the roles that are granted at the end; raise CommandError where none may be."""
    if not wanted.grant:
        return
    for name in permission_names(identity):
        done.roles.append(role(name))
        if await make_role(kube, name, wanted.grantee) is ApplyResult.CREATED:
            done.made.append(role(name))
        if wanted.service_account or not (alone := await narrower(kube, name, wanted.grantee)):
            continue
        accounts = ", ".join(f"{wanted.ref.namespace}/{each}" for each in alone)
        raise CommandError(
            f"Of the pods of namespace {wanted.ref.namespace} only those of service account "
            f"{accounts} may use this identity, and add would let all of them",
            f"Say --service-account {alone[0]} again; or let all use it, and run add again: "
            f"{grant_command(name, wanted.grantee)}.",
        )


_BY_RELEASE = (
    "; or choose another --name. To let pods use the identity of the release: podidentity grant"
)


async def _unclaimed(kube: Kube, wanted: AddRequest) -> None:
    """Raise CommandError if one of the two objects is of a Helm release or another identity."""
    there = await find(kube, AZURE_IDENTITIES, *wanted.ref)
    refuse_release(there, _BY_RELEASE)
    if there and not _same(there, wanted):
        spec = spec_of(there)
        known = spec.get("resourceID") or spec.get("clientID")
        raise CommandError(
            f"AzureIdentity {wanted.ref} exists and names another identity ({known})",
            f"Choose another --name, or run podidentity delete --namespace {wanted.ref.namespace} "
            f"--name {wanted.ref.name} first.",
        )
    binding = await find(kube, AZURE_IDENTITY_BINDINGS, *wanted.binding.ref)
    refuse_release(binding, _BY_RELEASE)
    names = spec_of(binding or {}).get("azureIdentity")
    if names and names != wanted.ref.name:
        raise CommandError(
            f"AzureIdentityBinding {wanted.binding.ref} exists and names AzureIdentity {names!r}",
            "Choose another --name, or delete that binding first.",
        )


def _same(there: Object, wanted: AddRequest) -> bool:
    if wanted.resource_id is not None:
        return bool(azure_access.identities_of([there], wanted.resource_id))
    found = identity_of(there)
    return isinstance(found, AzureIdentity) and (found.client_id, found.system_assigned) == (
        wanted.client_id,
        wanted.system_assigned,
    )


async def _known(arm: Arm, wanted: AddRequest) -> AzureIdentity:
    resource_id = _resource_id(wanted)
    with asking(f"look up the identity {resource_id.name}", resource_id):
        found = await arm.identity(resource_id)
    if wanted.client_id not in {None, found.client_id}:
        raise CommandError(
            f"--client-id is {wanted.client_id}, but the identity {resource_id.name} has "
            f"the client id {found.client_id}",
            "Leave out --client-id, or correct one of the two.",
        )
    click.echo(f"identity {resource_id.name} has the client id {found.client_id}")
    return replace(wanted.identity, client_id=found.client_id, object_id=found.object_id)


def _resource_id(wanted: AddRequest) -> ResourceId:
    if wanted.resource_id is None:
        raise ValueError("only a managed identity is asked for in Azure")
    return wanted.resource_id


async def _attach(kube: Kube, arm: Arm, manifest: Object, wanted: AddRequest, done: _Done) -> None:
    """Apply `manifest` with the record of its future hosts, then attach the identity to them."""
    identity, wait = _resource_id(wanted), wanted.wait
    hosts = await hosts_of(kube)
    ours = await _recorded(kube, identity, str(manifest["spec"]["clientID"]), wanted.ref.namespace)
    lacking, unsettled = [], []
    for host in hosts:
        with asking(f"read the identities of {host_name(host)}", identity):
            found = await arm.host(host)
        if found.being_deleted:
            click.echo(f"{host_name(host)} is being deleted: left alone")
        elif not found.has(identity):
            lacking.append(host)
        elif found.settled:
            click.echo(f"attached to {host_name(host)} already")
        else:
            # Another client began to attach it and may detach it: our record leaves it out.
            unsettled.append(host)
    if ours or lacking:
        azure_access.record_hosts(manifest, ours | set(lacking))
    await _apply(kube, manifest, done)
    done.lasting = bool(lacking or unsettled)

    async def attach(host: Host) -> None:
        where = host_name(host)
        click.echo(f"attaching to {where}")
        what = f"attach {identity.name} to {where}"
        with asking(what, identity), changing(what):
            await arm.attach(host, identity, wait=wait, progress=progress(f"attaching to {where}"))
        click.echo(f"attached to {where}" if wait else f"{where}: accepted by Azure, not done yet")

    await on_each([*lacking, *unsettled], attach)


async def _recorded(kube: Kube, identity: ResourceId, client: str, namespace: str) -> set[Host]:
    """Return the hosts that podidentity has attached it to, as AzureIdentities of it record.

    Those of other namespaces count if these were granted it: anybody else may have written there
    what an operator attached, and `delete` would detach it.
    """
    there = azure_access.identities_of(await find_all(kube, AZURE_IDENTITIES), identity)
    records = {ref_of(each): azure_access.recorded_hosts(each) for each in there}
    own = {ref for ref in records if ref.namespace == namespace}
    if all(ref in own for ref, hosts in records.items() if hosts):
        return {host for ref in own for host in records[ref]}
    roles = await Roles.read(kube)
    if roles is None:
        click.echo(
            f"could not see whose records of attached machines count: you need {Roles.RIGHT}",
            err=True,
        )
    return {
        host
        for ref, hosts in records.items()
        if ref in own or (roles and not roles.lacking(ref.namespace, [client]))
        for host in hosts
    }


async def _apply(kube: Kube, manifest: Object, done: _Done) -> None:
    done.beyond_roles = True
    result = await apply(kube, manifest)
    if result is ApplyResult.CREATED:
        done.made.append(manifest)
    click.echo(f"{called(manifest)} {result}")
