"""Objects by name, and by whatever else they are asked for: one dictionary look-up each."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from typing import Generic, Protocol, TypeVar

from podidentity.core.ids import ObjectRef


class _Named(Protocol):
    @property
    def ref(self) -> ObjectRef: ...


_T = TypeVar("_T", bound=_Named)


class Shelf(Generic[_T]):
    """All objects of one kind."""

    def __init__(self, keys: Callable[[_T], Iterable[Hashable]] = lambda _: ()) -> None:
        """`keys` returns what an object can also be found by."""
        self._keys = keys
        self._all: dict[ObjectRef, _T] = {}
        self._groups: dict[Hashable, dict[ObjectRef, _T]] = {}

    def get(self, ref: ObjectRef) -> _T | None:
        """Return the object of that name."""
        return self._all.get(ref)

    def group(self, key: Hashable) -> Sequence[_T]:
        """Return the objects with that key."""
        found = self._groups.get(key)
        return tuple(found.values()) if found else ()

    def values(self) -> Iterable[_T]:
        """Return all objects, in no order."""
        return self._all.values()

    def sorted(self) -> Sequence[_T]:
        """Return all objects, in order of namespace and name."""
        return [self._all[ref] for ref in sorted(self._all)]

    def put(self, value: _T) -> bool:
        """Add or replace; return whether anything changed."""
        before = self._all.get(value.ref)
        if before == value:
            return False
        if before is not None:
            self._ungroup(before)
        self._all[value.ref] = value
        for key in self._keys(value):
            self._groups.setdefault(key, {})[value.ref] = value
        return True

    def remove(self, ref: ObjectRef) -> _T | None:
        """Remove and return the object of that name, if there is one."""
        before = self._all.pop(ref, None)
        if before is not None:
            self._ungroup(before)
        return before

    def _ungroup(self, value: _T) -> None:
        for key in self._keys(value):
            group = self._groups.get(key, {})
            group.pop(value.ref, None)
            if not group:
                self._groups.pop(key, None)
