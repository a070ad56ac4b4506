"""What a right in a cluster is: as a rule of a role has it, and one verb of one resource alone.

The commands' table (`needed_rights`) and the manifests' roles are of the first kind; what is given,
reviewed or taken away is of the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum

from podidentity.core.decision import GROUP, RESOURCE, VERB
from podidentity.manifests import IDENTITIES, NAMESPACE, Manifest

NMI_NAMESPACE = "NMI"
"""A name that stands for that of NMI's namespace."""


class Where(StrEnum):
    """The part of the cluster in which a right is needed."""

    CLUSTER = "cluster"
    PODS = "pods' namespace"
    """That of the pods which a command is about, by its `--namespace` or argument."""
    NMI = "NMI's namespace"
    SYSTEM = "kube-system"
    """For what is there wherever NMI is."""
    ACCOUNTS = "accounts' namespace"
    """Of the service accounts that stand for identities: `podidentity-identities`."""
    LEASE = "default"
    """Of MIC's Lease, wherever MIC is."""
    NODE_LEASES = "kube-node-lease"
    """Of the Leases by which kubelets show that they live."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Right:
    """Verbs of one resource, as a rule of a role has them."""

    where: Where = Where.CLUSTER
    resource: str
    """`RESOURCE.GROUP`; of the core group `RESOURCE`; or a path, with its slash."""
    verbs: tuple[str, ...]
    names: tuple[str, ...] = ()
    """Of the only objects that it is needed for; () for all."""
    parts: tuple[str, ...] = ()
    """The parts of the command's work that need it, of PARTS; () for what it always does."""
    without: str = ""
    """What the command does without it; "" if it fails."""


def held_by(manifests: Iterable[Manifest], *parts: str) -> Iterator[Right]:
    for where, rule in (
        (_place(each), rule) for each in manifests for rule in each.get("rules", ())
    ):
        names, verbs = tuple(rule.get("resourceNames", ())), tuple(rule["verbs"])
        groups = {f".{group}" if group else "" for group in rule.get("apiGroups", ())}
        named = [f"{each}{group}" for each in rule.get("resources", ()) for group in groups]
        for resource in (*named, *rule.get("nonResourceURLs", ())):
            yield Right(where=where, resource=resource, verbs=verbs, names=names, parts=parts)


def _place(manifest: Manifest) -> Where:
    if manifest["kind"] != "Role":
        return Where.CLUSTER
    return Where.LEASE if manifest["metadata"]["namespace"] == Where.LEASE.value else Where.NMI


@dataclass(frozen=True, slots=True, order=True)
class Single:
    """One verb of one resource: the smallest right that can be given or taken away."""

    namespace: str
    """"" in the whole cluster."""
    resource: str
    """As in `Right`."""
    verb: str
    name: str = ""
    """"" for all objects."""

    def wider(self) -> set[Single]:
        """Return the other rights that would cover this one."""
        return {
            Single(namespace, self.resource, self.verb, name)
            for namespace in ("", self.namespace)
            for name in ("", self.name)
        } - {self}


@dataclass(frozen=True, slots=True, kw_only=True)
class Places:
    """The namespaces that a cluster has for what the commands touch."""

    pods: tuple[str, ...] = ()
    """Those of pods; () for all."""
    nmi: str = NAMESPACE
    accounts: str = IDENTITIES
    identities: tuple[str, ...] = field(default=())
    """The only identities that may be granted, as `podidentity grant` names them; () for all."""

    def of(self, where: Where) -> tuple[str, ...]:
        """Return the namespaces of this part of the cluster; `""` is the whole of it."""
        return {
            Where.CLUSTER: ("",),
            Where.PODS: self.pods or ("",),
            Where.NMI: (self.nmi,),
            Where.SYSTEM: (NAMESPACE,),
            Where.ACCOUNTS: (self.accounts,),
            Where.LEASE: (Where.LEASE.value,),
            Where.NODE_LEASES: (Where.NODE_LEASES.value,),
        }[where]

    def names(self, right: Right) -> tuple[str, ...]:
        """Return the names of the only objects of a right; `""` is all of them."""
        if (right.resource, right.verbs) == (f"{RESOURCE}.{GROUP}", (VERB,)):
            return self.identities or ("",)
        return tuple(self.nmi if each == NMI_NAMESPACE else each for each in right.names) or ("",)


def singles(rights: Iterable[Right], places: Places) -> list[Single]:
    """Return the single rights, in order, without those that others of them include."""
    found = {
        Single(namespace, right.resource, verb, name)
        for right in rights
        for namespace in places.of(right.where)
        for verb in right.verbs
        for name in places.names(right)
    }
    return sorted(one for one in found if found.isdisjoint(one.wider()))
