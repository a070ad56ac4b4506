"""`check --probes`: what each NMI says of its node, asked through the API server."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine
from datetime import UTC, datetime
from typing import Any, TypeVar

import httpx2
import pytest

from podidentity.adapters.kube import Kube
from podidentity.cli.checks.findings import Finding
from podidentity.cli.checks.probes import SILENT, ask, failing, lines, tokens_lately, unserved
from podidentity.cli.nodes import NOBODY, NodeState
from podidentity.wire.kube import KubeError
from tests.cli.conftest import Ran
from tests.cli.world import World

_T = TypeVar("_T")

NOW = 1_800_000_000.0
PATH = {"plane": "bridged", "backend": "nftables", "hop": "proved"}
READY = {"ready": True, "attestation": "kernel", "path": PATH, "checks": {"watch": "ok"}}
NOT_READY = {**READY, "ready": False, "checks": {"watch": ["it is not read yet"]}}
BROKEN = {**READY, "path": {**PATH, "hop": "imds"}}
REFUSED = {"kind": "Status", "code": 503, "message": "error trying to reach service"}


def node(name: str) -> Any:
    return {"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}}


def pod(name: str) -> Any:
    metadata = {"name": f"nmi-{name}", "namespace": "kube-system", "uid": f"uid-{name}"}
    status = {"hostIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}
    return {"metadata": metadata, "spec": {"nodeName": name}, "status": status}


def asked(answers: dict[str, tuple[int, Any]], *alone: str) -> list[NodeState]:
    nodes = [node(each) for each in (*answers, *alone)]
    return through(answers, lambda kube: ask(kube, nodes, list(map(pod, answers)), 8085))


def failed(answers: dict[str, tuple[int, Any]], *events: Any) -> list[Finding]:
    pods = list(map(pod, answers))
    counts = through(answers, lambda kube: tokens_lately(kube, pods, 8085))
    return list(failing(pods, events, counts, NOW))


def tokens_fail(name: str, reason: str) -> Any:
    return {
        "reason": "TokensFail",
        "message": f"tokens fail for all pods that asked ({reason}): no answer; see whether",
        "involvedObject": {"uid": f"uid-{name}"},
        "source": {"component": "podidentity-nmi"},
        "lastTimestamp": datetime.fromtimestamp(NOW - 20, UTC).isoformat(),
    }


def through(
    answers: dict[str, tuple[int, Any]], look: Callable[[Kube], Coroutine[Any, Any, _T]]
) -> _T:
    """Return what `look` finds where NMI of each node answers so through the API server."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        name = request.url.path.partition("/pods/nmi-")[2]
        status, body = answers[name.removesuffix(":8085/proxy/readyz")]
        return httpx2.Response(status, json=body)

    async def all_said() -> _T:
        transport = httpx2.MockTransport(answer)
        kube = Kube(httpx2.AsyncClient(base_url="https://api", transport=transport))
        try:
            return await look(kube)
        finally:
            await kube.close()

    return asyncio.run(all_said())


def test_nodes_that_say_the_same_are_a_line_and_no_finding() -> None:
    found = asked({"b": (200, READY), "a": (200, READY)})
    assert list(lines(found)) == [
        "a, b: plane bridged, backend nftables, proof kernel, probe proved"
    ]
    assert list(unserved(found)) == []


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((503, NOT_READY), "watch: it is not read yet"),
        ((200, BROKEN), "its probe ends at imds"),
        ((503, REFUSED), SILENT),
        ((200, {"ok": True}), "it answers, but not as NMI does"),
    ],
    ids=["not ready", "broken", "silent", "another"],
)
def test_a_node_whose_nmi_does_not_say_that_requests_arrive_is_an_error(
    answer: tuple[int, Any], text: str
) -> None:
    (found,) = unserved(asked({"a": answer, "b": (200, READY)}))
    assert (found.about.name, found.reason) == ("a", "NodeUnproved")
    assert found.what.startswith("a: ")
    assert text in found.what


def test_a_node_without_nmi_is_asked_nothing_and_told() -> None:
    (found,) = unserved(asked({"a": (200, READY)}, "alone"))
    assert found.what == f"alone: {NOBODY}."


def test_a_person_who_may_ask_no_pod_is_refused() -> None:
    forbidden = {"kind": "Status", "reason": "Forbidden", "message": "pods/proxy"}
    with pytest.raises(KubeError, match="pods/proxy"):
        asked({"a": (403, forbidden)})


def lately(failing: int, asked: int, reason: str = "TokenSourceDown") -> Any:
    tokens = {"asked": asked, "failing": failing, "reason": reason, "since_seconds_ago": 20.4}
    return 200, {**READY, "tokens": tokens}


def test_nodes_where_tokens_have_begun_to_fail_are_one_finding_for_each_reason() -> None:
    answers = {"a": lately(2, 3), "b": lately(1, 1), "c": lately(0, 9), "d": (503, REFUSED)}
    (found,) = failed({**answers, "e": (200, READY)})
    assert (found.reason, str(found.severity), str(found.about)) == (
        *("TokensFail", "error", "kube-system/nmi-a"),
    )
    assert found.what == (
        "On a, b: tokens fail for 3 of 4 pods that asked in the last minute (TokenSourceDown), "
        "since 20 s."
    )
    assert found.mend == "See whether the node reaches IMDS and Entra."


@pytest.mark.parametrize("answer", [(200, READY), (503, REFUSED), (200, {"ok": True})])
def test_an_nmi_that_does_not_count_tokens_says_nothing_of_them(answer: tuple[int, Any]) -> None:
    pods = [pod("a")]
    assert through({"a": answer}, lambda kube: tokens_lately(kube, pods, 8085)) == {}


BEHIND = "On a: tokens fail for all pods that asked (TokenSourceDown): no answer."


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (lately(1, 1), [BEHIND]),
        (lately(0, 0), [BEHIND]),
        (
            (503, REFUSED),
            [BEHIND],
        ),
        (
            lately(1, 2, "TokenThrottled"),
            [
                "On a: tokens fail for 1 of 2 pods that asked in the last minute "
                "(TokenThrottled), since 20 s."
            ],
        ),
        (lately(0, 1), []),
    ],
    ids=["the same", "nobody asks", "silent", "another reason", "over"],
)
def test_nmis_count_of_this_minute_corrects_its_event_of_the_last_one(
    answer: Any, told: list[str]
) -> None:
    found = failed({"a": answer}, tokens_fail("a", "TokenSourceDown"))
    assert [each.what for each in found] == told


def test_the_command_asks_the_nodes_where_it_is_told_to(
    bare: World, podidentity: Callable[..., Ran]
) -> None:
    assert podidentity("enable", "--no-wait").code == 0
    ran = podidentity("check", "--probes", "-o", "json")
    found = [each for each in json.loads(ran.out) if each["reason"] == "NodeUnproved"]
    assert found, "no kubelet of this world answers"
    assert bare.plan.nodes[0].name in ran.err
    silent = podidentity("check", "-o", "json")
    assert "NodeUnproved" not in silent.out
