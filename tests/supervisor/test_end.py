"""An agent that takes its rules with it accepts until they are gone: then nobody is led to it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.root import WAYS
from tests.supervisor.agents import ROOT, Agent, Client, agents, ask, eventually

Start = Callable[..., Agent]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with agents(tmp_path) as starting:
        yield starting


def leaves(agent: Agent) -> bool:
    """Whether its worker was told to have the rules removed."""
    return (agent.runtime / "leaving").exists()


def test_it_accepts_until_the_rules_are_gone_and_answers_kept_connections_once_more(
    start: Start,
) -> None:
    agent = start("a", removes=True)
    agent.ready()
    kept = Client(agent.port)
    assert kept.ask()[2] is False
    agent.tell(signal.SIGTERM)
    eventually(lambda: leaves(agent))
    for _ in range(3):
        assert ask(agent.port)[0] == "a"
    (agent.runtime / "over").touch()
    eventually(lambda: kept.ask()[2])
    kept.close()
    assert agent.ends() == 0
    with pytest.raises(ConnectionRefusedError):
        ask(agent.port)


def test_connections_that_stay_idle_do_not_hold_it_up_for_long(start: Start) -> None:
    agent = start("a", removes=True, constants={"LAST_ANSWERS_SECONDS": 0.2})
    agent.ready()
    idle = Client(agent.port)
    idle.ask()
    agent.tell(signal.SIGTERM)
    eventually(lambda: leaves(agent))
    (agent.runtime / "over").touch()
    assert agent.ends() == 0
    idle.close()


def test_rules_that_nobody_removes_are_not_waited_for_for_ever(start: Start) -> None:
    agent = start("a", removes=True, constants={"REMOVAL_SECONDS": 0.2})
    agent.ready()
    agent.tell(signal.SIGTERM)
    assert agent.ends() == 0
    assert leaves(agent)


def test_a_worker_that_dies_meanwhile_has_no_successor(start: Start) -> None:
    agent = start("a", removes=True)
    agent.ready()
    agent.tell(signal.SIGTERM)
    eventually(lambda: leaves(agent))
    client = Client(agent.port)
    with pytest.raises(ValueError, match="unpack"):
        client.ask("!exit 7")
    client.close()
    assert agent.ends() == 0


def test_a_worker_that_says_they_are_gone_ends_nothing_before_the_agent_is_told_to(
    start: Start,
) -> None:
    agent = start("a", removes=True, constants={"ON_THE_WAY_SECONDS": 0.0, "PROBE_SECONDS": 0.1})
    agent.ready()
    (agent.runtime / "over").touch()
    eventually(lambda: agent.probe().startswith("not ready"))
    assert ask(agent.port)[0] == "a"
    assert not leaves(agent)


def test_where_another_agent_serves_no_rule_is_to_go(start: Start, tmp_path: Path) -> None:
    folder = tmp_path / "handover"
    folder.mkdir(mode=0o700)
    old = start("old", removes=True, handover=str(folder))
    old.ready()
    eventually((folder / "serve.sock").exists)
    new = start("new", removes=True, handover=str(folder))
    new.ready()
    old.tell(signal.SIGTERM)
    assert old.ends() == 0
    assert not leaves(old)


def test_one_that_ends_takes_nothing_back_from_the_next_and_its_rules_go_in_order(
    start: Start, tmp_path: Path
) -> None:
    """Else the next one leaves the rules to it, and they lead to a port that is closed."""
    folder = tmp_path / "handover"
    folder.mkdir(mode=0o700)
    old = start("old", removes=True, handover=str(folder))
    old.ready()
    eventually((folder / "serve.sock").exists)
    kept = Client(old.port)
    assert kept.ask()[0] == "old"
    new = start("new", removes=True, handover=str(folder))
    new.ready()
    old.tell(signal.SIGTERM)
    new.says("the agent before ends")
    assert old.process.poll() is None, "it has a connection"
    new.tell(signal.SIGTERM)
    eventually(lambda: leaves(new))
    assert ask(new.port)[0] == "new"
    (new.runtime / "over").touch()
    assert kept.ask()[0] == "old"
    assert (old.ends(), new.ends()) == (0, 0)
    kept.close()


@pytest.mark.parametrize("way", WAYS)
def test_who_was_on_the_way_when_the_rules_went_is_answered_though_packets_were_lost(
    tmp_path: Path, way: str
) -> None:
    user = ["--user", "--map-root-user"] if way == "rootless" else []
    program = [sys.executable, "-m", "tests.supervisor.lossy", str(tmp_path)]
    ran = subprocess.run(
        ["unshare", *user, "--net", *program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (ran.stdout, ran.returncode) == ("a\n", 0), ran.stderr
