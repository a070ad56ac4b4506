"""Two hundred new machines in a second, where Azure takes ten changes a second."""

from __future__ import annotations

from heapq import heappop, heappush
from itertools import count
from typing import Any

from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import BINDING_LABEL, ObjectRef, Pod
from podidentity.mic.calls import (
    Accepted,
    Action,
    BindingSeen,
    Call,
    CreateRecord,
    Failure,
    Fault,
    HostList,
    IdentitySeen,
    Leading,
    LedgerList,
    ListHosts,
    ListLedgers,
    NodeSeen,
    PatchHost,
    PodSeen,
    PollOperation,
    Progress,
    ReadHost,
    Result,
    StoredLedger,
    StoredRecord,
    Synced,
    UpdateRecord,
    WriteLedger,
)
from podidentity.mic.controller import Controller, Settings
from tests.core.objects import binding, identity

MACHINES, RATE = 200, 10.0
TAKES = 15.0
GROUP = "azure:///subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachines"


class Azure:
    """A subscription that takes `RATE` changes a second, and each takes `TAKES` seconds."""

    def __init__(self) -> None:
        self.controller = Controller(Settings(asks_permission=False))
        self.now = 0.0
        self.heap: list[tuple[float, int, Any, tuple[Any, ...]]] = []
        self.order, self.versions = count(), count(1)
        self.listed: dict[Host, dict[str, str]] = {}
        self.ends: dict[Host, tuple[float, PatchHost]] = {}
        self.tokens, self.filled = RATE, 0.0
        self.told_until = 0.0
        """Until when the controller knows that it must not send a change."""
        self.refused = 0
        self.assigned: list[float] = []

    def at(self, time: float, what: Any, *args: Any) -> None:
        heappush(self.heap, (time, next(self.order), what, args))

    def tell(self, event: Any) -> None:
        self.do(self.controller.on_event(event, self.now))

    def do(self, calls: list[Call]) -> None:
        for call in calls:
            if isinstance(call.action, PatchHost):
                assert self.now >= self.told_until
            self.at(self.now + 0.1, self.execute, call)
        due = self.controller.due()
        if due is not None:
            self.at(max(due, self.now), self.wake, due)

    def wake(self, due: float) -> None:
        if self.controller.due() == due:
            self.do(self.controller.on_time(self.now))

    def execute(self, call: Call) -> None:
        self.at(self.now + 0.1, self.answer, call, self.result(call.action))

    def answer(self, call: Call, result: Result) -> None:
        if isinstance(result, Failure):
            self.told_until = self.now + result.retry_after
        self.do(self.controller.on_result(call.number, result, self.now))

    def result(self, action: Action) -> Result:
        match action:
            case ListLedgers():
                return LedgerList({})
            case ReadHost():
                return HostIdentities(state="succeeded", user=self.listed[action.host])
            case ListHosts():
                return HostList(
                    {host: HostIdentities(user=user) for host, user in self.listed.items()}
                )
            case PatchHost():
                return self.patch(action)
            case PollOperation():
                return self.poll(action)
            case WriteLedger():
                return StoredLedger(action.ledger, str(next(self.versions)))
            case CreateRecord() | UpdateRecord():
                return self.store(action)
            case _:
                return None

    def patch(self, action: PatchHost) -> Result:
        self.tokens = min(RATE, self.tokens + (self.now - self.filled) * RATE)
        self.filled = self.now
        if self.tokens < 1:
            self.refused += 1
            return Failure(kind=Fault.THROTTLED, retry_after=1.0)
        self.tokens -= 1
        self.ends[action.host] = (self.now + TAKES, action)
        return Accepted("operation", 1.0)

    def poll(self, action: PollOperation) -> Result:
        end, change = self.ends[action.host]
        if self.now < end:
            return Progress(done=False, after=10.0)
        self.listed[action.host] |= {each.lower(): each for each in change.change.attach}
        return Progress(done=True)

    def store(self, action: CreateRecord | UpdateRecord) -> Result:
        record = action.record
        assert record is not None
        if record.state == "Assigned":
            self.assigned.append(self.now)
        version = str(next(self.versions))
        return StoredRecord(ref=record.ref, uid=record.pod.name, version=version, record=record)

    def come(self, number: int) -> None:
        provider_id = f"{GROUP}/vm{number}"
        self.listed[Host.of_node(provider_id)] = {}
        self.tell(NodeSeen(f"n{number}", provider_id))
        ref = ObjectRef("blue", f"pod-{number}")
        labels = {BINDING_LABEL: "app"}
        self.tell(PodSeen(Pod(ref=ref, uid=ref.name, node=f"n{number}", labels=labels)))


def test_all_machines_have_their_identity_soon_and_few_changes_are_refused() -> None:
    azure = Azure()
    azure.tell(IdentitySeen(identity=identity("blue", "id"), revision=""))
    azure.tell(BindingSeen(binding=binding("blue", "b", "id", "app"), revision=""))
    azure.tell(Synced())
    azure.tell(Leading(1e9))
    for number in range(MACHINES):
        azure.at(1.0 + number / MACHINES, azure.come, number)
    while azure.heap and len(azure.assigned) < MACHINES:
        azure.now, _, what, args = heappop(azure.heap)
        what(*args)
    assert len(azure.assigned) == MACHINES
    # 20 s are needed to send them, 15 s for each change, and up to 10 s between two polls.
    assert max(azure.assigned) < 60.0
    assert azure.refused < MACHINES
