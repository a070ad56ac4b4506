"""The ClusterRoles that let pods use an identity: rendered, and read back from any RBAC objects.

There is one ClusterRole for each identity and one ClusterRoleBinding for each grantee. RoleBindings
do not count, because the owner of a namespace can make them. The API server lets nobody grant a
permission that he does not hold, so a tenant cannot make these ClusterRoleBindings for himself.

A ClusterRoleBinding is owned by the Namespace that it is for, so that the cluster deletes it with
that one, and a later namespace of the same name has no grant.
https://kubernetes.io/docs/concepts/architecture/garbage-collection/#owners-dependents

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from podidentity.core.decision import GROUP, RESOURCE, VERB

RBAC = "rbac.authorization.k8s.io"
LABELS = {"app.kubernetes.io/managed-by": "podidentity"}
"""Labels of the objects that podidentity makes."""
SELECTOR = ",".join(f"{key}={value}" for key, value in LABELS.items())
"""Selects them."""
GIVEN_BY = "aadpodidentity.k8s.io/granted-by"
"""Annotation of a ClusterRoleBinding, and of the ClusterRole that `migrate` made: the command that
made it. `delete` removes those of `add`."""

_ALL_ACCOUNTS = "system:serviceaccounts"
_EVERYBODY = frozenset({_ALL_ACCOUNTS, "system:authenticated"})
_PREFIX = "podidentity-use-"
_PLAIN = re.compile(r"[a-z0-9-]{1,63}", re.ASCII)
_LONGEST = 253

Object = Mapping[str, Any]


class Giver(StrEnum):
    """The command that made a grant."""

    GRANT = "grant"
    ADD = "add"
    ENABLE = "enable"
    MIGRATE = "migrate"


@dataclass(frozen=True, slots=True, order=True)
class Grantee:
    """The pods of one service account, of a namespace, or (both fields "") of the cluster."""

    namespace: str
    service_account: str = ""

    def includes(self, other: Grantee) -> bool:
        """Whether `other` holds each permission that this grantee holds."""
        same = self.namespace in {"", other.namespace}
        return same and self.service_account in {"", other.service_account}

    def __str__(self) -> str:
        if self.service_account:
            return f"service account {self.namespace}/{self.service_account}"
        return f"namespace {self.namespace}" if self.namespace else "all namespaces"


@dataclass(frozen=True, slots=True)
class RoleHolder:
    """A grantee of an identity, and the name of its ClusterRoleBinding."""

    grantee: Grantee
    binding: str


def role(name: str) -> dict[str, Any]:
    """Return the ClusterRole that holds the permission `name`."""
    rule = {
        "apiGroups": [GROUP],
        "resources": [RESOURCE],
        "resourceNames": [name],
        "verbs": [VERB],
    }
    return {**_head("ClusterRole", role_name(name)), "rules": [rule]}


def binding(name: str, grantee: Grantee, giver: Giver, namespace: str = "") -> dict[str, Any]:
    """Return the ClusterRoleBinding that gives the permission `name`.

    It ends with the Namespace of the uid `namespace`; with none where that is "".
    """
    made = _head("ClusterRoleBinding", binding_name(name, grantee))
    made["metadata"]["annotations"] = {GIVEN_BY: giver.value}
    if namespace:
        made["metadata"]["ownerReferences"] = [owner(grantee.namespace, namespace)]
    reference = {"apiGroup": RBAC, "kind": "ClusterRole", "name": role_name(name)}
    return {**made, "roleRef": reference, "subjects": [_subject(grantee)]}


def owner(namespace: str, uid: str) -> dict[str, str]:
    """Return the reference to the Namespace with which a ClusterRoleBinding ends."""
    return {"apiVersion": "v1", "kind": "Namespace", "name": namespace, "uid": uid}


def ends_with(found: Object) -> str:
    """Return the uid of the Namespace with which a ClusterRoleBinding ends; "" for none."""
    owners = found["metadata"].get("ownerReferences") or ()
    return next((str(each["uid"]) for each in owners if each.get("kind") == "Namespace"), "")


def namespace_of(found: Object) -> str:
    """Return the one namespace whose pods a ClusterRoleBinding of ours is for; "" for others."""
    if not is_ours(found) or not grants(found["roleRef"]):
        return ""
    found_in = {each.namespace for each in grantees(found)}
    return found_in.pop() if len(found_in) == 1 else ""


def grants(named: Object) -> bool:
    """Whether this is the name of a ClusterRole of ours that holds a permission."""
    return str(named["name"]).startswith(_PREFIX)


def is_ours(found: Object) -> bool:
    return LABELS.items() <= (found["metadata"].get("labels") or {}).items()


def role_name(name: str) -> str:
    """Return the ClusterRole's name, which contains the permission's name if possible.

    An ARM id cannot be part of a name because of its slashes: its last part and a digest can.
    """
    if _PLAIN.fullmatch(name):
        return _PREFIX + name
    tail = re.sub(r"[^a-z0-9-]+", "-", name.rpartition("/")[2])[:63]
    return f"{_PREFIX}{tail}-{_digest(name)}"


def binding_name(name: str, grantee: Grantee) -> str:
    """Return the ClusterRoleBinding's name; its parts hold no colon, so it is unambiguous."""
    whole = ":".join(filter(None, (role_name(name), grantee.namespace, grantee.service_account)))
    if len(whole) <= _LONGEST:
        return whole
    return f"{whole[: _LONGEST - 13]}-{_digest(whole)}"


def holders(name: str, roles: Iterable[Object], bindings: Iterable[Object]) -> list[RoleHolder]:
    """Return the pods that the cluster's RBAC lets use `name`, by any ClusterRole.

    Wildcards count. Users and groups without pods do not.
    """
    granting = {
        each["metadata"]["name"]
        for each in roles
        if not granted_names(each).isdisjoint({name, EVERY})
    }
    found = {
        RoleHolder(grantee, each["metadata"]["name"])
        for each in bindings
        if each["roleRef"]["name"] in granting
        for grantee in grantees(each)
    }
    return sorted(found, key=lambda granted: (granted.grantee, granted.binding))


def grantees(found: Object) -> frozenset[Grantee]:
    return frozenset(
        grantee for subject in found.get("subjects") or () for grantee in _grantee(subject)
    )


def _head(kind: str, name: str) -> dict[str, Any]:
    metadata = {"name": name, "labels": dict(LABELS)}
    return {"apiVersion": f"{RBAC}/v1", "kind": kind, "metadata": metadata}


def _subject(grantee: Grantee) -> dict[str, str]:
    if not grantee.service_account:
        group = f"{_ALL_ACCOUNTS}:{grantee.namespace}"
        return {"apiGroup": RBAC, "kind": "Group", "name": group}
    return {
        "kind": "ServiceAccount",
        "namespace": grantee.namespace,
        "name": grantee.service_account,
    }


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


EVERY = ""
"""Among granted names: all of them."""


def granted_names(role: Object) -> set[str]:
    """Return the names that a role lets its holders use, EVERY for a rule without names."""
    return {
        name
        for rule in role.get("rules") or ()
        if _covers(rule)
        for name in rule.get("resourceNames") or (EVERY,)
    }


def _covers(rule: Object) -> bool:
    return (
        _has(rule.get("verbs"), VERB)
        and _has(rule.get("apiGroups"), GROUP)
        and _has(rule.get("resources"), RESOURCE)
    )


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    return not {"*", wanted}.isdisjoint(values or ())


def _grantee(subject: Object) -> Iterator[Grantee]:
    """Yield the pods that a subject of a binding stands for, if any."""
    kind, name = subject.get("kind"), str(subject.get("name", ""))
    if kind == "ServiceAccount":
        yield Grantee(str(subject.get("namespace", "")), name)
    elif kind == "Group" and name in _EVERYBODY:
        yield Grantee("")
    elif kind == "Group" and name.startswith(f"{_ALL_ACCOUNTS}:"):
        yield Grantee(name.removeprefix(f"{_ALL_ACCOUNTS}:"))
    elif kind == "User" and name.startswith("system:serviceaccount:"):
        namespace, _, account = name.removeprefix("system:serviceaccount:").partition(":")
        yield Grantee(namespace, account)
