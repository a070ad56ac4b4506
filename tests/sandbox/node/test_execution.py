"""exec: other programs beside a container's."""

from __future__ import annotations

import os
import signal

import pytest

from podidentity_sandbox.node.execution_requests import ExecFailed
from tests.sandbox.node.site import Site, container, eventually, pod, script, terminated

pytestmark = pytest.mark.net


def test_output_error_and_exit_code_come_back_apart(site: Site) -> None:
    site.run(pod("pod"))
    result = site.sh("pod", "echo out; echo err >&2; exit 7")
    assert (result.exit, result.stdout, result.stderr) == (7, b"out\n", b"err\n")


def test_standard_input_reaches_the_program_whole(site: Site) -> None:
    site.run(pod("pod"))
    given = os.urandom(300_000)
    result = site.execute("pod", "cat", stdin=given)
    assert result.stdout == given


def test_a_program_ended_by_a_signal_has_128_and_its_number(site: Site) -> None:
    site.run(pod("pod"))
    assert site.sh("pod", "kill -KILL $$").exit == 128 + signal.SIGKILL


def test_what_a_program_leaves_running_does_not_hold_up_its_end(site: Site) -> None:
    site.run(pod("pod"))
    assert site.sh("pod", "sleep 999 & echo started").stdout == b"started\n"


def test_a_caller_that_goes_away_ends_the_program_and_its_children(site: Site) -> None:
    site.run(pod("pod"))
    with pytest.raises(TimeoutError):
        site.execute("pod", "sh", "-c", "sleep 998; true", timeout=0.5)
    eventually(lambda: site.sh("pod", "ps ax -o args | grep -q '^[s]leep 998'").exit == 1)


def test_signals_have_their_defaults_in_an_executed_program(site: Site) -> None:
    site.run(pod("pod"))
    assert int(site.says("pod", "grep SigIgn /proc/self/status | cut -f2"), 16) == 0
    assert int(site.says("pod", "grep SigBlk /proc/self/status | cut -f2"), 16) == 0


def test_orphans_leave_no_zombies_in_an_idle_pod(site: Site) -> None:
    site.run(pod("pod"))
    site.says("pod", "for i in 1 2 3; do (true & ) ; done")
    assert site.says("pod", "grep -l '^State:.Z' /proc/[0-9]*/status | wc -l") == "0"


def test_the_program_has_the_rights_of_its_container_and_no_more(site: Site) -> None:
    limited = container(
        securityContext={"capabilities": {"drop": ["ALL"]}, "allowPrivilegeEscalation": False}
    )
    site.run(pod("pod", limited))
    assert int(site.says("pod", "grep CapBnd /proc/self/status | cut -f2"), 16) == 0
    assert site.says("pod", "grep NoNewPrivs /proc/self/status | cut -f2") == "1"


def test_the_program_is_in_the_cgroup_of_its_container(site: Site) -> None:
    found = site.run(pod("pod"))
    own = site.says("pod", "grep '^0::' /proc/self/cgroup").removeprefix("0::")
    expected = f"/{site.node.name}/kubepods/burstable/pod{found['metadata']['uid']}/main"
    assert own.endswith(expected) is not site.plan.rootless


@pytest.mark.parametrize(
    ("name", "kind", "why"),
    [
        ("nobody", None, r'pods "nobody" not found in namespace default on any node'),
        ("pod", "other", "container other is not valid for pod pod"),
        ("ended", None, "container main is not running"),
    ],
)
def test_what_cannot_be_executed_says_why(
    site: Site, name: str, kind: str | None, why: str
) -> None:
    site.run(pod("pod"))
    site.run(pod("ended", container("true")), terminated)
    with pytest.raises(ExecFailed, match=why):
        site.execute(name, "true", container=kind)


def test_a_program_that_is_not_there_says_so(site: Site) -> None:
    site.run(pod("pod"))
    with pytest.raises(ExecFailed, match="executable file not found"):
        site.execute("pod", "no-such-program")


def test_a_new_pod_is_meant_while_an_old_one_of_its_name_still_ends(site: Site) -> None:
    deaf = script("trap '' TERM; echo deaf >/who; while :; do sleep 0.05; done")
    site.run(pod("pod", deaf))
    site.delete("pod", grace=0)  # its object goes at once, its programs have a second more
    site.run(pod("pod"))
    assert site.says("pod", "cat /who 2>/dev/null || echo new") == "new"
