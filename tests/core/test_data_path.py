from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from podidentity.core.data_path import (
    PROOF_SECONDS,
    Answerer,
    Arrival,
    Backend,
    DataPath,
    Hop,
    ProbeResult,
    hop_of,
)

SENT = Arrival("n" * 32, "10.244.0.9", 40000, "169.254.25.79")
FAILURES = (Hop.NO_ANSWER, Hop.IMDS, Hop.ANOTHER, Hop.UNSEEN)


def result(hop: Hop) -> ProbeResult:
    return ProbeResult(hop=hop)


def path(*hops: Hop) -> DataPath:
    """Return what is known after these results, one a second from second 1 on."""
    known = DataPath()
    for second, hop in enumerate(hops, start=1):
        known = known.after(result(hop), float(second))
    return known


def test_a_probe_is_a_proof_if_it_arrived_as_it_was_sent_and_our_answer_came_back() -> None:
    assert hop_of(Answerer.OURS, SENT, SENT) is Hop.PROVED


@pytest.mark.parametrize(
    "arrived",
    [
        None,
        SENT._replace(nonce="m" * 32),
        SENT._replace(address="10.244.0.8"),
        SENT._replace(port=40001),
        SENT._replace(own="10.240.0.4"),
    ],
)
def test_our_answer_to_another_request_is_no_proof(arrived: Arrival | None) -> None:
    assert hop_of(Answerer.OURS, SENT, arrived) is Hop.UNSEEN


@pytest.mark.parametrize(
    ("reply", "hop"),
    [(Answerer.IMDS, Hop.IMDS), (Answerer.ANOTHER, Hop.ANOTHER), (Answerer.NONE, Hop.NO_ANSWER)],
)
def test_an_answer_that_is_not_ours_is_no_proof_whatever_arrived(reply: Answerer, hop: Hop) -> None:
    assert {hop_of(reply, SENT, arrived) for arrived in (None, SENT)} == {hop}


def test_a_path_is_not_whole_before_its_first_proof() -> None:
    assert "nothing proves" in DataPath().problem(0.0)
    assert (DataPath().warning(0.0), DataPath().settled) == ("", False)
    assert path(Hop.PROVED).problem(1.0) == ""


def test_one_answer_of_imds_itself_breaks_it() -> None:
    known = path(Hop.PROVED, Hop.IMDS)
    assert "IMDS itself" in known.problem(2.0)
    assert known.hop(2.0) is Hop.IMDS
    assert (known.warning(2.0), known.settled) == ("", False)


@pytest.mark.parametrize("hop", [Hop.NO_ANSWER, Hop.ANOTHER, Hop.UNSEEN])
def test_another_failure_counts_when_it_is_seen_twice(hop: Hop) -> None:
    once, twice = path(Hop.PROVED, hop), path(Hop.PROVED, hop, hop)
    assert (once.problem(2.0), once.settled) == ("", False)
    assert once.warning(2.0) != ""
    assert twice.problem(3.0) == str(result(hop))


def test_of_a_broken_path_the_last_probe_says_why() -> None:
    assert path(Hop.PROVED, Hop.IMDS, Hop.NO_ANSWER).hop(3.0) is Hop.NO_ANSWER


def test_two_different_failures_in_a_row_count_too() -> None:
    assert path(Hop.PROVED, Hop.NO_ANSWER, Hop.ANOTHER).hop(3.0) is Hop.ANOTHER


def test_a_proof_mends_it_at_once() -> None:
    known = path(Hop.PROVED, Hop.IMDS, Hop.PROVED)
    assert (known.problem(3.0), known.warning(3.0), known.settled) == ("", "", True)


def test_without_a_probe_pod_a_proof_holds_for_a_minute_with_a_warning() -> None:
    known = path(Hop.PROVED, Hop.NOT_SENT)
    assert known.problem(1 + PROOF_SECONDS) == ""
    assert known.hop(1 + PROOF_SECONDS) is Hop.PROVED
    assert "no request can be sent from the pod" in known.warning(1 + PROOF_SECONDS)
    assert f"arrived at NMI {PROOF_SECONDS:.0f} s ago" in known.warning(1 + PROOF_SECONDS)
    later = 1.1 + PROOF_SECONDS
    assert known.warning(later) == ""
    assert "no request can be sent from the pod" in known.problem(later)
    assert known.hop(later) is Hop.NOT_SENT


def test_how_the_pod_is_connected_is_known_until_a_probe_finds_it_otherwise() -> None:
    known = DataPath().after(ProbeResult(hop=Hop.PROVED, plane="bridge"), 1.0)
    for hop in Hop:
        assert known.after(result(hop), 2.0).plane == "bridge"
    for hop in (Hop.PROVED, *FAILURES):
        assert known.after(ProbeResult(hop=hop, plane="routed"), 2.0).plane == "routed"


def test_what_led_the_last_successful_probe_is_known_until_the_next_one_succeeds() -> None:
    known = DataPath().after(ProbeResult(hop=Hop.PROVED, backend=Backend.LRP), 1.0)
    assert known.after(result(Hop.NO_ANSWER), 2.0).backend is Backend.LRP
    assert known.after(result(Hop.PROVED), 2.0).backend is None


def test_a_probe_that_is_sent_again_and_fails_once_is_no_more_unsent() -> None:
    known = path(Hop.PROVED, Hop.NOT_SENT, Hop.NO_ANSWER)
    assert "got no answer" in known.warning(3.0)
    assert "no request can be sent" not in known.warning(3.0)
    twice = path(Hop.NOT_SENT, Hop.NO_ANSWER, Hop.NO_ANSWER)
    assert (twice.doubted, twice.unproved) == (None, None)


@pytest.mark.parametrize("hop", FAILURES)
def test_a_broken_path_stays_broken_while_no_probe_can_be_sent(hop: Hop) -> None:
    known = path(Hop.PROVED, hop, hop, Hop.NOT_SENT)
    assert known.problem(4.0) == str(result(hop))
    assert known.hop(4.0) is hop


def test_a_success_is_a_sentence_without_a_next_step() -> None:
    assert str(result(Hop.PROVED)) == (
        "a request from the pod has arrived at NMI, and its answer at the pod"
    )


def test_the_words_of_results_stay_because_metrics_are_searched_by_them() -> None:
    assert [each.value for each in Hop] == [
        *("proved", "no-answer", "imds", "another-program", "unseen", "not-sent")
    ]


@pytest.mark.parametrize("hop", [each for each in Hop if each is not Hop.PROVED])
def test_each_way_to_fail_names_a_next_step(hop: Hop) -> None:
    what, semicolon, mend = str(ProbeResult(hop=hop, detail="why")).partition("; ")
    assert what.endswith("(why)")
    assert semicolon
    assert mend


@given(st.lists(st.tuples(st.sampled_from(Hop), st.floats(0.1, 100.0)), max_size=20), st.data())
def test_whatever_happened_it_counts_as_whole_only_within_a_minute_of_a_proof(
    steps: list[tuple[Hop, float]], data: st.DataObject
) -> None:
    known, now, proved, leaked = DataPath(), 0.0, float("-inf"), False
    for hop, seconds in steps:
        now += seconds
        known = known.after(result(hop), now)
        if hop is Hop.PROVED:
            proved, leaked = now, False
        leaked = leaked or hop is Hop.IMDS
    now += data.draw(st.floats(0.0, 2 * PROOF_SECONDS))
    if known.problem(now) == "":
        assert not leaked
        assert now - proved <= PROOF_SECONDS
    # It is said by one of both, unless the last probe was successful.
    assert bool(known.problem(now)) + bool(known.warning(now)) + known.settled >= 1
