"""Storage accounts as ARM has them."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from tests.sandbox.azure.direct import Direct

KIND = "providers/Microsoft.Storage/storageAccounts"
BODY: dict[str, Any] = {
    "location": "West Europe",
    "kind": "StorageV2",
    "sku": {"name": "Standard_LRS"},
    "properties": {"accessTier": "Cool"},
}


def path(direct: Direct, name: str = "mydata", group: str = "") -> str:
    return f"resourceGroups/{group or direct.plan.cluster_group}/{KIND}/{name}"


def test_an_account_is_made_by_a_long_operation_whose_location_gives_it(direct: Direct) -> None:
    status, body, headers = direct.arm("PUT", path(direct), BODY)
    assert (status, body) == (202, None)
    where = headers["Location"].removeprefix("https://management.azure.com")
    assert int(headers["Retry-After"]) >= 1
    assert direct.arm("GET", where)[0] == 202
    direct.clock.now += 0.2
    status, made, _ = direct.arm("GET", where)
    assert (status, made["name"], made["location"]) == (200, "mydata", "westeurope")
    assert made["properties"]["accessTier"] == "Cool"
    assert made["properties"]["primaryEndpoints"]["blob"] == "https://mydata.blob.core.windows.net/"
    assert made == direct.made("GET", path(direct))


def test_a_second_put_changes_what_it_names_and_keeps_the_keys(direct: Direct) -> None:
    direct.made("PUT", path(direct), BODY)
    keys = direct.made("POST", f"{path(direct)}/listKeys")
    again = {**BODY, "tags": {"a": "b"}, "properties": {"supportsHttpsTrafficOnly": False}}
    status, changed, _ = direct.arm("PUT", path(direct), again)
    assert (status, changed["tags"]) == (200, {"a": "b"})
    assert changed["properties"]["supportsHttpsTrafficOnly"] is False
    assert changed["properties"]["accessTier"] == "Cool"
    assert direct.made("POST", f"{path(direct)}/listKeys") == keys


def test_an_account_is_listed_and_deleted(direct: Direct) -> None:
    direct.made("PUT", path(direct), BODY)
    for where in (KIND, f"resourceGroups/{direct.plan.cluster_group}/{KIND}"):
        assert [one["name"] for one in direct.made("GET", where)["value"]] == ["mydata"]
    assert [direct.arm("DELETE", path(direct))[0] for _ in range(2)] == [200, 204]
    assert direct.arm("GET", path(direct))[1]["error"]["code"] == "ResourceNotFound"


def test_an_account_has_two_keys_of_64_bytes(direct: Direct) -> None:
    direct.made("PUT", path(direct), BODY)
    keys = direct.made("POST", f"{path(direct)}/listKeys")["keys"]
    assert [key["keyName"] for key in keys] == ["key1", "key2"]
    assert [len(base64.b64decode(key["value"])) for key in keys] == [64, 64]


def test_a_reader_sees_the_account_and_not_its_keys(direct: Direct) -> None:
    direct.made("PUT", path(direct), BODY)
    reader = direct.identity("reader")
    direct.grant("Reader", reader.principal_id, direct.world.subscription)
    who = direct.world.principals[reader.principal_id]
    assert direct.arm("GET", path(direct), principal=who)[0] == 200
    status, body, _ = direct.arm("POST", f"{path(direct)}/listKeys", principal=who)
    assert (status, body["error"]["code"]) == (403, "AuthorizationFailed")
    assert "Microsoft.Storage/storageAccounts/listKeys/action" in body["error"]["message"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("free1", None), ("mydata", "AlreadyExists"), ("My-Data", "AccountNameInvalid")],
)
def test_a_name_is_free_taken_or_no_name(direct: Direct, name: str, reason: str | None) -> None:
    direct.made("PUT", path(direct), BODY)
    asked = {"name": name, "type": "Microsoft.Storage/storageAccounts"}
    said = direct.made("POST", "providers/Microsoft.Storage/checkNameAvailability", asked)
    assert (said["nameAvailable"], said.get("reason")) == (reason is None, reason)


@pytest.mark.parametrize(
    ("name", "group", "change", "refusal"),
    [
        ("Data", "", {}, (400, "AccountNameInvalid")),
        ("mydata", "node", {}, (409, "StorageAccountInAnotherResourceGroup")),
        ("mydata", "", {"location": "northeurope"}, (409, "InvalidResourceLocation")),
        ("mydata", "", {"kind": "BlobStorage"}, (400, "InvalidValuesForRequestParameters")),
        ("other", "", {"kind": "Tape"}, (400, "InvalidValuesForRequestParameters")),
        ("other", "", {"sku": {"name": "Cheap"}}, (400, "InvalidValuesForRequestParameters")),
        ("other", "", {"location": None}, (400, "LocationRequired")),
        (
            "other",
            "",
            {"properties": {"supportsHttpsTrafficOnly": "no"}},
            (400, "InvalidValuesForRequestParameters"),
        ),
    ],
)
def test_what_no_account_can_be_is_refused(
    direct: Direct, name: str, group: str, change: dict[str, Any], refusal: tuple[int, str]
) -> None:
    direct.made("PUT", path(direct), BODY)
    where = path(direct, name, direct.plan.node_group if group else "")
    got, answer, _ = direct.arm("PUT", where, {**BODY, **change})
    assert (got, answer["error"]["code"]) == refusal
