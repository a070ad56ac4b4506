"""Lists in pages and watches: always one consistent state, and every change after it."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.list_watch import Paging, page
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.selectors import Selection
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Storage
from tests.sandbox.cluster.conftest import (
    DEFINITIONS,
    MAPS,
    MERGE,
    Client,
    check_refusal,
    seen,
    watching,
)

CONFIG_MAPS = Registry(BUILT_IN).by_key("configmaps")


async def make(api: Client, *names: str, **labels: str) -> None:
    for name in names:
        await api.post(MAPS, json={"metadata": {"name": name, "labels": labels}})


def names(answer: httpx2.Response) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json()["items"]]


async def test_pages_show_the_state_of_the_first_whatever_happens_between(api: Client) -> None:
    await make(api, "a", "b", "c", "d")
    first = await api.get(MAPS, params={"limit": "2"})
    metadata: dict[str, Any] = first.json()["metadata"]
    assert names(first) == ["a", "b"]
    assert metadata["remainingItemCount"] == 3
    await api.delete(f"{MAPS}/c")
    await make(api, "bb", "e")
    second = await api.get(MAPS, params={"limit": "2", "continue": metadata["continue"]})
    assert names(second) == ["c", "d"]
    assert second.json()["metadata"]["resourceVersion"] == metadata["resourceVersion"]
    token = second.json()["metadata"]["continue"]
    last = await api.get(MAPS, params={"limit": "2", "continue": token})
    assert names(last) == ["kube-root-ca.crt"]
    assert "continue" not in last.json()["metadata"]


async def test_an_exact_version_is_listed_as_it_was(api: Client) -> None:
    await make(api, "a")
    version = (await api.get(MAPS)).json()["metadata"]["resourceVersion"]
    await api.delete(f"{MAPS}/a")
    await make(api, "b")
    exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    assert names(await api.get(MAPS, params=exact)) == ["a", "kube-root-ca.crt"]
    newer = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"}
    assert names(await api.get(MAPS, params=newer)) == ["b", "kube-root-ca.crt"]


async def test_a_page_token_is_checked(api: Client) -> None:
    for token in ("x", "e30", "!!!"):
        answer = await api.get(MAPS, params={"continue": token})
        check_refusal(answer, 400, "continue key is not valid")


def test_a_page_of_a_forgotten_state_is_gone() -> None:
    storage = Storage(history=10)
    for number in range(5):
        storage.put("configmaps", {"metadata": {"name": f"m{number}", "uid": "u"}})
    first = page(storage, CONFIG_MAPS, Selection(), Paging(limit=2))
    for number in range(30):
        storage.put("configmaps", {"metadata": {"name": "m0", "uid": "u", "n": number}})
    with pytest.raises(StatusError, match="The provided continue parameter is too old") as gone:
        page(storage, CONFIG_MAPS, Selection(), Paging(limit=2, token=first.token))
    assert (gone.value.code, gone.value.reason) == (410, "Expired")


# ---- Watches, as https://kubernetes.io/docs/reference/using-api/api-concepts/ describes them.


async def relabel(api: Client, name: str, **labels: str) -> dict[str, Any]:
    patch = {"metadata": {"labels": labels}}
    answer = await api.patch(f"{MAPS}/{name}", json=patch, headers=MERGE)
    body: dict[str, Any] = answer.json()
    return body


async def test_a_watch_that_names_no_version_begins_with_what_is_there(api: Client) -> None:
    await make(api, "a")
    async with watching(api, MAPS) as events:
        there = {seen(await anext(events)) for _ in range(2)}
        assert there == {("ADDED", "a"), ("ADDED", "kube-root-ca.crt")}
        await make(api, "b")
        assert seen(await anext(events)) == ("ADDED", "b")


async def test_a_watch_sees_objects_enter_and_leave_its_selection(api: Client) -> None:
    await make(api, "a", app="web")
    async with watching(api, MAPS, labelSelector="app=web") as events:
        assert seen(await anext(events)) == ("ADDED", "a")
        left = await relabel(api, "a", app="api")
        event = await anext(events)
        assert seen(event) == ("DELETED", "a")
        # its last state inside the selection, at the version of the change that took it out
        assert event["object"]["metadata"]["labels"] == {"app": "web"}
        version = event["object"]["metadata"]["resourceVersion"]
        assert version == left["metadata"]["resourceVersion"]
        await relabel(api, "a", other="x")
        await relabel(api, "a", app="web")
        assert seen(await anext(events)) == ("ADDED", "a")


async def test_a_watch_lists_first_and_says_when_it_has_if_asked(api: Client) -> None:
    asked = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": "50",
    }
    before = []
    async with watching(api, MAPS, **asked) as events:
        await make(api, "b")  # where nothing happens, the bookmark may be a minute late
        async for event in events:
            if event["type"] == "BOOKMARK":
                break
            before.append(seen(event))
        else:
            pytest.fail(f"no bookmark, but {before}")
    assert before[0] == ("ADDED", "kube-root-ca.crt")
    assert set(before[1:]) <= {("ADDED", "b")}
    assert event["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_ends_in_its_time_with_a_bookmark(api: Client) -> None:
    params = {"timeoutSeconds": "1", "allowWatchBookmarks": "true", "resourceVersion": "0"}
    async with watching(api, MAPS, **params) as events:
        found = [event async for event in events]
    assert found[-1]["type"] == "BOOKMARK"
    version = (await api.get(MAPS)).json()["metadata"]["resourceVersion"]
    assert int(found[-1]["object"]["metadata"]["resourceVersion"]) <= int(version)


async def test_a_list_of_a_future_version_is_refused(api: Client) -> None:
    answer = await api.get(MAPS, params={"resourceVersion": "999999"})
    check_refusal(answer, 504, "Too large resource version: 999999, current: ")


async def test_watches_end_when_their_type_goes(widgets: Client) -> None:
    async with watching(widgets, "/apis/example.com/v1/widgets") as events:
        await widgets.delete(f"{DEFINITIONS}/widgets.example.com")
        assert [event async for event in events] == []
