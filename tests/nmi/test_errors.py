from __future__ import annotations

from collections.abc import Iterator

import pytest

from podidentity.core import errors
from podidentity.core.errors import PodIdentityError, Refused, TokenRefused, TokenThrottled
from podidentity.core.refusals import Reason, Refusal
from podidentity.nmi.request.errors import (
    ERRORS,
    NOT_GET,
    NOT_SERVED,
    REFUSALS,
    answer,
    host_answer,
    response,
)
from podidentity.wire.imds import Route


def classes(base: type[PodIdentityError] = PodIdentityError) -> Iterator[type[PodIdentityError]]:
    for kind in base.__subclasses__():
        yield kind
        yield from classes(kind)


def refused(reason: Reason) -> Refused:
    return Refused(Refusal(reason=reason, message=f"because {reason}", next_step="Do."))


def test_every_error_of_the_core_has_its_row() -> None:
    own = {kind for kind in classes() if kind.__module__ == errors.__name__}
    assert own - {Refused, TokenRefused, *classes(TokenRefused)} == set(ERRORS)
    assert len(own) >= 9


def test_every_reason_of_a_refusal_has_its_row() -> None:
    assert set(REFUSALS) == set(Reason)


@pytest.mark.parametrize(
    ("error", "status", "word"),
    [
        (errors.InvalidRequest("why"), 400, "invalid_request"),
        (errors.UnknownCaller("why"), 404, "not_found"),
        (errors.UnprovenCaller("why"), 403, "access_denied"),
        (errors.NotReady("why"), 503, "service_unavailable"),
        (errors.TokenSourceDown("why"), 503, "service_unavailable"),
        (errors.TokenUnavailable("why"), 503, "service_unavailable"),
        (TokenRefused("why", status=401, error="unknown_source"), 401, "unknown_source"),
        (TokenThrottled("why", retry_after=9), 429, "too_many_requests"),
        (refused(Reason.NO_LABEL), 400, "invalid_request"),
        (refused(Reason.NO_BINDING), 404, "not_found"),
        (refused(Reason.NOT_AMONG), 400, "invalid_request"),
        (refused(Reason.AMBIGUOUS), 400, "invalid_request"),
    ],
    ids=repr,
)
def test_errors_have_the_status_that_clients_react_to(
    error: PodIdentityError, status: int, word: str
) -> None:
    found = answer(error)
    assert (found.status, found.error, found.description) == (status, word, str(error))


def test_an_error_without_a_row_has_that_of_what_it_is_a_kind_of() -> None:
    class Asleep(errors.NotReady):
        pass

    assert answer(Asleep("why"))[:2] == (503, "service_unavailable")


def test_only_a_throttled_answer_says_when_to_ask_again() -> None:
    assert answer(TokenThrottled("why", retry_after=9)).retry_after == 9
    for error in [errors.NotReady("x"), *map(refused, Reason)]:
        assert answer(error).retry_after == 0


@pytest.mark.parametrize("reason", Reason)
def test_the_old_switch_turns_absent_into_later_and_touches_nothing_else(reason: Reason) -> None:
    plain, switched = answer(refused(reason)), answer(refused(reason), retry_after_header=True)
    if plain.status == 404:
        assert (switched.status, switched.retry_after) == (503, 20)
    else:
        assert switched == plain


@pytest.mark.parametrize("reason", Reason)
def test_to_the_csi_drivers_provider_a_pod_without_an_identity_has_none(reason: Reason) -> None:
    plain, told = answer(refused(reason)), host_answer(refused(reason))
    if reason in {Reason.NO_LABEL, Reason.EXCEPTION_IGNORED}:
        assert (told.status, told.error) == (404, "not_found")
        assert told.description == plain.description
    else:
        assert told == plain


def test_a_path_that_is_not_served_has_the_status_that_clients_react_to() -> None:
    assert {route: (told.status, told.error) for route, told in NOT_SERVED.items()} == {
        Route.SUSPICIOUS: (400, "invalid_request"),
        Route.UNKNOWN: (404, "not_found"),
        Route.BLOCKED: (403, "access_denied"),
    }
    assert (NOT_GET.status, NOT_GET.error) == (405, "method_not_allowed")


def test_an_answer_says_in_its_headers_when_to_ask_again_and_what_is_allowed() -> None:
    for told, headers in (
        (answer(errors.NotReady("x")), ()),
        (answer(TokenThrottled("x", retry_after=9)), (("Retry-After", "9"),)),
        (NOT_GET, (("Allow", "GET"),)),
    ):
        found = response(told)
        assert (found.status, found.headers) == (told.status, headers)


def test_the_pod_reads_less_than_the_operator() -> None:
    secret = Refusal(
        reason=Reason.OTHER_NAMESPACE, message="namespace bank", next_step="Do.", told="no binding"
    )
    assert answer(Refused(secret)).description == "no binding"
