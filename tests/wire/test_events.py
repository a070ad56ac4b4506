from __future__ import annotations

from podidentity.core.resources import ObjectRef
from podidentity.wire.events import PodWarning, event_name, render_event, render_repetition
from tests.fakes import NOW, pod


def warning(**changes: object) -> PodWarning:
    fields = {"reason": "NoBinding", "note": "Nothing is bound.", "count": 1}
    times = {"first": NOW, "last": NOW + 5}
    return PodWarning(**({"pod": pod()} | fields | times | changes))  # type: ignore[arg-type]


def test_an_event_is_what_kubectl_describe_shows_of_a_pod() -> None:
    assert render_event(warning(), "n1") == {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {"name": event_name(warning()), "namespace": "shop"},
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
        event_name(warning()),
        event_name(warning(reason="NoLabel")),
        event_name(warning(pod=pod("orders-1"))),
        event_name(warning(first=NOW + 0.001)),
    }
    assert len(names) == 4
    assert event_name(warning()).startswith("orders-0.")
    long = warning(pod=pod(ref=ObjectRef("shop", "p" * 253)))
    assert len(event_name(long)) <= 253


def test_a_message_is_no_longer_than_an_api_server_takes() -> None:
    assert len(str(render_event(warning(note="x" * 5000), "n1")["message"])) == 1024
