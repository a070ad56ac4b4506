"""Labels are bounded, whatever pods ask for."""

from __future__ import annotations

from podidentity.core.errors import UnknownCaller
from podidentity.core.resources import ObjectRef, TokenRequest
from podidentity.nmi.reporting.request_log import KNOWN_RESOURCES
from tests.fakes import VAULT, FakeClock, pod
from tests.nmi.outcomes import QUERY, granted, refused
from tests.nmi.recorded import Recorded


async def test_audiences_that_nobody_gets_a_token_for_have_no_label_of_their_own() -> None:
    record = Recorded(FakeClock())
    for number in range(10_000):
        asked = QUERY._replace(request=TokenRequest(resource=f"https://{number}"))
        await record.record.token(asked, refused(UnknownCaller("x"), None), 404, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == 1
    assert counts[0].endswith('resource="other"} 10000')


async def test_audiences_with_tokens_have_labels_up_to_a_bound_with_or_without_a_slash() -> None:
    record = Recorded(FakeClock())
    for resource in (VAULT, f"{VAULT}/", *(f"https://{number}" for number in range(10_000))):
        asked = QUERY._replace(request=TokenRequest(resource=resource))
        await record.record.token(asked, granted(), 200, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == KNOWN_RESOURCES + 1
    assert any(each.endswith(f'resource="{VAULT}"}} 2') for each in counts)


async def test_namespaces_that_come_and_go_are_bounded_with_all_else() -> None:
    record = Recorded(FakeClock())
    for number in range(2000):
        owner = pod(ref=ObjectRef(f"ns-{number}", "p"), uid=f"{number}")
        await record.record.token(QUERY, granted(to=owner), 200, 0.0)
    counts = record.scraped("aadpodidentity_nmi_operations_duration_seconds_count")
    assert len(counts) == 501
    assert sum(int(each.rpartition(" ")[2]) for each in counts) == 2000
