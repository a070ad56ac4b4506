"""Counters that say how long to wait."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.backoff import backoff
from podidentity.core.rate_limits import (
    FairCache,
    FairQueue,
    FairSet,
    Flow,
    RateLimiter,
    SlidingWindow,
    TokenBucket,
)

GAPS = st.lists(st.floats(0, 2), min_size=30, max_size=60)


def admitted(window: SlidingWindow, gaps: list[float]) -> list[float]:
    """Return the time of each event, in order; they come with these gaps."""
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        while (wait := window.wait(now)) > 0:
            now += wait
        window.take(now)
        times.append(now)
    return times


@given(gaps=GAPS, most=st.integers(1, 10))
def test_no_span_however_it_lies_holds_more_than_is_allowed(gaps: list[float], most: int) -> None:
    times = admitted(SlidingWindow(most, 1.0), gaps)
    for first, after in zip(times, times[most:], strict=False):
        assert after - first >= 1.0 - 1e-9


@given(gaps=GAPS)
def test_whoever_comes_when_there_is_room_does_not_wait(gaps: list[float]) -> None:
    window, now = SlidingWindow(100, 1.0), 0.0
    for gap in gaps:
        now += gap
        assert window.wait(now) == 0
        window.take(now)


def test_some_of_the_worlds_above_are_crowded() -> None:
    times = admitted(SlidingWindow(3, 1.0), [0.0] * 30)
    assert times[-1] == 9.0


def test_what_is_allowed_in_a_span_is_the_rate_of_a_second() -> None:
    assert SlidingWindow(20, 40.0).rate == 0.5


def test_a_request_that_leaves_some_to_others_waits_sooner() -> None:
    window = SlidingWindow(4, 1.0)
    for now in (0.0, 0.1, 0.2):
        window.take(now)
    assert window.wait(0.3) == 0
    assert window.wait(0.3, leaving=2) == 1.1 - 0.3
    assert window.wait(0.3, leaving=1) == 1.0 - 0.3


def test_a_pause_lets_nobody_in_and_a_shorter_one_does_not_end_it() -> None:
    window = SlidingWindow(4, 1.0)
    window.pause(10.0)
    window.pause(5.0)
    assert (window.wait(4.0), window.wait(10.0)) == (6.0, 0.0)


def test_a_bucket_gives_its_burst_and_then_its_rate() -> None:
    bucket = TokenBucket(2.0, 10.0, now=0.0)
    assert [bucket.take(0.0) for _ in range(11)] == [0.0] * 10 + [0.5]
    assert [bucket.take(0.5), bucket.take(0.5)] == [0.0, 0.5]
    assert bucket.take(0.75) == 0.25


def test_a_bucket_that_rested_is_as_good_as_new_and_no_better() -> None:
    bucket = TokenBucket(2.0, 10.0, now=0.0)
    bucket.take(0.0)
    assert not bucket.full(0.0)
    assert bucket.full(1000.0)
    assert sum(bucket.take(1000.0) == 0 for _ in range(100)) == 10


def test_pods_that_come_and_go_leave_no_bucket_behind() -> None:
    limiter, most = RateLimiter(2.0, 10.0), 0
    for number in range(5000):
        limiter.take(f"p{number}", float(number))
        most = max(most, len(limiter))
    assert most == 256


def test_beside_those_with_a_budget_spent_as_many_others_are_remembered_and_no_more() -> None:
    limiter, most = RateLimiter(10.0, 100.0), 0
    for number in range(300):
        for _ in range(100):
            limiter.take(f"spent{number}", 0.0)
    for number in range(3000):
        # A tenth of a second later it is full again: a hundred others are not.
        limiter.take(f"p{number}", 1 + number / 1000)
        most = max(most, len(limiter))
    assert most <= 2 * (300 + 101)


def test_many_pods_with_a_budget_spent_are_remembered_all_the_same() -> None:
    limiter = RateLimiter(2.0, 10.0)
    for _ in range(10):
        for number in range(1000):
            limiter.take(f"p{number}", 0.0)
    for number in range(1000):
        assert limiter.take(f"p{number}", 0.0) == 0.5


FLOWS = st.builds(Flow, st.sampled_from("abc"), st.sampled_from("xyz"))
STEPS = st.lists(st.one_of(FLOWS, st.none(), st.integers(0, 5)), max_size=80)
"""A flow adds an item, None takes the next one, a number removes one of those that wait."""


class Model:
    """A queue beside a plain list of its items, in the order of their arrival."""

    def __init__(self, *, most_of_pod: int = 6, most_of_namespace: int = 12) -> None:
        self.queue: FairQueue[int] = FairQueue(
            most_of_pod=most_of_pod, most_of_namespace=most_of_namespace
        )
        self.waiting: list[tuple[Flow, int]] = []
        self.born = 0

    def put(self, flow: Flow) -> bool:
        self.born += 1
        if not self.queue.put(flow, self.born):
            return False
        self.waiting.append((flow, self.born))
        return True

    def pop(self) -> Flow:
        item = self.queue.pop()
        flow = next(flow for flow, each in self.waiting if each == item)
        first = next(each for other, each in self.waiting if other == flow)
        assert item == first, "a pod's own requests keep their order"
        self.waiting.remove((flow, item))
        return flow

    def do(self, step: Flow | int | None) -> None:
        if isinstance(step, Flow):
            self.put(step)
        elif step is None and self.waiting:
            self.pop()
        elif step is not None and step < len(self.waiting):
            flow, item = self.waiting.pop(step)
            self.queue.remove(flow, item)
            self.queue.remove(flow, item)
        assert len(self.queue) == len(self.waiting)

    def namespaces(self) -> set[str]:
        return {flow.namespace for flow, _ in self.waiting}

    def pods(self, namespace: str) -> set[str]:
        return {flow.pod for flow, _ in self.waiting if flow.namespace == namespace}


def modelled(steps: list[Flow | int | None]) -> Model:
    model = Model()
    for step in steps:
        model.do(step)
    return model


@given(steps=STEPS)
def test_a_queue_gives_exactly_what_waits_whatever_came_and_left(
    steps: list[Flow | int | None],
) -> None:
    model = modelled(steps)
    while model.waiting:
        model.pop()
    with pytest.raises(IndexError):
        model.queue.pop()


@given(steps=STEPS, more=st.lists(FLOWS, max_size=40))
def test_no_namespace_waits_longer_than_one_turn_of_each_other(
    steps: list[Flow | int | None], more: list[Flow]
) -> None:
    """Whatever is added meanwhile: the others cannot overtake."""
    model = modelled(steps)
    since: dict[str, set[str]] = {name: set() for name in model.namespaces()}
    while model.waiting:
        if more:
            model.put(more.pop())
        for name in model.namespaces():
            since.setdefault(name, set())
        had = model.pop().namespace
        del since[had]
        for served in since.values():
            assert had not in served, "it had two turns while another waited for one"
            served.add(had)


@given(steps=STEPS)
def test_no_pod_has_two_turns_of_its_namespace_while_another_waits(
    steps: list[Flow | int | None],
) -> None:
    model = modelled(steps)
    last: dict[str, list[str]] = {}
    while model.waiting:
        waiting = {name: model.pods(name) for name in model.namespaces()}
        namespace, had = model.pop()
        turns = last.setdefault(namespace, [])
        missed = waiting[namespace] - {had}
        if had in turns:
            between = set(turns[turns.index(had) :])
            assert missed <= between
        turns[:] = [*(each for each in turns if each != had), had]


@given(steps=STEPS, flow=FLOWS)
def test_no_more_turns_come_before_an_item_than_was_said(
    steps: list[Flow | int | None], flow: Flow
) -> None:
    model = modelled(steps)
    said = model.queue.ahead(flow)
    if not model.put(flow):
        return
    item, turns = model.born, 0
    while any(each == item for _, each in model.waiting):
        model.pop()
        turns += 1
    rounds = len({one for one, _ in model.waiting}) + 9
    assert turns - 1 <= said <= (turns - 1) + rounds


@given(flows=st.lists(FLOWS, max_size=120))
def test_pods_and_namespaces_have_their_bounds_and_no_other_is_refused_for_them(
    flows: list[Flow],
) -> None:
    model = Model(most_of_pod=3, most_of_namespace=5)
    for flow in flows:
        of_pod = sum(each == flow for each, _ in model.waiting)
        of_namespace = sum(each.namespace == flow.namespace for each, _ in model.waiting)
        assert model.put(flow) is (of_pod < 3 and of_namespace < 5)


def test_some_of_the_worlds_above_are_dense() -> None:
    queue: FairQueue[str] = FairQueue(most_of_pod=99, most_of_namespace=99)
    for pod in "xyz":
        for number in range(3):
            queue.put(Flow("tenant", pod), f"{pod}{number}")
    queue.put(Flow("shop", "web"), "web")
    assert queue.ahead(Flow("shop", "web")) == 3
    assert [queue.pop() for _ in range(6)] == ["x0", "web", "y0", "z0", "x1", "y1"]


def test_what_is_ahead_is_counted_to_the_turn_where_all_others_come_first() -> None:
    queue: FairQueue[str] = FairQueue(most_of_pod=99, most_of_namespace=99)
    mine = Flow("shop", "mine")
    others = [(Flow("tenant", "x"), 20), (Flow("shop", "busy"), 9), (Flow("shop", "one"), 1)]
    for flow, number in (*others, (mine, 3)):
        for _ in range(number):
            queue.put(flow, flow.pod)
    said = queue.ahead(mine)
    queue.put(mine, "last")
    turns = [queue.pop() for _ in range(len(queue))]
    # In shop: mine has three, busy has four turns meanwhile and one its only one; tenant has nine.
    assert said == turns.index("last") == 8 + 9


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 9))))
def test_in_a_fair_set_each_waits_once_and_namespaces_take_turns(
    added: list[tuple[str, int]],
) -> None:
    waiting = FairSet[tuple[str, int]](lambda one: one[0])
    waiting.update(added)
    unique = list(dict.fromkeys(added))
    assert waiting.size == len(waiting) == len(unique)
    taken = [waiting.take() for _ in unique]
    assert waiting.size == len(waiting) == 0
    for namespace in "abc":
        assert [each for each in taken if each[0] == namespace] == [
            each for each in unique if each[0] == namespace
        ]
    # While a namespace has something to wait, no other has two turns before it.
    for start, (namespace, _) in enumerate(taken):
        rest = [each for each, _ in taken[start + 1 :]]
        if namespace in rest:
            between = rest[: rest.index(namespace)]
            assert len(set(between)) == len(between)


def test_in_the_turn_of_a_namespace_the_lowest_rank_comes_first() -> None:
    waiting = FairSet[tuple[str, int]](lambda one: one[0], lambda one: one[1])
    waiting.update([("a", 3), ("a", 1), ("b", 9)])
    assert waiting.take() == ("a", 1)
    waiting.add(("a", 2))
    assert [waiting.take() for _ in range(3)] == [("b", 9), ("a", 2), ("a", 3)]


def test_nobody_waits_in_a_fair_set_that_was_cleared() -> None:
    waiting = FairSet[str](lambda _: "")
    waiting.add("a")
    waiting.clear()
    assert len(waiting) == 0
    with pytest.raises(KeyError):
        waiting.take()


def test_each_failure_doubles_the_rest_and_a_thousand_of_them_end_nobody() -> None:
    assert [backoff(0.5, failures, 5.0) for failures in range(1, 7)] == [0.5, 1, 2, 4, 5, 5]
    assert backoff(0.5, 5000, 5.0) == 5.0


PUTS = st.lists(
    st.tuples(st.sampled_from("abcdefgh"), st.sampled_from("xyz"), st.integers(1, 5)), max_size=40
)


@given(puts=PUTS)
def test_a_cache_keeps_the_newcomer_and_the_equal_share_of_each_namespace(
    puts: list[tuple[str, str, int]],
) -> None:
    cache: FairCache[str, int] = FairCache(12)
    for name, namespace, size in puts:
        key = namespace + name
        before = {each: value for each, value in cache.items() if each != key}
        cache.put(key, size, namespace, size)
        assert (cache.get(key) == size) or size > 4
        assert sum(size for _, size in cache.items()) <= 12
        after = dict(cache.items())
        sums = dict.fromkeys("xyz", 0)
        for each, value in {**before, key: size}.items():
            sums[each[0]] += value
        for gone in before.keys() - after.keys():
            assert sums[gone[0]] > 4


def test_what_alone_is_more_than_a_cache_holds_is_not_kept() -> None:
    cache: FairCache[str, str] = FairCache(3)
    cache.put("a", "a", "x")
    cache.put("b", "b", "y", 4)
    assert dict(cache.items()) == {"a": "a"}


def test_an_entry_that_is_used_outlives_older_ones_and_stays_with_its_namespace() -> None:
    cache: FairCache[str, int] = FairCache(3)
    for number, name in enumerate("abc"):
        cache.put(name, number, "x")
    cache.use("a")
    cache.put("c", 3, "another")
    cache.put("d", 4, "y")
    cache.put("e", 5, "y")
    assert sorted(key for key, _ in cache.items()) == ["c", "d", "e"]


def test_of_what_is_removed_nothing_is_left() -> None:
    cache: FairCache[str, int] = FairCache(3)
    for name in "abc":
        cache.put(name, 1, name)
    cache.drop("a")
    cache.drop("a")
    assert "a" not in cache
    cache.clear()
    assert len(cache) == 0
    cache.put("b", 3, "x", 3)
    assert dict(cache.items()) == {"b": 3}
