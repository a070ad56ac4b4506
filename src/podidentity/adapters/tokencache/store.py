"""The tokens that are kept: bounded as a whole and for each pod, found by key and by object."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from typing import TypeVar

from podidentity.adapters.tokencache.kept import Kept, Key
from podidentity.core.ids import ObjectRef

CAPACITY = 2000
"""Five megabytes of tokens; a full node's pods need some hundred."""
SHARE = 64
"""Tokens that one pod may fill the store with: who asks for a thousand audiences loses his own."""

_Name = TypeVar("_Name", bound=Hashable)


class Store:
    """Tokens by their key; what was not used for longest makes room."""

    def __init__(self, *, capacity: int = CAPACITY, share: int = SHARE) -> None:
        self._capacity = capacity
        self._share = share
        self._all: OrderedDict[Key, Kept] = OrderedDict()
        self._owned: dict[str, dict[Key, Kept]] = {}
        self._about: dict[ObjectRef, dict[Key, Kept]] = {}
        # The hot path's look-up, without a call in between.
        self.get = self._all.get

    def __len__(self) -> int:
        return len(self._all)

    def all(self) -> Sequence[Kept]:
        """Return all tokens, for who looks on."""
        return tuple(self._all.values())

    def about(self, ref: ObjectRef) -> Sequence[Kept]:
        """Return the tokens that a change of this object may end."""
        return tuple(self._about.get(ref, {}).values())

    def put(self, kept: Kept) -> None:
        """Add or replace, and make room."""
        before = self._all.get(kept.key)
        if before is not None:
            # Who renews what another fetched does not take it over.
            kept.owner = before.owner
            self.drop(before)
        kept.queued = kept.used
        self._all[kept.key] = kept
        owned = self._owned.setdefault(kept.owner, {})
        owned[kept.key] = kept
        for ref in kept.refs:
            self._about.setdefault(ref, {})[kept.key] = kept
        if len(owned) > self._share:
            others = (each for each in owned.values() if each is not kept)
            self.drop(min(others, key=lambda each: each.used, default=kept))
        if len(self._all) > self._capacity:
            self._make_room()

    def drop(self, kept: Kept) -> None:
        """Forget one that is kept."""
        kept.ended()
        del self._all[kept.key]
        _remove(self._owned, kept.owner, kept.key)
        for ref in kept.refs:
            _remove(self._about, ref, kept.key)

    def _make_room(self) -> None:
        """Drop the first in the row that nobody used since it joined; the others join anew."""
        while True:
            kept = next(iter(self._all.values()))
            if kept.used <= kept.queued:
                self.drop(kept)
                return
            kept.queued = kept.used
            self._all.move_to_end(kept.key)


def _remove(groups: dict[_Name, dict[Key, Kept]], name: _Name, key: Key) -> None:
    group = groups[name]
    del group[key]
    if not group:
        del groups[name]
