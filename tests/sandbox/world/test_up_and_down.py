"""Nothing of a sandbox remains, however it ended; and two do not meet."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.inspection import running_plan, status
from podidentity_sandbox.world.lifecycle import Outcome
from tests.root import WAYS
from tests.sandbox.world.places import PARTS, STANDIN, Place, gone, traces

pytestmark = pytest.mark.net


def kill(pid: int | None) -> None:
    with gone(pid):
        os.kill(pid or 0, signal.SIGKILL)


def test_all_parts_are_ready_when_up_returns_and_nothing_remains_after_down(
    each_mode: Place,
) -> None:
    plan = each_mode.up()
    found = status(each_mode.folder())
    assert [(part["name"], part["state"]) for part in found.parts] == [
        ("cluster", "ready"),
        ("azure", "ready"),
        *((node.name, "ready") for node in plan.nodes),
    ]
    assert all(part["memory_kib"] > 1000 for part in found.parts)
    assert all(Path(f"/proc/{part['pid']}").exists() for part in found.parts)
    left = traces(each_mode)
    assert len(left.look()) > 4
    assert each_mode.down() is Outcome.RUNNING
    assert left.seen() == []
    assert not each_mode.base.exists()
    with socket.socket() as client:
        assert client.connect_ex(("127.0.0.1", plan.apiserver_port)) != 0


@pytest.mark.parametrize("victim", ["process 1", "its parent"])
def test_nothing_remains_after_a_crash_and_down(each_mode: Place, victim: str) -> None:
    each_mode.up()
    left = traces(each_mode)
    inner, outer = status(each_mode.folder()).supervisor, each_mode.folder().holder()
    with gone(inner), gone(outer):
        kill(inner if victim == "process 1" else outer)
    with pytest.raises(SandboxError, match="crashed"):
        running_plan(each_mode.folder())
    assert each_mode.down() is Outcome.REMAINS
    assert left.seen() == []


def test_a_sandbox_comes_up_on_the_remains_of_one_that_crashed(each_mode: Place) -> None:
    before = each_mode.up()
    with gone(each_mode.folder().holder()):
        kill(status(each_mode.folder()).supervisor)
    after = each_mode.up()
    assert after.tenant_id == before.tenant_id
    assert after.admin_token != before.admin_token
    assert len(status(each_mode.folder()).parts) == 4


def test_a_supervisor_that_hangs_is_ended_by_force(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("podidentity_sandbox.world.lifecycle._POLITE", 0.2)
    place.up()
    left = traces(place)
    supervisor = status(place.folder()).supervisor
    assert supervisor is not None
    os.kill(supervisor, signal.SIGSTOP)
    assert place.down() is Outcome.RUNNING
    assert left.seen() == []


def test_a_second_one_of_the_name_is_refused_and_told_what_to_do(place: Place) -> None:
    place.up()
    holder = place.folder().holder()
    with pytest.raises(SandboxError, match=rf"is running \(process {holder}\).*sandbox down"):
        place.up()
    assert len(status(place.folder()).parts) == 4


def test_two_sandboxes_live_side_by_side(each_mode: Place) -> None:
    one, two = each_mode.up("one"), each_mode.up("two")
    assert one.apiserver_port != two.apiserver_port
    left = traces(each_mode, "one")
    assert left.namespaces.isdisjoint(traces(each_mode, "two").namespaces)
    each_mode.down("one")
    assert left.seen() == []
    assert {part["state"] for part in status(each_mode.folder("two")).parts} == {"ready"}


@pytest.mark.parametrize("part", ["cluster", "azure", "node"])
def test_a_part_that_cannot_start_ends_the_whole_and_its_log_is_told(
    place: Place, part: str
) -> None:
    with pytest.raises(SandboxError, match=r"ended with 1(?s:.*)the stand-in was told to fail"):
        place.up(parts={part: (STANDIN, part, "--fail")})
    assert not place.base.exists()


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.parametrize("mode", WAYS)
def test_a_sandbox_whose_up_is_interrupted_ends_by_itself(
    place: Place, mode: str, number: signal.Signals
) -> None:
    hang = ("-c", "import signal; signal.pause()")
    place.mode = mode
    parts = {**PARTS, "node": hang}
    with subprocess.Popen(
        [sys.executable, "-c", UP, json.dumps([str(place.base), mode, parts])],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()  # one part is ready; the nodes never will be
        left = traces(place)
        with gone(place.folder().holder()):
            process.send_signal(number)
            process.wait()
    place.down()
    assert left.seen() == []


@pytest.mark.parametrize("mode", WAYS)
def test_a_bound_sandbox_ends_with_the_process_that_made_it(place: Place, mode: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", BOUND, json.dumps([str(place.base), mode, PARTS])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        while process.stdout.readline() != "up\n":
            pass
        left = traces(place)
        with gone(place.folder().holder()):
            process.kill()
    assert place.down() is Outcome.REMAINS
    assert left.seen() == []


UP = """
import json, signal, sys
from pathlib import Path
from podidentity_sandbox.world.blueprint import Shape
from podidentity_sandbox.world.lifecycle import bring_up
signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts by & ignores it
base, mode, parts = json.loads(sys.argv[1])
shape, tell = Shape(rootless=mode == "rootless"), lambda line: print(line, flush=True)
bring_up("one", shape, base=Path(base), parts=parts, progress=tell)
"""
BOUND = f"""{UP.replace("tell)", "tell, bound=True)")}
print("up", flush=True)
sys.stdin.read()
"""
