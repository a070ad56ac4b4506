"""What MIC itself attached to a host: the only identities that it ever detaches.

A ledger is written before the change that it speaks of, so a crash leaves nothing on a host that
nobody remembers. An identity is ours if it was absent in the read before our own change; what was
there before belongs to somebody else, and stays.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from podidentity.core.hosts import Host, HostChange, HostIdentities
from podidentity.core.resources import ResourceId

MOST_AT_ONCE = 150
"""Identities that one change may name: the archived project found more to be refused."""
LONGEST_CHANGE = 900.0
"""Seconds after which a change of which nothing was heard cannot come any more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An identity that should be attached to a host."""

    resource_id: ResourceId
    client_id: str
    """In lower case; "" if it is not known."""
    clients: frozenset[str] = frozenset()
    """Client ids for which the permission was given, in lower case; empty where none is needed."""


@dataclass(frozen=True, slots=True)
class LedgerEntry:
    """An identity in a ledger."""

    spelling: str
    """Its ARM id."""
    since: float
    """When it entered this part of the ledger, in seconds since 1970."""
    client_id: str = ""
    """In lower case; "" if it is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ledger:
    """The ledger of one host; each map is by ARM id in lower case, and no id is in two of them."""

    host: Host
    attached: Mapping[str, LedgerEntry] = field(default_factory=dict)
    attaching: Mapping[str, LedgerEntry] = field(default_factory=dict)
    """A change under way attaches them, or was under way when its MIC ended."""
    detaching: Mapping[str, LedgerEntry] = field(default_factory=dict)
    """A change under way detaches them, or was under way when its MIC ended."""

    @property
    def empty(self) -> bool:
        return not (self.attached or self.attaching or self.detaching)

    @property
    def unresolved(self) -> bool:
        """Whether a change is under way, or its end was not seen."""
        return bool(self.attaching or self.detaching)

    def resolved(
        self,
        seen: HostIdentities,
        now: float,
        *,
        ended: bool,
        landed: frozenset[str] | None = None,
    ) -> Self:
        """Return the ledger after a read of the host, which was made at the time `now`.

        `ended`: all changes that it speaks of have ended. Otherwise one may still come, for
        `LONGEST_CHANGE` seconds: what it was to attach, and to detach, stays noted. `landed` are
        the ids that changes may have attached, None: all; what else is there another has attached.
        """
        user = seen.user
        attached = {each: entry for each, entry in self.attached.items() if each in user}
        attaching, detaching = {}, {}
        for each, entry in self.attaching.items():
            if each in user:
                if landed is None or each in landed:
                    attached[each] = entry
            elif not ended and now < entry.since + LONGEST_CHANGE:
                attaching[each] = entry
        for each, entry in self.detaching.items():
            if each in user and (ended or now >= entry.since + LONGEST_CHANGE):
                attached[each] = entry
            elif each in user or seen.state == "failed":
                # After a change that failed the machines may have what is not listed.
                detaching[each] = entry
        return replace(self, attached=attached, attaching=attaching, detaching=detaching)

    def intending(self, plan: HostPlan, seen: HostIdentities, now: float) -> Self:
        """Return the ledger to write before the change that `plan` makes of the host `seen`.

        An identity that the host has already, and the ledger does not, is another's and stays so.
        """
        attached, attaching = dict(self.attached), dict(self.attaching)
        detaching = dict(self.detaching)
        for wanted in plan.attach:
            folded = wanted.resource_id.folded
            if folded not in seen.user:
                attaching[folded] = LedgerEntry(wanted.resource_id.spelling, now, wanted.client_id)
                detaching.pop(folded, None)
        for folded in plan.detach:
            entry = attached.pop(folded) if folded in attached else detaching[folded]
            detaching[folded] = replace(entry, since=now)
        return replace(self, attached=attached, attaching=attaching, detaching=detaching)

    def covered(self, plan: HostPlan, seen: HostIdentities) -> HostPlan:
        """Return the part of a plan of which this ledger speaks; pods may have come since."""
        known = seen.user.keys() | self.attaching.keys()
        attach = tuple(each for each in plan.attach if each.resource_id.folded in known)
        detach = tuple(each for each in plan.detach if each in self.detaching)
        return replace(plan, attach=attach, detach=detach)


@dataclass(frozen=True, slots=True, kw_only=True)
class HostPlan:
    """One change to make of a host."""

    attach: tuple[Wanted, ...] = ()
    detach: tuple[str, ...] = ()
    """Ids in lower case."""
    again: bool = False
    """Whether what is listed must be sent again: the machines may have more."""

    @property
    def empty(self) -> bool:
        return not (self.attach or self.detach or self.again)

    def change(self, seen: HostIdentities) -> HostChange:
        attach = [each.resource_id for each in self.attach]
        change = replace(
            HostChange.of(seen, attach=attach, detach=self.detach),
            clients=tuple(
                (each.resource_id.spelling, each.clients) for each in self.attach if each.clients
            ),
        )
        if change.attach or change.detach or not seen.user:
            return change
        # Azure applies the whole again, whatever a change names.
        return replace(change, attach=(min(seen.user.values()),))


def plan(
    ledger: Ledger,
    seen: HostIdentities,
    wanted: Mapping[str, Wanted],
    *,
    proved: frozenset[str],
    refused: frozenset[str],
    unneeded: frozenset[str],
    most: int = MOST_AT_ONCE,
) -> HostPlan:
    """Return the next change of the host `seen`: what is wanted and missing, ours and unneeded.

    `proved` are ids that a read or an operation has shown on the machines: after a change that
    failed the others are sent again. `refused` are left out: Azure has refused them, for a while.
    `unneeded` are those that nothing has needed for the time of grace. What a change of which
    nothing was heard may still detach is attached again, so that that change finds another host
    than it knew.
    """
    attach = [
        each
        for folded, each in wanted.items()
        if folded not in refused
        and (
            folded not in seen.user
            or folded in ledger.detaching
            or (seen.state == "failed" and folded not in proved)
        )
    ][:most]
    ours = (*ledger.attached, *ledger.detaching)
    detach = [
        each
        for each in ours
        if each in unneeded and each in seen.user and each not in wanted and each not in refused
    ]
    again = seen.state == "failed" and not ledger.detaching.keys() <= seen.user.keys()
    return HostPlan(attach=tuple(attach), detach=tuple(detach[: most - len(attach)]), again=again)


def immutable(
    entry: LedgerEntry, folded: str, seen: HostIdentities, protected: frozenset[str]
) -> bool:
    """Whether the operator forbids to detach the identity.

    `protected` are client ids and ARM ids in lower case.
    """
    clients = {entry.client_id, seen.clients.get(folded, "")}
    return folded in protected or bool(clients & protected)
