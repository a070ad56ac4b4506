"""Tables: each row says what a real server's printers say of the object."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.tables import ages, jsonpath
from podidentity_sandbox.cluster.tables.columns import selector
from podidentity_sandbox.cluster.tables.custom import columns
from podidentity_sandbox.cluster.tables.kinds import COLUMNS
from tests.sandbox.cluster.conftest import definition, pod, watching

NOW = datetime(2026, 1, 2, 12, tzinfo=UTC)
TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"
MINUTE, HOUR, DAY = 60, 3600, 86400


def cells(key: str, obj: dict[str, Any]) -> dict[str, Any]:
    """Return the cells of an object's row by the names of their columns."""
    obj.setdefault("metadata", {"name": "a"})
    return {column.name: column.cell(obj, NOW) for column in COLUMNS[key]}


# https://github.com/kubernetes/apimachinery/blob/v0.32.3/pkg/util/duration/duration_test.go
@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-2, "<invalid>"),
        (-1, "0s"),
        (0, "0s"),
        (119, "119s"),
        (2 * MINUTE, "2m"),
        (2 * MINUTE + 1, "2m1s"),
        (10 * MINUTE - 1, "9m59s"),
        (10 * MINUTE + 1, "10m"),
        (3 * HOUR - 1, "179m"),
        (3 * HOUR, "3h"),
        (3 * HOUR + MINUTE, "3h1m"),
        (8 * HOUR - 1, "7h59m"),
        (8 * HOUR + MINUTE, "8h"),
        (2 * DAY - 1, "47h"),
        (2 * DAY, "2d"),
        (2 * DAY + HOUR, "2d1h"),
        (8 * DAY - 1, "7d23h"),
        (8 * DAY + HOUR, "8d"),
        (2 * 365 * DAY - 1, "729d"),
        (2 * 365 * DAY, "2y"),
        (2 * 365 * DAY + 23 * HOUR, "2y"),
        (2 * 365 * DAY + DAY, "2y1d"),
        (8 * 365 * DAY, "8y"),
        (8 * 365 * DAY + 364 * DAY, "8y"),
    ],
)
def test_an_age_is_worded_as_a_real_server_words_it(seconds: int, words: str) -> None:
    stamp = (NOW - timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    assert ages.since(stamp, NOW) == words


def test_an_age_that_cannot_be_told_says_so() -> None:
    assert ages.since(None, NOW) == "<unknown>"
    assert ages.since("yesterday", NOW) == "<invalid>"


def container(state: str, ready: bool = False, **about: Any) -> dict[str, Any]:
    return {"state": {state: about}, "ready": ready, "restartCount": 1}


READY = [{"type": "Ready", "status": "True"}]


# https://github.com/kubernetes/kubernetes/blob/v1.32.3/pkg/printers/internalversion/printers_test.go
@pytest.mark.parametrize(
    ("status", "ready", "word"),
    [
        ({"phase": "Pending"}, "0/2", "Pending"),
        ({"phase": "Failed", "reason": "Evicted"}, "0/2", "Evicted"),
        (
            {"phase": "Running", "containerStatuses": [container("running", True)] * 2},
            "2/2",
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container("running", True),
                    container("waiting", reason="CrashLoopBackOff"),
                ],
            },
            "1/2",
            "CrashLoopBackOff",
        ),
        (
            {"phase": "Failed", "containerStatuses": [container("terminated", exitCode=3)]},
            "0/2",
            "ExitCode:3",
        ),
        (
            {
                "phase": "Failed",
                "containerStatuses": [container("terminated", exitCode=137, signal=9)],
            },
            "0/2",
            "Signal:9",
        ),
        (
            {
                "phase": "Running",
                "conditions": READY,
                "containerStatuses": [
                    container("terminated", exitCode=0, reason="Completed"),
                    container("running", True),
                ],
            },
            "1/2",
            "Running",
        ),
        (
            {
                "phase": "Running",
                "containerStatuses": [
                    container("terminated", exitCode=0, reason="Completed"),
                    container("running", True),
                ],
            },
            "1/2",
            "NotReady",
        ),
        (
            {"phase": "Pending", "initContainerStatuses": [container("running")]},
            "0/2",
            "Init:0/1",
        ),
        (
            {
                "phase": "Pending",
                "initContainerStatuses": [container("terminated", exitCode=2, reason="Error")],
            },
            "0/2",
            "Init:Error",
        ),
        (
            {
                "phase": "Pending",
                "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}],
            },
            "0/2",
            "SchedulingGated",
        ),
    ],
)
def test_a_pod_is_summed_up_from_its_containers(
    status: dict[str, Any], ready: str, word: str
) -> None:
    spec: dict[str, Any] = {"containers": [{}, {}], "initContainers": [{}]}
    row = cells("pods", {"spec": spec, "status": status})
    assert (row["Ready"], row["Status"]) == (ready, word)


def test_a_pod_that_is_being_deleted_terminates_until_it_has_ended() -> None:
    metadata = {"name": "a", "deletionTimestamp": "2026-01-02T12:00:00Z"}
    running = {"metadata": metadata, "spec": {}, "status": {"phase": "Running"}}
    assert cells("pods", running)["Status"] == "Terminating"
    ended = {"metadata": metadata, "spec": {}, "status": {"phase": "Succeeded"}}
    assert cells("pods", ended)["Status"] == "Succeeded"
    lost = {"metadata": metadata, "spec": {}, "status": {"phase": "Running", "reason": "NodeLost"}}
    assert cells("pods", lost)["Status"] == "Unknown"


def test_restarts_are_counted_and_the_last_is_dated() -> None:
    last = {"terminated": {"finishedAt": "2026-01-02T11:59:00Z"}}
    states = [{**container("running", True), "lastState": last}, container("running", True)]
    row = cells("pods", {"spec": {}, "status": {"phase": "Running", "containerStatuses": states}})
    assert row["Restarts"] == "2 (60s ago)"


@pytest.mark.parametrize(
    ("spec", "address", "ports"),
    [
        ({"type": "ClusterIP"}, "<none>", "<none>"),
        (
            {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080, "protocol": "TCP"}]},
            "<none>",
            "80:30080/TCP",
        ),
        ({"type": "LoadBalancer", "externalIPs": ["1.2.3.4"]}, "1.2.3.4", "<none>"),
        ({"type": "LoadBalancer"}, "<pending>", "<none>"),
        ({"type": "ExternalName", "externalName": "example.com"}, "example.com", "<none>"),
    ],
)
def test_a_service_shows_where_it_is_reached(
    spec: dict[str, Any], address: str, ports: str
) -> None:
    row = cells("services", {"spec": spec})
    assert (row["External-IP"], row["Port(s)"]) == (address, ports)


def test_a_node_shows_its_state_and_its_roles() -> None:
    labels = {"node-role.kubernetes.io/b": "", "node-role.kubernetes.io/a": ""}
    node = {
        "metadata": {"name": "n", "labels": labels},
        "spec": {"unschedulable": True},
        "status": {"conditions": READY},
    }
    row = cells("nodes", node)
    assert (row["Status"], row["Roles"]) == ("Ready,SchedulingDisabled", "a,b")
    assert cells("nodes", {"spec": {}, "status": {}})["Status"] == "Unknown"


def test_an_event_shows_when_it_was_last_seen() -> None:
    event = {"eventTime": "2026-01-02T11:00:00.000000Z", "involvedObject": {"kind": "Node"}}
    row = cells("events", event)
    assert (row["Last Seen"], row["Object"], row["Count"]) == ("60m", "node", 1)
    series = {**event, "series": {"count": 5, "lastObservedTime": "2026-01-02T11:59:50.000000Z"}}
    row = cells("events", series)
    assert (row["Last Seen"], row["First Seen"], row["Count"]) == ("10s", "60m", 5)


def test_a_driver_shows_what_is_so_where_nothing_is_said() -> None:
    row = cells("csidrivers.storage.k8s.io", {"spec": {}})
    assert (row["AttachRequired"], row["TokenRequests"], row["Modes"]) == (
        True,
        "<unset>",
        "<none>",
    )


def test_a_selector_is_shown_in_the_order_of_its_keys() -> None:
    rules = [
        {"key": "c", "operator": "NotIn", "values": ["y", "x"]},
        {"key": "a", "operator": "Exists"},
        {"key": "d", "operator": "DoesNotExist"},
    ]
    shown = selector({"matchLabels": {"b": "1"}, "matchExpressions": rules})
    assert shown == "a,b=1,c notin (x,y),!d"
    assert selector({}) == selector(None) == "<none>"


def test_every_kind_with_columns_is_served() -> None:
    assert set(COLUMNS) <= {kind.key for kind in BUILT_IN}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.type", [0]),
        (".spec.absent", []),
        (".spec.list[1]", ["b"]),
        (".spec.list[-1]", ["b"]),
        (".spec.list[7]", []),
        (".spec.list[*]", ["a", "b"]),
        (r".metadata.annotations.example\.com/a", ["x"]),
        (".metadata.annotations['example.com/a']", ["x"]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        ('.status.conditions[?(@.type=="Other")].status', []),
    ],
)
def test_a_path_of_a_column_finds_what_stands_there(path: str, found: list[Any]) -> None:
    obj = {
        "metadata": {"annotations": {"example.com/a": "x"}},
        "spec": {"type": 0, "list": ["a", "b"]},
        "status": {"conditions": READY},
    }
    assert jsonpath.find(path, obj) == found


@pytest.mark.parametrize(
    ("kind", "value", "shown"),
    [
        ("string", 0, "0"),
        ("string", "a", "a"),
        ("string", {"b": [1]}, '{"b":[1]}'),
        ("integer", 3, 3),
        ("integer", 3.0, 3),
        ("integer", "3", None),
        ("integer", True, None),
        ("number", 1.5, 1.5),
        ("boolean", False, False),
        ("boolean", "false", None),
        ("date", "2026-01-02T11:59:00Z", "60s"),
        ("date", "never", "<invalid>"),
        ("string", None, None),
    ],
)
def test_a_custom_column_shows_what_fits_its_type(kind: str, value: Any, shown: Any) -> None:
    column = columns([{"name": "X", "type": kind, "jsonPath": ".spec.x"}])[1]
    spec = {} if value is None else {"x": value}
    assert column.cell({"spec": spec}, NOW) == shown


def test_a_definition_without_columns_shows_the_age() -> None:
    assert [column.name for column in columns(())] == ["Name", "Age"]


async def test_a_definition_with_a_column_that_makes_no_sense_is_refused(
    api: httpx2.AsyncClient,
) -> None:
    body = definition()
    body["spec"]["versions"][0]["additionalPrinterColumns"] = [
        {"name": "X", "type": "text", "jsonPath": ".a"},
        {"type": "string", "jsonPath": "a b"},
    ]
    made = await api.post("/apis/apiextensions.k8s.io/v1/customresourcedefinitions", json=body)
    assert made.status_code == 422
    where = "spec.versions[0].additionalPrinterColumns"
    assert {c["field"] for c in made.json()["details"]["causes"]} == {
        f"{where}[0].type",
        f"{where}[1].name",
        f"{where}[1].jsonPath",
    }


PODS = "/api/v1/namespaces/default/pods"


async def test_a_list_is_a_table_for_those_who_wish_it(api: httpx2.AsyncClient) -> None:
    await api.post(PODS, json=pod("a"))
    table = (await api.get(PODS, headers={"Accept": f"{TABLE},application/json"})).json()
    assert (table["kind"], table["apiVersion"]) == ("Table", "meta.k8s.io/v1")
    assert table["columnDefinitions"][3]["name"] == "Restarts"
    (row,) = table["rows"]
    assert row["cells"][:4] == ["a", "0/1", "Pending", "0"]
    assert row["object"]["kind"] == "PartialObjectMetadata"
    assert row["object"]["metadata"]["labels"] == {"app": "a"}


async def test_a_row_carries_as_much_of_its_object_as_is_asked_for(
    api: httpx2.AsyncClient,
) -> None:
    await api.post(PODS, json=pod("a"))

    async def row(include: str) -> Any:
        params = {"includeObject": include}
        answer = await api.get(f"{PODS}/a", headers={"Accept": TABLE}, params=params)
        return answer.json()["rows"][0]["object"]

    assert (await row("Object"))["spec"]["containers"][0]["name"] == "c"
    assert await row("None") is None
    answer = await api.get(PODS, headers={"Accept": TABLE}, params={"includeObject": "Half"})
    assert answer.status_code == 400


async def test_a_watch_of_tables_has_its_headers_once(api: httpx2.AsyncClient) -> None:
    api.headers["Accept"] = TABLE
    await api.post(PODS, json=pod("a"))
    async with watching(api, PODS, timeoutSeconds=10) as events:
        first = await anext(events)
        await api.post(PODS, json=pod("b"))
        second = await anext(events)
    assert first["object"]["columnDefinitions"][0]["name"] == "Name"
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][0] == "b"


async def test_metadata_alone_is_served(api: httpx2.AsyncClient) -> None:
    await api.post(PODS, json=pod("a"))
    form = "application/json;as={};v=v1;g=meta.k8s.io"
    headers = {"Accept": form.format("PartialObjectMetadataList")}
    listed = (await api.get(PODS, headers=headers)).json()
    assert listed["kind"] == "PartialObjectMetadataList"
    assert "spec" not in listed["items"][0]
    headers = {"Accept": form.format("PartialObjectMetadata")}
    one = (await api.get(f"{PODS}/a", headers=headers)).json()
    assert (one["kind"], one["metadata"]["name"]) == ("PartialObjectMetadata", "a")
    async with watching(api, PODS, timeoutSeconds=10) as events:
        assert (await anext(events))["object"]["kind"] == "Pod"
    api.headers["Accept"] = headers["Accept"]
    async with watching(api, PODS, timeoutSeconds=10) as events:
        assert (await anext(events))["object"]["kind"] == "PartialObjectMetadata"


@pytest.mark.parametrize(
    "accept", ["application/xml", "application/json;as=Tree;v=v1;g=meta.k8s.io"]
)
async def test_what_is_not_written_here_is_not_acceptable(
    api: httpx2.AsyncClient, accept: str
) -> None:
    answer = await api.get(PODS, headers={"Accept": accept})
    assert (answer.status_code, answer.json()["reason"]) == (406, "NotAcceptable")
