"""Role-based access control: what roles and bindings grant, and nothing else.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds.access import GROUP
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.storage import Record, Storage
from podidentity_sandbox.cluster.users import ACCOUNT_PREFIX, Decision, User


class Rbac:
    """Reads roles and bindings at each question: a change counts at once."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def decide(self, user: User, info: RequestInfo) -> Decision:
        """Return whether a rule of a role that is bound to the user covers the request."""
        allowed = any(covers(rule, info) for rule in self.rules(user, info.namespace))
        return Decision(allowed, "" if allowed else self._missing(user, info.namespace))

    def rules(self, user: User, namespace: str) -> Iterator[Obj]:
        """Yield the rules that hold for a user, cluster-wide and in a namespace."""
        for binding in self._bindings(user, namespace):
            yield from (self._role(binding) or {}).get("rules", [])

    def _bindings(self, user: User, namespace: str) -> Iterator[Obj]:
        found = self._storage.all(f"clusterrolebindings.{GROUP}")
        if namespace:
            found += self._storage.all(f"rolebindings.{GROUP}", namespace)
        for record in found:
            if any(names(subject, user) for subject in record.object.get("subjects", [])):
                yield record.object

    def _role(self, binding: Obj) -> Obj | None:
        record = role_of(self._storage, binding)
        return record.object if record is not None else None

    def _missing(self, user: User, namespace: str) -> str:
        """Return which bound roles do not exist, as the real authorizer tells it."""
        lost = [
            f'{ref["kind"].lower()}.{GROUP} "{ref["name"]}" not found'
            for ref in (
                b["roleRef"] for b in self._bindings(user, namespace) if self._role(b) is None
            )
        ]
        if not lost:
            return ""
        shown = lost[0] if len(lost) == 1 else f"[{', '.join(lost)}]"
        return f"RBAC: {shown}"


def names(subject: Obj, user: User) -> bool:
    """Whether a binding's subject is this user."""
    match subject["kind"]:
        case "User":
            return bool(subject["name"] == user.name)
        case "Group":
            return subject["name"] in user.groups
        case "ServiceAccount":
            return user.name == f"{ACCOUNT_PREFIX}{subject.get('namespace')}:{subject['name']}"
        case _:
            return False


def role_of(storage: Storage, binding: Obj) -> Record | None:
    """Return the role that a binding names, if it is there."""
    reference = binding.get("roleRef", {})
    kind = reference.get("kind", "")
    namespace = binding["metadata"].get("namespace", "") if kind == "Role" else ""
    return storage.get(f"{kind.lower()}s.{GROUP}", namespace, reference.get("name", ""))


def covers(rule: Obj, info: RequestInfo) -> bool:
    """Whether one rule allows a request."""
    if not has(rule.get("verbs", []), info.verb):
        return False
    if not info.resource:
        return has_path(rule.get("nonResourceURLs", []), info.path)
    restricted = rule.get("resourceNames", [])
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    return (
        has(rule.get("apiGroups", []), info.group)
        and has_resource(rule.get("resources", []), whole)
        and (not restricted or info.single in restricted)
    )


def has(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's verbs or groups include one."""
    return "*" in values or wanted in values


def has_resource(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's resources include one, or one's subresource: `pods`, `pods/log`."""
    _, slash, subresource = wanted.partition("/")
    return has(values, wanted) or (bool(slash) and f"*/{subresource}" in values)


def has_path(values: Sequence[str], wanted: str) -> bool:
    """Whether a rule's paths include one: all stars at an end are one, as NonResourceURLMatches.

    https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/apis/rbac/v1/evaluation_helpers.go
    """
    return any(
        value == wanted or (value.endswith("*") and wanted.startswith(value.rstrip("*")))
        for value in values
    )
