"""Role-based access control: what roles and bindings grant, and nothing else.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/
"""

from __future__ import annotations

from collections.abc import Iterator

from podidentity_sandbox.cluster.jsontypes import Obj
from podidentity_sandbox.cluster.kinds.access import GROUP
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.storage import Storage
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
        reference = binding["roleRef"]
        key = f"{reference['kind'].lower()}s.{GROUP}"
        namespace = binding["metadata"].get("namespace", "") if reference["kind"] == "Role" else ""
        record = self._storage.get(key, namespace, reference["name"])
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


def covers(rule: Obj, info: RequestInfo) -> bool:
    """Whether one rule allows a request."""
    if not _has(rule.get("verbs", []), info.verb):
        return False
    if not info.resource:
        return any(_path(url, info.path) for url in rule.get("nonResourceURLs", []))
    restricted = rule.get("resourceNames", [])
    return (
        _has(rule.get("apiGroups", []), info.group)
        and any(_resource(wanted, info) for wanted in rule.get("resources", []))
        and (not restricted or info.single in restricted)
    )


def _has(values: list[str], wanted: str) -> bool:
    return "*" in values or wanted in values


def _resource(granted: str, info: RequestInfo) -> bool:
    whole = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    any_resource = info.subresource and granted == f"*/{info.subresource}"
    return granted in ("*", whole) or bool(any_resource)


def _path(granted: str, path: str) -> bool:
    if granted.endswith("*"):
        return path.startswith(granted[:-1])
    return granted == path
