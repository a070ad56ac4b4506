"""The archived suite's scenarios of MIC, by their numbers, in one sandbox in real weather.

Where ours differs on purpose the difference is asserted: a record is gone at once with its pod, and
what MIC attached is detached after the grace. Its suite:
https://github.com/Azure/aad-pod-identity/tree/master/test/e2e
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.acceptance.mic.controlled import Controlled, controlled


@pytest.fixture(scope="module")
def place() -> Iterator[Controlled]:
    with controlled("mic-pods", "--detach-grace=5s") as found:
        yield found


def test_scenario_02_an_identity_is_assigned_and_works_by_client_id_and_by_resource_id(
    place: Controlled,
) -> None:
    orders = place.identity("orders")
    place.bind("orders", orders)
    place.pod("app", "orders")
    place.assigned("app")
    assert place.has(orders)
    place.works("app", client_id=orders.client_id)
    place.works("app", msi_res_id=orders.resource_id)


def test_scenario_03_a_pod_that_is_deleted_has_no_record_and_its_identity_goes_after_the_grace(
    place: Controlled,
) -> None:
    place.delete("pod", "app")
    place.until(lambda: not place.records("app"), "its record stays")
    place.until(lambda: not place.has(place.identity("orders")), "its identity stays")
