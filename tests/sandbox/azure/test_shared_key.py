"""The string to sign, by the examples of its document.

https://learn.microsoft.com/rest/api/storageservices/authorize-with-shared-key
"""

from __future__ import annotations

import pytest

from podidentity_sandbox.azure.blob.sharedkey import string_to_sign
from podidentity_sandbox.azure.messages import Request

DATE = {"x-ms-date": "Fri, 26 Jun 2015 23:39:12 GMT", "x-ms-version": "2015-02-21"}


def lines(method: str, target: str, headers: dict[str, str]) -> list[str]:
    request = Request(method=method, target=target, headers=headers)
    return string_to_sign(request, "myaccount").split("\n")


def test_the_documents_first_example() -> None:
    target = "/mycontainer?restype=container&comp=metadata&timeout=20"
    assert lines("GET", target, DATE) == [
        "GET",
        *[""] * 11,
        "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT",
        "x-ms-version:2015-02-21",
        "/myaccount/mycontainer",
        "comp:metadata",
        "restype:container",
        "timeout:20",
    ]


def test_values_of_one_parameter_are_sorted_and_joined() -> None:
    target = (
        "/container?restype=container&comp=list&include=snapshots&include=metadata"
        "&include=uncommittedblobs"
    )
    assert lines("GET", target, DATE)[-4:] == [
        "/myaccount/container",
        "comp:list",
        "include:metadata,snapshots,uncommittedblobs",
        "restype:container",
    ]


def test_the_path_is_signed_as_it_was_sent_and_the_query_decoded() -> None:
    signed = lines("GET", "/c/a%20b?Prefix=x%2Fy%20z", DATE)
    assert signed[-2:] == ["/myaccount/c/a%20b", "prefix:x/y z"]


def test_the_plain_headers_stand_in_their_order() -> None:
    headers = {
        "content-encoding": "1",
        "content-language": "2",
        "content-length": "3",
        "content-md5": "4",
        "content-type": "5",
        "date": "6",
        "if-modified-since": "7",
        "if-match": "8",
        "if-none-match": "9",
        "if-unmodified-since": "10",
        "range": "11",
        "user-agent": "not signed",
    }
    assert lines("PUT", "/", headers) == ["PUT", *map(str, range(1, 12)), "/myaccount/"]


def test_headers_of_the_service_are_sorted_and_trimmed() -> None:
    headers = {"x-ms-meta-b": " two  words ", "x-ms-blob-type": "BlockBlob", **DATE}
    assert lines("PUT", "/", headers)[12:16] == [
        "x-ms-blob-type:BlockBlob",
        "x-ms-date:Fri, 26 Jun 2015 23:39:12 GMT",
        "x-ms-meta-b:two  words",
        "x-ms-version:2015-02-21",
    ]


def test_the_services_date_stands_for_the_plain_one() -> None:
    assert lines("GET", "/", {"date": "other", **DATE})[6] == ""


@pytest.mark.parametrize(("version", "length"), [("2015-02-21", ""), ("2014-02-14", "0")])
def test_no_length_is_empty_since_2015(version: str, length: str) -> None:
    headers = {"content-length": "0", "x-ms-version": version}
    assert lines("PUT", "/", headers)[3] == length
