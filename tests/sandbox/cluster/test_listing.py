"""Lists in pages, and of an earlier state: always one consistent state."""

from __future__ import annotations

from typing import Any

import httpx2
import pytest

from podidentity_sandbox.cluster.kinds.table import BUILT_IN
from podidentity_sandbox.cluster.listing import Paging, page
from podidentity_sandbox.cluster.registry import Registry
from podidentity_sandbox.cluster.selectors import Selection
from podidentity_sandbox.cluster.status import StatusError
from podidentity_sandbox.cluster.storage import Storage

MAPS = "/api/v1/namespaces/default/configmaps"
CONFIG_MAPS = Registry(BUILT_IN).by_key("configmaps")


async def make(api: httpx2.AsyncClient, *names: str) -> None:
    for name in names:
        await api.post(MAPS, json={"metadata": {"name": name}})


def names(answer: httpx2.Response) -> list[str]:
    return [item["metadata"]["name"] for item in answer.json()["items"]]


async def test_pages_show_the_state_of_the_first_whatever_happens_between(
    api: httpx2.AsyncClient,
) -> None:
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


async def test_an_exact_version_is_listed_as_it_was(api: httpx2.AsyncClient) -> None:
    await make(api, "a")
    version = (await api.get(MAPS)).json()["metadata"]["resourceVersion"]
    await api.delete(f"{MAPS}/a")
    await make(api, "b")
    exact = {"resourceVersion": version, "resourceVersionMatch": "Exact"}
    assert names(await api.get(MAPS, params=exact)) == ["a", "kube-root-ca.crt"]
    newer = {"resourceVersion": version, "resourceVersionMatch": "NotOlderThan"}
    assert names(await api.get(MAPS, params=newer)) == ["b", "kube-root-ca.crt"]


async def test_a_page_token_is_checked(api: httpx2.AsyncClient) -> None:
    for token in ("x", "e30", "!!!"):
        answer = await api.get(MAPS, params={"continue": token})
        assert answer.status_code == 400
        assert answer.json()["message"] == "continue key is not valid"


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
