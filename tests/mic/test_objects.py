from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import pytest

from podidentity.core.refusals import LONGEST
from podidentity.core.resources import Assignment, ObjectRef
from podidentity.mic.calls import PLAIN, About, Condition, Oddities, Record, StoredRecord, TellEvent
from podidentity.mic.objects import (
    _LONGEST_FIELD,
    Live,
    UnreadableObject,
    parse_config_map,
    parse_live,
    parse_record,
    render_condition,
    render_record,
    render_told,
    render_update,
)
from podidentity.wire import ANY
from podidentity.wire.manifests import FINALIZER
from tests.fakes import CLIENT, NOW, RESOURCE_ID

API = "aadpodidentity.k8s.io/v1"


def identity(**more: Any) -> dict[str, Any]:
    meta = {
        "name": "orders",
        "namespace": "shop",
        "uid": "u-1",
        "resourceVersion": "41",
        "generation": 3,
        "managedFields": [{"manager": "kubectl"}],
        "finalizers": ["example.com/keep"],
        "ownerReferences": [{"name": "team"}],
        "generateName": "or",
        "deletionTimestamp": "2026-01-01T00:00:00Z",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "{}", "a": "b"},
        **more.pop("metadata", {}),
    }
    spec = {"type": 0, "clientID": CLIENT, "resourceID": RESOURCE_ID}
    return {"apiVersion": API, "kind": "AzureIdentity", "metadata": meta, "spec": spec, **more}


def binding(**more: Any) -> dict[str, Any]:
    meta = {"name": "b", "namespace": "shop", "uid": "u-2", "generation": 1}
    return {"metadata": meta, "spec": {"azureIdentity": "orders", "selector": "s"}, **more}


def live(found: dict[str, Any], about: About = About.IDENTITY) -> Live:
    return parse_live(json.dumps(found).encode(), about)


def record(state: Assignment = Assignment.ASSIGNED, **more: Any) -> Record:
    return Record(
        ref=ObjectRef("shop", "web-0-shop-orders"),
        pod=ObjectRef("shop", "web-0"),
        identity=ObjectRef("shop", "orders"),
        binding=ObjectRef("shop", "b"),
        node="n1",
        state=state,
        identity_revision=live(identity()).revision,
        binding_revision=live(binding(), About.BINDING).revision,
        **more,
    )


def stored(**changes: Any) -> dict[str, Any]:
    """Return the record as the API server has it."""
    copies = live(identity()), live(binding(), About.BINDING)
    body: dict[str, Any] = json.loads(json.dumps(render_record(record(), *copies)))
    body["metadata"] |= {"uid": "r-1", "resourceVersion": "77", **changes.pop("metadata", {})}
    return {**body, **changes}


# Copies and what decides


def test_a_copy_says_its_kind_and_leaves_out_what_nobody_reads() -> None:
    copy = json.loads(live(identity(status={"conditions": []})).copy)
    assert (copy["apiVersion"], copy["kind"]) == (API, "AzureIdentity")
    assert copy["metadata"]["annotations"] == {"a": "b"}
    assert copy["metadata"].keys() == {
        "name",
        "namespace",
        "uid",
        "resourceVersion",
        "generation",
        "annotations",
    }
    assert copy.keys() == {"apiVersion", "kind", "metadata", "spec"}


def test_the_revision_is_that_of_what_decides() -> None:
    before = live(identity()).revision
    same = [
        identity(metadata={"resourceVersion": "99", "generation": 9, "labels": {"x": "y"}}),
        identity(status={"conditions": [{"type": "Ready"}]}),
    ]
    assert {live(each).revision for each in same} == {before}
    namespaced = identity(
        metadata={"annotations": {"aadpodidentity.k8s.io/Behavior": "namespaced"}}
    )
    other = identity()
    other["spec"]["clientID"] = "x"
    assert len({before, live(namespaced).revision, live(other).revision}) == 3


def test_the_order_of_fields_is_no_difference() -> None:
    turned = identity()
    turned["spec"] = dict(reversed(turned["spec"].items()))
    assert live(turned).revision == live(identity()).revision


HUGE = "x" * 300_000
BEHAVIOR = {"aadpodidentity.k8s.io/Behavior": "namespaced"}


MANY = {f"a-{each}": "b" for each in range(20_000)}


@pytest.mark.parametrize("annotations", [None, {}, {"a": "b"}], ids=["none", "empty", "another"])
def test_the_copy_of_a_huge_object_says_nothing_that_the_object_does_not(
    annotations: dict[str, str] | None,
) -> None:
    whole = identity(metadata={"annotations": annotations, "labels": {"a": "b"}})
    whole["spec"]["odd"] = "x" * (20 << 10)
    copy = json.loads(live(whole).copy)
    assert {"annotations", "labels"}.isdisjoint(copy["metadata"])


EVERY_FIELD: dict[str, Any] = {
    "type": 1,
    "clientID": "c",
    "resourceID": "r",
    "objectID": "o",
    "tenantID": "t",
    "auxiliaryTenantIDs": ["a"],
    "clientPassword": {"name": "n", "namespace": "s"},
    "federation": {"audience": "x"},
    "adEndpoint": "e",
    "adResourceID": "a",
}


@pytest.mark.parametrize("labels", [{}, MANY], ids=["small", "huge"])
@pytest.mark.parametrize("spelled", [str.upper, str.lower], ids=["of 1.5", "of today"])
def test_each_field_that_means_something_is_copied_in_the_spelling_of_today(
    spelled: Callable[[str], str], labels: dict[str, str]
) -> None:
    whole = identity(metadata={"labels": labels})
    whole["spec"] = {f"{spelled(each[0])}{each[1:]}": EVERY_FIELD[each] for each in EVERY_FIELD}
    assert json.loads(live(whole).copy)["spec"] == EVERY_FIELD


def test_a_copy_of_two_kilobytes_is_whole_and_of_a_longer_one_what_is_known_is_left() -> None:
    whole, known = identity(), identity()["spec"]
    whole["spec"]["odd"] = ""
    for more, left in ((0, {"odd"}), (1, set())):
        whole["spec"]["odd"] += "x" * (2048 - len(live(whole).copy) + more)
        assert json.loads(live(whole).copy)["spec"].keys() - known.keys() == left
    whole["spec"] = {**known, **{f"odd{each}": "" for each in range(200)}}
    assert json.loads(live(whole).copy)["spec"] == known


def test_of_a_huge_object_a_field_of_the_longest_length_is_copied_and_a_longer_one_is_not() -> None:
    whole = identity(metadata={"annotations": MANY})
    for more in (0, 1):
        whole["spec"]["adResourceID"] = "x" * (_LONGEST_FIELD - len('""') + more)
        copy = json.loads(live(whole).copy)
        assert ("adResourceID" in copy["spec"]) is (more == 0)


@pytest.mark.parametrize("wrong", [{"name": 1}, {"namespace": 1}, ["a"], "a"])
def test_a_reference_to_a_secret_that_no_archived_nmi_could_read_is_not_copied(
    wrong: object,
) -> None:
    whole = identity()
    whole["spec"]["clientPassword"] = wrong
    assert "clientPassword" not in json.loads(live(whole).copy)["spec"]


@pytest.mark.parametrize(
    "huge",
    [
        pytest.param({"annotations": {**BEHAVIOR, "a": HUGE}}, id="an annotation"),
        pytest.param(
            {"annotations": BEHAVIOR, "labels": MANY},
            id="labels",
        ),
        pytest.param({"annotations": BEHAVIOR, "spec": {"adResourceID": HUGE}}, id="a field"),
        pytest.param(
            {"annotations": BEHAVIOR, "spec": MANY},
            id="fields that nobody knows",
        ),
        pytest.param({"annotations": BEHAVIOR, "spec": {"ClientID": HUGE}}, id="an old field"),
    ],
)
def test_a_huge_object_is_copied_into_no_record(huge: dict[str, Any]) -> None:
    """Each pod has a record, and a tenant many pods: a megabyte would be gigabytes in etcd."""
    whole = identity(metadata=huge)
    whole["spec"] |= huge.pop("spec", {})
    small = live(whole)
    assert len(small.copy) < 2 << 10
    copy = json.loads(small.copy)
    assert (copy["apiVersion"], copy["kind"]) == (API, "AzureIdentity")
    assert copy["spec"] == identity()["spec"]
    assert copy["metadata"]["annotations"] == BEHAVIOR
    assert copy["metadata"]["uid"] == "u-1"
    written = render_record(record(), small, live(binding(), About.BINDING))
    read = parse_record(json.dumps(written).encode()).record
    assert read is not None
    assert read.identity_revision == small.revision


def test_a_copy_in_a_record_has_the_revision_of_its_original() -> None:
    found = parse_record(json.dumps(stored()).encode())
    assert found.record == record()


def test_an_object_that_says_nothing_is_one_without_a_spec() -> None:
    bare = live({"metadata": {}})
    assert (bare.ref, bare.uid, bare.generation) == (ObjectRef("", ""), "", 0)
    assert (bare.condition, bare.place) == (None, "/status")
    assert json.loads(bare.copy)["spec"] == {}
    assert bare.revision == live({"metadata": {}, "spec": {}}).revision


def test_what_is_no_config_map_is_named() -> None:
    with pytest.raises(UnreadableObject, match="not a ConfigMap: "):
        parse_config_map(b"[]")


NUMBERS = '{"a":[' + ",".join(["1e308"] * 200_000) + "]}"
"""A float of msgspec's own takes 8 µs: 1.6 s."""


@pytest.mark.parametrize("part", ["spec", "status", "Status"])
def test_what_a_tenant_fills_with_numbers_is_not_decoded(part: str) -> None:
    raw = f'{{"metadata":{{"name":"n"}},"{part}":{NUMBERS}}}'.encode()
    begun = time.thread_time()
    parse_live(raw, About.IDENTITY)
    parse_record(raw)
    took = time.thread_time() - begun
    ANY.decode(NUMBERS)
    assert took < time.thread_time() - begun


def test_a_status_without_end_is_left_to_whoever_wrote_it() -> None:
    found = identity(status={"conditions": [{"type": f"T{each}"} for each in range(9_000)]})
    assert (live(found).condition, live(found).place) == (None, "")


def test_a_record_with_long_labels_keeps_them() -> None:
    found = stored(metadata={"labels": MANY})
    assert not parse_record(json.dumps(found).encode()).odd.unlabelled


# Conditions


def conditions(generation: int, status: str = "True") -> dict[str, Any]:
    mine = {
        "type": "Ready",
        "status": status,
        "reason": "Assigned",
        "message": "all is well",
        "observedGeneration": generation,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    return {"conditions": [{"type": "Other", "status": "True"}, mine]}


def test_the_condition_of_an_older_generation_is_none() -> None:
    assert live(identity(status=conditions(3))).condition == Condition(
        holds=True, reason="Assigned", message="all is well"
    )
    assert live(identity(status=conditions(2))).condition is None
    assert live(identity(status="rubbish")).condition is None


def test_a_condition_of_another_type_is_none_and_what_is_no_condition_is_left_out() -> None:
    other = {"type": "Other", "status": "True", "observedGeneration": 3}
    assert live(identity(status={"conditions": [other]})).condition is None
    bare = {"type": "Ready", "observedGeneration": 3}
    found = live(identity(status={"conditions": [1, bare]}))
    assert found.condition == Condition(holds=False, reason="", message="")


def test_a_message_as_long_as_mic_writes_is_read_whole_and_a_longer_one_is_none_of_its_own() -> (
    None
):
    for length, read in ((LONGEST, LONGEST), (LONGEST + 1, LONGEST + 1), (40_000, LONGEST + 1)):
        mine = {"type": "Ready", "status": "True", "reason": "Usable", "message": "x" * length}
        status = {"conditions": [{**mine, "observedGeneration": 3}]}
        condition = live(identity(status=status)).condition
        assert condition is not None
        assert len(condition.message) == read


def test_mic_replaces_its_own_condition_alone_and_says_since_when() -> None:
    before = live(identity(status=conditions(2)))
    same = Condition(holds=True, reason="Assigned", message="m")
    test, write = render_condition(before, About.IDENTITY, same, NOW)
    assert test == {"op": "test", "path": "/status/conditions/1/type", "value": "Ready"}
    assert (write["op"], write["path"]) == ("replace", "/status/conditions/1")
    assert write["value"] == {
        "type": "Ready",
        "status": "True",
        "reason": "Assigned",
        "message": "m",
        "observedGeneration": 3,
        "lastTransitionTime": "2026-01-01T00:00:00Z",
    }
    turned = Condition(holds=False, reason="NoPermission", message="x")
    mine = render_condition(before, About.IDENTITY, turned, NOW)[-1]["value"]
    assert (mine["status"], mine["lastTransitionTime"]) == ("False", "2026-11-25T09:46:40Z")


@pytest.mark.parametrize(
    ("status", "paths"),
    [
        (None, ["test /status", "add /status"]),
        ({}, ["test /status/conditions", "add /status/conditions"]),
        ({"conditions": None}, ["test /status/conditions", "add /status/conditions"]),
        ({"conditions": [{"type": "Other"}]}, ["add /status/conditions/-"]),
    ],
)
def test_a_first_condition_is_added_only_if_no_other_program_came_first(
    status: Any, paths: list[str]
) -> None:
    condition = Condition(holds=True, reason="r", message="m")
    patch = render_condition(live(identity(status=status)), About.IDENTITY, condition, NOW)
    assert [f"{step['op']} {step['path']}" for step in patch] == paths


def test_of_an_object_a_few_kilobytes_are_kept_whatever_it_says() -> None:
    """MIC keeps three thousand of a namespace, of each kind."""
    mine = {"type": "Ready", "observedGeneration": 3, "reason": "r" * 9_000, "message": "m" * 9_000}
    found = identity(status={"conditions": [mine]}, metadata={"annotations": {"a": "x" * 15_000}})
    assert len(repr(live(found))) < 5_000


def test_conditions_and_finalizers_of_others_take_no_memory() -> None:
    large = {"type": "Other", "message": "x" * 500_000}
    mine = {"type": "Ready", "observedGeneration": 3, "message": "x" * 500_000}
    assert len(repr(live(identity(status={"conditions": [large, mine]})))) < 50_000
    many = [f"example.com/{number}" for number in range(10_000)]
    assert (
        len(repr(parse_record(json.dumps(stored(metadata={"finalizers": many})).encode()))) < 5_000
    )


@pytest.mark.parametrize(
    ("about", "name"),
    [(About.IDENTITY, "Ready"), (About.BINDING, "Ready"), (About.EXCEPTION, "Effective")],
)
def test_each_kind_has_its_condition(about: About, name: str) -> None:
    found = live(binding(), about)
    condition = Condition(holds=True, reason="r", message="m")
    (mine,) = render_condition(found, about, condition, NOW)[-1]["value"]["conditions"]
    assert mine["type"] == name


# Records


def test_a_record_has_its_state_and_whole_copies_in_the_one_post() -> None:
    body = stored()
    assert body.keys() == {"apiVersion", "kind", "metadata", "spec", "status"}
    assert (body["apiVersion"], body["kind"]) == (API, "AzureAssignedIdentity")
    assert body["status"] == {"status": "Assigned", "availableReplicas": 1}
    assert body["metadata"]["labels"] == {"nodename": "n1"}
    assert "finalizers" not in body["metadata"]
    assert body["spec"]["azureIdentityRef"]["spec"]["clientID"] == CLIENT
    assert body["spec"]["azureBindingRef"]["kind"] == "AzureIdentityBinding"
    assert (body["spec"]["pod"], body["spec"]["podNamespace"]) == ("web-0", "shop")


def test_a_record_of_an_old_release_is_assigned_though_it_says_nothing() -> None:
    body = stored(status={"status": ""})
    found = parse_record(json.dumps(body).encode())
    assert found.record is not None
    assert found.record.state is Assignment.ASSIGNED
    body["spec"]["azureidentityref"] = body["spec"].pop("azureIdentityRef")
    body["Status"] = {"status": "Created"}
    del body["status"]
    found = parse_record(json.dumps(body).encode())
    assert found.record is not None
    assert found.record.state is Assignment.CREATED


@pytest.mark.parametrize(
    "changes",
    [
        {"spec": None},
        {"spec": []},
        {"spec": {"pod": 1}},
        *(
            {"spec": {**stored()["spec"], name: odd}}
            for name in ("pod", "podNamespace", "nodename")
            for odd in (1, "x" * 254)
        ),
        *(
            {"spec": {**stored()["spec"], name: copy}}
            for name in ("azureIdentityRef", "azureBindingRef")
            for copy in (None, 1, {"metadata": 1}, {"metadata": {"name": "x" * 254}})
        ),
        {"status": {"status": "Rubbish"}},
        {"status": {"status": ["Assigned"]}},
    ],
)
def test_a_record_that_cannot_be_read_is_still_a_record(changes: dict[str, Any]) -> None:
    found = parse_record(json.dumps(stored(**changes)).encode())
    assert (found.record, found.uid, found.version) == (None, "r-1", "77")


@pytest.mark.parametrize("finalizers", ["true", "1.5", '"example.com/keep"', '{"a": "b"}'])
def test_finalizers_that_are_no_list_are_none(finalizers: str) -> None:
    raw = f'{{"metadata":{{"name":"r","labels":{{}},"finalizers":{finalizers}}}}}'
    assert parse_record(raw.encode()).odd == PLAIN


def test_a_record_that_says_little_is_read_as_far_as_it_goes() -> None:
    found = parse_record(b'{"metadata":{"name":"r","labels":{},"finalizers":[1,"x"]}}')
    assert found == StoredRecord(ref=ObjectRef("", "r"), uid="", version="", record=None)
    spec: dict[str, Any] = {
        "azureIdentityRef": {"metadata": {}},
        "azureBindingRef": {"metadata": {}},
    }
    found = parse_record(json.dumps(stored(spec={**stored()["spec"], **spec})).encode())
    assert found.record is not None
    assert found.record.identity == found.record.binding == ObjectRef("", "")


@pytest.mark.parametrize("body", [b"", b"[]", b'{"metadata":1}', b'{"metadata":{}}'])
def test_what_has_no_name_is_no_record(body: bytes) -> None:
    with pytest.raises(UnreadableObject):
        parse_record(body)


def test_the_archived_controllers_finalizer_is_seen_and_goes_others_stay() -> None:
    meta = {
        "finalizers": [
            "azureassignedidentity.finalizers.aadpodidentity.k8s.io",
            "example.com/keep",
        ],
        "deletionTimestamp": "2026-01-01T00:00:00Z",
    }
    found = parse_record(json.dumps(stored(metadata=meta)).encode())
    assert (found.odd, found.deleting) == (Oddities(finalizer=0), True)
    uid, version, test, remove = render_update(("r-1", "77"), None, None, found.odd)
    assert uid == {"op": "test", "path": "/metadata/uid", "value": "r-1"}
    assert version["value"] == "77"
    assert test == {"op": "test", "path": "/metadata/finalizers/0", "value": meta["finalizers"][0]}
    assert remove == {"op": "remove", "path": "/metadata/finalizers/0"}


def test_an_update_replaces_what_a_record_says_as_a_whole() -> None:
    copies = live(identity()), live(binding(), About.BINDING)
    patch = render_update(("r-1", "77"), record(), copies, PLAIN)
    assert {each["op"] for each in patch[1:]} == {"add"}
    changed = {each["path"]: each["value"] for each in patch}
    assert changed["/metadata/resourceVersion"] == "77"
    assert changed["/status"]["status"] == "Assigned"
    assert changed["/spec"] == stored()["spec"]
    assert changed["/metadata/labels/nodename"] == "n1"


@pytest.mark.parametrize("with_record", [True, False])
def test_an_update_without_a_record_or_its_copies_changes_finalizers_alone(
    *, with_record: bool
) -> None:
    copies = live(identity()), live(binding(), About.BINDING)
    patch = render_update(
        ("r-1", "77"),
        record() if with_record else None,
        None if with_record else copies,
        Oddities(finalizer=1),
    )
    assert [each["path"].rpartition("/")[2] for each in patch] == [
        "uid",
        "resourceVersion",
        "1",
        "1",
    ]


def test_a_record_without_labels_gets_its_own() -> None:
    odd = parse_record(json.dumps(stored(metadata={"labels": None})).encode()).odd
    copies = live(identity()), live(binding(), About.BINDING)
    patch = render_update(("r-1", "77"), record(), copies, odd)
    assert {"op": "add", "path": "/metadata/labels", "value": {"nodename": "n1"}} in patch


# Events


def test_an_event_is_about_the_kind_that_kubectl_describes() -> None:
    event = TellEvent(
        About.BINDING, ObjectRef("shop", "b"), "Normal", "binding applied", "x" * 2000
    )
    body = render_told(event, live(binding(), About.BINDING), NOW, "mic-1")
    name = body["metadata"].pop("name")
    assert name.startswith("b.")
    assert body == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"namespace": "shop"},
        "involvedObject": {
            "apiVersion": API,
            "kind": "AzureIdentityBinding",
            "namespace": "shop",
            "name": "b",
            "uid": "u-2",
        },
        "type": "Normal",
        "reason": "binding applied",
        "message": "x" * 1024,
        "source": {"component": "aadpodidentity.k8s.io", "host": "mic-1"},
        "reportingComponent": "aadpodidentity.k8s.io",
        "reportingInstance": "mic-1",
        "firstTimestamp": "2026-11-25T09:46:40Z",
        "lastTimestamp": "2026-11-25T09:46:40Z",
        "count": 1,
    }


def test_a_record_of_a_megabyte_is_known_by_its_name_and_says_nothing() -> None:
    body = stored(metadata={"labels": {"nodename": "n1"}})
    body["spec"]["azureIdentityRef"]["odd"] = [[]] * 400_000
    found = parse_record(json.dumps(body).encode())
    assert (found.ref.name, found.uid, found.version) == ("web-0-shop-orders", "r-1", "77")
    assert (found.record, found.odd) == (None, PLAIN)


def test_the_archived_finalizer_goes_from_a_list_of_any_length() -> None:
    many = [*(f"example.com/{each}" for each in range(1000)), FINALIZER]
    for more in ("", "x" * 300_000):
        body = stored(metadata={"finalizers": many, "annotations": {"a": more}})
        found = parse_record(json.dumps(body).encode())
        assert found.odd.finalizer == 1000
