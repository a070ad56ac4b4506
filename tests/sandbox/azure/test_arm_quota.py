"""A caller of ARM has a quota in each subscription; the headers say what is left of it."""

from __future__ import annotations

import pytest

from podidentity_sandbox.azure.arm.call import ArmError
from podidentity_sandbox.azure.arm.quota import COMPUTE, LIMITS, Quota
from tests.sandbox.azure.direct import Direct

READS, WRITES, DELETES = (
    f"x-ms-ratelimit-remaining-subscription-{kind}" for kind in ("reads", "writes", "deletes")
)
GROUP = "/subscriptions/s/resourceGroups/g"
SCALE_SET = f"{GROUP}/providers/Microsoft.Compute/virtualMachineScaleSets/x"


def test_each_answer_says_what_is_left_of_its_kind(direct: Direct) -> None:
    asked = ("resourceGroups", "resourceGroups/nowhere")
    assert [direct.arm("GET", where)[2][READS] for where in asked] == ["249", "248"]
    _, _, headers = direct.arm("PUT", "resourceGroups/new", {"location": "westeurope"})
    assert (headers[WRITES], READS in headers) == ("199", False)
    assert direct.arm("DELETE", "resourceGroups/new")[2][DELETES] == "199"
    assert direct.arm("GET", "/subscriptions")[2]["x-ms-ratelimit-remaining-tenant-reads"] == "249"


def test_a_used_up_quota_is_429_until_the_second_that_is_said(direct: Direct) -> None:
    for _ in range(LIMITS["reads"].size):
        assert direct.arm("GET", "resourceGroups")[0] == 200
    status, answer, headers = direct.arm("GET", "resourceGroups")
    assert (status, answer["error"]["code"]) == (429, "SubscriptionRequestsThrottled")
    assert (headers[READS], headers["Retry-After"]) == ("0", "1")
    assert "Please try again after '1' seconds" in answer["error"]["message"]
    assert direct.arm("PUT", "resourceGroups/new", {"location": "westeurope"})[0] == 201
    direct.clock.now += 1
    assert direct.arm("GET", "resourceGroups")[2][READS] == "24"


def test_another_caller_and_another_subscription_have_their_own() -> None:
    quota = Quota()
    assert quota.take("GET", GROUP, "one", 0.0) == {READS: "249"}
    assert quota.take("GET", GROUP, "two", 0.0) == {READS: "249"}
    assert quota.take("GET", GROUP.replace("/s/", "/other/"), "one", 0.0) == {READS: "249"}
    assert quota.take("GET", GROUP, "one", 0.0) == {READS: "248"}


def test_a_bucket_fills_up_and_not_beyond_its_size() -> None:
    quota = Quota()
    for _ in range(100):
        quota.take("PUT", GROUP, "one", 0.0)
    assert quota.take("PUT", GROUP, "one", 5.0) == {WRITES: str(200 - 100 + 50 - 1)}
    assert quota.take("PUT", GROUP, "one", 1000.0) == {WRITES: "199"}


def test_changes_of_machines_have_a_quota_of_compute_too() -> None:
    quota = Quota()
    resource = "x-ms-ratelimit-remaining-resource"
    seen = quota.take("PATCH", SCALE_SET, "one", 0.0)
    assert seen[resource] == f"Microsoft.Compute/UpdateVMSubscriptionMaximum;{COMPUTE.size - 1}"
    assert resource not in quota.take("GET", SCALE_SET, "one", 0.0)
    for caller in range(1, COMPUTE.size):
        quota.take("PATCH", SCALE_SET, str(caller), 0.0)
    with pytest.raises(ArmError) as refused:
        quota.take("PATCH", SCALE_SET, "one", 0.0)
    assert refused.value.status == 429
