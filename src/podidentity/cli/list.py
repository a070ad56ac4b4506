"""`podidentity list`: identities, the pods that may use them, and faulty objects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import chain
from typing import TYPE_CHECKING

import click

from podidentity.adapters.clock import SystemClock
from podidentity.adapters.cluster import WatchedCluster
from podidentity.cli.connection import ClusterTarget, on_cluster, right_to
from podidentity.cli.objects import (
    BINDINGS,
    EVERY_POD,
    IDENTITIES,
    NAMESPACES,
    find_all,
    list_parsed,
    unless_forbidden,
)
from podidentity.cli.output import CommandError, data, table, terminal_width
from podidentity.cli.use_roles import Roles, for_no_namespace, giver_of
from podidentity.core.decision import permission_names
from podidentity.core.resources import AzureIdentity, AzureIdentityBinding, Malformed, ObjectRef
from podidentity.wire.manifests import render_identity
from podidentity.wire.rbac import Grantee, ends_with

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """An AzureIdentity, with its selectors, pods and permitted service accounts."""

    found: AzureIdentity | Malformed
    selectors: tuple[str, ...]
    pods: tuple[str, ...]
    """Names of the pods of its namespace that are bound to it."""
    permitted: tuple[str, ...] | None
    """Service accounts of its namespace that may use it, `*` for all; None if unknown."""

    @property
    def state(self) -> str:
        if isinstance(self.found, Malformed):
            return f"unusable: {self.found.why}"
        if not self.selectors:
            return "no binding"
        return "bound, not permitted" if self.permitted == () else "bound"

    def row(self, *, wide: bool) -> tuple[str, ...]:
        known = self.found if isinstance(self.found, AzureIdentity) else None
        client_id = str(known.client_id or "-") if known else "-"
        permitted = "?"
        if self.permitted is not None:
            permitted = "all" if "*" in self.permitted else _cell(self.permitted, wide=wide)
        return (
            *self.found.ref,
            _cell(self.selectors, wide=wide),
            str(len(self.pods)),
            permitted,
            *([client_id] if wide else []),
            self.state,
        )

    def as_data(self) -> dict[str, object]:
        found = self.found
        known = render_identity(found)["spec"] if isinstance(found, AzureIdentity) else {}
        return {
            "namespace": found.ref.namespace,
            "name": found.ref.name,
            **known,
            "selectors": list(self.selectors),
            "pods": list(self.pods),
            "permitted": None if self.permitted is None else list(self.permitted),
            "usable": isinstance(found, AzureIdentity),
            "state": self.state,
        }


def _cell(names: Sequence[str], *, wide: bool) -> str:
    if wide or len(names) <= 1:
        return ",".join(names) or "-"
    return f"{names[0]},+{len(names) - 1}"


HEAD = ("NAMESPACE", "NAME", "SELECTOR", "PODS", "PERMITTED", "STATE")
WIDE_HEAD = (*HEAD[:-1], "CLIENT ID", HEAD[-1])


def inventory(cluster: WatchedCluster, roles: Roles | None) -> tuple[list[Entry], list[str]]:
    """Return all identities in order, and a sentence for each binding without a usable identity.

    `roles` is None if the person may not read them.
    """
    bindings = cluster.all_bindings()
    usable = [each for each in bindings if isinstance(each, AzureIdentityBinding)]
    # By what an identity looks them up: a cluster has thousands of each.
    selectors: dict[ObjectRef, set[str]] = {}
    for each in usable:
        named = each.ref._replace(name=each.identity)
        selectors.setdefault(named, set()).add(each.selector)
    pods: dict[tuple[str, str], list[str]] = {}
    for pod in cluster.pods():
        if not pod.ended:
            pods.setdefault((pod.ref.namespace, pod.selector), []).append(pod.ref.name)
    entries = []
    for found in cluster.all_identities():
        own = sorted(selectors.get(found.ref, ()))
        permitted = None
        if roles is not None and isinstance(found, AzureIdentity):
            grantees = roles.grantees(permission_names(found))
            here = [each for each in grantees if each.namespace in {"", found.ref.namespace}]
            permitted = tuple(sorted({each.service_account or "*" for each in here}))
        bound = (pods.get((found.ref.namespace, each), ()) for each in own)
        entries.append(
            Entry(
                found=found,
                selectors=tuple(own),
                pods=tuple(sorted(chain.from_iterable(bound))),
                permitted=permitted,
            )
        )
    names = {entry.found.ref for entry in entries}
    problems = [
        f"AzureIdentityBinding {each.ref} cannot be used: {each.why}."
        for each in bindings
        if isinstance(each, Malformed)
    ]
    problems += [
        f"AzureIdentityBinding {each.ref} names AzureIdentity {each.identity!r}, "
        "which does not exist in its namespace."
        for each in usable
        if each.ref._replace(name=each.identity) not in names
    ]
    return entries, problems


class GrantEnd(StrEnum):
    """What ends a grant."""

    NAMESPACE = "with its namespace"
    REVOKED = "never"
    """Until somebody takes it back."""
    NO_NAMESPACE = "never; there is no such namespace"
    GONE = "now: its namespace is gone"
    ANOTHER = "now: its namespace is another"


_ENDS_WITH = {
    GrantEnd.NAMESPACE: "namespace",
    GrantEnd.REVOKED: "nothing",
    GrantEnd.NO_NAMESPACE: "nothing",
    GrantEnd.GONE: "now",
    GrantEnd.ANOTHER: "now",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class ListedGrant:
    """Who may use what, by one ClusterRoleBinding."""

    name: str
    """The permission: a client id, an ARM id, `system-assigned`, or `*` for all."""
    grantee: Grantee
    binding: str
    made_by: str
    """The command of podidentity; "" where somebody else made it."""
    ends: GrantEnd

    def row(self, *, wide: bool) -> tuple[str, ...]:
        if wide:
            return (
                *(str(self.grantee), self.made_by or "others", str(self.ends)),
                *(self.binding, self.name),
            )
        who = "/".join(filter(None, (self.grantee.namespace, self.grantee.service_account)))
        return who or "all namespaces", _ENDS_WITH[self.ends], self.name

    @property
    def problem(self) -> str:
        """A sentence about a grant that should not be there; else ""."""
        if self.ends is not GrantEnd.NO_NAMESPACE:
            return ""
        return for_no_namespace(self.binding, self.grantee.namespace)

    def as_data(self) -> dict[str, object]:
        return {
            "identity": self.name,
            "namespace": self.grantee.namespace,
            "serviceAccount": self.grantee.service_account,
            "clusterRoleBinding": self.binding,
            "madeBy": self.made_by,
            "ends": self.ends.value,
        }


GRANTS_HEAD = ("GRANTED TO", "ENDS WITH", "IDENTITY")
WIDE_GRANTS_HEAD = ("GRANTED TO", "BY", "ENDS", "CLUSTERROLEBINDING", "IDENTITY")


def grants_of(roles: Roles, namespaces: Mapping[str, str] | None, only: str) -> list[ListedGrant]:
    """Return all grants in order; `namespaces` are the uids by name, None if they are not known.

    `only` is a namespace, or "" for all.
    """
    found = [
        ListedGrant(
            name=name,
            grantee=grantee,
            binding=binding["metadata"]["name"],
            made_by=giver_of(binding),
            ends=_end_of(grantee, ends_with(binding), namespaces),
        )
        for name, grantee, binding in roles.grants()
        if only in {"", grantee.namespace} or not grantee.namespace
    ]
    return sorted(found, key=lambda each: (each.grantee, each.name, each.binding))


def _end_of(grantee: Grantee, owner: str, namespaces: Mapping[str, str] | None) -> GrantEnd:
    known = None if namespaces is None else namespaces.get(grantee.namespace, "")
    if grantee.namespace and known == "":
        return GrantEnd.GONE if owner else GrantEnd.NO_NAMESPACE
    if not owner:
        return GrantEnd.REVOKED
    return GrantEnd.NAMESPACE if known in {None, owner} else GrantEnd.ANOTHER


_TABLES = ("table", "wide")


def list_identities(
    *,
    target: ClusterTarget,
    namespace: str | None,
    all_namespaces: bool,
    grants: bool,
    output: str,
) -> None:
    if namespace and all_namespaces:
        raise click.UsageError("--namespace and --all-namespaces exclude each other.")
    if grants:
        _list_grants(target, namespace or "", output)
        return
    entries, problems, complete = on_cluster(target, lambda kube: _inventory(kube, namespace or ""))
    if not complete:
        click.echo(f"could not see who is permitted: you need {Roles.RIGHT}", err=True)
    if output not in _TABLES:
        shown = {"identities": [entry.as_data() for entry in entries], "problems": problems}
        click.echo(data(shown, output))
        return
    where = f"namespace {namespace}" if namespace else "this cluster"
    none = f"There is no AzureIdentity in {where}."
    click.echo(_table(entries, output, (HEAD, WIDE_HEAD)) if entries else none)
    for problem in problems:
        click.echo(problem)


def _list_grants(target: ClusterTarget, namespace: str, output: str) -> None:
    found = on_cluster(target, lambda kube: _grants(kube, namespace))
    if output not in _TABLES:
        click.echo(data([each.as_data() for each in found], output))
        return
    heads = (GRANTS_HEAD, WIDE_GRANTS_HEAD)
    click.echo(_table(found, output, heads) if found else "Nobody may use an identity.")
    for problem in filter(None, (each.problem for each in found)):
        click.echo(problem)


def _table(
    found: Sequence[Entry | ListedGrant], output: str, heads: tuple[Sequence[str], Sequence[str]]
) -> str:
    wide = output == "wide"
    rows = [each.row(wide=wide) for each in found]
    return table(heads[wide], rows, width=0 if wide else terminal_width())


async def _grants(kube: Kube, namespace: str) -> list[ListedGrant]:
    roles = await Roles.read(kube)
    if roles is None:
        raise CommandError(
            f"Who may use an identity is not known: you need {Roles.RIGHT}",
            "podidentity rights list lists all that the command needs.",
        )
    there = await unless_forbidden(find_all(kube, NAMESPACES), None)
    if there is None:
        need = right_to("list", "namespaces")
        click.echo(f"could not see which namespaces are there: {need}", err=True)
        return grants_of(roles, None, namespace)
    uids = {each["metadata"]["name"]: each["metadata"]["uid"] for each in there}
    return grants_of(roles, uids, namespace)


async def _inventory(kube: Kube, namespace: str) -> tuple[list[Entry], list[str], bool]:
    from podidentity.adapters.kube import together  # the HTTP client, which help must not load

    identities, bindings, pods, roles = await together(
        list_parsed(kube, IDENTITIES, namespace),
        list_parsed(kube, BINDINGS, namespace),
        list_parsed(kube, EVERY_POD, namespace),
        Roles.read(kube),
    )
    cluster = WatchedCluster.of(SystemClock(), pods=pods, identities=identities, bindings=bindings)
    return *inventory(cluster, roles), roles is not None
