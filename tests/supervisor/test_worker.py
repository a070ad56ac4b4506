from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podidentity.supervisor.worker import HUNG_SECONDS, STARTING_SECONDS
from tests.supervisor.agents import Agent, Client, agents, ask, eventually, order

Start = Callable[..., Agent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with agents(tmp_path) as starting:
        yield starting


def test_a_worker_that_is_killed_is_replaced_at_once_and_connections_wait(start: Start) -> None:
    agent = start("a")
    agent.ready()
    pids = set()
    for _ in range(4):
        _, pid = ask(agent.port)
        pids.add(pid)
        os.kill(pid, signal.SIGKILL)
        # It waits in the backlog, and is answered by the next worker.
        name, other = ask(agent.port)
        assert name == "a"
        assert other not in pids
        time.sleep(0)
    assert agent.probe("live") == "ok\n"
    assert "ended after" in agent.log


def test_connections_of_many_wait_for_the_next_worker(start: Start) -> None:
    agent = start("a")
    agent.ready()
    _, pid = ask(agent.port)
    os.kill(pid, signal.SIGSTOP)
    answers: list[tuple[str, int]] = []
    threads = [threading.Thread(target=lambda: answers.append(ask(agent.port))) for _ in range(50)]
    for thread in threads:
        thread.start()
    os.kill(pid, signal.SIGKILL)
    for thread in threads:
        thread.join()
    # Those that the stopped worker had not accepted: all of them.
    assert len(answers) == 50
    assert pid not in {each for _, each in answers}


def test_a_worker_that_hangs_is_killed_four_seconds_after_its_last_word(start: Start) -> None:
    agent = start("a")
    agent.ready()
    _, pid = ask(agent.port)
    assert HUNG_SECONDS == 4
    began = time.monotonic()
    order(agent.port, "!hang")
    # A slow machine may make it later, but not as late as a worker that has yet to begin.
    assert time.monotonic() - began < STARTING_SECONDS
    assert ask(agent.port)[1] != pid
    assert f"worker {pid} hangs: it is killed" in agent.log


def test_a_worker_that_grows_too_large_is_replaced_before_its_container_is(start: Start) -> None:
    agent = start("a", memory=120 << 20)
    agent.ready()
    _, pid = ask(agent.port)
    order(agent.port, "!grow")
    # By its limit of data at once, or by the supervisor's look at what it holds.
    assert ask(agent.port)[0] == "a"
    assert agent.process.poll() is None
    assert pid


def test_a_crash_loop_is_slowed_down_and_said(start: Start) -> None:
    agent = start("a", constants={"SHORT_LIFE": 600.0})
    agent.ready()
    began = time.monotonic()
    for _ in range(4):
        order(agent.port, "!exit 3")
    assert ask(agent.port)[0] == "a"
    assert time.monotonic() - began > 0.25 + 0.5
    assert "(exit code 3): the next is started at once" in agent.log
    assert "(exit code 3): the next is started in 0.25 s" in agent.log
    assert "(exit code 3): the next is started in 0.5 s" in agent.log


def test_a_worker_that_cannot_begin_ends_the_agent_with_its_code(start: Start) -> None:
    agent = start("a", code=1)
    assert agent.ends() == 1
    assert agent.log.strip().endswith("error: cannot begin")


def test_a_worker_that_cannot_begin_any_more_is_tried_again(start: Start, tmp_path: Path) -> None:
    switch = tmp_path / "cannot"
    agent = start("a", **{"code if": str(switch)})
    agent.ready()
    _, pid = ask(agent.port)
    switch.touch()
    os.kill(pid, signal.SIGKILL)
    agent.says("(exit code 1): the next is started in")
    switch.unlink()
    assert ask(agent.port)[0] == "a"


def test_a_port_that_is_taken_ends_the_agent_and_is_said(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        agent = start("a", port=taken.getsockname()[1])
        assert agent.ends() == 1
    assert "Address already in use. Another program of this node has the port" in agent.log


def test_told_to_stop_it_refuses_new_connections_and_ends(start: Start) -> None:
    agent = start("a")
    agent.ready()
    agent.tell(signal.SIGTERM)
    assert agent.ends() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(agent.port)


def test_a_probe_waits_for_readiness_and_says_what_is_missing(start: Start) -> None:
    agent = start("a", never=True, constants={"PROBE_SECONDS": 0.2})
    eventually((agent.runtime / "serve-probe.sock").exists)
    agent_says = agent.probe()
    assert agent_says.startswith("not ready: ")
    eventually(lambda: agent.probe() == "not ready: a\n")
    assert agent.probe("live") == "ok\n"


def test_a_worker_that_is_not_ready_any_more_is_said(start: Start) -> None:
    agent = start("a", constants={"PROBE_SECONDS": 0.2})
    agent.ready()
    client = Client(agent.port)
    client.ask("!unready")
    eventually(lambda: agent.probe() == "not ready: a\n")
    client.close()


def test_probes_without_end_are_bounded(start: Start) -> None:
    agent = start("a", never=True)
    eventually((agent.runtime / "serve-probe.sock").exists)
    held = []
    for _ in range(40):
        asking = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        asking.connect(str(agent.runtime / "serve-probe.sock"))
        held.append(asking)
    last = held[-1]
    assert last.recv(10) == b""
    for each in held:
        each.close()
    eventually(lambda: agent.probe("live") == "ok\n")
