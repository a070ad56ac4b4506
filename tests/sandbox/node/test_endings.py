"""How pods end, and that nothing of them remains; also when something fails meanwhile."""

from __future__ import annotations

import os
import signal
import time

import pytest

from podidentity_sandbox.node.client import ExecFailed
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.api import ready
from tests.sandbox.node.site import PODS, Site, eventually, pod, script, terminated

pytestmark = pytest.mark.net

READY = "until test -e /ready; do sleep 0.02; done"
LONG = 600
"""Seconds of grace, longer than a test waits: what ends within it was not killed after it."""
POLITE = "trap 'echo bye; exit 0' TERM; touch /ready; while :; do sleep 0.05; done"


def test_a_program_hears_of_its_end_and_may_finish(site: Site) -> None:
    found = site.run(pod("polite", script(POLITE), terminationGracePeriodSeconds=LONG))
    site.says("polite", READY)
    site.delete("polite")
    assert site.log(found) == "bye\n"
    assert site.event("polite", "Killing") == "Stopping container main"


def hooked(text: str, *command: str) -> dict[str, object]:
    return {**script(text), "lifecycle": {"preStop": {"exec": {"command": list(command)}}}}


def test_a_hook_is_run_before_a_program_hears_of_its_end(site: Site) -> None:
    text = "trap 'cat /said; exit 0' TERM; touch /ready; while :; do sleep 0.05; done"
    made = hooked(text, "sh", "-c", "sleep 0.2; echo hook >/said")
    found = site.run(pod("hooked", made, terminationGracePeriodSeconds=LONG))
    site.says("hooked", READY)
    site.delete("hooked")
    assert site.log(found) == "hook\n"


def test_a_hook_takes_from_the_grace_and_a_program_has_two_seconds_after_it(site: Site) -> None:
    made = hooked(POLITE, "sleep", str(LONG))
    found = site.run(pod("slow", made, terminationGracePeriodSeconds=1))
    site.says("slow", READY)
    began = time.monotonic()
    site.delete("slow")
    assert site.log(found) == "bye\n"
    assert time.monotonic() - began > 0.9
    assert site.event("slow", "FailedPreStopHook") == "PreStopHook failed"


def test_a_hook_is_not_run_where_there_is_no_grace(site: Site) -> None:
    site.run(pod("now", hooked(POLITE, "sleep", str(LONG))))
    site.delete("now", grace=0)


def test_an_idle_pod_needs_no_grace(site: Site) -> None:
    site.run(pod("idle", terminationGracePeriodSeconds=LONG))
    site.delete("idle")


DEAF = script("trap '' TERM; while :; do sleep 0.05; done")


def test_a_program_that_does_not_heed_is_killed_after_its_grace(site: Site) -> None:
    site.run(pod("deaf", DEAF, terminationGracePeriodSeconds=1))
    began = time.monotonic()
    site.delete("deaf")
    assert time.monotonic() - began > 0.9


def test_a_second_deletion_with_less_grace_hurries_the_first(site: Site) -> None:
    site.run(pod("deaf", DEAF, terminationGracePeriodSeconds=LONG))
    site.api.request("DELETE", f"{PODS}/deaf")
    site.delete("deaf", grace=1)


def test_nothing_of_a_deleted_pod_remains_on_its_node(site: Site) -> None:
    eventually(lambda: "cni-" not in _traces(site))  # of a pod whose object went first
    before = _traces(site)
    found = site.run(pod("gone", script("sleep 997 & sleep 997")))
    assert _traces(site) != before
    uid = found["metadata"]["uid"]
    site.delete("gone")
    assert _traces(site) == before
    for tree in site.plan.cgroups_of(site.node):
        assert not list(tree.rglob(f"*{uid}*"))


def _traces(site: Site) -> str:
    return site.on_node(
        "ls /run/netns /run/kubelet/pods; ip -brief link show type veth | grep -v eth0;"
        "mount | grep -c netns; ps ax -o args | grep -c '[s]leep 997' || true"
    )


def test_an_end_while_the_api_server_is_away_is_reported_when_it_is_back(site: Site) -> None:
    site.run(pod("ends", script("while ! test -e /end; do sleep 0.05; done; exit 4")))
    with site.api_server_away():
        # The container ends by it, and may take this shell with it.
        site.sh("ends", "touch /end")
        eventually(lambda: _has_ended(site, "ends"))
    found = site.until("ends", terminated)
    assert found["status"]["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 4


def test_the_status_of_a_failed_container_has_its_last_words_where_the_pod_asks_for_them(
    site: Site,
) -> None:
    asks = script("echo first; echo last >&2; exit 2")
    asks["terminationMessagePolicy"] = "FallbackToLogsOnError"
    site.run(pod("asks", asks))
    site.run(pod("silent", script("echo first; exit 2")))
    said = [
        site.until(name, terminated)["status"]["containerStatuses"][0]["state"]["terminated"]
        for name in ("asks", "silent")
    ]
    assert said[0]["message"] == "first\nlast\n"
    assert "message" not in said[1]


def test_a_deletion_is_finished_though_the_api_server_goes_away_meanwhile(site: Site) -> None:
    text = "trap 'echo heard' TERM; touch /ready; while ! test -e /end; do sleep 0.05; done"
    found = site.run(pod("slow", script(text), terminationGracePeriodSeconds=LONG))
    site.says("slow", READY)
    version = site.api.request("GET", PODS)["metadata"]["resourceVersion"]
    site.api.request("DELETE", f"{PODS}/slow")
    eventually(lambda: "heard" in site.log(found))
    with site.api_server_away():
        # The container ends by it, and may take this shell with it.
        site.sh("slow", "touch /end")
        eventually(lambda: _has_ended(site, "slow"))
    site.until_gone("slow", version)


def _has_ended(site: Site, name: str) -> bool:
    try:
        site.sh(name, "true")
    except ExecFailed:
        return True
    return False


def test_a_kubelet_that_was_killed_starts_its_pods_anew(site: Site) -> None:
    first = site.run(pod("again", script("echo started; exec sleep 996"), restartPolicy="Always"))
    site.part("kill", site.node.name)
    site.part("start", site.node.name)
    old = first["status"]["containerStatuses"][0]["containerID"]
    found = site.until(
        "again",
        lambda seen: ready(seen) and seen["status"]["containerStatuses"][0]["containerID"] != old,
    )
    eventually(lambda: site.log(found) == "started\nstarted\n")
    assert site.on_node("ps ax -o args | grep -c '^[s]leep 996'") == "1"
    assert site.on_node("ls /run/netns | wc -l") == "1"


def test_a_restart_of_the_api_server_touches_no_program(site: Site) -> None:
    before = site.run(pod("calm"))
    site.part("kill", "cluster")
    site.part("start", "cluster")
    site.run(pod("new"))
    after = site.get("calm")
    assert after["status"]["containerStatuses"] == before["status"]["containerStatuses"]


def test_a_node_that_can_start_nothing_any_more_ends_and_says_so(site: Site) -> None:
    site.run(pod("lost", script("exec sleep 994")))
    site.on_node("pkill -KILL -f 'node.launche[r]'")  # the sandbox's own: in its pid namespace
    eventually(lambda: _starts(site))
    site.run(pod("new"))
    assert site.on_node("ps ax -o args | grep -c '^[s]leep 994' || true") in {"0", "1"}
    log = (site.plan.logs / f"{site.node.name}.log").read_text()
    assert "the node cannot go on: the process that starts this node's containers" in log


def _starts(site: Site) -> bool:
    try:
        site.part("start", site.node.name)
    except SandboxError:  # it has not ended yet
        return False
    return True


def test_a_node_that_is_told_to_end_ends_its_pods_and_then_itself(site: Site) -> None:
    site.run(pod("left", script("trap '' TERM; while :; do sleep 1000; done")))
    os.kill(site.of_node()["pid"], signal.SIGTERM)
    eventually(lambda: site.of_node()["state"] == "ended")
    assert site.of_node()["exit"] == 0
    site.part("start", site.node.name)
