"""Nobody grants what he does not hold: the rule on roles and bindings beside RBAC's own rules.

The writer of a role must hold all that is in it, or the verb `escalate` on it; the writer of a
binding all that its role grants, or the verb `bind` on that role. He must hold it in the namespace
of the object; for cluster-wide objects in the whole cluster.

https://kubernetes.io/docs/reference/access-authn-authz/rbac/#privilege-escalation-prevention-and-bootstrapping
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from podidentity_sandbox.cluster import Obj, authorization, status
from podidentity_sandbox.cluster.authentication import MASTERS, User
from podidentity_sandbox.cluster.authorization import Authorization
from podidentity_sandbox.cluster.kinds.access import GROUP
from podidentity_sandbox.cluster.paths import RequestInfo
from podidentity_sandbox.cluster.registry import ResourceType
from podidentity_sandbox.cluster.storage import Storage

ROLES = (f"roles.{GROUP}", f"clusterroles.{GROUP}")
BINDINGS = (f"rolebindings.{GROUP}", f"clusterrolebindings.{GROUP}")
_OF_THE_COLLECTOR = ("ownerReferences", "finalizers", "managedFields", "resourceVersion")
"""Metadata that may change without a question, so that garbage can be collected."""


class Escalation:
    """Judges writes of roles and bindings."""

    def __init__(self, storage: Storage, authorizer: Authorization) -> None:
        self._storage = storage
        self._authorizer = authorizer

    def check(
        self, user: User, info: RequestInfo, kind: ResourceType, new: Obj, old: Obj | None
    ) -> None:
        """Raise 403 where `user` grants what he does not hold; 404 for a role that is not there."""
        if kind.key not in (*ROLES, *BINDINGS) or MASTERS in user.groups:
            return
        if old is not None and _without_ownership(new) == _without_ownership(old):
            return
        if kind.key in ROLES:
            if not self._may(user, replace(info, verb="escalate", subresource="")):
                self._confirm(user, kind, new, new.get("rules", []))
        elif not self._may(user, _bind(new)):
            self._confirm(user, kind, new, self._granted(new))

    def _may(self, user: User, info: RequestInfo) -> bool:
        return self._authorizer.decide(user, info).allowed

    def _granted(self, binding: Obj) -> list[Obj]:
        """Return the rules of the role that a binding names; raise 404."""
        reference = binding.get("roleRef", {})
        role = authorization.role_of(self._storage, binding)
        if role is None:
            plural = f"{reference.get('kind', '').lower()}s"
            raise status.not_found(plural, GROUP, reference.get("name", ""))
        rules: list[Obj] = role.object.get("rules", [])
        return rules

    def _confirm(self, user: User, kind: ResourceType, new: Obj, rules: Sequence[Obj]) -> None:
        held = self._authorizer.rules(user, new["metadata"].get("namespace", ""))
        rights = (right for rule in rules for right in _rights(rule))
        missing = [each for each in rights if not any(authorization.covers(r, each) for r in held)]
        if missing:
            said = {f"{one.verb} {one.resource or one.path} {one.name}".rstrip() for one in missing}
            cause = (
                f"user {json.dumps(user.name)} is attempting to grant RBAC permissions not "
                f"currently held: {', '.join(sorted(said))}"
            )
            raise kind.error(status.forbidden, new["metadata"].get("name", ""), cause)


def _bind(binding: Obj) -> RequestInfo:
    reference = binding.get("roleRef", {})
    return RequestInfo(
        path="",
        verb="bind",
        group=reference.get("apiGroup", ""),
        resource=f"{reference.get('kind', '').lower()}s",
        namespace=binding["metadata"].get("namespace", ""),
        name=reference.get("name", ""),
    )


def _without_ownership(found: Obj) -> Obj:
    metadata = found["metadata"]
    kept = {key: metadata[key] for key in metadata if key not in _OF_THE_COLLECTOR}
    return {**found, "metadata": kept}


def _rights(rule: Obj) -> Iterator[RequestInfo]:
    """Take a rule apart: one verb of one resource, by one name if it has names, or of one path."""
    verbs, names = rule.get("verbs", []), rule.get("resourceNames") or [""]
    groups, resources = rule.get("apiGroups", []), rule.get("resources", [])
    for group, resource, verb, name in product(groups, resources, verbs, names):
        yield RequestInfo(path="", verb=verb, group=group, resource=resource, name=name)
    for path, verb in product(rule.get("nonResourceURLs", []), verbs):
        yield RequestInfo(path=path, verb=verb)
