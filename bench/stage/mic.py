"""A controller in a world that grants every call at once: what its own decisions cost.

Nothing is sent. Azure and the API server are what the controller's calls say, so that the figures
are the controller's alone. It is a process of its own (`bench.mic`), for its memory counts too.
"""

from __future__ import annotations

import json
import resource
import statistics
import sys
import time
import uuid
from collections import Counter, deque
from dataclasses import replace

from podidentity.core.hosts import Host, HostIdentities
from podidentity.core.resources import (
    BINDING_LABEL,
    Assignment,
    AzureIdentity,
    AzureIdentityBinding,
    ClientId,
    IdentityType,
    ObjectRef,
    Pod,
    ResourceId,
)
from podidentity.mic.calls import (
    Accepted,
    AskPermission,
    BindingSeen,
    Call,
    CreateRecord,
    DeleteRecord,
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
    ReadHost,
    ReadLedger,
    RecordGone,
    RecordSeen,
    Result,
    StoredLedger,
    StoredRecord,
    Synced,
    UpdateRecord,
    WriteLedger,
)
from podidentity.mic.controller import Controller

_GROUP = "/subscriptions/1b0f8a2e-3c4d-4e5f-8a9b-0c1d2e3f4a5b/resourceGroups/nodes"
_SETS, _NODES_OF_SET = 30, 20
_NAMESPACES, _IDENTITIES = 50, 20
_PODS_AFTER = 500
"""Pods that come one by one when all has settled."""


class GrantingWorld:
    """Gives every call what it asks for, and counts the calls by their kind."""

    def __init__(self) -> None:
        self.controller = Controller()
        self.now = 1_000_000.0
        self.calls: Counter[str] = Counter()
        self.hosts: dict[Host, HostIdentities] = {}
        self.versions = 0

    def tell(self, event: object) -> list[Call]:
        """Tell an event; return the calls that follow at once."""
        return self.controller.on_event(event, self.now)  # type: ignore[arg-type] # any of them

    def settle(self, calls: list[Call]) -> None:
        """Grant these calls and all that follow, until nothing is due within a second."""
        waiting = deque(calls)
        while True:
            while waiting:
                waiting.extend(self._grant(waiting.popleft()))
            due = self.controller.due()
            if due is None or due > self.now + 1:
                return
            self.now = max(self.now, due)
            waiting.extend(self.controller.on_time(self.now))

    def _grant(self, call: Call) -> list[Call]:
        action = call.action
        self.calls[type(action).__name__] += 1
        if isinstance(action, LogLine):
            return []
        follows = []
        result = self._result(call)
        if isinstance(result, StoredRecord):
            follows = self.tell(RecordSeen(result))
        elif isinstance(action, DeleteRecord):
            follows = self.tell(RecordGone(action.ref, action.uid))
        return follows + self.controller.on_result(call.number, result, self.now)

    def _result(self, call: Call) -> Result:  # noqa: C901, PLR0912 - a line for each kind of call
        action = call.action
        self.versions += 1
        match action:
            case ReadHost():
                return self._host(action.host)
            case ListHosts():
                return HostList(
                    {
                        host: found
                        for host, found in self.hosts.items()
                        if host.is_scale_set is action.scale_sets
                    }
                )
            case PatchHost():
                user = dict(self._host(action.host).user)
                for folded in action.change.detach:
                    del user[folded]
                for spelling in action.change.attach:
                    user[str(spelling).lower()] = str(spelling)
                self.hosts[action.host] = replace(self.hosts[action.host], user=user)
                return Accepted()
            case ListLedgers():
                return LedgerList({})
            case ReadLedger():
                return StoredLedger(None, "")
            case WriteLedger():
                return StoredLedger(action.ledger, str(self.versions))
            case ListUse():
                return InUse((), (), ())
            case AskPermission():
                return True
            case CreateRecord():
                ref, uid = action.record.ref, str(self.versions)
                version = str(self.versions)
                return StoredRecord(ref=ref, uid=uid, version=version, record=action.record)
            case UpdateRecord():
                return StoredRecord(
                    ref=action.ref,
                    uid=action.uid,
                    version=str(self.versions),
                    record=action.record,
                )
            case _:
                return None

    def _host(self, host: Host) -> HostIdentities:
        return self.hosts.setdefault(host, HostIdentities(state="succeeded"))


def _fill(world: GrantingWorld) -> None:
    """Tell of nodes, identities and bindings."""
    for number in range(_SETS * _NODES_OF_SET):
        scale_set = f"virtualMachineScaleSets/pool{number % _SETS}"
        instance = f"virtualMachines/{number // _SETS}"
        provider = f"azure://{_GROUP}/providers/Microsoft.Compute/{scale_set}/{instance}"
        world.tell(NodeSeen(f"node-{number}", provider))
    for place in range(_NAMESPACES):
        for number in range(_IDENTITIES):
            ref = ObjectRef(f"team-{place}", f"identity-{number}")
            path = "providers/Microsoft.ManagedIdentity/userAssignedIdentities"
            identity = AzureIdentity(
                ref=ref,
                type=IdentityType.USER_ASSIGNED,
                client_id=ClientId.parse(str(uuid.UUID(int=number + 1))),
                resource_id=ResourceId.parse(f"{_GROUP}/{path}/identity-{number}"),
            )
            binding = AzureIdentityBinding(
                ref=ref, identity=ref.name, selector=f"selector-{number}"
            )
            world.tell(IdentitySeen(identity=identity, revision="1"))
            world.tell(BindingSeen(binding=binding, revision="1"))


def _pod(number: int, *, bound: bool) -> Pod:
    """Return a pod; one that is not bound has the label of nobody's binding."""
    value = f"selector-{number % _IDENTITIES}" if bound else "nobody"
    return Pod(
        ref=ObjectRef(f"team-{number % _NAMESPACES}", f"pod-{number}"),
        uid=f"uid-{number}",
        node=f"node-{number % (_SETS * _NODES_OF_SET)}",
        labels={BINDING_LABEL: value},
    )


def main(pods: int, assigned: int) -> None:
    """Print what a start with so many pods and assignments costs, and then each further pod."""
    world = GrantingWorld()
    began = time.perf_counter()
    _fill(world)
    for number in range(pods):
        world.tell(PodSeen(_pod(number, bound=number < assigned)))
    calls = world.tell(Leading(world.now + 1e9))
    calls += world.tell(Synced())
    world.settle(calls)
    settled = time.perf_counter() - began
    made = dict(world.calls)
    if made.get("CreateRecord", 0) < assigned:
        sys.exit(f"only {made} was called for {assigned} pods that need a record")
    took, writes = [], 0
    for number in range(pods, pods + _PODS_AFTER):
        pod = _pod(number, bound=True)
        began = time.perf_counter()
        calls = world.tell(PodSeen(pod))
        took.append((time.perf_counter() - began) * 1e6)
        made_of = [each.action for each in calls]
        states = [each.record.state for each in made_of if isinstance(each, CreateRecord)]
        if states != [Assignment.ASSIGNED]:
            sys.exit(f"a pod whose identity is on its host got {states}")
        before = world.calls.total()
        world.settle(calls)
        world.settle(world.tell(PodSeen(pod)))
        world.settle(world.tell(PodGone(pod.ref, pod.uid)))
        writes += world.calls.total() - before
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(
        json.dumps(
            {
                "settled": settled,
                "peak": peak,
                "p50": statistics.median(took),
                "p99": statistics.quantiles(took, n=100)[-1],
                "calls": writes / _PODS_AFTER,
                "patches": made.get("PatchHost", 0),
            }
        )
    )


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
