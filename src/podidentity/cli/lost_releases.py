"""Finds what is left of a Helm release whose namespace was deleted.

Helm keeps its record of the release in that namespace, so `helm uninstall` finds nothing then. The
objects that were in no namespace stay. Among them are ClusterRoleBindings of service accounts of
that namespace: somebody who makes a namespace of the same name would have their rights.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click

from podidentity.cli.connection import right_to
from podidentity.cli.objects import NAMESPACES, Object, find, find_all, unless_forbidden
from podidentity.cli.rollout import is_ours
from podidentity.wire.kube import CLUSTER_ROLE_BINDINGS

if TYPE_CHECKING:
    from podidentity.adapters.kube import Kube

OF_RELEASES = "app.kubernetes.io/part-of=podidentity,app.kubernetes.io/managed-by=Helm"
"""Of the chart's objects."""
_KINDS = (
    *("clusterrole", "clusterrolebinding", "role", "rolebinding"),
    *("validatingadmissionpolicy", "validatingadmissionpolicybinding"),
    *("azurepodidentityexception", "azureidentity", "azureidentitybinding"),
)
"""Of what the chart makes in no namespace, or in others than the release's."""


@dataclass(frozen=True, slots=True, order=True)
class LostRelease:
    """A release whose namespace may be gone, and roles of which are there still."""

    namespace: str
    name: str
    bindings: tuple[str, ...]
    """Names of its ClusterRoleBindings."""

    def __str__(self) -> str:
        return (
            f"Roles of the Helm release {self.name} give rights to service accounts of namespace "
            f"{self.namespace}, which is not there: whoever makes a namespace of that name has them"
        )

    @property
    def removal(self) -> str:
        """The command that takes away what is left, by the labels that the chart gives."""
        ours = f"app.kubernetes.io/part-of=podidentity,app.kubernetes.io/instance={self.name}"
        return f"kubectl delete {','.join(_KINDS)} --all-namespaces --selector {ours}"


def releases(bindings: Iterable[Object]) -> list[LostRelease]:
    """Return the releases of these ClusterRoleBindings, each where its service accounts are.

    It is lost if there is no such namespace. What `helm template` rendered is a release, too.
    """
    found: dict[tuple[str, str], set[str]] = {}
    for each in bindings:
        meta = each["metadata"]
        labels = meta.get("labels") or {}
        if labels.get("app.kubernetes.io/managed-by") != "Helm" or not is_ours(each):
            continue
        for subject in each.get("subjects") or ():
            if subject.get("kind") == "ServiceAccount":
                name = str(labels.get("app.kubernetes.io/instance", ""))
                place = str(subject.get("namespace", ""))
                found.setdefault((place, name), set()).add(str(meta["name"]))
    return [LostRelease(*key, tuple(sorted(names))) for key, names in sorted(found.items())]


async def say_lost(kube: Kube) -> None:
    asked = find_all(kube, CLUSTER_ROLE_BINDINGS, labelSelector=OF_RELEASES)
    if (bindings := await unless_forbidden(asked, None)) is None:
        said = right_to("list", CLUSTER_ROLE_BINDINGS.plural)
        click.echo(f"Whether roles of a Helm release are left is not known: {said}.", err=True)
        return
    for each in releases(bindings):
        if await find(kube, NAMESPACES, "", each.namespace) is None:
            click.echo(f"{each}. Take them away:\n  {each.removal}", err=True)
