"""How much memory and reading time the objects of one tenant may take from everybody else.

A tenant may store gigabytes of objects, and every NMI and MIC reads them all. So an object and a
namespace have a budget for each kind. An object over its budget, and the youngest objects of a
namespace over its budget, are left out: NMI, MIC and the commands use the same others. Whether an
object is left out depends on the stored objects alone, never on the order in which they are read.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from math import inf
from typing import Generic, TypeVar

from podidentity.core.resources import Malformed, ObjectRef

KIB, MIB = 1 << 10, 1 << 20


@dataclass(frozen=True, slots=True)
class Budget:
    """The budget of one kind."""

    object: int
    """Bytes of JSON in the part that is decoded: of a pod its labels, else spec and status."""
    namespace: int
    """Bytes of memory for what is kept of all objects of a namespace, by `kept_bytes`."""


BUDGETS = {
    "Pod": Budget(8 * KIB, 24 * MIB),
    "AzureIdentity": Budget(64 * KIB, 4 * MIB),
    "AzureIdentityBinding": Budget(64 * KIB, 4 * MIB),
    "AzurePodIdentityException": Budget(64 * KIB, MIB),
    "AzureAssignedIdentity": Budget(64 * KIB, 16 * MIB),
    "ServiceAccount": Budget(256 * KIB, 2 * MIB),
    "Secret": Budget(256 * KIB, 2 * MIB),
}
"""By kind. 5,000 pods, or 2,000 identities with their bindings, fit into one namespace."""

_OF_OBJECT = 700
"""Bytes of memory around each object: its places in the indexes, and its name there."""


def kept_bytes(value: object) -> int:
    """Return roughly how much memory a value takes."""
    if isinstance(value, str):
        return 56 + len(value)
    if isinstance(value, Mapping):
        return 240 + sum(64 + kept_bytes(key) + kept_bytes(each) for key, each in value.items())
    if isinstance(value, tuple | frozenset):
        return 64 + sum(map(kept_bytes, value))
    if is_dataclass(value):
        return 48 + sum(8 + kept_bytes(getattr(value, each.name)) for each in fields(value))
    return 0


@dataclass(slots=True)
class _Namespace:
    kept: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Creation time and bytes, by name."""
    size: int = 0
    limit: tuple[int, str] | None = None
    """Creation time and name of the oldest object that is left out; all younger ones are, too."""
    order: list[str] = field(default_factory=list)
    """The names of the kept objects by their age, once there is a limit."""

    def age(self, name: str) -> tuple[int, str]:
        """Return what tells a kept object's age; later is younger."""
        return self.kept[name][0], name


class Ration:
    """Which objects of a kind are kept: of each namespace the oldest that fit into its budget.

    What is left out takes no memory here, however much it is. So `stale` becomes True when an
    object is lost that made way: what fits in its place is known after the next list.
    """

    def __init__(self, budget: float = inf) -> None:
        """`budget` is for each namespace, in bytes of memory."""
        self._budget = budget
        self._namespaces: dict[str, _Namespace] = {}
        self.stale = False

    def __contains__(self, ref: ObjectRef) -> bool:
        found = self._namespaces.get(ref.namespace)
        return found is not None and ref.name in found.kept

    def refs(self) -> Iterator[ObjectRef]:
        for namespace, found in self._namespaces.items():
            for name in found.kept:
                yield ObjectRef(namespace, name)

    def namespaces(self) -> list[str]:
        return [name for name, found in self._namespaces.items() if found.limit is not None]

    def left_out(self, namespace: str) -> ObjectRef | None:
        found = self._namespaces.get(namespace)
        return ObjectRef(namespace, found.limit[1]) if found and found.limit else None

    def resume(self, before: Ration) -> list[ObjectRef]:
        """Take the objects of the list before, too: this one did not come to its end.

        Returns those that are left out.
        """
        out = []
        for namespace, found in before._namespaces.items():
            for name, (created, size) in found.kept.items():
                ref = ObjectRef(namespace, name)
                if ref in self:
                    continue
                room = not self.has_no_room(ref, created)
                out += self.keep(ref, created, size - _OF_OBJECT) if room else [ref]
        return out

    def has_no_room(self, ref: ObjectRef, created: int) -> bool:
        found = self._namespaces.get(ref.namespace)
        if found is None or found.limit is None or (created, ref.name) < found.limit:
            return False
        self.stale |= (created, ref.name) == found.limit
        return True

    def keep(self, ref: ObjectRef, created: int, size: int) -> list[ObjectRef]:
        """Take an object that came or changed, and has room by its age.

        Returns the objects that are left out from now on, this one perhaps among them.
        """
        found = self._namespaces.setdefault(ref.namespace, _Namespace())
        before = found.kept.get(ref.name)
        if before is not None:
            self.stale |= found.limit is not None and size + _OF_OBJECT < before[1]
            self._drop(found, ref.name)
        size += _OF_OBJECT
        found.kept[ref.name] = (created, size)
        found.size += size
        if found.limit is not None:
            insort(found.order, ref.name, key=found.age)
        out = []
        while found.size > self._budget:
            if found.limit is None:
                found.order = sorted(found.kept, key=found.age)
            found.limit = found.age(found.order[-1])
            self._drop(found, found.limit[1])
            out.append(ObjectRef(ref.namespace, found.limit[1]))
        return out

    def lose(self, ref: ObjectRef, created: int | None = None) -> None:
        found = self._namespaces.get(ref.namespace)
        if found is None:
            return
        self.stale |= found.limit is not None and (
            ref.name in found.kept or (created, ref.name) == found.limit
        )
        if ref.name in found.kept:
            self._drop(found, ref.name)
        if not found.kept and found.limit is None:
            del self._namespaces[ref.namespace]

    def _drop(self, found: _Namespace, name: str) -> None:
        if found.limit is not None:
            del found.order[bisect_left(found.order, found.age(name), key=found.age)]
        found.size -= found.kept.pop(name)[1]


_T = TypeVar("_T")


class Kept(Generic[_T]):
    """What is kept of a list that is read object by object: one namespace's memory has an end."""

    def __init__(self, kind: str) -> None:
        self._ration = Ration(BUDGETS[kind].namespace)
        self.values: dict[ObjectRef, _T] = {}

    def add(self, ref: ObjectRef, created: int, value: _T) -> list[_T]:
        """Take an object; return those that are left out from now on, this one perhaps of them."""
        if self._ration.has_no_room(ref, created):
            return [value]
        self.values[ref] = value
        return list(map(self.values.pop, self._ration.keep(ref, created, kept_bytes(value))))


def within_budget(kind: str, listed: Iterable[tuple[ObjectRef, int, _T]]) -> list[_T | Malformed]:
    """Return the objects of a whole list, given with their names and creation times.

    Those that are left out are Malformed.
    """
    kept, found = Kept[_T](kind), list(listed)
    for each in found:
        kept.add(*each)
    return [value if ref in kept.values else over_budget(kind, ref) for ref, _, value in found]


def over_budget(kind: str, ref: ObjectRef) -> Malformed:
    """Return what is known of an object that is left out for the budget of its namespace."""
    most = BUDGETS[kind].namespace // MIB
    why = f"its namespace has more than {most} MiB of {kind} objects, and the youngest do not count"
    return Malformed(ref=ref, kind=kind, why=why, left_out=True)
