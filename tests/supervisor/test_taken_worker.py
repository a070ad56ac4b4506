"""A worker of `serve` in a stranger's hands has what the worker has, and not the supervisor."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from podidentity.settings import SERVE_UID
from podidentity.supervisor.privileges import SIGNALS_ARE_SCOPED, landlock_version
from tests.supervisor.agents import Agent, Client, agents, ask, eventually

Start = Callable[..., Agent]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_landlock = pytest.mark.skipif(
    landlock_version() < SIGNALS_ARE_SCOPED, reason="the kernel has no Landlock, or an early one"
)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can reach, as pytest's own cannot be."""
    made = Path(f"/tmp/podidentity-taken-{os.getpid()}")  # noqa: S108 - it is ours alone
    made.mkdir(mode=0o700)
    (made / "handover").mkdir(mode=0o700)
    try:
        yield made
    finally:
        for each in sorted(made.rglob("*"), reverse=True):
            each.rmdir() if each.is_dir() else each.unlink()
        made.rmdir()


@pytest.fixture
def start(folder: Path) -> Iterator[Start]:
    with agents(folder) as starting:
        yield starting


def serving(start: Start, folder: Path, name: str = "a", **settings: Any) -> Agent:
    """Start an agent and return it when another can take over from it."""
    agent = start(name, handover=str(folder / "handover"), **settings)
    agent.ready()
    eventually((folder / "handover" / "serve.sock").exists)
    return agent


def attack(agent: Agent, name: str, *arguments: object) -> Any:
    """Have the worker try it; return what came of it."""
    ask(agent.port, " ".join(["!attack", name, *map(str, arguments)]))
    return json.loads((agent.runtime / "result").read_text())


def as_serve(folder: Path) -> dict[str, Any]:
    """Return the setting that makes an agent the user of `serve`, where we may."""
    if os.geteuid():
        return {}
    for each in (folder, folder / "handover"):
        os.chown(each, SERVE_UID, SERVE_UID)
    return {"uid": SERVE_UID}


def descriptors(pid: int) -> set[str]:
    """Return the sockets and pipes that a process has open, without stdin, stdout and stderr."""
    files = [each for each in Path(f"/proc/{pid}/fd").iterdir() if int(each.name) > 2]
    links = set()
    for each in files:
        with suppress(FileNotFoundError):  # closed meanwhile
            links.add(str(each.readlink()))
    return {each for each in links if each.startswith(("socket:", "pipe:"))}


def test_it_shares_nothing_with_the_supervisor_but_the_listeners(
    start: Start, folder: Path
) -> None:
    agent = serving(start, folder)
    supervisor = agent.process.pid
    _, first = ask(agent.port)
    listeners = descriptors(first) & descriptors(supervisor)
    assert len(listeners) == 1

    # During a hand-over, with a probe that waits, and beside workers that are retired.
    kept = Client(agent.port)
    kept.ask()
    new = start("new", handover=str(folder / "handover"), **{"never settled": True})
    eventually(lambda: "the next agent serves" in agent.probe())
    new.close()
    agent.says("this agent serves again")
    _, second = ask(agent.port)
    assert second != first
    assert Path(f"/proc/{first}").exists()
    assert descriptors(second) & descriptors(supervisor) == listeners
    kept.close()


@needs_root
def test_it_can_neither_trace_the_supervisor_nor_read_its_memory(
    start: Start, folder: Path
) -> None:
    agent = serving(start, folder, **as_serve(folder))
    assert attack(agent, "look_into_supervisor") == []


@needs_landlock
def test_it_can_not_kill_the_supervisor(start: Start, folder: Path) -> None:
    assert attack(serving(start, folder), "signal_supervisor") is False


@needs_landlock
@pytest.mark.parametrize("where", ["handover/serve.sock", "a/serve-probe.sock"])
def test_it_can_not_listen_in_the_place_of_the_supervisor(
    start: Start, folder: Path, where: str
) -> None:
    agent = serving(start, folder)
    assert attack(agent, "listen_at", folder / where) is False
    agent.ready()


def test_it_takes_no_place_of_the_kubelets_probe(start: Start, folder: Path) -> None:
    agent = serving(start, folder)
    assert attack(agent, "hold_probes", agent.runtime / "serve-probe.sock") == 40
    assert agent.probe("live") == "ok\n"
    agent.ready()


def test_it_is_no_successor_of_its_own_agent(start: Start, folder: Path) -> None:
    agent = serving(start, folder)
    assert attack(agent, "take_over", folder / "handover/serve.sock") == 0
    attack(agent, "take_over_as_orphan", folder / "handover/serve.sock", folder / "orphan")
    ends(folder / "orphan")
    assert ask(agent.port)[0] == "a"
    assert "prepares to take over" not in agent.log


@pytest.mark.parametrize("how", ["end", "narrow", "filter"])
def test_the_next_worker_hears_whatever_it_did_to_the_listeners(
    start: Start, folder: Path, how: str
) -> None:
    agent = serving(start, folder)
    _, first = ask(agent.port)
    backlog = room(agent.port)
    client = Client(agent.port)
    client.ask(f"!attack spoil_listeners {how}")
    os.kill(first, signal.SIGKILL)
    agent.says(f"worker {first} ended")
    eventually(lambda: room(agent.port) == backlog)
    name, second = ask(agent.port)
    assert (name, second != first) == ("a", True)
    client.close()


def room(port: int) -> list[str]:
    """Return how many connections may wait at a port, as `ss` says it; [] where nobody listens."""
    told = subprocess.run(
        ["ss", "-Hltn", f"sport = :{port}"], check=True, capture_output=True, text=True
    )
    return [line.split()[2] for line in told.stdout.splitlines()]


@pytest.mark.parametrize("generations", [1, 3])
def test_what_it_leaves_behind_ends(start: Start, folder: Path, generations: int) -> None:
    agent = serving(start, folder)
    attack(agent, "leave_behind", folder / "behind", generations)
    agent.says("was left behind by a worker: it is killed")
    ends(folder / "behind")
    assert ask(agent.port)[0] == "a"


def ends(locked: Path) -> None:
    """Return when the process that has a file locked has ended."""

    def free() -> bool:
        with locked.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return False
        return True

    eventually(free)
