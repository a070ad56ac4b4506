"""How many bindings of each pod count, so that what the pods of a namespace need is bounded.

A tenant may bind hundreds of identities to thousands of pods, and the controller keeps each need.
So where a namespace would need too much, of each of its pods the heaviest bindings count alone. A
pod that nothing is bound to needs nothing, and takes nothing from others.

A share is one of a few numbers, so it seldom changes when a pod or a binding comes or goes. Of each
it is known what a namespace would need with it: so a change costs the same for any cluster.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from podidentity.core.decision import MOST_BOUND

MOST_OF_NAMESPACE = 50_000
"""Needs of one namespace that are kept, 60 MB and half a second of a processor where all change."""
SHARES = (MOST_BOUND, 256, 128, 64, 32, 16)
"""With the last one a namespace may need more: as much as its pods have bindings up to it."""


@dataclass(slots=True)
class _Namespace:
    needs: Counter[int] = field(default_factory=Counter)
    """By share."""
    told: int = MOST_BOUND

    @property
    def share(self) -> int:
        fitting = (share for share in SHARES if self.needs[share] <= MOST_OF_NAMESPACE)
        return next(fitting, SHARES[-1])


class Shares:
    """The share of each namespace, by the pods and bindings that are counted."""

    def __init__(self, *, cross_namespace: bool) -> None:
        """`cross_namespace`: a binding selects the pods of all namespaces."""
        self._cross_namespace = cross_namespace
        self._pods: dict[str, dict[str, int]] = {}
        """By selector and namespace."""
        self._bindings: dict[tuple[str, str], int] = {}
        self._namespaces: dict[str, _Namespace] = {}
        """Those that need anything."""

    def of(self, namespace: str) -> int:
        known = self._namespaces.get(namespace)
        return MOST_BOUND if known is None else known.share

    def bound(self, namespace: str, selector: str) -> int:
        return self._bindings.get(self._place(namespace, selector), 0)

    def is_news(self, namespace: str) -> bool:
        """Whether fewer bindings of a pod count than this ever said of a namespace.

        That is forgotten with the namespace's last need.
        """
        known = self._namespaces.get(namespace)
        if known is None or known.share >= known.told:
            return False
        known.told = known.share
        return True

    def count_pods(self, namespace: str, selector: str, change: int) -> list[str]:
        """Take that pods came or went; return the namespaces that have another share now."""
        pods = self._pods.setdefault(selector, {})
        now = pods.pop(namespace, 0) + change
        if now:
            pods[namespace] = now
        elif not pods:
            del self._pods[selector]
        bound = self.bound(namespace, selector)
        more = {share: change * min(bound, share) for share in SHARES}
        return [namespace] if self._add(namespace, more) else []

    def count_bindings(self, namespace: str, selector: str, change: int) -> list[str]:
        """Take that bindings came or went; return the namespaces that have another share now."""
        place = self._place(namespace, selector)
        before = self._bindings.pop(place, 0)
        now = before + change
        if now:
            self._bindings[place] = now
        of_each = {share: min(now, share) - min(before, share) for share in SHARES}
        pods = self._pods.get(selector, {})
        concerned = pods if self._cross_namespace else {namespace} & pods.keys()
        return [
            each
            for each in concerned
            if self._add(each, {share: pods[each] * more for share, more in of_each.items()})
        ]

    def _place(self, namespace: str, selector: str) -> tuple[str, str]:
        return ("" if self._cross_namespace else namespace, selector)

    def _add(self, namespace: str, more: Mapping[int, int]) -> bool:
        """Add to what a namespace needs, by share; return whether its share is another."""
        before = self.of(namespace)
        known = self._namespaces.setdefault(namespace, _Namespace())
        known.needs.update(more)
        if not known.needs.total():
            del self._namespaces[namespace]
        return self.of(namespace) != before
