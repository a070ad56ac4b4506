"""The bytes of every answer, as they are written down in golden/*.txt."""

from __future__ import annotations

import json

import pytest

from podidentity.core import errors
from podidentity.core.refusals import Reason
from tests.nmi.golden import connections, requests, rules, tokens
from tests.nmi.golden.situation import Situation, written
from tests.nmi.test_errors import classes

FILES: dict[str, dict[str, Situation]] = {
    "requests": requests.SITUATIONS,
    "rules": rules.SITUATIONS,
    "tokens": tokens.SITUATIONS,
}
ANSWERS = {name: written(name) for name in (*FILES, "connections")}
ALL = [(name, title) for name, found in FILES.items() for title in found]
TOLD_BY_ANOTHER = {"Refused", "TokenUnavailable", "NotYetKnown", Reason.POD_ENDED}
"""A Refused has its reason; the other two have their kind. Only `explain` says that a pod has
ended: such a caller is unknown to NMI."""
WRITTEN = [answer for found in ANSWERS.values() for answer in found.items()]


@pytest.mark.parametrize(("name", "title"), ALL, ids=[title for _, title in ALL])
async def test_an_answer_has_exactly_these_bytes(name: str, title: str) -> None:
    situation = FILES[name][title]
    answer, why = await situation.answered()
    assert answer.decode() == ANSWERS[name][title].decode()
    assert why == situation.why


@pytest.mark.parametrize("title", connections.SENT)
async def test_what_is_no_request_has_exactly_these_bytes(title: str) -> None:
    assert (await connections.answered(title)).decode() == ANSWERS["connections"][title].decode()


def test_each_answer_that_is_written_down_belongs_to_a_situation() -> None:
    for name, found in FILES.items():
        assert set(ANSWERS[name]) == set(found)
    assert set(ANSWERS["connections"]) == set(connections.SENT)


def test_every_reason_and_every_error_has_its_bytes() -> None:
    known = {situation.why for found in FILES.values() for situation in found.values()}
    own = {kind.__name__ for kind in classes() if kind.__module__ == errors.__name__}
    assert {*map(str, Reason), *own} - TOLD_BY_ANOTHER == known - {""}


@pytest.mark.parametrize(("title", "answer"), WRITTEN, ids=[title for title, _ in WRITTEN])
def test_an_error_is_flat_json_and_says_when_to_ask_again_only_where_that_helps(
    title: str, answer: bytes
) -> None:
    head, _, body = answer.decode().partition("\r\n\r\n")
    status = int(head.split()[1])
    if status >= 400:
        assert list(json.loads(body)) == ["error", "error_description"]
    assert f"\r\nContent-Length: {len(body.encode())}" in head, title
    assert ("Retry-After" in head) <= (status in {429, 503})
