"""The open connections of a listener, shared out fairly: each holder pays for what it holds.

A holder is a pod, an address that is not proved yet, or the node itself. Addresses that are not
proved share one small pool, because a pod on a bridge can speak with many of them. Where there is
no place left, the holder with most connections loses the one that has been idle longest; so a
newcomer gets a place from whoever has more than it. The same holds for the memory of requests.

The time of the event loop is shared out as well: a few requests are begun in each turn of it, and
of more than that the holders begin one each in turns.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import IntEnum, auto
from typing import Generic, Protocol, TypeVar

from podidentity.nmi.server.messages import Limits

SETTLED_SECONDS = 1.0
"""An address at its own limit loses a connection that was idle for so long, else gets no other:
so a flood of connections costs little more than their acceptance."""
BEGUN_AT_ONCE = 4
"""Requests that are begun in one turn of the event loop; each costs it some 0.3 ms."""


READ_AT_ONCE = 4
"""Connections of an address, not proved, that are read where they are accepted; others take turns:
else whoever opens hundreds has everybody behind him in the backlog wait until all are read."""


class Kind(IntEnum):
    """What a holder is; a number, which is hashed without Python code."""

    LOCAL = auto()
    POD = auto()
    ADDRESS = auto()


class Evictable(Protocol):
    """A connection, as far as the pool cares."""

    @property
    def busy(self) -> bool:
        """Whether a request is under way."""

    @property
    def since(self) -> float:
        """Time of the loop at which something last happened on it."""

    def evict(self) -> None:
        """Close it; `ConnectionPool.remove` is called when it is gone, at once or later."""

    def begin_now(self) -> None:
        """Begin what `ConnectionPool.may_begin` has put off."""


_C = TypeVar("_C", bound=Evictable)


class Holder(Generic[_C]):
    """The connections of one pod, address, or of the node, and the memory of their requests."""

    __slots__ = ("connections", "held", "kind", "name", "put_off")

    def __init__(self, kind: Kind, name: str) -> None:
        self.kind = kind
        self.name = name
        """Uid of the pod, or the address."""
        self.connections: dict[_C, int] = {}
        """Bytes of requests in memory, by connection."""
        self.held = 0
        self.put_off: deque[_C] = deque()
        """Whose requests are begun in later turns."""

    def longest_idle(self, but: _C | None = None) -> _C | None:
        """Return the connection to close first: an idle one if there is one."""
        found = (each for each in self.connections if each is not but)
        return min(found, key=lambda each: (each.busy, each.since), default=None)


class ConnectionPool(Generic[_C]):
    """Counts connections, and says which one must go."""

    def __init__(
        self,
        limits: Limits,
        time: Callable[[], float],
        soon: Callable[[Callable[[], None]], object],
    ) -> None:
        """`soon` has something called in the next turn of the event loop."""
        self._limits = limits
        self._time = time
        self._soon = soon
        self._begun = 0
        """Requests begun in this turn of the event loop."""
        self._turning = False
        """Whether `_turn` is called in the next one."""
        self._waiting: deque[Holder[_C]] = deque()
        """Whose requests were put off; the first one's turn comes first."""
        self._holders: dict[tuple[Kind, str], Holder[_C]] = {}
        self._of: dict[_C, Holder[_C]] = {}
        self._count = dict.fromkeys(Kind, 0)
        self.held = 0
        """Bytes of requests in memory, of all connections."""

    def __len__(self) -> int:
        return len(self._of)

    def connections(self) -> list[_C]:
        """Return all that are counted."""
        return list(self._of)

    def makes_room(self, address: str, *, local: bool) -> bool:
        """Return whether a new connection gets a place, taken from another one where it must be."""
        limits = self._limits
        if local:
            holder = self._holders.get((Kind.LOCAL, ""))
            if holder is not None and len(holder.connections) >= limits.local:
                self._evict(holder)
            return True
        holder = self._holders.get((Kind.ADDRESS, address))
        mine = len(holder.connections) if holder is not None else 0
        if holder is not None and mine >= limits.per_address:
            idle = holder.longest_idle()
            if idle is None or idle.busy or self._time() - idle.since < SETTLED_SECONDS:
                return False
            self._evict(holder)
            return True
        if self._count[Kind.ADDRESS] >= limits.unproven:
            most = self._most(Kind.ADDRESS)
            if len(most.connections) <= mine:
                return False
            self._evict(most)
        return True

    def add(self, connection: _C, address: str, *, local: bool) -> None:
        """Count a new connection in."""
        self._put(connection, (Kind.LOCAL, "") if local else (Kind.ADDRESS, address), 0)

    def attribute(self, connection: _C, uid: str) -> None:
        """Count a connection against a pod from now on; those of the node stay the node's."""
        holder = self._of.get(connection)
        if holder is None or holder.kind is Kind.LOCAL:
            return
        if holder.kind is Kind.POD and holder.name == uid:
            return
        held = self._take(connection)
        holder = self._put(connection, (Kind.POD, uid), held)
        if len(holder.connections) > self._limits.per_pod:
            self._evict(holder, but=connection)
        elif self._count[Kind.POD] > self._limits.connections:
            self._evict(self._most(Kind.POD), but=connection)

    def remove(self, connection: _C) -> None:
        """Count a connection out."""
        if connection in self._of:
            self._take(connection)

    def hold(self, connection: _C, held: int) -> bool:
        """Take note that a connection's requests take `held` bytes; return whether they may."""
        holder = self._of.get(connection)
        if holder is None:
            return False
        more = held - holder.connections[connection]
        holder.connections[connection] = held
        holder.held += more
        self.held += more
        if more <= 0:
            return True
        limits = self._limits
        own = limits.held_per_address if holder.kind is Kind.ADDRESS else limits.held_per_pod
        if holder.held > own:
            return False
        while self.held > limits.held_bytes:
            most = max(self._holders.values(), key=lambda each: each.held)
            largest = max(most.connections, key=most.connections.__getitem__)
            if most is holder:
                return False
            self._take(largest)
            largest.evict()
        return True

    def may_read(self, connection: _C) -> bool:
        """Return whether a new connection may be read now; else `begin_now` is called later."""
        holder = self._of.get(connection)
        if holder is None or holder.kind is not Kind.ADDRESS:
            return True
        return len(holder.connections) <= READ_AT_ONCE or self.may_begin(connection)

    def may_begin(self, connection: _C) -> bool:
        """Return whether a request may be begun now; else `begin_now` is called in a later turn.

        Without this whoever has hundreds of requests under way has hundreds decided in one turn,
        and everybody else waits for its end.
        """
        holder = self._of.get(connection)
        if holder is None:
            return True
        if not self._turning:
            self._turning = True
            self._soon(self._turn)
        if not self._waiting and self._begun < BEGUN_AT_ONCE:
            self._begun += 1
            return True
        if not holder.put_off:
            self._waiting.append(holder)
        holder.put_off.append(connection)
        return False

    def _turn(self) -> None:
        """Begin what was put off, as much as one turn has room for."""
        self._begun = 0
        while self._waiting and self._begun < BEGUN_AT_ONCE:
            self._begun += 1
            holder = self._waiting.popleft()
            holder.put_off.popleft().begin_now()
            if holder.put_off:
                self._waiting.append(holder)
        self._turning = self._begun > 0
        if self._turning:
            self._soon(self._turn)

    def _most(self, kind: Kind) -> Holder[_C]:
        found = (each for each in self._holders.values() if each.kind is kind)
        return max(found, key=lambda each: len(each.connections))

    def _evict(self, holder: Holder[_C], but: _C | None = None) -> None:
        """Take the place of a connection, which is counted no more, and close it."""
        found = holder.longest_idle(but)
        if found is not None:
            self._take(found)
            found.evict()

    def _put(self, connection: _C, key: tuple[Kind, str], held: int) -> Holder[_C]:
        holder = self._holders.get(key)
        if holder is None:
            holder = self._holders[key] = Holder(*key)
        holder.connections[connection] = held
        holder.held += held
        self.held += held
        self._count[holder.kind] += 1
        self._of[connection] = holder
        return holder

    def _take(self, connection: _C) -> int:
        """Take a connection from its holder; return the bytes that it holds."""
        holder = self._of.pop(connection)
        held = holder.connections.pop(connection)
        holder.held -= held
        self.held -= held
        self._count[holder.kind] -= 1
        if not holder.connections:
            del self._holders[holder.kind, holder.name]
        return held
