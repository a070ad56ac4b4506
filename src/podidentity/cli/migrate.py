"""`podidentity migrate`: what a take-over from AAD Pod Identity would cost, and the grants for it.

`plan` only looks. `apply` writes the permissions that are missing, each marked as its own, so that
it may be interrupted and run again, and `rollback` takes back exactly these. Nothing else of the
cluster is changed: a switch is the operator's to turn, an object its owner's to correct.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.cli import controller
from podidentity.cli.agent_choices import choices_of_nmi
from podidentity.cli.connection import ClusterTarget, on_cluster
from podidentity.cli.enable import record_of_grants
from podidentity.cli.impostors import genuine
from podidentity.cli.objects import (
    BINDINGS,
    DAEMON_SETS,
    EVERY_POD,
    EXCEPTIONS,
    IDENTITIES,
    ApplyResult,
    Object,
    called,
    create_once,
    find_all,
    list_parsed,
    remove,
)
from podidentity.cli.output import CommandError, ask_first, data
from podidentity.cli.rollout import is_archived_nmi, nmis
from podidentity.cli.use_roles import Roles, giver_of, grant_command, remove_role, uid_of_namespace
from podidentity.core.authorities import KNOWN_AUTHORITIES
from podidentity.core.decision import Authorization, Rules, Use
from podidentity.core.migration import Loss, Switch, archived_rules, losses
from podidentity.core.resources import (
    Authority,
    AzureIdentity,
    AzureIdentityBinding,
    AzurePodIdentityException,
)
from podidentity.manifests import NAMESPACE
from podidentity.wire.kube import (
    CLUSTER_ROLE_BINDINGS,
    CLUSTER_ROLES,
    KubeError,
)
from podidentity.wire.rbac import GIVEN_BY, SELECTOR, Giver, Grantee, binding, role

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

_MOST_NAMED = 5
"""Pods, in the text of one loss."""


def plan(
    ctx: click.Context,
    /,
    *,
    target: ClusterTarget,
    namespaces: tuple[str, ...],
    namespaced: bool | None,
    output: str,
) -> None:
    found = on_cluster(target, lambda kube: _plan(kube, namespaces, namespaced))
    if output != "table":
        click.echo(data(found.as_data(), output))
    else:
        click.echo("\n\n".join(found.lines()))
    ctx.exit(1 if found.losses else 0)


def apply(
    *,
    target: ClusterTarget,
    namespaces: tuple[str, ...],
    namespaced: bool | None,
    yes: bool,
) -> None:
    def confirmed(wanted: Sequence[tuple[str, Grantee]]) -> None:
        for name, grantee in wanted:
            click.echo(f"{grantee} may use {name}")
        if not yes:
            ask_first(f"Grant these {len(wanted)} permissions?")

    async def work(kube: Kube) -> None:
        found = await _plan(kube, namespaces, namespaced)
        wanted = found.grants
        if wanted:
            confirmed(wanted)
        for name, grantee in wanted:
            await _grant(kube, name, grantee)
        what = f"Granted {len(wanted)} permissions." if wanted else "No permission is missing."
        click.echo(f"{what} podidentity migrate rollback takes back what migrate has granted.")
        left = [each for each in found.losses if not each.granting_is_enough]
        if left:
            click.echo(
                f"{len(left)} losses need more than a permission: podidentity migrate plan names "
                "them.",
                err=True,
            )

    on_cluster(target, work, undo=lambda _: "  podidentity migrate rollback")


def rollback(*, target: ClusterTarget, yes: bool) -> None:
    async def work(kube: Kube) -> None:
        everything = await find_all(kube, CLUSTER_ROLE_BINDINGS)
        going = [each for each in everything if giver_of(each) == Giver.MIGRATE]
        going_names = {each["metadata"]["name"] for each in going}
        bound = {
            each["roleRef"]["name"]
            for each in everything
            if each["metadata"]["name"] not in going_names
        }
        roles = [
            each
            for each in await find_all(kube, CLUSTER_ROLES, labelSelector=SELECTOR)
            if giver_of(each) == Giver.MIGRATE and each["metadata"]["name"] not in bound
        ]
        if not yes and (going or roles):
            ask_first(f"Take {len(going)} permissions back?")
        for kind, found in (("ClusterRoleBinding", going), ("ClusterRole", roles)):
            for each in found:
                await remove_role(kube, kind, each["metadata"]["name"])
        click.echo(f"Took {len(going)} permissions back.")
        # While NMI is there the record keeps `enable` from granting what is bound by then.
        if not await nmis(kube) and await remove(kube, record_of_grants(NAMESPACE, [])):
            click.echo(f"{called(record_of_grants(NAMESPACE, []))} deleted")

    on_cluster(target, work)


# What there is, and what would be lost.


@dataclass(frozen=True, slots=True, kw_only=True)
class TakeOverPlan:
    """What a take-over would cost."""

    losses: tuple[Loss, ...]
    after: Rules
    """Ours."""
    authorities: Mapping[Any, Authority]
    """Those that AzureIdentities name, by their names."""

    @property
    def grants(self) -> list[tuple[str, Grantee]]:
        return sorted(
            {(name, Grantee(each.namespace)) for each in self.losses for name in each.permissions},
            key=lambda one: (one[1], one[0]),
        )

    def flags(self, some: Iterable[Loss]) -> list[str]:
        some = list(some)
        wanted = {switch for each in some for switch in each.switches}
        return [self._flag(switch, some) for switch in Switch if switch in wanted]

    def _flag(self, switch: Switch, some: Sequence[Loss]) -> str:
        of = [each for each in some if switch in each.switches]
        if switch is Switch.EXCEPTION_NAMESPACES:
            names = {each.namespace for each in of} | (self.after.exception_namespaces or set())
            return f"{switch}={','.join(sorted(names))}"
        if switch is Switch.AUTHORITIES:
            named = {self.authorities.get(each.refusal.about) for each in of} - {None}
            more = named | (self.after.authorities - KNOWN_AUTHORITIES)
            return f"{switch}={','.join(sorted(map(str, more)))}"
        return switch.value

    def lines(self) -> Iterator[str]:
        if not self.losses:
            yield "Nothing that works under AAD Pod Identity would be refused or lost."
            return
        for each in self.losses:
            yield "\n".join(self._lines_of(each))
        said = (
            f"{len(self.losses)} would be refused or lost. podidentity migrate apply grants "
            f"{len(self.grants)} permissions."
        )
        if flags := " ".join(f"--nmi-arg={each}" for each in self.flags(self.losses)):
            said += f"\nWith all switches: podidentity enable {flags}"
        yield said

    def _lines_of(self, loss: Loss) -> Iterator[str]:
        named = ", ".join(each.name for each in loss.pods[:_MOST_NAMED])
        more = len(loss.pods) - _MOST_NAMED
        whom = f"pods {named}" + (f" and {more} more" if more > 0 else "")
        whom = whom if loss.pods else "no pod at the moment"
        yield f"{loss.namespace}: {loss.refusal.about} ({loss.refusal.reason.value}), {whom}"
        yield f"  {loss.refusal.message}"
        if not loss.granting_is_enough:
            yield f"  {loss.refusal.next_step}"
        for switch in loss.switches:
            yield f"  or start NMI, for the whole cluster, with {self._flag(switch, [loss])}:"
            yield f"    {switch.opens}"
        for name in loss.permissions:
            yield f"  to grant: {grant_command(name, Grantee(loss.namespace))}"

    def as_data(self) -> dict[str, Any]:
        return {
            "refused": [
                {
                    "namespace": each.namespace,
                    "about": str(each.refusal.about),
                    "reason": each.refusal.reason.value,
                    "message": each.refusal.message,
                    "nextStep": each.refusal.next_step,
                    "pods": [pod.name for pod in each.pods],
                    "switches": [
                        {"flag": self._flag(switch, [each]), "opens": switch.opens}
                        for switch in each.switches
                    ],
                    "grants": [
                        {
                            "identity": name,
                            "command": grant_command(name, Grantee(each.namespace)),
                        }
                        for name in each.permissions
                    ],
                }
                for each in self.losses
            ],
            "flags": self.flags(self.losses),
        }


async def _plan(kube: Kube, namespaces: Sequence[str], namespaced: bool | None) -> TakeOverPlan:
    identities = await list_parsed(kube, IDENTITIES)
    bindings = await list_parsed(kube, BINDINGS)
    exceptions = await list_parsed(kube, EXCEPTIONS)
    pods = await list_parsed(kube, EVERY_POD)
    cluster = WatchedCluster.of(
        SystemClock(), pods=pods, identities=identities, bindings=bindings, exceptions=exceptions
    )
    authorities = {
        each.ref: each.entra.authority
        for each in identities
        if isinstance(each, AzureIdentity) and each.entra and each.entra.authority
    }
    if namespaced is None:
        archived = list(filter(is_archived_nmi, await find_all(kube, DAEMON_SETS)))
        namespaced = is_namespaced(await genuine(kube, archived) or archived)
    known = [each for each in exceptions if isinstance(each, AzurePodIdentityException)]
    after, permitted = await _ours(kube, known)
    found = losses(
        pods,
        [each for each in bindings if isinstance(each, AzureIdentityBinding)],
        known,
        cluster,
        before=archived_rules(authorities.values(), namespaced=namespaced),
        after=after,
        permitted=permitted,
        attaches=bool(await controller.archived_mics(kube)),
    )
    wanted = set(namespaces)
    return TakeOverPlan(
        losses=tuple(each for each in found if not wanted or each.namespace in wanted),
        after=after,
        authorities=authorities,
    )


async def _ours(
    kube: Kube, exceptions: Sequence[AzurePodIdentityException]
) -> tuple[Rules, _Permitted]:
    choices = await choices_of_nmi(kube)
    rules = choices.rules
    if rules.exception_namespaces is not None and not await nmis(kube):
        # `enable` lets the exception of an archived MIC that still runs count by itself.
        of_mic = {each["metadata"]["namespace"] for each in await controller.archived_mics(kube)}
        counting = {
            each.ref.namespace
            for each in exceptions
            if each.ref.name == controller.OLD_EXCEPTION and each.ref.namespace in of_mic
        }
        rules = replace(rules, exception_namespaces=rules.exception_namespaces | counting)
    if choices.authorization is Authorization.OFF:
        return rules, _Permitted(None)
    roles = await Roles.read(kube)
    if roles is None:
        raise CommandError(
            "It cannot be seen which identities are granted",
            f"You need {Roles.RIGHT}: podidentity rights migrate lists all that the command needs.",
        )
    return rules, _Permitted(roles)


class _Permitted:
    """Who may use what, each identity looked up once; everybody everything without roles."""

    def __init__(self, roles: Roles | None) -> None:
        self._roles = roles
        self._holders: dict[str, set[Grantee]] = {}

    def __call__(self, use: Use) -> bool:
        if self._roles is None:
            return True
        if use.name not in self._holders:
            self._holders[use.name] = self._roles.grantees([use.name])
        namespace, account = use.service_account
        asked = Grantee(namespace, account)
        return any(
            each.includes(asked) if account else each.namespace in {"", namespace}
            for each in self._holders[use.name]
        )


def is_namespaced(daemon_sets: Iterable[Object]) -> bool:
    """Whether each archived NMI among these keeps pod, binding and identity in one namespace.

    https://azure.github.io/aad-pod-identity/docs/configure/match_pods_in_namespace/
    """
    found = [each for each in daemon_sets if is_archived_nmi(each)]
    return bool(found) and all(map(_is_namespaced, found))


def _is_namespaced(daemon_set: Object) -> bool:
    for container in daemon_set["spec"]["template"]["spec"]["containers"]:
        for each in container.get("args") or ():
            flag, _, value = each.lstrip("-").partition("=")
            if flag == "forceNamespaced":
                return value in {"", "1", "t", "T", "true", "TRUE", "True"}
        for each in container.get("env") or ():
            if each["name"] == "FORCENAMESPACED":
                return bool(each.get("value") == "true")
    return False


# What `apply` writes, and `rollback` takes back.


def _marked(manifest: Object) -> Object:
    metadata = manifest["metadata"]
    annotations = {**metadata.get("annotations", {}), GIVEN_BY: Giver.MIGRATE.value}
    return {**manifest, "metadata": {**metadata, "annotations": annotations}}


async def _grant(kube: Kube, name: str, grantee: Grantee) -> None:
    """Create role and binding, where they are not there; raise CommandError.

    The role comes first: after an interruption it permits nothing to anybody, and the next run
    goes on from there.
    """
    made = _marked(role(name))
    try:
        uid = await uid_of_namespace(kube, grantee.namespace)
        given = _marked(binding(name, grantee, Giver.MIGRATE, uid))
        result = await create_once(kube, made)
        click.echo(f"{called(made)} {result}")
        if result is ApplyResult.UNCHANGED:
            only = f"metadata.name={made['metadata']['name']}"
            for each in await find_all(kube, CLUSTER_ROLES, fieldSelector=only):
                if each.get("rules") != made["rules"]:
                    raise CommandError(
                        f"{called(made)} is there, and permits something else",
                        "See who made it and what for, delete it, and run migrate apply again.",
                    )
        result = await create_once(kube, given)
        click.echo(f"{called(given)} {result}")
    except KubeError as error:
        if not error.forbidden:
            raise
        raise CommandError(
            error.message,
            "What is granted so far stays, and migrate apply goes on from there. A cluster "
            f"administrator grants this one: {grant_command(name, grantee)}.",
        ) from error
    if result is ApplyResult.UNCHANGED:
        raise CommandError(
            f"{called(given)} is there, and does not permit it to {grantee}",
            "See who made it and what for, delete it, and run migrate apply again.",
        )
