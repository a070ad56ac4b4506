"""When NMI is rolled out, why a pod of it is not ready, and what a failing API server changes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
import pytest

from podidentity.adapters.kube import Kube
from podidentity.cli.connection import worded
from podidentity.cli.objects import ApplyResult, apply, remove
from podidentity.cli.rollout import last_warnings, ready, rollout, trouble, until
from podidentity.wire.kube import KubeError
from tests.adapters.scripted import Turn, answers, cuts, scripted


def daemon_set(**status: int) -> dict[str, Any]:
    return {"metadata": {"generation": 2}, "status": status}


@pytest.mark.parametrize(
    ("status", "done"),
    [
        ({}, False),
        ({"observedGeneration": 1, "desiredNumberScheduled": 0}, False),
        ({"observedGeneration": 2, "desiredNumberScheduled": 0}, True),
        ({"observedGeneration": 2, "desiredNumberScheduled": 2, "numberReady": 2}, False),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 1,
                "updatedNumberScheduled": 2,
            },
            False,
        ),
        (
            {
                "observedGeneration": 2,
                "desiredNumberScheduled": 2,
                "numberReady": 2,
                "updatedNumberScheduled": 2,
            },
            True,
        ),
    ],
    ids=str,
)
def test_a_rollout_is_done_when_every_node_has_a_new_and_ready_pod(
    status: dict[str, int], done: bool
) -> None:
    assert rollout(daemon_set(**status)).done is done


def pod(*containers: dict[str, Any], **conditions: str) -> dict[str, Any]:
    listed = [{"type": kind, "status": status} for kind, status in conditions.items()]
    return {
        "metadata": {"name": "nmi-x"},
        "status": {"phase": "Running", "containerStatuses": list(containers), "conditions": listed},
    }


SAID = {"terminated": {"exitCode": 2, "message": "Usage: x\nError: No such option '--x'.\n"}}
BACK_OFF = {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting failed container"}


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (pod({"state": {"waiting": BACK_OFF}}), f"CrashLoopBackOff: {BACK_OFF['message']}"),
        (pod({"state": {"terminated": {"exitCode": 1, "reason": "Error"}}}), "Error (exit code 1)"),
        (
            pod({"state": {"running": {}}, "lastState": {"terminated": {"exitCode": 137}}}),
            "ended (exit code 137)",
        ),
        (
            pod({"name": "serve", "state": {"waiting": BACK_OFF}, "lastState": SAID}),
            "container serve ended with exit code 2: Error: No such option '--x'.",
        ),
        (pod(PodScheduled="False"), "not PodScheduled"),
        (pod({"ready": True}, {"state": {"running": {}}}, Ready="False"), "not Ready"),
        (pod({"ready": True}, Ready="False"), "its node does not answer the control plane"),
        ({"metadata": {"name": "nmi-x"}}, "phase unknown"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_a_pod_that_is_not_ready_has_a_reason(found: dict[str, Any], words: str) -> None:
    assert trouble(found) == words


def test_what_nmi_says_to_a_failed_probe_is_told_without_its_json() -> None:
    path = {"plane": "", "backend": "", "hop": ""}
    checks = {"rules": "ok", "audit": ["the audit log cannot be written: full"]}
    page = {"ready": False, "attestation": "kernel", "path": path, "checks": checks}
    (said,) = last_warnings([warning(f"Readiness probe failed: {json.dumps(page)}", 1)])
    assert said == "Readiness probe failed: audit: the audit log cannot be written: full"
    page = {"path": [], "audit": ["the audit log cannot be written: full"]}
    (said,) = last_warnings([warning(f"failed: not ready: {json.dumps(page)}\n\n", 1)])
    assert said == "failed: not ready: audit: the audit log cannot be written: full"
    assert last_warnings([warning("failed: {no JSON", 1)]) == ["failed: {no JSON"]


def test_a_pod_that_is_about_to_go_is_not_ready() -> None:
    found = pod(Ready="True")
    assert ready(found)
    found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert not ready(found)


def warning(message: str, second: int, container: str = "net", **more: Any) -> dict[str, Any]:
    return {
        "type": "Warning",
        "message": message,
        "lastTimestamp": f"2026-11-26T10:00:{second:02}Z",
        "involvedObject": {"fieldPath": f"spec.containers{{{container}}}"} if container else {},
        **more,
    }


def test_of_each_container_the_last_warning_counts_whichever_event_was_the_first() -> None:
    """The repeated reason of `net` was hidden by what `serve` had said once, when it started."""
    events = [
        warning("give it CAP_NET_ADMIN", 30),
        warning("no such socket yet", 1),
        warning("connection refused", 5, "serve"),
        warning("pulled", 40, type="Normal"),
        warning("of NMI itself", 41, source={"component": "podidentity-nmi"}),
        warning("no volume", 2, ""),
    ]
    assert last_warnings(events) == ["no volume", "connection refused", "give it CAP_NET_ADMIN"]
    assert last_warnings([warning("twice", 1), warning("twice", 2, "serve")]) == ["twice"]
    assert last_warnings([{**warning("no time", 0), "lastTimestamp": None}]) == ["no time"]


@asynccontextmanager
async def impatient(url: str) -> AsyncIterator[tuple[Kube, list[float]]]:
    """A client that does not sleep, and the seconds that it would have."""
    slept: list[float] = []

    async def sleep(seconds: float) -> None:
        slept.append(seconds)

    async with httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        yield Kube(client, sleep=sleep, jitter=lambda: 0.0), slept


def listed(name: str) -> Turn:
    return answers({"metadata": {"resourceVersion": "1"}, "items": [{"metadata": {"name": name}}]})


@pytest.mark.parametrize(
    ("failure", "pause"),
    [
        (answers(b"Too many requests", 429, "Retry-After: 2\r\n"), 2),
        (answers(b"{}", 500), 1),
        (cuts, 1),
        (answers(b"{}", 410), 1),
        (answers(b""), 1),
    ],
    ids=["429", "500", "cut", "gone", "ended"],
)
async def test_whoever_waits_for_a_change_goes_on_after_a_pause_where_a_watch_ends_or_fails(
    failure: Turn, pause: float
) -> None:
    async with (
        scripted(listed("a"), failure, listed("a"), failure, listed("b")) as server,
        impatient(server.url) as (kube, slept),
    ):
        await until(kube, "/things", {}, lambda found: "b" in found)
    assert slept == [pause, pause]
    assert ["watch=1" in each.query for each in server.asked] == [False, True, False, True, False]


async def test_whoever_may_not_watch_is_told_so_at_once() -> None:
    async with (
        scripted(listed("a"), answers(b"{}", 403)) as server,
        impatient(server.url) as (kube, slept),
    ):
        with pytest.raises(KubeError, match="403"):
            await until(kube, "/things", {}, lambda _: False)
    assert not slept


ROLE = {
    "apiVersion": "rbac.authorization.k8s.io/v1",
    "kind": "ClusterRole",
    "metadata": {"name": "a"},
}
STORED = answers({"metadata": {"name": "a", "resourceVersion": "7"}})
NOWHERE = answers(b"{}", 404)


@pytest.mark.parametrize(
    ("turns", "result", "methods"),
    [
        # The change was lost, or only its answer.
        ([NOWHERE, cuts, NOWHERE, STORED], ApplyResult.CREATED, "GET POST GET POST"),
        ([NOWHERE, cuts, STORED, STORED], ApplyResult.UNCHANGED, "GET POST GET PATCH"),
        ([STORED, answers(b"{}", 500), STORED, STORED], ApplyResult.UNCHANGED, "GET PATCH " * 2),
    ],
)
async def test_an_object_is_looked_at_and_applied_again_where_the_server_fails(
    turns: list[Turn], result: ApplyResult, methods: str
) -> None:
    async with scripted(*turns) as server, impatient(server.url) as (kube, slept):
        assert await apply(kube, ROLE) is result
    assert [each.method for each in server.asked] == methods.split()
    assert slept == [1]


def as_stored(version: str, ready: int, **differs: Any) -> Turn:
    managed = [{"manager": "kube-controller-manager", "time": f"2026-12-03T00:00:0{version}Z"}]
    meta = {"name": "a", "resourceVersion": version, "managedFields": managed}
    stored = {"spec": {"b": 1}, "status": {"numberReady": ready}}
    return answers({**stored, **differs, "metadata": {**meta, **differs.get("metadata", {})}})


@pytest.mark.parametrize(
    ("differs", "result"),
    [
        ({}, ApplyResult.UNCHANGED),
        ({"spec": {"b": 2}}, ApplyResult.CONFIGURED),
        ({"metadata": {"labels": {"b": "2"}}}, ApplyResult.CONFIGURED),
        ({"rules": []}, ApplyResult.CONFIGURED),
    ],
)
async def test_an_object_whose_status_is_written_meanwhile_is_unchanged(
    differs: dict[str, Any], result: ApplyResult
) -> None:
    turns = (as_stored("7", 1), as_stored("9", 2, **differs))
    async with scripted(*turns) as server, impatient(server.url) as (kube, _):
        assert await apply(kube, ROLE) is result


@pytest.mark.parametrize("failure", [cuts, answers(b"{}", 500)], ids=["cut", "500"])
@pytest.mark.parametrize(("then", "found"), [(STORED, True), (NOWHERE, False)])
async def test_an_object_is_deleted_again_where_the_server_fails(
    failure: Turn, then: Turn, found: bool
) -> None:
    async with scripted(failure, then) as server, impatient(server.url) as (kube, slept):
        assert await remove(kube, ROLE) is found
    assert [each.method for each in server.asked] == ["DELETE", "DELETE"]
    assert slept == [1]


async def test_whose_connection_was_cut_is_told_to_run_the_command_again() -> None:
    async with scripted(cuts) as server, impatient(server.url) as (kube, _):
        with pytest.raises(KubeError) as caught:
            await kube.create("/things", {})
    assert "run the command again" in str(worded(caught.value))


@pytest.mark.parametrize(
    ("failure", "times"),
    [(answers(b"{}", 500), 3), (answers(b"{}", 403), 1), (answers(b"{}", 429), 1)],
    ids=["500", "403", "429"],
)
async def test_an_object_that_cannot_be_applied_is_given_up(failure: Turn, times: int) -> None:
    turns = [NOWHERE, failure] * times
    async with scripted(*turns) as server, impatient(server.url) as (kube, _):
        with pytest.raises(KubeError):
            await apply(kube, ROLE)
    assert [each.method for each in server.asked] == ["GET", "POST"] * times
