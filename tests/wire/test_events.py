from __future__ import annotations

from podidentity.core.resources import ObjectRef
from podidentity.wire.events import (
    PATH_PROVED,
    AgentReason,
    Happening,
    NodeName,
    ProbeReason,
    probe_answer_name,
    render_event,
    render_probe_answer,
    render_repetition,
)
from tests.fakes import NOW, pod


def warning(**changes: object) -> Happening:
    fields = {"reason": "NoBinding", "note": "Nothing is bound.", "count": 1}
    times = {"first": NOW, "last": NOW + 5}
    return Happening(**({"about": pod()} | fields | times | changes))  # type: ignore[arg-type]


def test_an_event_is_what_kubectl_describe_shows_of_a_pod() -> None:
    assert render_event(warning(), "n1") == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": warning().name, "namespace": "shop"},
        "involvedObject": {
            "apiVersion": "v1",
            "kind": "Pod",
            "namespace": "shop",
            "name": "orders-0",
            "uid": "uid-orders-0",
        },
        "type": "Warning",
        "reason": "NoBinding",
        "source": {"component": "podidentity-nmi", "host": "n1"},
        "reportingComponent": "podidentity-nmi",
        "reportingInstance": "n1",
        "firstTimestamp": "2026-11-25T09:46:40Z",
        "count": 1,
        "lastTimestamp": "2026-11-25T09:46:45Z",
        "message": "Nothing is bound.",
    }


def test_when_it_happens_again_its_number_its_time_and_its_words_change() -> None:
    assert set(render_repetition(warning(count=7))) == {"count", "lastTimestamp", "message"}


def test_its_name_is_the_pods_and_no_other_events_and_never_too_long() -> None:
    names = {
        warning().name,
        warning(reason="NoLabel").name,
        warning(about=pod("orders-1")).name,
        warning(first=NOW + 0.001).name,
    }
    assert len(names) == 4
    assert warning().name.startswith("orders-0.")
    long = warning(about=pod(ref=ObjectRef("shop", "p" * 253)))
    assert len(long.name) <= 253


def test_a_message_is_no_longer_than_an_api_server_takes() -> None:
    assert len(str(render_event(warning(note="x" * 5000), "n1")["message"])) == 1024


def test_an_event_about_a_node_is_where_kubectl_describe_looks_for_it() -> None:
    event = render_event(warning(about=NodeName("n1")), "n1")
    assert event["metadata"]["namespace"] == "default"
    assert event["metadata"]["name"].startswith("n1.")
    # The kubelet's events have the node's name for a uid, and so `kubectl describe node` asks.
    node = {"apiVersion": "v1", "kind": "Node", "name": "n1", "uid": "n1"}
    assert event["involvedObject"] == node


def test_the_answer_to_a_probe_is_found_by_the_number_of_its_question() -> None:
    answer = render_probe_answer("7", warning(), "n1")
    assert answer["metadata"] == {"name": probe_answer_name("7"), "namespace": "shop"}
    assert probe_answer_name("7") == "podidentity-probe.7"
    assert {**answer, "metadata": None} == {**render_event(warning(), "n1"), "metadata": None}


def test_the_words_of_reasons_stay_because_people_filter_events_by_them() -> None:
    assert {each.value: each.is_warning for each in AgentReason} == {
        "SourcesUnguarded": True,
        "TooManyRights": True,
        "AuditNotWritten": True,
        "PathBroken": True,
        "PathUnproved": True,
        "NodeLacks": True,
        "StartupTaint": True,
        "StaleState": True,
        "TokensFail": True,
        "Backend": False,
        "BootClosed": False,
    }
    assert [each.value for each in ProbeReason] == ["ProbeArrived", "ProbeLost", "ProbeNotSent"]
    assert PATH_PROVED == "PathProved"
