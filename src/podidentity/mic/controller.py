"""The controller: from what happens to the calls that follow.

    events ──▶ core.assignments ──▶ hosts that should change ──▶ hosts ──▶ gates ──▶ Azure
                      │                                            │
                      └──────────▶ records that should change ◀────┘ what is proved

`Controller` is a state machine without input or output. Whatever happens only marks what it
concerns, a host, a record, a condition; then each marked one is looked at (`HostWork.next`,
`Records.next`, `Conditions.next`) and gives the call that is due, if there is one. So an event
costs what it concerns, the order of events does not matter, and a lost one is made good by any
later look.

Nothing is written before this MIC leads and has read the ledgers; nothing after the time until
which it may.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from heapq import heapify, heappop, heappush
from math import inf
from typing import Any, Literal, NamedTuple

from podidentity.backoff import backoff
from podidentity.core.assignments import Assignments, Need, attachment
from podidentity.core.decision import STRICT, Rules, Use, lacking
from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.ledger import Wanted
from podidentity.core.rate_limits import FairSet
from podidentity.core.resources import (
    AzureIdentityBinding,
    AzurePodIdentityException,
    ObjectRef,
)
from podidentity.mic.calls import (
    LISTS,
    About,
    Action,
    AskPermission,
    BindingSeen,
    Call,
    Deposed,
    Event,
    ExceptionSeen,
    Failure,
    Fault,
    HostList,
    IdentitySeen,
    InUse,
    Leading,
    LedgerList,
    ListHosts,
    ListLedgers,
    LogLine,
    NodeGone,
    NodeSeen,
    ObjectGone,
    Obstacle,
    PatchHost,
    Pausing,
    PermissionsChanged,
    PodGone,
    PodSeen,
    PollOperation,
    ReadHost,
    RecordGone,
    RecordSeen,
    Result,
    Synced,
    TellEvent,
    Trouble,
    Unclear,
    WriteCondition,
)
from podidentity.mic.conditions import ConditionOf, Conditions
from podidentity.mic.gates import Gate
from podidentity.mic.hosts import HostWork, Kind, Status
from podidentity.mic.questions import PermissionQuestions
from podidentity.mic.records import Records, Revisions


class Assign(StrEnum):
    """What gets identities; values are those of `--assign`."""

    PODS = "pods"
    """Each host what its pods need, and each pod its records (standard mode)."""
    ALL_HOSTS = "all-hosts"
    """Every host all identities that the cluster may use (managed mode without AKS's add-on)."""
    NONE = "none"
    """No host, and no record; only conditions are written."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """The operator's choices. Times are in seconds."""

    assign: Assign = Assign.PODS
    rules: Rules = STRICT
    asks_permission: bool = True
    """Whether RBAC decides; not with `--authorization=observe` and `off`."""
    node_network: bool = False
    """Whether a pod of the node's network counts as any other."""
    grace: float = 300.0
    """Time before an identity that nothing needs is detached."""
    reconcile: float = 180.0
    """Interval in which hosts are read, whatever happens."""
    protected: frozenset[str] = frozenset()
    """Client ids and ARM ids in lower case that are never detached."""
    record_writes: int = 50
    condition_writes: int = 5
    event_writes: int = 5
    questions: int = 20
    """Calls of each kind that may be under way at once."""
    allowed: float = 1800.0
    denied: float = 60.0
    """Times after which a permission is asked for again."""


LISTED_FROM = 3
"""Hosts of a resource group from which on they are read by a list."""
EVENT_AGAIN = 60.0
"""Seconds between two events about a binding, at least."""
LOOKS = 200
"""Records that are looked at in one go. With thousands, as where a leader begins, what the first
ones call for goes out before the last ones are looked at, and who else waits has a turn."""
_MOST_TOLD = 2_000
"""Bindings with an event from which on those of more than a minute ago are forgotten."""


class _Group(NamedTuple):
    """What one list of Azure's shows."""

    subscription: str
    group: str
    scale_sets: bool


class _Owner(NamedTuple):
    """Whose a call or a timer is."""

    kind: str
    key: Any = None
    """Hashable."""


_LEDGERS, _RECONCILE, _MORE = _Owner("ledgers"), _Owner("reconcile"), _Owner("more")


EventType = Literal["Normal", "Warning"]


class Timers:
    """The next time at which each owner is to be looked at."""

    def __init__(self) -> None:
        self._times: dict[_Owner, tuple[float, int]] = {}
        """Time and number of each."""
        self._valid: set[int] = set()
        """The numbers: to look one up costs less than an owner."""
        self._heap: list[tuple[float, int, _Owner]] = []
        self._count = 0

    def set(self, owner: _Owner, time: float | None) -> None:
        known = self._times.get(owner)
        if known is not None:
            if known[0] == time:
                return
            self._valid.remove(known[1])
        if time is None:
            if known is not None:
                del self._times[owner]
            return
        self._count += 1
        self._times[owner] = (time, self._count)
        self._valid.add(self._count)
        heappush(self._heap, (time, self._count, owner))
        if len(self._heap) > 64 + 4 * len(self._times):
            self._heap = [entry for entry in self._heap if entry[1] in self._valid]
            heapify(self._heap)

    def first(self) -> float | None:
        heap, valid = self._heap, self._valid
        while heap and heap[0][1] not in valid:
            heappop(heap)
        return heap[0][0] if heap else None

    def passed(self, now: float) -> list[_Owner]:
        owners = []
        while (time := self.first()) is not None and time <= now:
            _, number, owner = heappop(self._heap)
            del self._times[owner]
            self._valid.remove(number)
            owners.append(owner)
        return owners


@dataclass(slots=True)
class _Marks:
    """What is to be looked at, in order; but for hosts, namespaces take turns.

    In the turn of a namespace the record of its oldest pod comes first.
    """

    records: FairSet[ObjectRef]
    hosts: dict[Host, None] = field(default_factory=dict)
    told: FairSet[ObjectRef] = field(default_factory=lambda: FairSet(_namespace_of))
    """Records that say Assigned already, of a host that was read: they come last."""
    uses: FairSet[Use] = field(
        default_factory=lambda: FairSet(lambda use: use.service_account.namespace)
    )
    conditions: FairSet[ConditionOf] = field(
        default_factory=lambda: FairSet(lambda subject: subject.ref.namespace)
    )
    events: FairSet[ObjectRef] = field(default_factory=lambda: FairSet(_namespace_of))
    """Bindings with an event that is not written yet."""

    @property
    def waiting(self) -> int:
        return self.records.size + self.told.size


def _namespace_of(record: ObjectRef) -> str:
    return record.namespace


class Controller:
    """The controller of one MIC. Times are seconds since 1970 that never go back."""

    def __init__(self, settings: Settings = Settings()) -> None:
        self._settings = settings
        self._desired = Assignments(
            settings.rules,
            everywhere=settings.assign is Assign.ALL_HOSTS,
            asks=settings.asks_permission,
            node_network=settings.node_network,
        )
        self._records = Records(self._desired.record, self._status, self._revisions_of)
        self._conditions = Conditions(settings.rules)
        self._works: dict[Host, HostWork] = {}
        self._gates: defaultdict[tuple[str, Kind], Gate] = defaultdict(Gate)
        self._unlistable: set[_Group] = set()
        self._revisions: dict[tuple[About, ObjectRef], str] = {}
        self._told: dict[ObjectRef, float] = {}
        """When the last event about a binding was made."""
        self._events: dict[ObjectRef, TellEvent] = {}
        """Those of `_marks.events`: each call has a connection."""
        self._questions = PermissionQuestions(allowed=settings.allowed, denied=settings.denied)
        self._unclear: dict[str, set[str]] = {}
        """What is left out, by namespace."""
        self._strange: dict[str, str] = {}
        """Provider IDs of nodes that are none of Azure's."""

        self._marks = _Marks(records=FairSet(_namespace_of, self._desired.born))
        self._timers = Timers()
        self._flights: dict[int, tuple[_Owner, Action]] = {}
        self._in_flight = dict.fromkeys(("record", "condition", "event", "use"), 0)
        self._calls: list[Call] = []
        self._numbers, self._now = 0, -inf

        self._synced = False
        self._until = -inf
        """Until when this MIC leads."""
        self._has_ledgers = False
        self._listings = 0
        """Failures in a row to list the ledgers."""
        self._pausing = Pausing()

    # The three ways in, and the time.

    def on_event(self, event: Event, now: float) -> list[Call]:
        self._now = now
        _HANDLERS[type(event)](self, event)
        return self._run()

    def on_result(self, number: int, result: Result, now: float) -> list[Call]:
        self._now = now
        flight = self._flights.pop(number, None)
        if flight is None:
            # Of a time before this MIC led last.
            return []
        owner, action = flight
        if owner.kind in self._in_flight:
            self._in_flight[owner.kind] -= 1
        _TAKERS[owner.kind](self, owner.key, action, result)
        return self._run()

    def on_time(self, now: float) -> list[Call]:
        self._now = now
        for owner in self._timers.passed(now):
            _TIMERS[owner.kind](self, owner.key)
        return self._run()

    def due(self) -> float | None:
        """Return when `on_time` is to be called; None if only events can change anything."""
        return self._timers.first()

    @property
    def leads(self) -> bool:
        """Whether this MIC may write, as it knew when it was told something last."""
        return self._now < self._until

    def troubles(self, now: float) -> Iterator[Trouble]:
        """Yield what keeps it from its work in Azure: subscriptions, and then hosts."""
        silent = set()
        for (subscription, kind), gate in sorted(self._gates.items(), key=lambda each: each[0]):
            if gate.sick:
                silent.add(subscription)
                yield Trouble(Obstacle.SILENT, f"{kind}s of subscription {subscription}")
            elif gate.closed(now):
                what = f"{kind}s of subscription {subscription}"
                yield Trouble(Obstacle.THROTTLED, what, gate.closed_until)
        for host, work in sorted(self._works.items(), key=lambda each: each[0].folded):
            if host.subscription not in silent and (why := work.ailment()):
                yield Trouble(Obstacle.HOST, f"{host.name}: {why}")

    # What is to be done.

    def _run(self) -> list[Call]:
        leads = self.leads
        if self._synced:
            # Before, each binding would have all its pods decided on anew.
            self._refresh()
            self._look_at_uses()
            if leads:
                self._look()
        if not leads:
            # All is looked at when this MIC leads; until then they would only become more.
            self._marks.records.clear()
            self._marks.told.clear()
            self._marks.conditions.clear()
            self._marks.events.clear()
            self._events.clear()
        calls, self._calls = self._calls, []
        return calls

    def _look(self) -> None:
        """Look at what is marked: mostly there is nothing of most kinds."""
        marks = self._marks
        most = marks.waiting + LOOKS
        while marks.hosts and marks.waiting < most:
            host = next(iter(marks.hosts))
            del marks.hosts[host]
            self._look_at_host(host)
        if marks.waiting:
            self._look_at_records()
        if self._conditions.marked or marks.conditions.size:
            self._look_at_conditions()
        if marks.events.size:
            self._look_at_events()
        if marks.hosts or (
            marks.waiting and self._in_flight["record"] < self._settings.record_writes
        ):
            # The rest is looked at as soon as others have had their turn.
            self._timers.set(_MORE, self._now)

    def _refresh(self) -> None:
        if not self._desired.outdated:
            return
        changes = self._desired.refresh()
        self._marks.uses.update(changes.questions)
        for identity in changes.identities:
            permission = self._desired.permission(identity)
            if self._conditions.permit(identity, permission) and permission.lacking is not None:
                message = str(lacking(permission.lacking))
                for each in self._desired.bindings_to(identity):
                    self._tell(each.ref, "Warning", "binding apply error", message)
        self._marks.records.update(changes.records)
        for namespace, share in changes.shares.items():
            said = (
                f"Namespace {namespace} has so many pods with identities that of the bindings of "
                f"each the heaviest {share} count; the others get no record."
            )
            step = "Give pods labels of their own, with fewer bindings each."
            self.report(LogLine("many-bindings", said, step))
        for host in changes.hosts if self._has_ledgers else ():
            if host in self._works or self.wanted(host):
                work = self._works.get(host) or self._add_work(host)
                work.touch(self._now)
                self._marks.hosts[host] = None

    def _look_at_host(self, host: Host) -> None:
        work = self._works.get(host)
        if work is None:
            return
        action = work.next(self._now)
        self._spread(work)
        owner = _Owner("host", host)
        self._timers.set(owner, work.due)
        if action is not None:
            self._issue(owner, action)
        elif work.droppable(self._now):
            self._drop_work(host)

    def _look_at_records(self) -> None:
        marks, most = self._marks, self._settings.record_writes
        if self._settings.assign is not Assign.PODS:
            marks.records.clear()
            marks.told.clear()
        left = LOOKS
        while marks.waiting and self._in_flight["record"] < most and left:
            left -= 1
            ref = (marks.records if marks.records.size else marks.told).take()
            if self._may_be_needed(ref):
                continue
            action = self._records.next(ref, self._now)
            owner = _Owner("record", ref)
            self._timers.set(owner, self._records.due)
            if action is not None:
                self._issue(owner, action)

    def _may_be_needed(self, ref: ObjectRef) -> bool:
        """Whether only objects that are left out may need the record."""
        everywhere = self._settings.rules.cross_namespace or "" in self._unclear
        unclear = self._unclear if everywhere else self._unclear.keys() & {ref.namespace}
        return bool(unclear) and self._desired.record(ref) is None

    def _look_at_conditions(self) -> None:
        marked, most = self._marks.conditions, self._settings.condition_writes
        marked.update(self._conditions.marked)
        self._conditions.marked.clear()
        while marked.size and self._in_flight["condition"] < most:
            subject = marked.take()
            found = self._conditions.next(subject, self._now)
            owner = _Owner("condition", subject)
            if isinstance(found, WriteCondition):
                self._issue(owner, found)
            else:
                self._timers.set(owner, found)

    def _look_at_events(self) -> None:
        waiting = self._marks.events
        while waiting.size and self._in_flight["event"] < self._settings.event_writes:
            self._issue(_Owner("event"), self._events.pop(waiting.take()))

    def _look_at_uses(self) -> None:
        marked, most = self._marks.uses, self._settings.questions
        while marked.size and self._in_flight["use"] < most:
            use = marked.take()
            if self._desired.asked(use):
                self._issue(_Owner("use", use), AskPermission(use))
            else:
                self._questions.forget(use)

    def _issue(self, owner: _Owner, action: Action) -> None:
        self._numbers += 1
        self._flights[self._numbers] = (owner, action)
        if owner.kind in self._in_flight:
            self._in_flight[owner.kind] += 1
        self._calls.append(Call(self._numbers, action))

    # Leadership.

    def _begin(self) -> None:
        """Lead: everything is looked at, and the ledgers are read first."""
        self._forget_flights()
        if self._settings.assign is not Assign.NONE:
            self._issue(_LEDGERS, ListLedgers())
        self._conditions.mark_all()
        # Records that are missing, that are left over, or that wait for no host. The others are
        # told of when their host is read: to look at all twice would keep the first write waiting.
        needed, stored = self._desired.records, self._records.names
        marked = [ref for ref in stored if ref not in needed]
        marked += [ref for ref, need in needed.items() if ref not in stored or need.host is None]
        self._marks.records.update(marked)

    def _forget_flights(self) -> None:
        """Forget what is under way: its results will not come, or mean nothing any more."""
        questions = {owner.key: None for owner, _ in self._flights.values() if owner.kind == "use"}
        self._flights.clear()
        self._in_flight = dict.fromkeys(self._in_flight, 0)
        self._marks.uses.update(questions)
        self._records.forget_flights()
        for host in list(self._works):
            self._drop_work(host)
        self._marks.hosts.clear()
        self._has_ledgers = False
        for gate in self._gates.values():
            gate.forget()

    def _take_leading(self, event: Leading) -> None:
        led = self.leads
        self._until = event.until
        if self._synced and not led:
            self._begin()

    def _take_deposed(self, _: Deposed) -> None:
        self._until = -inf
        self._forget_flights()

    def _take_synced(self, _: Synced) -> None:
        if not self._synced:
            self._synced = True
            self._refresh()
            if self.leads:
                self._begin()

    def _take_ledgers(self, _: None, __: Action, result: Result) -> None:
        if not isinstance(result, LedgerList):
            self._listings += 1
            after = result.retry_after if isinstance(result, Failure) else 0.0
            pause = backoff(1.0, self._listings, 30.0)
            self._timers.set(_LEDGERS, self._now + max(after, pause))
            return
        self._listings = 0
        if self._has_ledgers:
            for host, stored in result.ledgers.items():
                work = self._works.get(host)
                if work is not None:
                    work.compare(stored)
                elif stored.ledger is not None and not stored.ledger.empty:
                    self._add_work(host).adopt(stored)
                self._marks.hosts[host] = None
            return
        self._has_ledgers = True
        for host, stored in result.ledgers.items():
            self._add_work(host).adopt(stored)
        for host in self._desired.hosts:
            # Where permissions are not known yet a read is worth its price too: by a list.
            if host not in self._works and (self.wanted(host) or self.undecided(host)):
                self._add_work(host)
        if self.leads:
            self._survey()

    def _relist_ledgers(self, _: None) -> None:
        if self.leads and not self._has_ledgers:
            self._issue(_LEDGERS, ListLedgers())

    # Hosts.

    def _add_work(self, host: Host) -> HostWork:
        work = HostWork(host, self, grace=self._settings.grace, protected=self._settings.protected)
        self._works[host] = work
        return work

    def _drop_work(self, host: Host) -> None:
        work = self._works.pop(host)
        for folded in work.refused:
            self._conditions.refuse(folded, host, None)
        self._timers.set(_Owner("host", host), None)

    def _spread(self, work: HostWork) -> None:
        """Tell records, conditions and people what is new on a host."""
        changed, work.changed = work.changed, {}
        for folded in changed:
            needs = list(self._desired.needed_by(work.host, folded))
            for ref in map(self._desired.name, needs):
                said = self._records.says_assigned(ref)
                (self._marks.told if said else self._marks.records).add(ref)
            condition = work.refusal(folded)
            if work.status(folded) is Status.PROVED:
                self._conditions.prove(folded)
            if self._conditions.refuse(folded, work.host, condition) and condition is not None:
                for ref in {need.binding.ref: None for need in needs}:
                    self._tell(ref, "Warning", "binding apply error", condition.message)

    def _take_host(self, host: Host, action: Action, result: Result) -> None:
        self._works[host].take(result, self._now)
        self._marks.hosts[host] = None
        kind = _GATED.get(type(action))
        if kind is not None:
            self._note(host.subscription, kind, result)

    def _survey_again(self, _: None) -> None:
        if self.leads and self._has_ledgers:
            self._issue(_LEDGERS, ListLedgers())
            self._survey()

    def _survey(self) -> None:
        """Read all hosts, by a list where a group has several."""
        self._timers.set(_RECONCILE, self._now + self._settings.reconcile)
        groups: dict[_Group, list[HostWork]] = {}
        for host, work in self._works.items():
            work.expect_ledger()
            group = _Group(host.subscription, host.group, host.is_scale_set)
            groups.setdefault(group, []).append(work)
        for group, works in groups.items():
            is_listed = len(works) >= LISTED_FROM and group not in self._unlistable
            for work in works:
                if is_listed:
                    work.expect()
                else:
                    work.look_again()
                self._marks.hosts[work.host] = None
            if is_listed:
                self._list(group)

    def _list(self, group: _Group) -> None:
        owner = _Owner("list", group)
        if self._admit(owner, group.subscription, "read"):
            self._issue(owner, ListHosts(*group))

    def _take_list(self, group: _Group, _: Action, result: Result) -> None:
        self._note(group.subscription, "read", result)
        if isinstance(result, Failure) and result.kind is Fault.THROTTLED:
            self._list(group)
            return
        if isinstance(result, Failure) and result.kind in {Fault.FORBIDDEN, Fault.NOT_FOUND}:
            self._unlistable.add(group)
        shown = result.hosts if isinstance(result, HostList) else {}
        listed = [
            host
            for host in self._works
            if _Group(host.subscription, host.group, host.is_scale_set) == group
        ]
        # First those on which a pod waits for its record.
        stored = self._records.names
        waited_for = {need.host for ref, need in self._desired.records.items() if ref not in stored}
        for host in sorted(listed, key=lambda each: each not in waited_for):
            self._works[host].show(shown.get(host), self._now)
            self._marks.hosts[host] = None

    # Gates.

    def _admit(self, owner: _Owner, subscription: str, kind: Kind) -> bool:
        if self._gates[subscription, kind].admit(owner, self._now):
            return True
        self._watch_gate(subscription, kind)
        return False

    def _watch_gate(self, subscription: str, kind: Kind) -> None:
        gate = self._gates[subscription, kind]
        opens = gate.opens() if gate.waiting and self.leads else inf
        self._timers.set(_Owner("gate", (subscription, kind)), None if opens == inf else opens)

    def _note(self, subscription: str, kind: Kind, result: Result) -> None:
        """Take for a gate what came of a call, and let in who waits."""
        gate = self._gates[subscription, kind]
        if isinstance(result, Failure) and result.kind is Fault.THROTTLED:
            gate.throttled(self._now, result.retry_after)
        elif isinstance(result, Failure) and result.kind in {Fault.UNREACHABLE, Fault.LOST}:
            gate.failed(self._now)
        else:
            gate.succeeded(self._now)
        self._let_in(subscription, kind)

    def _let_in(self, subscription: str, kind: Kind) -> None:
        gate = self._gates[subscription, kind]
        while gate.waiting and gate.opens() <= self._now and self.leads:
            who = next(iter(gate.waiting))
            (self._list if who.kind == "list" else self._look_at_host)(who.key)
            if gate.waiting and next(iter(gate.waiting)) == who:
                # It does not want to any more.
                gate.leave(who)
        self._watch_gate(subscription, kind)

    # What hosts see of the rest (`hosts.Surroundings`).

    def wanted(self, host: Host) -> Mapping[str, Wanted]:
        if self._is_left(host):
            return {}
        return self._desired.wanted(host)

    def undecided(self, host: Host) -> frozenset[str]:
        return self._desired.undecided(host)

    def in_use(self, host: Host, listed: InUse) -> frozenset[str] | None:
        if self._is_left(host):
            return frozenset()
        return self._desired.in_use(
            host, listed.pods, listed.identities, listed.bindings, listed.unclear
        )

    def _is_left(self, host: Host) -> bool:
        """Whether `host` is a machine that no node runs on, where all hosts get identities.

        A scale set without a node keeps what its next one will need.
        """
        if self._settings.assign is not Assign.ALL_HOSTS or host.is_scale_set:
            return False
        return not self._desired.has_nodes(host)

    @property
    def doubts(self) -> bool:
        return "" in self._unclear

    def has_nodes(self, host: Host) -> bool:
        return self._desired.has_nodes(host)

    def admit(self, host: Host, kind: Kind, _: float) -> bool:
        return self._admit(_Owner("host", host), host.subscription, kind)

    def closed(self, host: Host, kind: Kind, now: float) -> bool:
        return self._gates[host.subscription, kind].closed(now)

    def leave(self, host: Host, kind: Kind) -> None:
        self._gates[host.subscription, kind].leave(_Owner("host", host))
        self._watch_gate(host.subscription, kind)

    def paused(self, host: Host) -> bool:
        return self._pausing.everywhere or host in self._pausing.hosts

    def report(self, report: LogLine) -> None:
        self._numbers += 1
        self._calls.append(Call(self._numbers, report))

    # Records, conditions, events, permissions.

    def _status(self, need: Need) -> Status:
        folded = attachment(need.identity)
        work = None if need.host is None else self._works.get(need.host)
        if folded is None or work is None:
            return Status.UNKNOWN
        return work.status(folded.folded)

    def _revisions_of(self, need: Need) -> Revisions:
        return (
            self._revisions.get((About.IDENTITY, need.identity.ref), ""),
            self._revisions.get((About.BINDING, need.binding.ref), ""),
        )

    def _take_record(self, ref: ObjectRef, _: Action, result: Result) -> None:
        assigned = self._records.take(ref, result, self._now)
        self._marks.records.add(ref)
        if assigned is not None:
            note = (
                f"Binding {assigned.binding.name} applied on node {assigned.node} for pod "
                f"{assigned.pod.name}"
            )
            self._tell(assigned.binding, "Normal", "binding applied", note)

    def _tell(self, ref: ObjectRef, kind: EventType, reason: str, note: str) -> None:
        """Have an event about a binding written, unless there was one within the minute."""
        last = self._told.get(ref, -inf)
        if self.leads and self._now >= last + EVENT_AGAIN:
            if len(self._told) > _MOST_TOLD:
                self._told = {
                    each: at for each, at in self._told.items() if self._now < at + EVENT_AGAIN
                }
            self._told[ref] = self._now
            self._events[ref] = TellEvent(About.BINDING, ref, kind, reason, note)
            self._marks.events.add(ref)

    def _take_answer(self, use: Use, _: Action, result: Result) -> None:
        counts = self._questions.counts(use, result, self._now)
        if isinstance(result, bool) and counts:
            self._desired.answer(use, allowed=result)
        if self._desired.asked(use):
            again = self._questions.again(use, result, self._numbers, counts=counts)
            self._timers.set(_Owner("use", use), self._now + again)
        else:
            self._questions.forget(use)

    # The objects.

    def _take_node(self, event: NodeSeen) -> None:
        host = None
        if event.provider_id:
            try:
                host = Host.of_node(event.provider_id)
            except NotAnAzureNode as error:
                # It is said once: nodes are told again and again.
                if self._strange.get(event.name) != event.provider_id:
                    self._strange[event.name] = event.provider_id
                    said = f"Node {event.name} cannot have identities: {error}."
                    step = "Identities of spec.type 3 (federated) need no machine of Azure's."
                    self.report(LogLine("not-azure", said, step))
        self._desired.see_node(event.name, host)

    def _take_node_gone(self, event: NodeGone) -> None:
        self._strange.pop(event.name, None)
        self._desired.lose_node(event.name)

    def _take_identity(self, event: IdentitySeen) -> None:
        ref = event.identity.ref
        self._desired.see_identity(event.identity)
        self._conditions.see(About.IDENTITY, event.identity, event.condition)
        if self._revisions.get((About.IDENTITY, ref)) != event.revision:
            self._revisions[About.IDENTITY, ref] = event.revision
            self._mark_copies(ref)

    def _take_binding(self, event: BindingSeen) -> None:
        binding = event.binding
        self._desired.see_binding(binding)
        self._conditions.see(About.BINDING, binding, event.condition)
        if self._revisions.get((About.BINDING, binding.ref)) != event.revision:
            self._revisions[About.BINDING, binding.ref] = event.revision
            if isinstance(binding, AzureIdentityBinding):
                self._mark_copies(ObjectRef(binding.ref.namespace, binding.identity))

    def _mark_copies(self, identity: ObjectRef) -> None:
        for need in self._desired.needs_of(identity):
            self._marks.records.add(self._desired.name(need))

    def _take_exception(self, event: ExceptionSeen) -> None:
        exception = event.exception
        self._conditions.see(About.EXCEPTION, exception, event.condition)
        if isinstance(exception, AzurePodIdentityException):
            self._desired.see_exception(exception)
        else:
            self._desired.lose_exception(exception.ref)

    def _take_gone(self, event: ObjectGone) -> None:
        self._conditions.lose(event.about, event.ref)
        self._revisions.pop((event.about, event.ref), None)
        match event.about:
            case About.IDENTITY:
                self._desired.lose_identity(event.ref)
            case About.BINDING:
                self._desired.lose_binding(event.ref)
            case About.EXCEPTION:
                self._desired.lose_exception(event.ref)

    def _take_stored(self, event: RecordSeen) -> None:
        if self._records.see(event.stored):
            self._marks.records.add(event.stored.ref)

    def _take_record_gone(self, event: RecordGone) -> None:
        if self._records.lose(event.ref, event.uid):
            self._marks.records.add(event.ref)

    def _take_unclear(self, event: Unclear) -> None:
        left_out = self._unclear.setdefault(event.namespace, set())
        (left_out.add if event.holds else left_out.discard)(event.what)
        if event.what == About.IDENTITY:
            self._conditions.leave_out(event.namespace, holds=event.holds)
        if event.what == LISTS and event.holds:
            self._records.doubt()
        if not left_out:
            del self._unclear[event.namespace]
            self._marks.records.update(self._records.names)
            self._marks.hosts.update(dict.fromkeys(self._works))

    def _take_pausing(self, event: Pausing) -> None:
        self._pausing = event
        self._marks.hosts.update(dict.fromkeys(self._works))

    def _take_permissions(self, event: PermissionsChanged) -> None:
        uses = self._desired.uses(event.namespace)
        self._questions.doubt(uses)
        self._marks.uses.update(uses)


_GATED: dict[type, Kind] = {ReadHost: "read", PatchHost: "write", PollOperation: "poll"}
_HANDLERS: dict[type, Callable[[Controller, Any], None]] = {
    PodSeen: lambda self, event: self._desired.see_pod(event.pod),
    PodGone: lambda self, event: self._desired.lose_pod(event.ref, event.uid),
    NodeSeen: Controller._take_node,
    NodeGone: Controller._take_node_gone,
    IdentitySeen: Controller._take_identity,
    BindingSeen: Controller._take_binding,
    ExceptionSeen: Controller._take_exception,
    ObjectGone: Controller._take_gone,
    RecordSeen: Controller._take_stored,
    RecordGone: Controller._take_record_gone,
    Unclear: Controller._take_unclear,
    Synced: Controller._take_synced,
    Leading: Controller._take_leading,
    Deposed: Controller._take_deposed,
    Pausing: Controller._take_pausing,
    PermissionsChanged: Controller._take_permissions,
}
_TAKERS: dict[str, Callable[[Controller, Any, Action, Result], None]] = {
    "ledgers": Controller._take_ledgers,
    "host": Controller._take_host,
    "list": Controller._take_list,
    "record": Controller._take_record,
    "condition": lambda self, of, _, result: self._conditions.take(of, result, self._now),
    "use": Controller._take_answer,
    # One that could not be written is left: another will come.
    "event": lambda *_: None,
}
_TIMERS: dict[str, Callable[[Controller, Any], None]] = {
    "ledgers": Controller._relist_ledgers,
    "reconcile": Controller._survey_again,
    # Whatever is marked is looked at in any case.
    "more": lambda _, __: None,
    "host": lambda self, host: self._marks.hosts.update({host: None}),
    "record": lambda self, ref: self._marks.records.add(ref),
    "condition": lambda self, subject: self._marks.conditions.add(subject),
    "use": lambda self, use: self._marks.uses.add(use),
    "gate": lambda self, gate: self._let_in(*gate),
}
