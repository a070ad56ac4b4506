"""The ClusterRoles that permit the use of an identity: created, read, and removed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from podidentity.cli.objects import (
    NAMESPACES,
    ApplyResult,
    Object,
    apply,
    called,
    find,
    find_all,
    identity_of,
    removal,
    remove,
    unless_forbidden,
)
from podidentity.cli.output import CommandError
from podidentity.core.decision import permission_names
from podidentity.core.resources import AzureIdentity, ObjectRef
from podidentity.wire.kube import AZURE_IDENTITIES, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, KubeError
from podidentity.wire.rbac import (
    EVERY,
    GIVEN_BY,
    RBAC,
    SELECTOR,
    Giver,
    Grantee,
    RoleHolder,
    binding,
    ends_with,
    granted_names,
    grantees,
    grants,
    holders,
    is_ours,
    namespace_of,
    owner,
    role,
    role_name,
)

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube


async def give(kube: Kube, names: Sequence[str], grantee: Grantee, giver: Giver) -> None:
    namespace = await uid_of_namespace(kube, grantee.namespace)
    for name in names:
        await make_role(kube, name, grantee)
        await bind(kube, name, grantee, giver, namespace)


async def uid_of_namespace(kube: Kube, name: str) -> str:
    """Return the uid of the namespace, with which its grants end; raise CommandError."""
    found = await find(kube, NAMESPACES, "", name)
    if found is None:
        raise CommandError(
            f"There is no namespace {name}: a later one of that name would have the identity",
            "Create the namespace first, or correct --namespace.",
        )
    return str(found["metadata"]["uid"])


async def make_role(kube: Kube, name: str, grantee: Grantee) -> ApplyResult:
    """Have the ClusterRole of the permission `name`, which nobody has by that."""
    with _granting(name, grantee):
        result = await apply(kube, role(name))
    click.echo(f"{called(role(name))} {result}")
    return result


async def bind(
    kube: Kube, name: str, grantee: Grantee, giver: Giver, namespace: str
) -> ApplyResult:
    """Give the ClusterRole of the permission `name` to `grantee`, until the Namespace ends.

    A binding that `podidentity grant` made keeps its mark: no other command removes it.
    """
    wanted = binding(name, grantee, giver, namespace)
    made = f"{called(role(name))} exists, but nobody has it yet. "
    with _granting(name, grantee, made):
        there = await find(kube, CLUSTER_ROLE_BINDINGS, "", wanted["metadata"]["name"])
        if there is None or giver is Giver.GRANT:
            result = await apply(kube, wanted)
        elif ends_with(there) == namespace:
            result = ApplyResult.UNCHANGED
        else:
            result = await _end_with(kube, there, grantee.namespace, namespace)
    click.echo(f"{called(wanted)} {result}")
    return result


async def _end_with(kube: Kube, found: Object, namespace: str, uid: str) -> ApplyResult:
    """Have a ClusterRoleBinding end with its namespace; whom it is for stays as it is.

    Who changes owners alone need not hold what the binding grants, so `enable` may do it.
    """
    change = {"metadata": {"ownerReferences": [owner(namespace, uid)]}}
    await kube.merge(CLUSTER_ROLE_BINDINGS.path("", found["metadata"]["name"]), change)
    return ApplyResult.CONFIGURED


async def adopt(kube: Kube) -> None:
    """Have grants of earlier versions, which end with nothing, end with their namespaces.

    Those for a namespace that is not there are named: whoever makes it has the identity.
    """
    for each in await find_all(kube, CLUSTER_ROLE_BINDINGS, labelSelector=SELECTOR):
        namespace = namespace_of(each)
        if not namespace or ends_with(each):
            continue
        name = each["metadata"]["name"]
        there = await find(kube, NAMESPACES, "", namespace)
        if there is None:
            click.echo(f"warning: {for_no_namespace(name, namespace)}", err=True)
            continue
        result = await _end_with(kube, each, namespace, there["metadata"]["uid"])
        click.echo(f"clusterrolebinding.{RBAC}/{name} {result}: ends with namespace {namespace}")


def for_no_namespace(binding: str, namespace: str) -> str:
    return (
        f"ClusterRoleBinding {binding} is for namespace {namespace}, which is not there: whoever "
        f"makes it may use the identity. Remove it: kubectl delete clusterrolebinding {binding}"
    )


async def narrower(kube: Kube, name: str, grantee: Grantee) -> list[str]:
    """Return the service accounts of a namespace that alone have a permission of it.

    [] where all of them have it, or nobody.
    """
    namespace = grantee.namespace
    with _granting(name, grantee):
        found = await find_all(kube, CLUSTER_ROLE_BINDINGS)
    held = [
        grantee
        for each in found
        if each["roleRef"]["name"] == role_name(name)
        for grantee in grantees(each)
        if grantee.namespace in {"", namespace}
    ]
    if any(not each.service_account for each in held):
        return []
    return sorted({each.service_account for each in held})


@contextmanager
def _granting(name: str, grantee: Grantee, made: str = "") -> Iterator[None]:
    """Turn a refusal of the block into a CommandError with an administrator's command."""
    try:
        yield
    except KubeError as error:
        if not error.forbidden:
            raise
        raise CommandError(
            error.message,
            f"{made}A cluster administrator grants it: {grant_command(name, grantee)}.",
        ) from error


def grant_command(name: str, grantee: Grantee) -> str:
    return f"podidentity grant {_permission(name, grantee)}"


def revoke_command(name: str, grantee: Grantee) -> str:
    return f"podidentity revoke {_permission(name, grantee)}"


def _permission(name: str, grantee: Grantee) -> str:
    account = f" --service-account {grantee.service_account}" if grantee.service_account else ""
    return f"--namespace {grantee.namespace}{account} --identity {name}"


async def take(
    kube: Kube, name: str, grantee: Grantee, givers: Iterable[Giver] = tuple(Giver)
) -> int:
    """Remove the bindings of `givers` for `grantee` and all its parts; return their number.

    The role goes, too, where nobody has it then: also that of a grant that was never finished.
    """
    given_by = {each.value for each in givers}
    # Bindings of other people count too: while one exists, the role stays.
    bindings = await find_all(kube, CLUSTER_ROLE_BINDINGS)
    of_role = [each for each in bindings if each["roleRef"]["name"] == role_name(name)]
    going = [
        each
        for each in of_role
        if giver_of(each) in given_by
        and (granted := holders(name, [role(name)], [each]))
        and all(grantee.includes(holder.grantee) for holder in granted)
    ]
    for each in going:
        await remove_role(kube, "ClusterRoleBinding", each["metadata"]["name"])
    if len(going) == len(of_role):
        try:
            if await remove(kube, role(name)):
                click.echo(f"{called(role(name))} deleted")
        except KubeError as error:
            # No grant was there to undo: a missing right to delete the role is no failure.
            if of_role or not error.forbidden:
                raise
    return len(going)


async def take_unneeded(kube: Kube, ref: ObjectRef, gone: Object) -> None:
    """Remove the grants of `add` for an AzureIdentity that no other one of its namespace needs.

    The owner of a namespace lacks the right to do that: then it prints the administrator's command.
    """
    needed = {
        name
        for each in await find_all(kube, AZURE_IDENTITIES, ref.namespace)
        if each["metadata"]["name"] != ref.name
        for name in _names(each)
    }
    for name in _names(gone):
        if name in needed:
            click.echo(f"permission kept: another AzureIdentity of {ref.namespace} needs it, too")
            continue
        try:
            await take(kube, name, Grantee(ref.namespace), (Giver.ADD, Giver.ENABLE, Giver.MIGRATE))
        except KubeError as error:
            if not error.forbidden:
                raise
            command = revoke_command(name, Grantee(ref.namespace))
            click.echo(
                f"a permission may be left; an administrator can run {command}. {error.message}",
                err=True,
            )


async def take_all(kube: Kube) -> None:
    for each in await find_all(kube, CLUSTER_ROLE_BINDINGS, labelSelector=SELECTOR):
        if grants(each["roleRef"]):
            await remove_role(kube, "ClusterRoleBinding", each["metadata"]["name"])
    for each in await find_all(kube, CLUSTER_ROLES, labelSelector=SELECTOR):
        if grants(each["metadata"]):
            await remove_role(kube, "ClusterRole", each["metadata"]["name"])


class Roles:
    """The cluster's ClusterRoles and ClusterRoleBindings, read once."""

    RIGHT = "the right to list clusterroles and clusterrolebindings"

    def __init__(self, roles: list[Object], bindings: list[Object]) -> None:
        # A cluster has as many roles as identities: each question looks at few of them.
        self._roles: dict[str, list[Object]] = {}
        for found in roles:
            for name in granted_names(found):
                self._roles.setdefault(name, []).append(found)
        self._bindings: dict[str, list[Object]] = {}
        for each in bindings:
            self._bindings.setdefault(each["roleRef"]["name"], []).append(each)

    @classmethod
    async def read(cls, kube: Kube) -> Roles | None:
        """Return the roles, or None if the person may not read them."""
        from podidentity.adapters.kube import together  # the HTTP client, which help must not load

        asked = together(find_all(kube, CLUSTER_ROLES), find_all(kube, CLUSTER_ROLE_BINDINGS))
        found = await unless_forbidden(asked, None)
        return cls(*found) if found else None

    def lacking(self, namespace: str, names: Sequence[str]) -> list[str]:
        """Return the missing permissions of `namespace`; [] if one of its accounts holds all."""
        if _of(namespace, self.grantees(names)):
            return []
        return [name for name in names if not _of(namespace, self.grantees([name]))] or list(names)

    def prepared(self, name: str) -> bool:
        """Whether the ClusterRole of a permission is there and bound to nobody.

        `add` makes it before it attaches, and binds it at its end.
        """
        roles = [each["metadata"]["name"] for each in self._roles.get(name, ())]
        return role_name(name) in roles and not any(map(self._bindings.get, roles))

    def holders(self, name: str) -> list[RoleHolder]:
        roles = [*self._roles.get(name, ()), *self._roles.get(EVERY, ())]
        of_roles = {each["metadata"]["name"] for each in roles}
        bindings = [found for each in of_roles for found in self._bindings.get(each, ())]
        return holders(name, roles, bindings)

    def grants(self) -> list[tuple[str, Grantee, Object]]:
        return [
            (name or "*", grantee, each)
            for name, roles in self._roles.items()
            for found in roles
            for each in self._bindings.get(found["metadata"]["name"], ())
            for grantee in grantees(each)
        ]

    def grantees(self, names: Iterable[str]) -> set[Grantee]:
        by_name = [{granted.grantee for granted in self.holders(name)} for name in names]
        return {
            grantee
            for grantee in set().union(*by_name)
            if all(any(each.includes(grantee) for each in held) for held in by_name)
        }


def _of(namespace: str, grantees: Iterable[Grantee]) -> bool:
    return any(each.namespace in {"", namespace} for each in grantees)


def _names(identity: Object) -> tuple[str, ...]:
    parsed = identity_of(identity)
    return permission_names(parsed) if isinstance(parsed, AzureIdentity) else ()


def giver_of(found: Object) -> str:
    if not is_ours(found):
        return ""
    annotations = found["metadata"].get("annotations") or {}
    return str(annotations.get(GIVEN_BY, Giver.GRANT))


async def remove_role(kube: Kube, kind: str, name: str) -> None:
    manifest = {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": {"name": name}}
    click.echo(await removal(kube, manifest))
