"""One API server, one Azure and the MICs of a cluster, on a fake clock, with faults at every call.

The controller is the product's, whole; around it nothing is. What should be so is computed here
once more, by other code, from the objects as the API server has them. What a MIC may claim is
followed from the answers that it was given.

A `Scenario` says all that happens: what people and Azure do, and when; and by the number of the
call, which of them fails and how. The same scenario always runs the same way.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any, NamedTuple

from podidentity.core.decision import Use
from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.ledger import Ledger
from podidentity.core.resources import (
    BINDING_LABEL,
    Assignment,
    AzureIdentity,
    AzureIdentityBinding,
    ClientId,
    IdentityType,
    ObjectRef,
    Phase,
    Pod,
    ResourceId,
)
from podidentity.mic.calls import (
    PLAIN,
    WRITES,
    About,
    Accepted,
    Action,
    AskPermission,
    BindingSeen,
    Call,
    Condition,
    CreateRecord,
    DeleteRecord,
    Deposed,
    Failure,
    Fault,
    HostList,
    IdentitySeen,
    InUse,
    Leading,
    LedgerList,
    ListHosts,
    ListLedgers,
    ListUse,
    LogLine,
    NodeGone,
    NodeSeen,
    ObjectGone,
    Oddities,
    PatchHost,
    Pausing,
    PodGone,
    PodSeen,
    PollOperation,
    Progress,
    ReadHost,
    ReadLedger,
    ReadRecord,
    Record,
    RecordGone,
    RecordSeen,
    Result,
    StoredLedger,
    StoredRecord,
    Synced,
    TellEvent,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.controller import Controller, Settings

LEASE, RENEW, MARGIN = 60.0, 20.0, 2.0
PAUSE = 90.0
FOREVER = 1e6
MOST_MOMENTS = 12_000
API, ARM = 0.01, 0.2
LATE = 25.0
"""Seconds after which a change comes of which the answer was lost on the way there."""
OPERATION, LONGEST_TURN = 6.0, 10.0
"""Of the pods that come last: how long a change takes, and in how many seconds beside that they
must be Assigned."""
ONE_SET = "/subscriptions/s1/resourceGroups/g/providers/Microsoft.Compute"


class Step(NamedTuple):
    """Something that happens in the world."""

    at: float
    what: str
    """The name of a method of `World` that begins with `do_`."""
    args: tuple[Any, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A world and all that happens in it."""

    steps: tuple[Step, ...]
    faults: Mapping[int, str]
    """By the number of the call."""
    changes: Mapping[int, str] = field(default_factory=dict)
    """The same, by the number of the change of a host: where most can go wrong."""
    seed: int = 0
    grace: float = 20.0
    hosts: int = 3
    mics: int = 2
    delay: float = 0.05
    """Seconds from a change to its watch event."""
    operation: float = 8.0
    """Seconds that a change of a host takes."""
    foreign: tuple[tuple[int, int], ...] = ()
    """Identities that hosts have from the beginning: numbers of host and identity."""
    protected: tuple[int, ...] = ()
    reconcile: float = 180.0
    rest: float = 240.0
    """Seconds from the last step until faults stop."""
    turns: bool = True
    """Whether a pod comes on each host when all is over."""


class Violation(AssertionError):
    """An invariant does not hold; the text says which and when."""


@dataclass(slots=True)
class ArmHost:
    """A host as Azure has it."""

    host: Host
    listed: dict[str, str] = field(default_factory=dict)
    machines: frozenset[str] = frozenset()
    """What the machines have really."""
    state: str = "succeeded"
    etag: int = 1
    operation: int = 0
    """The change under way; 0 if none is."""
    there: bool = True
    system: bool = False
    ours: dict[str, str] = field(default_factory=dict)
    """Whose each listed identity is: `mic`, `foreign`, `either`."""


@dataclass(slots=True)
class Entry:
    """An object of the API server."""

    value: Any
    uid: str
    version: int
    at: float = 0.0


def resource(number: int) -> ResourceId:
    return ResourceId.parse(
        "/subscriptions/s/resourceGroups/i/providers/Microsoft.ManagedIdentity"
        f"/userAssignedIdentities/Id-{number}"
    )


IDS = [resource(number) for number in range(12)]
CLIENTS = [ClientId.parse(f"00000000-0000-0000-0000-{number:012}") for number in range(12)]
LAST = 11
"""The identity that no host has before all is over."""
FOLDED = [each.folded for each in IDS]
NUMBER = {folded: number for number, folded in enumerate(FOLDED)}


def provider_id(number: int, node: int = 0) -> str:
    """Return the provider ID of a node: hosts are scale sets, but for every third, a machine."""
    if number % 3 == 2:
        return f"azure://{ONE_SET}/virtualMachines/vm{number}"
    return f"azure://{ONE_SET}/virtualMachineScaleSets/set{number}/virtualMachines/{node}"


@lru_cache
def host_of(provider_id: str) -> Host:
    """Return the host of a node."""
    return Host.of_node(provider_id)


HOSTS = [host_of(provider_id(number)) for number in range(9)]


class Mic:
    """One process: a controller, what it was told, and its calls under way."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.controller = world.make()
        self.alive = True
        self.paused_until = -inf
        self.leads = False
        self.until = -inf
        self.is_paused = False
        self.refused: set[Use] = set()
        self.conditions: dict[tuple[About, ObjectRef], Condition | None] = {}
        self.told: dict[str, dict[Any, Entry]] = {kind: {} for kind in KINDS}
        self.cursor = dict.fromkeys(KINDS, 0)
        self.gap: dict[str, float] = {}
        self.timer = inf
        # What the answers have shown, for the judge.
        self.shown: dict[Host, frozenset[str]] = {}
        self.listed: dict[Host, frozenset[str]] = {}
        self.in_use: dict[Host, tuple[float, frozenset[str]]] = {}
        self.throttled: dict[tuple[str, str], float] = {}
        self.busy: dict[Host, int] = {}
        self.sent: dict[Host, PatchHost] = {}
        self.events: dict[ObjectRef, float] = {}

    def do(self, calls: list[Call]) -> None:
        """Send calls, and look when the controller wants to be called next."""
        world = self.world
        for call in calls:
            world.send(self, call)
        due = self.controller.due()
        if due is not None and due < self.timer:
            self.timer = due
            world.at(max(due, world.now), self._wake, due)

    def _wake(self, due: float) -> None:
        if not self.alive or self.timer != due:
            return
        if self.paused_until > self.world.now:
            self.world.at(self.paused_until, self._wake, due)
            return
        self.timer = inf
        self.do(self.controller.on_time(self.world.now))

    def tell(self, event: Any) -> None:
        self.do(self.controller.on_event(event, self.world.now))


_OF_A_HOST = (ReadHost, PatchHost, PollOperation)
KINDS = ("node", "identity", "binding", "pod", "record")


class World:
    """The cluster and Azure. `run` plays a scenario and raises Violation."""

    def __init__(self, scenario: Scenario, make: Callable[[Settings], Controller] = Controller):
        self.scenario = scenario
        self.operation = scenario.operation
        settings = Settings(
            grace=scenario.grace,
            reconcile=scenario.reconcile,
            protected=frozenset(str(CLIENTS[number]) for number in scenario.protected),
        )
        self.make: Callable[[], Controller] = lambda: make(settings)
        self.now = 0.0
        self.effects = 0
        """Calls that were done."""
        self.journal: list[str] = []
        self.keeps_journal = False
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order = count()
        self._versions = count(1)
        self.objects: dict[str, dict[Any, Entry]] = {kind: {} for kind in KINDS}
        self.log: dict[str, list[tuple[Any, Entry | None, Entry]]] = {kind: [] for kind in KINDS}
        """Changes: the name, the object or None, and what it was where it is gone."""
        self.ledgers: dict[Host, tuple[Ledger, int]] = {}
        self.conditions: dict[tuple[About, ObjectRef], Condition] = {}
        self.refused: set[Use] = set()
        self.broken: set[str] = set()
        self.pausing = Pausing()
        self.arm = {
            host: ArmHost(host, system=number == 1)
            for number, host in enumerate(HOSTS[: scenario.hosts])
        }
        for host, identity in scenario.foreign:
            there = self.arm[HOSTS[host]]
            there.listed[FOLDED[identity]] = IDS[identity].spelling
            there.machines = frozenset(there.listed)
            there.ours[FOLDED[identity]] = "foreign"
        self._operations = count(1)
        self.ends: dict[int, tuple[ArmHost, str, tuple[str, ...]]] = {}
        self.lease: tuple[Mic | None, float] = (None, -inf)
        self.mics: list[Mic] = []
        self.writes = 0
        self.moments = 0
        self.patches = 0
        self.is_late = False
        self.faults_end = 0.0
        self.calm = False
        disturbing = {"break", "pausing", "kill", "attach", "detach", "node", "revoke"}
        self.is_undisturbed = not (scenario.faults or scenario.changes) and not any(
            step.at and step.what in disturbing for step in scenario.steps
        )

    # The clock.

    def at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        heappush(self._heap, (time, next(self._order), what, args))

    def run_until(self, end: float) -> None:
        heap = self._heap
        while heap and heap[0][0] <= end:
            time, _, what, args = heappop(heap)
            self.now = time
            self.moments += 1
            if self.moments > MOST_MOMENTS:
                self.fail("this does not come to rest")
            what(*args)
        self.now = end

    def note(self, text: str) -> None:
        if self.keeps_journal:
            self.journal.append(f"{self.now:9.2f}  {text}")

    def fail(self, text: str) -> None:
        raise Violation(f"at {self.now:.2f}: {text}")

    # The API server.

    def put(self, kind: str, name: Any, value: Any) -> Entry:
        """Create or change an object."""
        before = self.objects[kind].get(name)
        version = next(self._versions)
        uid = f"u{version}" if before is None else before.uid
        entry = Entry(value, uid, version, self.now)
        self.objects[kind][name] = entry
        self._changed(kind, name, entry, entry)
        return entry

    def drop(self, kind: str, name: Any) -> None:
        before = self.objects[kind].pop(name, None)
        if before is not None:
            next(self._versions)
            self._changed(kind, name, None, before)

    def _changed(self, kind: str, name: Any, entry: Entry | None, before: Entry) -> None:
        self.log[kind].append((name, entry, before))
        for mic in self.mics:
            if mic.alive:
                self.at(self.now + self.scenario.delay, self._deliver, mic, kind)

    def _deliver(self, mic: Mic, kind: str) -> None:
        """Tell a MIC the next change of a kind."""
        if not mic.alive or kind in mic.gap:
            return
        if mic.paused_until > self.now:
            self.at(mic.paused_until, self._deliver, mic, kind)
            return
        log = self.log[kind]
        if mic.cursor[kind] < len(log):
            name, entry, before = log[mic.cursor[kind]]
            mic.cursor[kind] += 1
            self._tell(mic, kind, name, entry, before)

    def _tell(self, mic: Mic, kind: str, name: Any, entry: Entry | None, before: Entry) -> None:
        if entry is not None:
            mic.told[kind][name] = entry
            event = self._seen(kind, name, entry)
            if isinstance(event, IdentitySeen):
                mic.conditions[About.IDENTITY, name] = event.condition
            elif isinstance(event, BindingSeen):
                mic.conditions[About.BINDING, name] = event.condition
            mic.tell(event)
        elif mic.told[kind].pop(name, None) is not None:
            mic.tell(self._gone(kind, name, before))

    def _seen(self, kind: str, name: Any, entry: Entry) -> Any:
        value = entry.value
        if kind == "pod":
            return PodSeen(value)
        if kind == "node":
            return NodeSeen(name, value)
        if kind == "identity":
            condition = self.conditions.get((About.IDENTITY, name))
            return IdentitySeen(identity=value, revision=revision(value), condition=condition)
        if kind == "binding":
            condition = self.conditions.get((About.BINDING, name))
            return BindingSeen(binding=value, revision=revision(value), condition=condition)
        return RecordSeen(self._stored(name, entry))

    def _gone(self, kind: str, name: Any, before: Entry) -> Any:
        if kind == "pod":
            return PodGone(name, before.value.uid)
        if kind == "node":
            return NodeGone(name)
        if kind == "record":
            return RecordGone(name, before.uid)
        return ObjectGone(About.IDENTITY if kind == "identity" else About.BINDING, name)

    def _stored(self, ref: ObjectRef, entry: Entry) -> StoredRecord:
        record, finalizers = entry.value
        return StoredRecord(
            ref=ref,
            uid=entry.uid,
            version=str(entry.version),
            record=record,
            odd=Oddities(0) if finalizers else PLAIN,
        )

    # MICs.

    def start_mic(self, stale: int = 0) -> None:
        """Start a process; its first lists may be `stale` changes old."""
        mic = Mic(self, len(self.mics))
        self.mics.append(mic)
        self.note(f"mic{mic.number} starts")
        for kind in KINDS:
            self._relist(mic, kind, stale)
        if self.pausing != Pausing():
            self._tell_pausing(mic)
        mic.tell(Synced())
        self._tick(mic)

    def _relist(self, mic: Mic, kind: str, stale: int) -> None:
        """Tell the difference between what a MIC knows and a list, which may be an old one."""
        log = self.log[kind]
        # A list is never older than what the same server has told before.
        index = max(mic.cursor[kind], len(log) - stale)
        if index == len(log):
            listed = self.objects[kind]
        else:
            listed = {}
            for name, entry, _ in log[:index]:
                if entry is None:
                    listed.pop(name, None)
                else:
                    listed[name] = entry
        mic.cursor[kind] = index
        told = mic.told[kind]
        for name in [each for each in told if each not in listed]:
            self._tell(mic, kind, name, None, told[name])
        for name, entry in list(listed.items()):
            if name not in told or told[name].version != entry.version:
                if name in told and told[name].uid != entry.uid:
                    self._tell(mic, kind, name, None, told[name])
                self._tell(mic, kind, name, entry, entry)
        for _ in range(len(log) - index):
            self.at(self.now + 1.0, self._deliver, mic, kind)

    def _tick(self, mic: Mic) -> None:
        """Renew the lease, or take it where it has ended."""
        if not mic.alive:
            return
        if mic.paused_until > self.now:
            self.at(mic.paused_until, self._tick, mic)
            return
        holder, expires = self.lease
        if holder is mic or self.now >= expires:
            # When faults have stopped nobody renews any more, which would take most of the time.
            lasts = FOREVER if self.calm else LEASE
            self.lease = (mic, self.now + lasts)
            if not mic.leads or self.now >= mic.until:
                self.note(f"mic{mic.number} leads")
                mic.throttled.clear()
                mic.busy.clear()
            mic.leads, mic.until = True, self.now + lasts - MARGIN
            mic.tell(Leading(mic.until))
        elif mic.leads:
            self.note(f"mic{mic.number} does not lead any more")
            mic.leads, mic.until = False, -inf
            mic.tell(Deposed())
        if self.lease[1] < self.now + LEASE + 1.0:
            self.at(self.now + RENEW, self._tick, mic)

    def kill(self, mic: Mic) -> None:
        self.note(f"mic{mic.number} is killed")
        mic.alive, self.faults_end = False, self.now
        self.at(self.now + 3.0, self.start_mic, self.scenario.seed % 4)

    # Calls.

    def send(self, mic: Mic, call: Call) -> None:
        """Take a call that the controller issues now."""
        action = call.action
        if isinstance(action, LogLine):
            self.note(f"mic{mic.number} {action.topic}: {action.message}")
            return
        if isinstance(action, WRITES) and self.now >= mic.until:
            self.fail(f"mic{mic.number} writes though it does not lead: {action}")
        self._judge_issue(mic, action)
        self.at(self.now + _LATENCY[type(action)], self._execute, mic, call)

    def _execute(self, mic: Mic, call: Call) -> None:
        if not mic.alive:
            return
        if mic.paused_until > self.now:
            self.at(mic.paused_until, self._execute, mic, call)
            return
        number, self.effects = self.effects, self.effects + 1
        fault = None if self.calm else self.scenario.faults.get(number)
        if isinstance(call.action, PatchHost):
            change, self.patches = self.patches, self.patches + 1
            fault = fault if self.calm else self.scenario.changes.get(change, fault)
        if fault is None:
            self._answer(mic, call, self._do(mic, call.action))
        else:
            self.faults_end = self.now
            self.note(f"mic{mic.number} #{number} {fault} at {shown(call.action)}")
            getattr(self, f"_fault_{fault}")(mic, call)

    def _answer(self, mic: Mic, call: Call, result: Result) -> None:
        if self.keeps_journal:
            self.note(
                f"mic{mic.number} #{self.effects - 1} {shown(call.action)} -> {shown(result)}"
            )
        self.at(self.now + _LATENCY[type(call.action)], self._return, mic, call, result)

    def _return(self, mic: Mic, call: Call, result: Result) -> None:
        if not mic.alive:
            return
        if mic.paused_until > self.now:
            self.at(mic.paused_until, self._return, mic, call, result)
            return
        self._judge_result(mic, call, result)
        mic.do(mic.controller.on_result(call.number, result, self.now))

    # Faults.

    def _fault_error(self, mic: Mic, call: Call) -> None:
        self._answer(mic, call, Failure(kind=Fault.FAILED, message="500"))

    def _fault_unreachable(self, mic: Mic, call: Call) -> None:
        self._answer(mic, call, Failure(kind=Fault.UNREACHABLE))

    def _fault_timeout(self, mic: Mic, call: Call) -> None:
        """The request does not arrive, and nobody knows."""
        self._answer(mic, call, Failure(kind=Fault.LOST))

    def _fault_lost(self, mic: Mic, call: Call) -> None:
        """It is done, and the answer gets lost."""
        self._do(mic, call.action)
        self._answer(mic, call, Failure(kind=Fault.LOST))

    def _fault_late(self, mic: Mic, call: Call) -> None:
        """The answer gets lost, and it is done later."""
        self.at(self.now + LATE, self._do_late, mic, call.action)
        self._answer(mic, call, Failure(kind=Fault.LOST))

    def _do_late(self, mic: Mic, action: Action) -> None:
        self.note(f"mic{mic.number} late: {shown(action)}")
        self.faults_end = self.now
        self.is_late = True
        self._do(mic, action)
        self.is_late = False

    def _fault_conflict(self, mic: Mic, call: Call) -> None:
        self._answer(mic, call, Failure(kind=Fault.CONFLICT))

    def _fault_throttle(self, mic: Mic, call: Call) -> None:
        failure = Failure(kind=Fault.THROTTLED, retry_after=7.0)
        self._answer(mic, call, failure)

    def _fault_preempt(self, mic: Mic, call: Call) -> None:
        """Another changes the same host, and the change under way ends by that."""
        result = self._do(mic, call.action)
        if isinstance(call.action, PatchHost | PollOperation):
            there = self.arm[call.action.host]
            if there.operation:
                self.ends[there.operation] = (there, "preempted", ())
                there.operation, there.state = 0, "failed"
                there.etag += 1
        self._answer(mic, call, result)

    def _fault_broken(self, mic: Mic, call: Call) -> None:
        """The operation fails half way."""
        result = self._do(mic, call.action)
        if isinstance(call.action, PatchHost | PollOperation):
            there = self.arm[call.action.host]
            if there.operation:
                self.ends[there.operation] = (there, "failed", ())
                there.operation, there.state = 0, "failed"
        self._answer(mic, call, result)

    def _fault_crash_before(self, mic: Mic, call: Call) -> None:
        del call
        self.kill(mic)

    def _fault_crash_after(self, mic: Mic, call: Call) -> None:
        self._do(mic, call.action)
        self.kill(mic)

    def _fault_pause(self, mic: Mic, call: Call) -> None:
        """The process stops just before it sends, past its lease, and goes on."""
        mic.paused_until = self.now + PAUSE
        self.at(mic.paused_until, self._resume, mic, call)

    def _resume(self, mic: Mic, call: Call) -> None:
        self.faults_end = self.now
        if mic.alive:
            self._answer(mic, call, self._do(mic, call.action))

    def _fault_gap(self, mic: Mic, call: Call) -> None:
        """The watches but that of nodes end, and the lists that follow are old."""
        self._answer(mic, call, self._do(mic, call.action))
        for kind in ("pod", "record", "identity", "binding"):
            if kind not in mic.gap:
                mic.gap[kind] = self.now
                self.at(self.now + 12.0, self._end_gap, mic, kind)

    def _end_gap(self, mic: Mic, kind: str) -> None:
        if not mic.alive:
            return
        if mic.paused_until > self.now:
            self.at(mic.paused_until, self._end_gap, mic, kind)
            return
        self.faults_end = self.now
        del mic.gap[kind]
        self._relist(mic, kind, 3)

    # What a call does.

    def _do(self, mic: Mic, action: Action) -> Result:
        if isinstance(action, WRITES) and not isinstance(action, TellEvent):
            self.writes += 1
        return _DOERS[type(action)](self, mic, action)

    def _read_host(self, mic: Mic, action: ReadHost) -> Result:
        del mic
        there = self.arm.get(action.host)
        if there is None or not there.there:
            return Failure(kind=Fault.NOT_FOUND)
        return identities(there)

    def _list_hosts(self, mic: Mic, action: ListHosts) -> Result:
        del mic
        return HostList(
            {
                host: identities(there)
                for host, there in self.arm.items()
                if there.there and host.is_scale_set == action.scale_sets
            }
        )

    def _patch(self, mic: Mic, action: PatchHost) -> Result:
        there, change = self.arm[action.host], action.change
        if not there.there:
            return Failure(kind=Fault.NOT_FOUND)
        if action.etag and action.etag != str(there.etag):
            return Failure(kind=Fault.CONFLICT, code="412")
        if there.operation:
            return Failure(kind=Fault.CONFLICT, code="409")
        attach = {each.lower(): each for each in change.attach}
        if bad := tuple(each for each in attach if each in self.broken):
            asked = attach.keys() | {each.lower() for each in change.detach}
            return Failure(kind=Fault.BAD_IDENTITIES, bad=bad if len(bad) < len(asked) else ())
        self._judge_patch(mic, action, there, attach)
        for folded in (each.lower() for each in change.detach):
            there.listed.pop(folded, None)
            there.ours.pop(folded, None)
        for folded, spelled in attach.items():
            if folded not in there.listed:
                there.ours[folded] = "mic"
            there.listed.setdefault(folded, spelled)
        if there.system != change.system:
            self.fail(f"a change of {there.host.name} does not keep the system's half")
        if bool(there.listed) != change.user:
            self.fail(f"a change of {there.host.name} says user={change.user} of {there.listed}")
        there.etag += 1
        there.state = "updating"
        there.operation = next(self._operations)
        self.at(self.now + self._lasts(there), self._end_operation, there, there.operation)
        return Accepted(str(there.operation), 1.0)

    def _lasts(self, there: ArmHost) -> float:
        """Return how long a change takes: each host has its own pace."""
        return self.operation * (1 + HOSTS.index(there.host))

    def _end_operation(self, there: ArmHost, operation: int) -> None:
        if there.operation == operation:
            there.operation, there.state = 0, "succeeded"
            there.machines = frozenset(there.listed)
            self.ends[operation] = (there, "succeeded", ())

    def _poll(self, mic: Mic, action: PollOperation) -> Result:
        del mic
        there = self.arm[action.host]
        if str(there.operation) == action.operation:
            return Progress(done=False, after=4.0)
        _, end, _ = self.ends[int(action.operation)]
        if end == "succeeded":
            return Progress(done=True)
        return Failure(kind=Fault.PREEMPTED if end == "preempted" else Fault.FAILED)

    def _list_ledgers(self, mic: Mic, action: ListLedgers) -> Result:
        del mic, action
        return LedgerList(
            {
                host: StoredLedger(book, str(version))
                for host, (book, version) in self.ledgers.items()
            }
        )

    def _read_ledger(self, mic: Mic, action: ReadLedger) -> Result:
        del mic
        found = self.ledgers.get(action.host)
        return StoredLedger(None, "") if found is None else StoredLedger(found[0], str(found[1]))

    def _write_ledger(self, mic: Mic, action: WriteLedger) -> Result:
        host = action.ledger.host
        found = self.ledgers.get(host)
        if ("" if found is None else str(found[1])) != action.version:
            return Failure(kind=Fault.CONFLICT)
        if action.gone:
            self.ledgers.pop(host, None)
            return StoredLedger(None, "")
        for folded in action.ledger.attaching:
            # Another attached it after the read: nobody can tell by whom it is there.
            ours = self.arm[host].ours
            if ours.get(folded) == "foreign" and folded not in mic.listed.get(host, ()):
                ours[folded] = "either"
        # A write that changes nothing gives no new version.
        version = found[1] if found and found[0] == action.ledger else next(self._versions)
        self.ledgers[host] = (action.ledger, version)
        return StoredLedger(action.ledger, str(version))

    def _list_use(self, mic: Mic, action: ListUse) -> Result:
        del action
        in_use = self.needs(mic)
        for host in self.arm:
            # The answer of a late list got lost: its MIC knows nothing of it.
            if not self.is_late:
                ids = frozenset(need.folded for need in in_use if need.host == host)
                mic.in_use[host] = (self.now, ids)
        return InUse(
            tuple(entry.value for entry in self.objects["pod"].values()),
            tuple(entry.value for entry in self.objects["identity"].values()),
            tuple(entry.value for entry in self.objects["binding"].values()),
        )

    def _ask(self, mic: Mic, action: AskPermission) -> Result:
        del mic
        return action.use not in self.refused

    def _create(self, mic: Mic, action: CreateRecord) -> Result:
        del mic
        record = action.record
        if record.ref in self.objects["record"]:
            return Failure(kind=Fault.CONFLICT)
        if len(record.ref.name) > 253:
            return Failure(kind=Fault.INVALID)
        entry = self.put("record", record.ref, (record, False))
        return self._stored(record.ref, entry)

    def _update(self, mic: Mic, action: UpdateRecord) -> Result:
        del mic
        entry = self.objects["record"].get(action.ref)
        if entry is None:
            return Failure(kind=Fault.NOT_FOUND)
        if entry.uid != action.uid or str(entry.version) != action.version:
            return Failure(kind=Fault.CONFLICT)
        record = action.record or entry.value[0]
        if (record, False) == entry.value:
            self.fail(f"a write that changes nothing: {action}")
        return self._stored(action.ref, self.put("record", action.ref, (record, False)))

    def _delete(self, mic: Mic, action: DeleteRecord) -> Result:
        del mic
        entry = self.objects["record"].get(action.ref)
        if entry is None:
            return Failure(kind=Fault.NOT_FOUND)
        if entry.uid != action.uid:
            return Failure(kind=Fault.CONFLICT)
        if entry.value[1]:
            self.fail(f"{action.ref} is deleted with its old finalizer on")
        self.drop("record", action.ref)
        return None

    def _read_record(self, mic: Mic, action: ReadRecord) -> Result:
        del mic
        entry = self.objects["record"].get(action.ref)
        return None if entry is None else self._stored(action.ref, entry)

    def _write_condition(self, mic: Mic, action: WriteCondition) -> Result:
        del mic
        kind = "identity" if action.about is About.IDENTITY else "binding"
        entry = self.objects[kind].get(action.ref)
        if entry is None:
            return Failure(kind=Fault.NOT_FOUND)
        self.conditions[action.about, action.ref] = action.condition
        self.put(kind, action.ref, entry.value)
        return None

    def _tell_event(self, mic: Mic, action: TellEvent) -> Result:
        del mic, action
        return None

    # What should be so, from the objects as they are.

    def needs(
        self, mic: Mic | None = None, objects: Mapping[str, Mapping[Any, Entry]] | None = None
    ) -> list[Wish]:
        """Return who needs what, by these objects or by those that the API server has.

        A permission counts as `mic` was answered last; as it is without one.
        """
        found = self.objects if objects is None else objects
        refused = self.refused if mic is None else mic.refused
        by_selector: dict[tuple[str, str], list[AzureIdentityBinding]] = {}
        for ref, entry in found["binding"].items():
            by_selector.setdefault((ref.namespace, entry.value.selector), []).append(entry.value)
        wishes = []
        for entry in found["pod"].values():
            pod: Pod = entry.value
            node = found["node"].get(pod.node)
            if node is None or pod.phase in {Phase.SUCCEEDED, Phase.FAILED}:
                continue
            bound = by_selector.get((pod.ref.namespace, pod.labels.get(BINDING_LABEL, "")), ())
            for name in {each.identity for each in bound}:
                identity = found["identity"].get(ObjectRef(pod.ref.namespace, name))
                if identity is None:
                    continue
                account = ObjectRef(pod.ref.namespace, pod.service_account)
                if refused and Use(account, str(identity.value.client_id)) in refused:
                    continue
                of_azure = identity.value.type is IdentityType.USER_ASSIGNED
                wishes.append(
                    Wish(
                        pod.ref,
                        identity.value,
                        host_of(node.value) if of_azure else None,
                        identity.value.resource_id.folded if of_azure else "",
                        pod.node,
                    )
                )
        return wishes

    # The judge.

    def _judge_issue(self, mic: Mic, action: Action) -> None:
        kind = _OPERATIONS.get(type(action))
        if kind is not None:
            until = mic.throttled.get((_subscription(action), kind), -inf)
            if self.now < until:
                self.fail(f"{shown(action)} before the Retry-After ends at {until:.2f}")
        if isinstance(action, _OF_A_HOST):
            if mic.busy.get(action.host):
                self.fail(f"two calls at once about {action.host.name}: {shown(action)}")
            mic.busy[action.host] = 1
        if isinstance(action, PatchHost):
            if mic.is_paused:
                self.fail("a change though the operator has paused")
            self._judge_detach(mic, action)
        elif isinstance(action, TellEvent):
            if self.now < mic.events.get(action.ref, -inf) + 59.9:
                self.fail(f"two events about {action.ref} within a minute")
            mic.events[action.ref] = self.now
        elif isinstance(action, WriteCondition):
            known = mic.conditions.get((action.about, action.ref))
            if known == action.condition:
                self.fail(f"a condition that is there already: {action}")
        elif isinstance(action, (CreateRecord, UpdateRecord)) and action.record is not None:
            self._judge_record(mic, action.record)
            self._judge_time(mic, action)

    def _judge_record(self, mic: Mic, record: Record) -> None:
        """No record says Assigned unless the last read or operation has shown it."""
        if record.state is not Assignment.ASSIGNED:
            return
        identity = mic.told["identity"].get(record.identity)
        if identity is None or identity.value.type is not IdentityType.USER_ASSIGNED:
            return
        node = mic.told["node"].get(record.node)
        if node is None:
            return
        host, folded = host_of(node.value), identity.value.resource_id.folded
        stored = self.objects["record"].get(record.ref)
        kept = stored is not None and stored.value[0] == record
        if folded not in mic.shown.get(host, ()) and not kept:
            self.fail(f"mic{mic.number} says Assigned of {record.ref} and was never shown it")

    def _judge_time(self, mic: Mic, action: CreateRecord | UpdateRecord) -> None:
        """Where nothing goes wrong a pod waits for its own host alone."""
        record = action.record
        undisturbed = self.is_undisturbed
        if record is None or record.state is not Assignment.ASSIGNED or not undisturbed:
            return
        node = mic.told["node"].get(record.node)
        if node is None:
            return
        there = self.arm[host_of(node.value)]
        # A change of the same host may be under way, and the answer to a question.
        bound = 2 * self._lasts(there) + 12.0
        if self.now - action.since > bound:
            self.fail(f"{record.ref} waits {self.now - action.since:.1f} s, not {bound} s at most")

    def _judge_detach(self, mic: Mic, action: PatchHost) -> None:
        """Nothing that this MIC knows to be needed is detached."""
        if len(action.change.attach) + len(action.change.detach) > 150:
            self.fail("more than 150 identities in one change")
        going = {each.lower() for each in action.change.detach}
        if not going:
            return
        for wish in self.needs(mic, mic.told):
            if wish.host == action.host and wish.folded in going:
                self.fail(f"{wish.folded} is detached from {action.host.name}; {wish.pod} needs it")

    def _judge_patch(
        self, mic: Mic, action: PatchHost, there: ArmHost, attach: Mapping[str, str]
    ) -> None:
        going = {each.lower() for each in action.change.detach}
        for folded in going:
            if there.ours.get(folded) == "foreign":
                self.fail(f"{folded} on {there.host.name} is another's, and is detached")
            if NUMBER[folded] in self.scenario.protected:
                self.fail(f"{folded} is immutable, and is detached")
        if going:
            at, in_use = mic.in_use.get(there.host, (inf, frozenset()))
            # It may have slept since, or the request lay somewhere.
            delayed = self.is_late or mic.paused_until >= at
            if at == inf or (self.now - at > 10.0 and not delayed):
                self.fail(f"a detach from {there.host.name} without a list of what is in use")
            self._judge_assigned(there.host, going, at)
            if wrong := going & in_use:
                self.fail(f"{wrong} are detached from {there.host.name}; the list shows their use")
        if not self.ledgers.get(there.host):
            self.fail(f"{there.host.name} is changed without a ledger")
        if not attach and not going and there.state != "failed":
            self.fail("a change that names nothing")
        if self.faults_end == 0.0 and there.state == "succeeded":
            nothing = (
                all(each in there.machines for each in attach) and not going & there.listed.keys()
            )
            if nothing:
                self.fail(f"a change of {there.host.name} that changes nothing: {shown(action)}")
        mic.sent[there.host] = action

    def _judge_assigned(self, host: Host, going: set[str], listed: float) -> None:
        """Nothing is detached of which a record has said Assigned since the list was made."""
        for wish in self.needs():
            if wish.host == host and wish.folded in going:
                for entry in self.objects["record"].values():
                    record = entry.value[0]
                    about = (record.pod, record.identity, record.node) == (
                        wish.pod,
                        wish.identity.ref,
                        wish.node,
                    )
                    # An AzureIdentity that was edited since: the record speaks of another one.
                    about = about and record.identity_revision == revision(wish.identity)
                    if about and record.state is Assignment.ASSIGNED and entry.at > listed:
                        self.fail(f"{wish.folded} is detached; {record.ref} says Assigned")

    def _judge_result(self, mic: Mic, call: Call, result: Result) -> None:
        action, is_awaited = call.action, call.number in mic.controller._flights
        if isinstance(action, _OF_A_HOST):
            mic.busy[action.host] = 0
        if isinstance(action, AskPermission) and isinstance(result, bool):
            (mic.refused.discard if result else mic.refused.add)(action.use)
        if isinstance(action, WriteCondition) and result is None and is_awaited:
            mic.conditions[action.about, action.ref] = action.condition
        kind = _OPERATIONS.get(type(action))
        throttled = isinstance(result, Failure) and result.kind is Fault.THROTTLED
        if kind is not None and isinstance(result, Failure) and throttled and is_awaited:
            mic.throttled[_subscription(action), kind] = self.now + result.retry_after - 1e-6
        if isinstance(action, ReadHost):
            if isinstance(result, HostIdentities):
                self._show(mic, action.host, result)
            elif isinstance(result, Failure) and result.kind is Fault.NOT_FOUND:
                mic.shown[action.host] = frozenset()
        elif isinstance(result, HostList):
            for host, seen in result.hosts.items():
                if not mic.busy.get(host):
                    self._show(mic, host, seen)
        elif isinstance(action, PollOperation) and isinstance(result, Progress) and result.done:
            change = mic.sent[action.host].change
            shown_now = mic.shown.get(action.host, frozenset())
            shown_now |= {each.lower() for each in change.attach}
            mic.shown[action.host] = shown_now - {each.lower() for each in change.detach}

    def _show(self, mic: Mic, host: Host, seen: HostIdentities) -> None:
        listed = mic.listed[host] = frozenset(seen.user)
        before = mic.shown.get(host, frozenset())
        mic.shown[host] = listed if seen.settled else before & listed

    # What happens in the world.

    def do_pod(self, namespace: str, name: str, selector: str, node: str) -> None:
        """A pod comes, or another of the same name in its place."""
        ref = ObjectRef(namespace, name)
        if ref in self.objects["pod"]:
            self.drop("pod", ref)
        if node not in self.objects["node"]:
            return
        uid = f"p{next(self._versions)}"
        labels = {BINDING_LABEL: selector}
        self.put("pod", ref, Pod(ref=ref, uid=uid, node=node, labels=labels))

    def do_end(self, namespace: str, name: str) -> None:
        entry = self.objects["pod"].get(ObjectRef(namespace, name))
        if entry is not None:
            self.put("pod", entry.value.ref, replace(entry.value, phase=Phase.SUCCEEDED))

    def do_label(self, namespace: str, name: str, selector: str) -> None:
        entry = self.objects["pod"].get(ObjectRef(namespace, name))
        if entry is not None:
            labels = {BINDING_LABEL: selector}
            self.put("pod", entry.value.ref, replace(entry.value, labels=labels))

    def do_delete_pod(self, namespace: str, name: str) -> None:
        self.drop("pod", ObjectRef(namespace, name))

    def do_identity(self, namespace: str, name: str, number: int, upper: bool = False) -> None:
        """An AzureIdentity comes, or is edited in place."""
        spelled = IDS[number].spelling
        found = ResourceId.parse(spelled.upper() if upper else spelled)
        ref = ObjectRef(namespace, name)
        identity = AzureIdentity(
            ref=ref,
            type=IdentityType.USER_ASSIGNED,
            client_id=CLIENTS[number],
            resource_id=found,
        )
        self.conditions.pop((About.IDENTITY, ref), None)
        self.put("identity", ref, identity)

    def do_delete_identity(self, namespace: str, name: str) -> None:
        self.conditions.pop((About.IDENTITY, ObjectRef(namespace, name)), None)
        self.drop("identity", ObjectRef(namespace, name))

    def do_binding(self, namespace: str, name: str, identity: str, selector: str) -> None:
        ref = ObjectRef(namespace, name)
        self.conditions.pop((About.BINDING, ref), None)
        self.put(
            "binding", ref, AzureIdentityBinding(ref=ref, identity=identity, selector=selector)
        )

    def do_delete_binding(self, namespace: str, name: str) -> None:
        self.conditions.pop((About.BINDING, ObjectRef(namespace, name)), None)
        self.drop("binding", ObjectRef(namespace, name))

    def do_node(self, name: str, host: int) -> None:
        self.put("node", name, provider_id(host, len(name)))

    def do_delete_node(self, name: str) -> None:
        """A node goes, and its pods with it a little later."""
        self.drop("node", name)
        for ref, entry in list(self.objects["pod"].items()):
            if entry.value.node == name:
                self.at(self.now + 2.0, self.drop, "pod", ref)

    def do_attach(self, host: int, identity: int) -> None:
        """Somebody else attaches an identity to a host."""
        there, folded = self.arm[HOSTS[host]], FOLDED[identity]
        if there.operation or folded in there.listed:
            return
        book = self.ledgers.get(there.host)
        named = book is not None and any(
            folded in part for part in (book[0].attached, book[0].attaching, book[0].detaching)
        )
        # The ledger says that it is MIC's: nobody can tell the difference.
        there.ours[folded] = "either" if named else "foreign"
        there.listed[folded] = IDS[identity].spelling.upper()
        there.machines |= {folded}
        there.etag += 1

    def do_detach(self, host: int, identity: int) -> None:
        """Somebody else detaches an identity from a host."""
        there, folded = self.arm[HOSTS[host]], FOLDED[identity]
        if there.operation or folded not in there.listed:
            return
        del there.listed[folded]
        del there.ours[folded]
        there.machines -= {folded}
        there.etag += 1

    def do_break(self, identity: int) -> None:
        self.broken.add(FOLDED[identity])

    def do_mend(self, identity: int) -> None:
        self.broken.discard(FOLDED[identity])

    def do_revoke(self, namespace: str, identity: int) -> None:
        self.refused.add(Use(ObjectRef(namespace, "default"), str(CLIENTS[identity])))

    def do_grant(self, namespace: str, identity: int) -> None:
        self.refused.discard(Use(ObjectRef(namespace, "default"), str(CLIENTS[identity])))

    def do_pausing(self, everywhere: bool) -> None:
        self.pausing = Pausing(everywhere)
        for mic in self.mics:
            self._tell_pausing(mic)

    def _tell_pausing(self, mic: Mic) -> None:
        if mic.alive and mic.paused_until > self.now:
            self.at(mic.paused_until, self._tell_pausing, mic)
        elif mic.alive:
            mic.is_paused = self.pausing.everywhere
            mic.tell(self.pausing)

    def do_kill(self) -> None:
        for mic in self.mics:
            if mic.alive and mic.leads:
                self.kill(mic)
                return

    def do_empty(self, host: int) -> None:
        """All pods of a host go."""
        for ref, entry in list(self.objects["pod"].items()):
            node = self.objects["node"].get(entry.value.node)
            if node is not None and host_of(node.value) == HOSTS[host]:
                self.drop("pod", ref)

    def do_record(self, namespace: str, name: str, state: str, finalizers: bool) -> None:
        """A record of an archived MIC, about a pod that is not there."""
        ref = ObjectRef(namespace, name)
        record = Record(
            ref=ref,
            pod=ObjectRef(namespace, "gone"),
            identity=ObjectRef(namespace, "gone"),
            binding=ObjectRef(namespace, "gone"),
            node="gone",
            state=Assignment(state),
            identity_revision="",
            binding_revision="",
        )
        self.put("record", ref, (record, finalizers))

    # The whole.

    def run(self) -> None:
        """Play the scenario, let it settle, and look whether it stays so."""
        for step in self.scenario.steps:
            self.at(step.at, self._step, step)
        for _ in range(self.scenario.mics):
            self.at(0.5, self.start_mic)
        end = max((step.at for step in self.scenario.steps), default=0.0) + 1.0
        self.run_until(end)
        if self.scenario.mics > 1 or self.scenario.faults or self.scenario.changes:
            self.run_until(end + self.scenario.rest)
        self.calm = True
        self.note("faults stop")
        if self.pausing.everywhere:
            self.do_pausing(False)
        # Nobody tells of a grant, and MIC asks again after half an hour.
        self.refused.clear()
        if self.broken:
            self.run_until(self.now + 300.0)
            self._judge_settled()
            self.note("what is broken in Azure is made good, and nobody says so")
            self.broken.clear()
        self.run_until(self.now + 1300.0)
        self._judge_settled()
        writes = self.writes
        self.run_until(self.now + 400.0)
        if self.writes != writes:
            self.fail(f"{self.writes - writes} writes though nothing changes any more")
        self._judge_settled()
        if self.scenario.turns:
            self._judge_turns()
        self._end()

    def _end(self) -> None:
        """Leave nothing that only a search for garbage finds: it took a seventh of all the time."""
        self._heap.clear()
        for mic in self.mics:
            vars(mic.controller).clear()
            vars(mic).clear()

    def _step(self, step: Step) -> None:
        self.note(f"{step.what} {' '.join(map(str, step.args))}")
        getattr(self, f"do_{step.what}")(*step.args)

    def _judge_turns(self) -> None:
        """No host starves: whatever failed, a pod that comes now waits for its own host alone."""
        self.note("a pod comes on each host")
        self.operation = OPERATION
        self.do_identity("late", "late", LAST)
        self.do_binding("late", "late", "late", "late")
        begun = self.now
        for number, there in enumerate(self.arm.values()):
            self.do_node(f"late-{number}", number)
            self.do_pod("late", f"on-{there.host.name}", "late", f"late-{number}")
        for there in self.arm.values():
            self.run_until(begun + self._lasts(there) + LONGEST_TURN)
            entry = self.objects["record"].get(ObjectRef("late", f"on-{there.host.name}-late-late"))
            if entry is None or entry.value[0].state is not Assignment.ASSIGNED:
                self.fail(f"the pod on {there.host.name} waits though nothing is in its way")
        self._judge_settled()

    def _judge_settled(self) -> None:
        wishes = self.needs()
        expected = {(wish.pod, wish.identity.ref): wish for wish in wishes}
        found: dict[tuple[ObjectRef, ObjectRef], Record] = {}
        for ref, entry in self.objects["record"].items():
            record = entry.value[0]
            key = (record.pod, record.identity)
            if key not in expected:
                self.fail(f"record {ref} is left over")
            if key in found:
                self.fail(f"two records about {key}")
            found[key] = record
        for key, wish in expected.items():
            record = found.get(key)
            if record is None:
                self.fail(f"no record about {key}")
            elif record.state is not Assignment.ASSIGNED and wish.folded not in self.broken:
                self.fail(f"record {record.ref} still says {record.state}")
            elif record.node != wish.node:
                self.fail(f"record {record.ref} names node {record.node}")
            elif record.identity_revision != revision(wish.identity):
                self.fail(f"record {record.ref} has an old copy of the identity")
        for host, there in self.arm.items():
            self._judge_host(host, there, {wish.folded for wish in wishes if wish.host == host})

    def _judge_host(self, host: Host, there: ArmHost, wanted: set[str]) -> None:
        listed = set(there.listed)
        if self.broken:
            # Azure may refuse what is still to come, and to go.
            return
        immutable = {each for each in listed if NUMBER[each] in self.scenario.protected}
        # A change that failed half way is made good for who needs it, or taken back where MIC may.
        rests = listed - (immutable - wanted) <= there.machines <= listed
        if not rests or there.operation:
            self.fail(f"{host.name} does not rest: {there}")
        if missing := wanted - listed - self.broken:
            self.fail(f"{host.name} lacks {missing}")
        stays = {each for each in listed if there.ours[each] in {"foreign", "either"}}
        if extra := listed - wanted - stays - immutable:
            self.fail(f"{host.name} keeps {extra}")
        book = self.ledgers[host][0] if host in self.ledgers else Ledger(host=host)
        if book.attaching or book.detaching:
            self.fail(f"the ledger of {host.name} is not at rest: {book}")
        ours = {each for each in listed if there.ours[each] == "mic"}
        mistaken = {
            each for each in book.attached if each not in listed or there.ours[each] == "foreign"
        }
        if not ours <= book.attached.keys() or mistaken:
            self.fail(f"the ledger of {host.name} says {list(book.attached)}, ours are {ours}")


class Wish(NamedTuple):
    """An identity that a pod needs."""

    pod: ObjectRef
    identity: AzureIdentity
    host: Host | None
    folded: str
    node: str


def revision(value: AzureIdentity | AzureIdentityBinding) -> str:
    """Return the digest of a spec."""
    if isinstance(value, AzureIdentity):
        spelled = value.resource_id.spelling if value.resource_id else ""
        return f"{value.client_id}{spelled}"
    return f"{value.identity}/{value.selector}"


def identities(there: ArmHost) -> HostIdentities:
    return HostIdentities(
        state=there.state,
        system=there.system,
        user=dict(there.listed),
        clients={each: str(CLIENTS[NUMBER[each]]) for each in there.listed},
        etag=str(there.etag),
    )


def _subscription(action: Any) -> str:
    """Return the subscription of a call of Azure."""
    found: str = (action if isinstance(action, ListHosts) else action.host).subscription
    return found


def shown(value: object) -> str:
    """Return a call or a result for the journal."""
    match value:
        case PatchHost():
            names = [f"+{each.rsplit('-', 1)[1]}" for each in value.change.attach]
            names += [f"-{each.rsplit('-', 1)[1]}" for each in value.change.detach]
            return f"PATCH {value.host.name} {' '.join(names)} if {value.etag}"
        case WriteLedger():
            book = value.ledger
            parts = (
                f"{part}={[NUMBER[each] for each in getattr(book, part)]}"
                for part in ("attached", "attaching", "detaching")
            )
            return f"ledger {book.host.name} {' '.join(parts)} if {value.version or 'absent'}"
        case ReadHost() | ReadLedger():
            return f"{type(value).__name__} {value.host.name}"
        case PollOperation():
            return f"poll {value.host.name}"
        case CreateRecord():
            return f"create {value.record.ref} {value.record.state}"
        case UpdateRecord():
            state = value.record.state if value.record else "without finalizers"
            return f"update {value.ref} {state}"
        case DeleteRecord() | ReadRecord():
            return f"{type(value).__name__} {value.ref}"
        case HostIdentities():
            return f"{[NUMBER[each] for each in value.user]} {value.state} {value.etag}"
        case StoredRecord():
            return f"{value.record.state if value.record else None}"
        case InUse() | HostList() | LedgerList() | StoredLedger():
            return type(value).__name__
        case _:
            return str(value)


_LATENCY: dict[type, float] = {
    ReadHost: ARM / 2,
    ListHosts: ARM / 2,
    PatchHost: ARM / 2,
    PollOperation: ARM / 2,
    **dict.fromkeys(
        (
            ListLedgers,
            ReadLedger,
            WriteLedger,
            ListUse,
            AskPermission,
            CreateRecord,
            UpdateRecord,
            DeleteRecord,
            ReadRecord,
            WriteCondition,
            TellEvent,
        ),
        API / 2,
    ),
}
_OPERATIONS: dict[type, str] = {
    ReadHost: "read",
    ListHosts: "read",
    PatchHost: "write",
    PollOperation: "poll",
}
_DOERS: dict[type, Callable[[World, Mic, Any], Result]] = {
    ReadHost: World._read_host,
    ListHosts: World._list_hosts,
    PatchHost: World._patch,
    PollOperation: World._poll,
    ListLedgers: World._list_ledgers,
    ReadLedger: World._read_ledger,
    WriteLedger: World._write_ledger,
    ListUse: World._list_use,
    AskPermission: World._ask,
    CreateRecord: World._create,
    UpdateRecord: World._update,
    DeleteRecord: World._delete,
    ReadRecord: World._read_record,
    WriteCondition: World._write_condition,
    TellEvent: World._tell_event,
}
FAULTS = (
    "error",
    "unreachable",
    "timeout",
    "lost",
    "late",
    "conflict",
    "throttle",
    "preempt",
    "broken",
    "crash_before",
    "crash_after",
    "pause",
    "gap",
)


@contextmanager
def few_collections() -> Iterator[None]:
    """Have Python look for garbage seldom: a world is some thousand objects, and soon forgotten.

    What is there already is not looked at, not even afterwards: pytest has hundreds of thousands of
    objects, which stay.
    """
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(200_000, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)


def played(scenario: Scenario) -> World:
    """Return the world after the scenario; raise Violation."""
    world = World(scenario)
    world.run()
    return world


def journal(
    scenario: Scenario, make: Callable[[Settings], Controller] = Controller
) -> Iterator[str]:
    """Yield what happens in a scenario, line by line, until its end or its violation."""
    world = World(scenario, make)
    world.keeps_journal = True
    try:
        world.run()
    except Violation as error:
        world.journal.append(str(error))
    yield from world.journal
