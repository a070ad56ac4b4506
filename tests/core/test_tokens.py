from __future__ import annotations

from podidentity.core.errors import Refused
from podidentity.core.refusals import Reason, Refusal
from podidentity.core.tokens import AccessToken, TokenRequest
from tests.core.objects import client_id, resource_id

TOKEN = AccessToken(
    value="eyJ.secret.sig",
    client_id=client_id(1),
    expires_on=1_000,
    not_before=0,
    resource="https://vault.azure.net",
)


def test_no_way_of_showing_a_token_shows_its_text() -> None:
    for shown in (repr(TOKEN), str(TOKEN), f"{TOKEN}", f"{TOKEN!r}", repr([TOKEN])):
        assert "secret" not in shown


def test_the_life_of_a_token_is_in_whole_seconds_and_never_negative() -> None:
    assert TOKEN.life(999.9) == 1
    assert TOKEN.life(1_000) == 0
    assert TOKEN.life(5_000) == 0


def test_the_id_asked_for_is_whichever_was_given() -> None:
    assert TokenRequest(resource="r").asked is None
    assert TokenRequest(resource="r", resource_id=resource_id(1)).asked == resource_id(1)


def test_an_error_of_a_refusal_says_only_what_the_pod_may_read() -> None:
    refusal = Refusal(reason=Reason.NO_LABEL, message="inside", next_step="Do.", told="outside")
    assert str(Refused(refusal)) == "outside"
    assert str(refusal) == "inside Do."
