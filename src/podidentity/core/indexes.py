"""The objects of a cluster in memory, by name and by what the rules ask for.

NMI looks into them at each request and MIC at each change, so each look costs a few dictionary
look-ups, and each change the same, however many objects a tenant makes alike.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from heapq import nsmallest
from typing import Generic, Protocol, TypeVar

from podidentity.core.decision import MOST_BOUND, by_weight
from podidentity.core.resources import AzureIdentityBinding, Malformed, ObjectRef


class _Named(Protocol):
    @property
    def ref(self) -> ObjectRef: ...


_T = TypeVar("_T", bound=_Named)

FEW = 8
"""Objects of one key that are kept in a tuple: thousands of keys have one object each, and it takes
a fifth of a dict's memory. A tenant may give ten thousand one key: each change would copy them.
"""


class Index(Generic[_T]):
    """All objects of one kind, by name and by secondary keys. A change costs the same for any."""

    def __init__(self, keys: Callable[[_T], Iterable[Hashable]] = lambda _: ()) -> None:
        """`keys` returns the secondary keys of an object."""
        self._keys = keys
        self._all: dict[ObjectRef, _T] = {}
        self._by_key: dict[Hashable, tuple[_T, ...] | dict[ObjectRef, _T]] = {}

    def get(self, ref: ObjectRef) -> _T | None:
        return self._all.get(ref)

    def by_key(self, key: Hashable) -> Sequence[_T]:
        found = self._by_key.get(key, ())
        return found if isinstance(found, tuple) else tuple(found.values())

    def values(self) -> Iterable[_T]:
        return self._all.values()

    def sorted(self) -> Sequence[_T]:
        return [self._all[ref] for ref in sorted(self._all)]

    def put(self, value: _T) -> bool:
        """Add or replace; return whether anything changed."""
        before = self._all.get(value.ref)
        if before == value:
            return False
        if before is not None:
            self._remove_keys(before)
        self._all[value.ref] = value
        for key in self._keys(value):
            self._add_key(key, value)
            self._changed(key)
        return True

    def remove(self, ref: ObjectRef) -> _T | None:
        """Remove and return the object of that name, if there is one."""
        before = self._all.pop(ref, None)
        if before is not None:
            self._remove_keys(before)
        return before

    def _add_key(self, key: Hashable, value: _T) -> None:
        others = self._by_key.get(key, ())
        if isinstance(others, dict):
            others[value.ref] = value
        elif len(others) < FEW:
            self._by_key[key] = (*others, value)
        else:
            self._by_key[key] = {each.ref: each for each in (*others, value)}

    def _remove_keys(self, value: _T) -> None:
        for key in self._keys(value):
            rest = self._by_key.get(key, ())
            if isinstance(rest, dict):
                rest.pop(value.ref, None)
            else:
                rest = tuple(each for each in rest if each is not value)
                self._by_key[key] = rest
            if not rest:
                self._by_key.pop(key, None)
            self._changed(key)

    def _changed(self, key: Hashable) -> None:
        """Take note that a key has other objects."""


class BindingIndex(Index[AzureIdentityBinding | Malformed]):
    """Bindings by namespace and selector: the heaviest of each, found once until one changes."""

    def __init__(self) -> None:
        super().__init__(_keys_of_binding)
        self._heaviest: dict[Hashable, tuple[AzureIdentityBinding, ...]] = {}
        """Of those that are many."""
        self._namespaces: dict[str, str | set[str]] = {}
        """By selector; most are of one namespace."""

    def heaviest(self, namespace: str, selector: str) -> Sequence[AzureIdentityBinding]:
        """Return the bindings with exactly this selector, of more than MOST_BOUND those that count.

        In any order.
        """
        key = namespace, selector
        known = self._heaviest.get(key)
        if known is not None:
            return known
        found = [each for each in self.by_key(key) if isinstance(each, AzureIdentityBinding)]
        if len(found) <= MOST_BOUND:
            return found
        known = self._heaviest[key] = tuple(nsmallest(MOST_BOUND, found, key=by_weight))
        return known

    def namespaces_with(self, selector: str) -> Sequence[str]:
        """Return the namespaces that have a binding with this selector, sorted."""
        found = self._namespaces.get(selector, ())
        return [found] if isinstance(found, str) else sorted(found)

    def _changed(self, key: Hashable) -> None:
        self._heaviest.pop(key, None)
        if not isinstance(key, tuple) or len(key) != 2:
            return  # of malformed ones
        namespace, selector = key
        found = self._namespaces.get(selector, ())
        others = {found} if isinstance(found, str) else set(found)
        if (key in self._by_key) == (namespace in others):
            return
        others ^= {namespace}
        if others:
            self._namespaces[selector] = others if len(others) > 1 else others.pop()
        else:
            del self._namespaces[selector]


def _keys_of_binding(binding: AzureIdentityBinding | Malformed) -> Iterable[Hashable]:
    """Return its namespace and selector, and of one that is malformed that it is."""
    key = binding.ref.namespace, binding.selector
    return ((*key, "malformed"),) if isinstance(binding, Malformed) else (key,)
