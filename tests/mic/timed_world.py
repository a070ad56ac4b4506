"""A cluster and an Azure in which everything takes its time, on a fake clock: how soon, how often.

The controller is the product's, whole, with its queues and gates. Nothing fails here but what the
quota of Azure refuses, or a test names, so that times and counts are those of the controller's own
choices; the simulator's faults strike anywhere. Hours pass in a second, and the same world always
runs the same way.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from itertools import count
from math import inf
from typing import Any

from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import (
    BINDING_LABEL,
    AzureIdentity,
    AzureIdentityBinding,
    ClientId,
    IdentityType,
    ObjectRef,
    Pod,
    ResourceId,
)
from podidentity.mic.calls import (
    About,
    Accepted,
    Action,
    AskPermission,
    BindingSeen,
    Call,
    Condition,
    CreateRecord,
    DeleteRecord,
    Event,
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
    NodeSeen,
    PatchHost,
    PodGone,
    PodSeen,
    PollOperation,
    Progress,
    ReadHost,
    RecordGone,
    RecordSeen,
    Result,
    StoredLedger,
    StoredRecord,
    Synced,
    UpdateRecord,
    WriteCondition,
    WriteLedger,
)
from podidentity.mic.controller import Controller, Settings

GROUP = "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute"
API, ARM = 0.01, 0.2
"""Seconds of a call to the API server and to Azure, there and back."""
POLL = 10.0
"""Seconds that Azure asks to wait before each poll of a change."""
NAMESPACE = "blue"


def of_set(number: int, node: int = 0) -> str:
    """Return the provider ID of a node of a scale set."""
    return f"{GROUP}/virtualMachineScaleSets/set{number}/virtualMachines/{node}"


def of_machine(number: int) -> str:
    """Return the provider ID of a node that is a virtual machine alone."""
    return f"{GROUP}/virtualMachines/vm{number}"


@dataclass(slots=True)
class _Machine:
    """A host as Azure has it; while a change is under way it lists what is to come."""

    user: dict[str, str] = field(default_factory=dict)
    until: float = -inf
    """When the change under way ends."""


class TimedWorld:
    """One MIC that leads, with the identities `identity-0` … and a binding for each."""

    def __init__(
        self,
        identities: int = 1,
        *,
        grace: float = 300.0,
        takes: Callable[[Host], float] = lambda _: 40.0,
        writes: float = inf,
        api: float = API,
        poll: float = POLL,
        fails: Callable[[float, Action], Failure | None] = lambda _now, _action: None,
    ) -> None:
        """`takes` says how long a change of a host takes; `writes` a second Azure accepts.

        A call to the API server takes `api`; Azure asks to wait for `poll` before each poll.
        `fails` says at a time what comes of a call instead of its answer.
        """
        self.controller = Controller(Settings(grace=grace, record_writes=20))
        self.now = 0.0
        self.calls: Counter[type] = Counter()
        self.attached: Counter[str] = Counter()
        """How often each identity was attached to a host, `HOST ID`, and detached."""
        self.detached: Counter[str] = Counter()
        self.changed: list[Host] = []
        """Hosts, in the order of their changes."""
        self.assigned: dict[ObjectRef, float] = {}
        """When the record of each pod said Assigned."""
        self.refused = 0
        """Changes that the quota refused."""
        self.early = 0
        """Changes that were sent before a Retry-After of which MIC knew had ended."""
        self._takes, self._fails = takes, fails
        self._api, self._poll = api, poll
        self._rate, self._tokens, self._filled = writes, writes, 0.0
        self._closed_until = -inf
        self.conditions: dict[tuple[About, ObjectRef], Condition] = {}
        self._heap: list[tuple[float, int, Callable[..., None], tuple[Any, ...]]] = []
        self._order, self._versions = count(), count(1)
        self._machines: dict[Host, _Machine] = {}
        self._ledgers: dict[Host, StoredLedger] = {}
        self.pods: dict[ObjectRef, Pod] = {}
        self.records: dict[ObjectRef, StoredRecord] = {}
        self._identities: list[AzureIdentity] = []
        self._bindings: list[AzureIdentityBinding] = []
        for number in range(identities):
            self.bind(number)
        self.tell(Synced())
        self.tell(Leading(inf))

    def bind(self, number: int) -> None:
        """Make an identity and its binding."""
        ref = ObjectRef(NAMESPACE, f"identity-{number}")
        path = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
        identity = AzureIdentity(
            ref=ref,
            type=IdentityType.USER_ASSIGNED,
            client_id=ClientId.parse(f"00000000-0000-0000-0000-{number:012}"),
            resource_id=ResourceId.parse(f"/subscriptions/s/resourceGroups/i/{path}/{ref.name}"),
        )
        binding = AzureIdentityBinding(ref=ref, identity=ref.name, selector=ref.name)
        self._identities.append(identity)
        self._bindings.append(binding)
        self.tell(IdentitySeen(identity=identity, revision="1"))
        self.tell(BindingSeen(binding=binding, revision="1"))

    # What happens.

    def at(self, time: float, what: Callable[..., None], *args: Any) -> None:
        """Have something happen."""
        heappush(self._heap, (time, next(self._order), what, args))

    def run(self, until: float) -> None:
        """Let time pass."""
        while self._heap and self._heap[0][0] <= until:
            self.now, _, what, args = heappop(self._heap)
            what(*args)
        self.now = until

    def node(self, name: str, provider_id: str) -> None:
        """Have a node join."""
        self._machines.setdefault(Host.of_node(provider_id), _Machine())
        self.tell(NodeSeen(name, provider_id))

    def pod(self, name: str, node: str, identity: int = 0) -> None:
        """Have a pod come that needs an identity, or be scheduled."""
        ref = ObjectRef(NAMESPACE, name)
        known = self.pods.get(ref)
        uid = known.uid if known else f"{name}-{next(self._versions)}"
        labels = {BINDING_LABEL: f"identity-{identity}"}
        self.pods[ref] = Pod(ref=ref, uid=uid, node=node, labels=labels)
        self.tell(PodSeen(self.pods[ref]))

    def gone(self, name: str) -> None:
        """Have a pod go."""
        pod = self.pods.pop(ObjectRef(NAMESPACE, name))
        self.tell(PodGone(pod.ref, pod.uid))

    def when(self, name: str) -> float:
        """Return when the pod's record said Assigned; inf if it did not yet."""
        return self.assigned.get(ObjectRef(NAMESPACE, name), inf)

    # The controller.

    def tell(self, event: Event) -> None:
        """Have the controller take an event."""
        self._do(self.controller.on_event(event, self.now))

    def _do(self, calls: list[Call]) -> None:
        for call in calls:
            self.calls[type(call.action)] += 1
            if isinstance(call.action, PatchHost):
                self.early += self.now < self._closed_until
            if not isinstance(call.action, LogLine):
                azures = isinstance(call.action, ReadHost | ListHosts | PatchHost | PollOperation)
                half = (ARM if azures else self._api) / 2
                self.at(self.now + half, self._arrive, call, half)
        due = self.controller.due()
        if due is not None:
            self.at(max(due, self.now), self._wake, due)

    def _wake(self, due: float) -> None:
        if self.controller.due() == due:
            self._do(self.controller.on_time(self.now))

    def _arrive(self, call: Call, half: float) -> None:
        result = self._fails(self.now, call.action) or self._result(call.action)
        self.at(self.now + half, self._answer, call, result)

    def _answer(self, call: Call, result: Result) -> None:
        if isinstance(result, Failure):
            self._closed_until = max(self._closed_until, self.now + result.retry_after)
        self._do(self.controller.on_result(call.number, result, self.now))

    # Azure and the API server.

    def _result(self, action: Action) -> Result:
        match action:
            case ReadHost():
                return self._shown(action.host)
            case ListHosts():
                return HostList(
                    {
                        host: self._shown(host)
                        for host in self._machines
                        if host.is_scale_set is action.scale_sets
                    }
                )
            case PatchHost():
                return self._patch(action)
            case PollOperation():
                done = self.now >= self._machines[action.host].until
                return Progress(done=done, after=0.0 if done else self._poll)
            case ListLedgers():
                return LedgerList(dict(self._ledgers))
            case WriteLedger():
                stored = StoredLedger(action.ledger, str(next(self._versions)))
                self._ledgers[action.ledger.host] = stored
                return stored
            case ListUse():
                pods, identities = tuple(self.pods.values()), tuple(self._identities)
                return InUse(pods, identities, tuple(self._bindings))
            case AskPermission():
                return True
            case WriteCondition():
                self.conditions[action.about, action.ref] = action.condition
                return None
            case CreateRecord() | UpdateRecord():
                return self._store(action)
            case DeleteRecord():
                stored_record = self.records.pop(action.ref)
                self.at(self.now, self.tell, RecordGone(action.ref, stored_record.uid))
                return None
            case _:
                return None

    def _shown(self, host: Host) -> HostIdentities:
        machine = self._machines[host]
        state = "updating" if self.now < machine.until else "succeeded"
        return HostIdentities(state=state, user=dict(machine.user))

    def _patch(self, action: PatchHost) -> Result:
        self._tokens = min(self._rate, self._tokens + (self.now - self._filled) * self._rate)
        self._filled = self.now
        if self._tokens < 1:
            self.refused += 1
            return Failure(kind=Fault.THROTTLED, retry_after=1.0)
        self._tokens -= 1 if self._rate < inf else 0
        machine = self._machines[action.host]
        if self.now < machine.until:
            raise AssertionError(f"{action.host} is changed while another change is under way")
        machine.until = self.now + self._takes(action.host)
        self.changed.append(action.host)
        for spelling in action.change.attach:
            machine.user[spelling.lower()] = spelling
            self.attached[f"{action.host.name} {spelling}"] += 1
        for spelling in action.change.detach:
            del machine.user[spelling.lower()]
            self.detached[f"{action.host.name} {spelling}"] += 1
        return Accepted("operation", self._poll)

    def _store(self, action: CreateRecord | UpdateRecord) -> Result:
        record = action.record
        if record is None:
            raise AssertionError("there is no finalizer to take off")
        if record.state == "Assigned":
            self.assigned.setdefault(record.pod, self.now)
        uid = action.uid if isinstance(action, UpdateRecord) else f"r{next(self._versions)}"
        version = str(next(self._versions))
        stored = StoredRecord(ref=record.ref, uid=uid, version=version, record=record)
        self.records[record.ref] = stored
        self.at(self.now, self.tell, RecordSeen(stored))
        return stored
