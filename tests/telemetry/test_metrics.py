from __future__ import annotations

import pytest

from podidentity.telemetry.metrics import Registry, number, render

GOLDEN = r"""# HELP requests_total Requests, by path \\ and\nstatus
# TYPE requests_total counter
requests_total{path="/a",status="200"} 3
requests_total{path="/b\"\\\n",status="404"} 1
# HELP seconds How long
# TYPE seconds histogram
seconds_bucket{le="0.001"} 1
seconds_bucket{le="0.5"} 3
seconds_bucket{le="1"} 3
seconds_bucket{le="+Inf"} 4
seconds_sum 5.251
seconds_count 4
# HELP up Whether
# TYPE up gauge
up{what="pods"} 1
up{what="secrets"} 0
"""


def test_a_scrape_is_prometheus_text_to_the_byte() -> None:
    registry = Registry()
    requests = registry.counter(
        "requests_total", "Requests, by path \\ and\nstatus", ("path", "status")
    )
    seconds = registry.histogram("seconds", "How long", bounds=(0.001, 0.5, 1))
    registry.gauge("up", "Whether", lambda: [(("secrets",), 0.0), (("pods",), 1.0)], ("what",))
    requests.of('/b"\\\n', "404").value += 1
    requests.of("/a", "200").value += 3
    for value in (0.001, 0.25, 0.0015, 5.0 - 0.0015):
        seconds.of().observe(value)
    assert render(registry) == GOLDEN.replace("5.251", "5.251")


def test_a_bound_is_counted_in_its_own_bucket() -> None:
    seconds = Registry().histogram("s", "", bounds=(1, 2)).of()
    for value in (0, 1, 1.0000001, 2, 3):
        seconds.observe(value)
    assert seconds.counts == [2, 2, 1]


@pytest.mark.parametrize(
    ("value", "text"),
    [(1.0, "1"), (0.5, "0.5"), (100, "100"), (0.001, "0.001"), (1795600000.25, "1795600000.25")],
)
def test_numbers_are_written_as_go_writes_them(value: float, text: str) -> None:
    assert number(value) == text


def test_labels_from_outside_are_bounded_whatever_comes() -> None:
    registry = Registry()
    family = registry.counter("c", "", ("route", "resource"), open_labels=("resource",), room=10)
    for step in range(10_000):
        family.of("token", f"https://{step}").value += 1
    counts = {values: each.value for values, each in family.samples()}
    assert len(counts) == 11
    assert counts["token", "other"] == 10_000 - 10
    assert sum(counts.values()) == 10_000


def test_two_metrics_of_one_name_are_a_mistake() -> None:
    registry = Registry()
    registry.counter("c", "")
    with pytest.raises(ValueError, match="two metrics are named c"):
        registry.counter("c", "")
