"""Thousands of malformed objects, by MIC's watches to its controller, beside a pod that is right.

Each is a good object of which some fields are something else. It keeps its name: no API server
stores an object without one, and the reflector reads none.
"""

from __future__ import annotations

import asyncio
import copy
import json
import logging
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Any

import msgspec
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from podidentity.core.hosts import Host, NotAnAzureNode
from podidentity.core.resources import BINDING_LABEL, Assignment, Malformed, ObjectRef
from podidentity.mic.calls import (
    PLAIN,
    About,
    BindingSeen,
    Call,
    CreateRecord,
    Event,
    ExceptionSeen,
    IdentitySeen,
    LogLine,
    NodeSeen,
    PodSeen,
    RecordGone,
    RecordSeen,
    Result,
    UpdateRecord,
    WriteCondition,
)
from podidentity.mic.objects import render_condition, render_record
from podidentity.mic.watches import ControllerWatches
from podidentity.wire.kube import (
    AZURE_ASSIGNED_IDENTITIES,
    AZURE_IDENTITIES,
    AZURE_IDENTITY_BINDINGS,
    AZURE_POD_IDENTITY_EXCEPTIONS,
    NODES,
    PODS,
    Page,
)
from podidentity.wire.kube import Event as WatchEvent
from podidentity.wire.manifests import FINALIZER
from tests.fakes import CLIENT, RESOURCE_ID, FakeKubeApi, ImpatientClock
from tests.mic.timed_world import TimedWorld, of_set

Json = dict[str, Any]

EXAMPLES, AT_ONCE = 100, 60
"""Each example is a cluster with so many malformed objects, of six kinds."""


def identity(**spec: Any) -> Json:
    return {"spec": {"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID, **spec}}


def pod(name: str, node: str, label: str) -> Json:
    meta = {"name": name, "namespace": "blue", "uid": f"u-{name}", "labels": {BINDING_LABEL: label}}
    return {"metadata": meta, "spec": {"nodeName": node}, "status": {"phase": "Running"}}


GOOD: dict[str, list[Json]] = {
    PODS.plural: [pod("web", "n1", "orders")],
    NODES.plural: [{"metadata": {"name": "n1"}, "spec": {"providerID": of_set(1)}}],
    AZURE_IDENTITIES.plural: [
        {"metadata": {"name": "orders", "namespace": "blue", "uid": "u-i"}, **identity()}
    ],
    AZURE_IDENTITY_BINDINGS.plural: [
        {
            "metadata": {"name": "orders", "namespace": "blue", "uid": "u-b"},
            "spec": {"azureIdentity": "orders", "selector": "orders"},
        }
    ],
}
TENANT = "72f988bf-86f1-41af-91ab-2d7cd011db47"
META: Json = {
    "uid": "u",
    "resourceVersion": "1",
    "generation": 1,
    "creationTimestamp": "2026-01-01T00:00:00Z",
    "labels": {BINDING_LABEL: "odd", "nodename": "n1"},
    "annotations": {"aadpodidentity.k8s.io/Behavior": "namespaced"},
    "finalizers": [FINALIZER],
    "ownerReferences": [],
    "managedFields": [],
    "deletionTimestamp": None,
}
CONDITION = {"type": "Ready", "status": "True", "observedGeneration": 1, "reason": "r"}
STATUS: Json = {"conditions": [CONDITION]}
COPY: Json = {"metadata": {"name": "orders", "namespace": "blue"}, "spec": {"clientID": CLIENT}}
WHOLE: dict[str, Json] = {
    AZURE_IDENTITIES.plural: {
        **identity(
            type=1,
            objectID=CLIENT,
            tenantID=TENANT,
            clientPassword={"name": "s", "namespace": "blue"},
            auxiliaryTenantIDs=[TENANT],
            federation={"subject": "pod", "audience": "api://a", "via": RESOURCE_ID},
            adEndpoint="https://login.microsoftonline.com/",
        ),
        "status": STATUS,
    },
    AZURE_IDENTITY_BINDINGS.plural: {
        "spec": {"azureIdentity": "orders", "selector": "odd", "weight": 1},
        "status": STATUS,
    },
    AZURE_POD_IDENTITY_EXCEPTIONS.plural: {
        "spec": {"podLabels": {"app": "odd"}, "azureIdentities": ["orders"]},
        "status": STATUS,
    },
    AZURE_ASSIGNED_IDENTITIES.plural: {
        "spec": {
            "azureIdentityRef": COPY,
            "azureBindingRef": COPY,
            "pod": "web",
            "podNamespace": "blue",
            "nodename": "n1",
        },
        "status": {"status": "Assigned", "availableReplicas": 1},
    },
    PODS.plural: {
        "spec": {
            "nodeName": "n1",
            "serviceAccountName": "default",
            "hostNetwork": False,
            "runtimeClassName": None,
            "volumes": [{"csi": {"driver": "d"}}],
        },
        "status": {
            "phase": "Running",
            "podIP": "10.0.0.1",
            "podIPs": [{"ip": "10.0.0.1"}],
            "startTime": "2026-01-01T00:00:00Z",
        },
    },
    NODES.plural: {"spec": {"providerID": of_set(2), "taints": []}, "status": {}},
}
"""Of each kind one with all fields that mean something."""


def places(found: Json, *above: str) -> list[tuple[str, ...]]:
    """Return where the fields are, those of fields too, and one that nobody knows."""
    inner = [each for name in found for each in _inside(found[name], *above, name)]
    return [*((*above, name) for name in found), (*above, "unknown"), *inner]


def _inside(value: Any, *above: str) -> list[tuple[str, ...]]:
    return places(value, *above) if isinstance(value, dict) else []


ODD: list[Any] = [
    *(None, True, False, 0, -1, 7, 2**31, 2**63, -(10**30), 1.5, -0.0, 1e308),
    *(
        "",
        " ",
        "x",
        "orders",
        "n1",
        "a" * 254,
        "x" * 20_000,
        "../../etc",
        "a,b in (c)",
        "%s %n {0}",
    ),
    *("é", "ﬁ", "\u202egnp", "\x00", "\U0001f600" * 50, "\u0130", "İ" * 64, "\ufeff", "line\nline"),
    *("9" * 5_000, "2026-13-45T99:99:99Z", CLIENT[:-1], f"{{{CLIENT}}}", "not-an-id"),
    *(
        RESOURCE_ID[1:],
        f"{RESOURCE_ID}/more",
        RESOURCE_ID.replace("/", "//"),
        "azure://",
        "azure:///",
    ),
    *(of_set(3).replace("set3", "s" * 300), of_set(3)[:-1], "https://[::x/", "system-assigned"),
    *([], [None], [[]], [{}], ["x", 1, None], [{"type": []}], ["x"] * 300, {}, {"": None}),
    *({"name": 1}, {"name": "x" * 300, "namespace": []}, {"k": {"k": {"k": []}}}),
    *({str(number): str(number) for number in range(300)}, {"é\x00": "é"}, {BINDING_LABEL: 1}),
]
GONE = object()
"""Instead of a value: the field is missing."""
KINDS = tuple(WHOLE)
PLACES = {kind: places({"metadata": META, **WHOLE[kind]}) for kind in KINDS}
CHANGES = [(kind, each, odd) for kind in KINDS for each in PLACES[kind] for odd in (*ODD, GONE)]
MORE = [None, *((number, odd) for number in range(40) for odd in (*ODD, GONE))]
"""A second change, of a field by its number; or none."""
MALFORMED = st.tuples(st.sampled_from(CHANGES), st.none() | st.sampled_from(MORE))


def malformed(first: tuple[str, tuple[str, ...], Any], second: tuple[int, Any] | None) -> Json:
    """Return the fields of an object that differs from a good one by two at most."""
    kind, place, value = first
    found = copy.deepcopy({"metadata": META, **WHOLE[kind]})
    change(found, place, value)
    if second is not None:
        number, value = second
        change(found, PLACES[kind][number % len(PLACES[kind])], value)
    return found


def change(found: Json, place: tuple[str, ...], value: Any) -> None:
    *above, name = place
    for each in above:
        inner = found.get(each)
        if not isinstance(inner, dict):
            return
        found = inner
    if value is GONE:
        found.pop(name, None)
    else:
        found[name] = value


def named(found: Json, kind: str, name: str) -> Json:
    """Return it with the parts of its metadata that an API server answers for."""
    meta = found.get("metadata")
    meta = dict(meta) if isinstance(meta, dict) else {}
    sure = {"name": name, "resourceVersion": "1"}
    if kind != NODES.plural:
        sure["namespace"] = "blue"
    return {**found, "metadata": {**meta, **sure}}


RESOURCES = (
    *(PODS, NODES, AZURE_IDENTITIES, AZURE_IDENTITY_BINDINGS, AZURE_POD_IDENTITY_EXCEPTIONS),
    AZURE_ASSIGNED_IDENTITIES,
)


class Server(FakeKubeApi):
    """Lists what it has; its watches tell nothing more."""

    def __init__(self, objects: Mapping[str, list[Json]]) -> None:
        self._lists = {each.path(): objects.get(each.plural, []) for each in RESOURCES}

    async def list_all(self, path: str, params: Mapping[str, str] | None = None) -> Page:
        del params
        found = self._lists.get(path, ())
        items = tuple(msgspec.Raw(json.dumps(each).encode()) for each in found)
        return Page(items=items, resource_version="1")

    async def watched(self, path: str, params: Mapping[str, str]) -> AsyncIterator[WatchEvent]:
        del path, params
        await asyncio.Event().wait()
        yield WatchEvent(type="", object=msgspec.Raw(b""))


class Place(TimedWorld):
    """The controller, told by watches of these objects."""

    def __init__(self, objects: Mapping[str, list[Json]]) -> None:
        self.lines: list[LogLine] = []
        self.seen: dict[tuple[str, str], Event] = {}
        """By kind and name."""
        super().__init__(0, takes=lambda _: 5.0)
        self.watches = ControllerWatches(
            Server(objects), ImpatientClock(), namespace="kube-system", asks_permission=False
        )
        self.watches.follow(self._see)
        asyncio.run(self._read())
        self.run(60.0)

    async def _read(self) -> None:
        reading = asyncio.create_task(self.watches.run())
        while not self.watches.synced:
            assert not reading.done()
            await asyncio.sleep(0)
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)

    def _see(self, event: Event) -> None:
        match event:
            case PodSeen():
                self.seen[PODS.plural, event.pod.ref.name] = event
            case NodeSeen():
                self.seen[NODES.plural, event.name] = event
                with suppress(NotAnAzureNode):
                    self.node(event.name, event.provider_id)
                    return
            case IdentitySeen():
                self.seen[AZURE_IDENTITIES.plural, event.identity.ref.name] = event
            case BindingSeen():
                self.seen[AZURE_IDENTITY_BINDINGS.plural, event.binding.ref.name] = event
            case ExceptionSeen():
                self.seen[AZURE_POD_IDENTITY_EXCEPTIONS.plural, event.exception.ref.name] = event
            case RecordSeen():
                event = RecordSeen(replace(event.stored, version=str(next(self._versions))))
                self.seen[AZURE_ASSIGNED_IDENTITIES.plural, event.stored.ref.name] = event
                self.records[event.stored.ref] = event.stored
        self.tell(event)

    def _do(self, calls: list[Call]) -> None:
        for action in (each.action for each in calls):
            if isinstance(action, WriteCondition):
                live = self.watches.live(action.about, action.ref)
                assert live is not None
                msgspec.json.encode(render_condition(live, action.about, action.condition, 0.0))
            if isinstance(action, LogLine):
                self.lines.append(action)
        super()._do(calls)

    def _store(self, action: CreateRecord | UpdateRecord) -> Result:
        if action.record is not None:
            copies = [
                self.watches.live(about, ref)
                for about, ref in (
                    (About.IDENTITY, action.record.identity),
                    (About.BINDING, action.record.binding),
                )
            ]
            assert None not in copies
            msgspec.json.encode(render_record(action.record, *copies))  # type: ignore[arg-type] # looked at above
            return super()._store(action)
        version = str(next(self._versions))
        stored = replace(self.records[action.ref], odd=PLAIN, version=version)
        self.records[action.ref] = stored
        if stored.deleting:
            self.at(self.now, self.tell, RecordGone(stored.ref, stored.uid))
        return stored

    def state(self, pod: str) -> list[tuple[str, Assignment]]:
        """Return the identities in a pod's records, and whether it has them."""
        records = [each.record for each in self.records.values() if each.record is not None]
        return [(each.identity.name, each.state) for each in records if each.pod.name == pod]

    def unusable(self) -> Iterator[tuple[str, str, str]]:
        """Yield what cannot be used: its kind and name, why, and what people are told."""
        for (kind, name), event in self.seen.items():
            match event:
                case IdentitySeen(identity=Malformed() as bad):
                    yield f"{kind} {name}", bad.why, self._told(About.IDENTITY, bad.ref)
                case BindingSeen(binding=Malformed() as bad):
                    yield f"{kind} {name}", bad.why, self._told(About.BINDING, bad.ref)
                case ExceptionSeen(exception=Malformed() as bad):
                    yield f"{kind} {name}", bad.why, self._told(About.EXCEPTION, bad.ref)
                case NodeSeen(provider_id=provider) if provider:
                    try:
                        Host.of_node(provider)
                    except NotAnAzureNode as error:
                        lines = [
                            each.message for each in self.lines if f"Node {name} " in each.message
                        ]
                        yield f"{kind} {name}", str(error), "".join(lines)

    def _told(self, about: About, ref: ObjectRef) -> str:
        condition = self.conditions.get((about, ref))
        return "" if condition is None or condition.holds else condition.message


ALONE = Place(GOOD)


# What fails names its object; to shrink sixty would take minutes.
@settings(max_examples=EXAMPLES, phases=[Phase.generate])
@given(st.lists(MALFORMED, min_size=AT_ONCE, max_size=AT_ONCE))
def test_malformed_objects_are_told_with_their_reason_and_keep_no_pod_waiting(
    changes: list[Any],
) -> None:
    objects = {kind: list(GOOD.get(kind, ())) for kind in KINDS}
    odd = [(first[0], f"odd-{number}") for number, (first, _) in enumerate(changes)]
    for (kind, name), each in zip(odd, changes, strict=True):
        # Before and behind the good ones.
        objects[kind].insert(int(name.endswith("1")), named(malformed(*each), kind, name))
    with heard() as lines:
        place = Place(objects)
    assert not [line for line in lines if line.levelno >= logging.ERROR]
    said = "\n".join(line.getMessage() for line in lines)
    # Of one namespace and kind twenty are told.
    silenced = "more objects that cannot be used" in said
    for kind, name in odd:
        namespace = "" if kind == NODES.plural else "blue"
        ignored = f"{kind}: {namespace}/{name} cannot be read and is ignored: " in said
        assert ((kind, name) in place.seen) is not ignored or silenced, (kind, name)
    for what, why, told in place.unusable():
        assert why, what
        assert why in told, what
    assert ("orders", Assignment.ASSIGNED) in place.state("web")
    assert place.when("web") == ALONE.when("web") < 60.0


class Heard(logging.Handler):
    """Keeps what is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(record)


@contextmanager
def heard() -> Iterator[list[logging.LogRecord]]:
    """Keep the lines about objects: pytest's own are those of all examples."""
    handler, log = Heard(), logging.getLogger("podidentity.watch")
    log.addHandler(handler)
    try:
        yield handler.lines
    finally:
        log.removeHandler(handler)
