"""When the API server is asked for a permission again."""

from __future__ import annotations

import pytest

from podidentity.core.decision import Use
from podidentity.core.resources import ObjectRef
from podidentity.mic.calls import Failure, Fault
from podidentity.mic.questions import PermissionQuestions

USE = Use(ObjectRef("blue", "app"), "id")
NO_ANSWER = Failure(kind=Fault.UNREACHABLE)


@pytest.fixture
def questions() -> PermissionQuestions:
    return PermissionQuestions(allowed=300.0, denied=15.0)


def test_each_answer_counts_for_its_own_time(questions: PermissionQuestions) -> None:
    assert questions.again(USE, result=True, number=0) == 300.0
    assert questions.again(USE, result=False, number=0) == 15.0


def test_what_was_asked_together_is_asked_again_within_a_tenth_of_that_time(
    questions: PermissionQuestions,
) -> None:
    found = [questions.again(USE, result=True, number=number) for number in range(98)]
    assert len({*found[:97]}) == 97
    assert min(found) == pytest.approx(300 - 300 * 96 / 970)
    assert (found[0], found[97]) == (300, 300)
    assert found[:97] == sorted(found[:97], reverse=True)


def test_when_a_grant_came_or_went_it_is_asked_twice_more_soon(
    questions: PermissionQuestions,
) -> None:
    questions.doubt([USE])
    assert [questions.again(USE, result=True, number=0) for _ in range(4)] == [1, 4, 300, 300]


def test_a_question_without_an_answer_is_asked_again_later_each_time(
    questions: PermissionQuestions,
) -> None:
    def failed(times: int) -> list[float]:
        return [questions.again(USE, NO_ANSWER, 0) for _ in range(times)]

    assert failed(7) == [1, 2, 4, 8, 16, 30, 30]
    questions.again(USE, result=False, number=0)
    assert failed(2) == [1, 2]
    asked_for = Failure(kind=Fault.THROTTLED, retry_after=60.0)
    assert questions.again(USE, asked_for, 0) == 60


def test_a_permission_that_did_not_matter_meanwhile_is_asked_for_as_a_new_one(
    questions: PermissionQuestions,
) -> None:
    questions.doubt([USE])
    questions.again(USE, NO_ANSWER, 0)
    questions.forget(USE)
    assert questions.again(USE, NO_ANSWER, 0) == 1
    assert questions.again(USE, result=True, number=0) == 300


def test_a_refusal_counts_when_it_has_lasted_for_5_s(questions: PermissionQuestions) -> None:
    assert not questions.counts(USE, result=False, now=10.0)
    assert questions.again(USE, result=False, number=0, counts=False) == 5
    assert not questions.counts(USE, result=False, now=14.9)
    assert questions.counts(USE, result=False, now=15.0)
    assert questions.counts(USE, result=False, now=15.1)


@pytest.mark.parametrize("between", [True, NO_ANSWER])
def test_refusals_with_another_answer_between_them_are_not_in_a_row(
    questions: PermissionQuestions, between: bool | Failure
) -> None:
    questions.counts(USE, result=False, now=10.0)
    assert questions.counts(USE, between, now=12.0) is (between is True)
    assert not questions.counts(USE, result=False, now=16.0)
