"""Which permissions matter to which pods and identities, and what the cluster's RBAC said of them.

MIC asks for the permissions of all pods with the binding label. What is forgotten with its last pod
is asked anew for the next one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from podidentity.core.decision import Use
from podidentity.core.resources import ObjectRef

Asked = tuple[tuple[ObjectRef, tuple[Use, ...]], ...]
"""The identities of a pod, each with all permissions that it needs."""


class IdentityPermission(NamedTuple):
    """Whether the pods that an identity is bound to may use it."""

    lacking: Use | None = None
    """What none of them has; None: one of them has all, or there is none."""
    decided: bool = True
    """Whether the cluster has answered."""


class NeededPermissions:
    """The permissions that matter."""

    def __init__(self) -> None:
        self._answers: dict[Use, bool] = {}
        self._asked: dict[ObjectRef, Asked] = {}
        """By pod."""
        self._pods: dict[Use, dict[ObjectRef, None]] = {}
        self._needed: dict[ObjectRef, dict[tuple[Use, ...], dict[ObjectRef, None]]] = {}
        """By identity: what pods of its own namespace need, and which pods."""

    def answer(self, use: Use, *, allowed: bool) -> Iterable[ObjectRef]:
        """Take the cluster's decision; return the pods for which it is another one."""
        if use not in self._pods or self._answers.get(use) is allowed:
            return ()
        self._answers[use] = allowed
        return self._pods[use]

    def known(self, use: Use) -> bool | None:
        return self._answers.get(use)

    def all(self, needed: Sequence[Use]) -> bool | None:
        """Return whether all of `needed` are granted; None if that is not known."""
        answers = [self._answers.get(use) for use in needed]
        if False in answers:
            return False
        return None if None in answers else True

    def of(self, identity: ObjectRef) -> IdentityPermission:
        """Return whether the pods of its namespace that an identity is bound to may use it."""
        answers = {needed: self.all(needed) for needed in self._needed.get(identity, ())}
        if not answers or True in answers.values():
            return IdentityPermission()
        if None in answers.values():
            return IdentityPermission(decided=False)
        refused = (use for needed in answers for use in needed if self._answers.get(use) is False)
        return IdentityPermission(min(refused, key=str))

    def matters(self, use: Use) -> bool:
        return use in self._pods

    def uses(self, namespace: str | None) -> list[Use]:
        """Return the permissions that matter, of the service accounts of a namespace or of all."""
        return [use for use in self._pods if namespace in {None, use.service_account.namespace}]

    def keep(self, pod: ObjectRef, asked: Asked, *, is_there: bool) -> tuple[Asked, list[Use]]:
        """Take what a pod needs, () for nothing any more.

        Returns what it needed before, and the permissions that no pod needed before. Of a pod that
        is not there yet nothing is said for its identity.
        """
        before = self._asked.get(pod, ())
        if before == asked:
            return before, []
        if asked:
            self._asked[pod] = asked
        else:
            del self._asked[pod]
        uses, earlier = _uses(asked), _uses(before)
        new = [use for use in uses if use not in self._pods]
        for use in uses:
            self._pods.setdefault(use, {})[pod] = None
        for use in earlier:
            if use not in uses:
                del self._pods[use][pod]
                if not self._pods[use]:
                    del self._pods[use]
                    self._answers.pop(use, None)
        if is_there:
            self._index(pod, before, asked)
        return before, new

    def _index(self, pod: ObjectRef, before: Asked, asked: Asked) -> None:
        for identity, needed in before:
            if identity.namespace == pod.namespace:
                pods = self._needed[identity][needed]
                del pods[pod]
                if not pods:
                    del self._needed[identity][needed]
                if not self._needed[identity]:
                    del self._needed[identity]
        for identity, needed in asked:
            if identity.namespace == pod.namespace:
                self._needed.setdefault(identity, {}).setdefault(needed, {})[pod] = None


def _uses(asked: Asked) -> dict[Use, None]:
    return dict.fromkeys(use for _, needed in asked for use in needed)
