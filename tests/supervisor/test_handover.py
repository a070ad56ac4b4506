from __future__ import annotations

import errno
import os
import select
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from podidentity.supervisor import handover
from tests.supervisor.agents import Agent, Client, agents, ask, eventually, free_port

Start = Callable[..., Agent]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "handover"
    made.mkdir(mode=0o700)
    return made


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    with agents(tmp_path) as starting:
        yield starting


def published(folder: Path) -> bool:
    return (folder / "serve.sock").exists()


def serving(start: Start, folder: Path, name: str = "old", **settings: object) -> Agent:
    """Start an agent and return it when another can take over from it."""
    agent = start(name, handover=str(folder), **settings)
    agent.ready()
    eventually(lambda: published(folder))
    return agent


class Load:
    """Clients that never try again, each with a new connection, and one that is kept."""

    def __init__(self, port: int) -> None:
        self.names: list[str] = []
        self.failures: list[str] = []
        self._port = port
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run) for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def reaches(self, name: str) -> None:
        """Return when an agent of this name has answered last."""
        eventually(lambda: self.names and self.names[-1] == name)

    def _run(self) -> None:
        kept: Client | None = None
        while not self._stop.is_set():
            try:
                self.names.append(ask(self._port)[0])
                if kept is None:
                    kept = Client(self._port)
                name, _, last = kept.ask()
                self.names.append(name)
                if last:
                    kept.close()
                    kept = None
            except (OSError, ValueError) as error:
                self.failures.append(repr(error))
                return
        if kept is not None:
            kept.close()


def test_a_new_agent_takes_over_without_a_lost_request(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    with Load(old.port) as load:
        eventually(lambda: len(load.names) > 20)
        new = start("new", handover=str(folder))
        new.ready()
        load.reaches("new")
        old.tell(signal.SIGTERM)
        assert old.ends() == 0
        before = len(load.names)
        eventually(lambda: len(load.names) > before + 20)
    assert load.failures == []
    assert set(load.names) == {"old", "new"}


def test_an_update_to_another_version_and_the_way_back_lose_nothing(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder, constants={"__version__": "0.2.0"})
    with Load(old.port) as load:
        for name, version in (("newer", "1.0.0"), ("back", "0.2.0")):
            new = start(name, handover=str(folder), constants={"__version__": version})
            new.ready()
            load.reaches(name)
            old.says(f"version {version} serves")
            old.tell(signal.SIGTERM)
            assert old.ends() == 0
            old = new
    assert load.failures == []


def test_an_agent_that_cannot_hand_over_serves_until_it_ends_and_the_new_one_says_why_it_waits(
    start: Start, folder: Path
) -> None:
    old = start("0.1")
    old.ready()
    new = start("new", handover=str(folder), constants={"PROBE_SECONDS": 0.1})
    cannot = f"cannot listen on 127.0.0.1:{old.port}: Address already in use"
    new.says(cannot)
    new.says("or of podidentity 0.1")
    assert new.probe().startswith(f"not ready: {cannot}")
    assert ask(old.port)[0] == "0.1"
    old.tell(signal.SIGTERM)
    assert old.ends() == 0
    eventually(lambda: new.probe().startswith("ok"))
    assert ask(new.port)[0] == "new"


def test_one_update_after_the_other_loses_nothing(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    with Load(old.port) as load:
        for number in range(4):
            new = start(f"new-{number}", handover=str(folder))
            new.ready()
            load.reaches(new.name)
            old.tell(signal.SIGTERM)
            old = new
    assert load.failures == []


def test_a_kept_connection_is_answered_once_more_by_the_agent_that_it_began_with(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder)
    kept = Client(old.port)
    assert kept.ask()[0] == "old"
    new = start("new", handover=str(folder))
    new.ready()
    old.tell(signal.SIGTERM)
    time.sleep(0.3)
    assert old.process.poll() is None
    name, _, last = kept.ask()
    assert (name, last) == ("old", True)
    kept.close()
    assert old.ends() == 0


def test_a_new_version_that_is_never_ready_changes_nothing(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    with Load(old.port) as load:
        broken = start("broken", handover=str(folder), never=True)
        old.says("prepares to take over")
        before = len(load.names)
        eventually(lambda: len(load.names) > before + 50)
        assert not broken.probe().startswith("ok")
        broken.tell(signal.SIGTERM)
        assert broken.ends() == 0
        old.says("gave up taking over")
    assert load.failures == []
    assert set(load.names) == {"old"}


def test_a_new_version_that_crashes_changes_nothing(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    broken = start("broken", handover=str(folder), code=1)
    assert broken.ends() == 1
    assert ask(old.port)[0] == "old"
    # The next version finds the agent that serves.
    start("new", handover=str(folder)).ready()
    eventually(lambda: ask(old.port)[0] == "new")


def test_what_is_not_settled_in_time_is_taken_back(start: Start, folder: Path) -> None:
    old = serving(start, folder, constants={"handover.SETTLE_SECONDS": 0.5})
    with Load(old.port) as load:
        broken = start("broken", handover=str(folder), **{"never settled": True})
        broken.says("the agent before serves again")
        load.reaches("old")
    assert load.failures == []
    assert "did not serve within 0.5 s: this agent serves again" in old.log


def test_a_new_agent_that_dies_after_it_was_given_all_is_followed_by_the_old(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder)
    new = start("new", handover=str(folder))
    new.ready()
    eventually(lambda: "serves" in old.log and ask(old.port)[0] == "new")
    _, worker = ask(old.port)
    os.kill(new.process.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert ask(old.port)[0] == "old"
    old.says("has ended: this agent serves again")
    # And it can be taken over from again.
    third = start("third", handover=str(folder))
    third.ready()
    eventually(lambda: ask(old.port)[0] == "third")


def test_an_agent_that_dies_before_it_gave_leaves_its_sockets_to_the_new_one(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder)
    new = start("new", handover=str(folder), never=True)
    old.says("prepares to take over")
    _, worker = ask(old.port)
    os.kill(old.process.pid, signal.SIGKILL)
    os.kill(worker, signal.SIGKILL)
    assert ask(new.port)[0] == "new"


def test_an_agent_that_is_told_to_stop_gives_what_it_has_to_who_prepares(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder)
    start("new", handover=str(folder), never=True)
    old.says("prepares to take over")
    with Load(old.port) as load:
        old.tell(signal.SIGTERM)
        assert old.ends() == 0
        load.reaches("new")
    assert load.failures == []


def test_a_chain_of_updates_is_not_undone_when_its_middle_ends(start: Start, folder: Path) -> None:
    first = serving(start, folder, "first")
    second = start("second", handover=str(folder))
    second.ready()
    eventually(lambda: "serves" in first.log)
    third = start("third", handover=str(folder))
    third.ready()
    eventually(lambda: "serves" in second.log)
    second.tell(signal.SIGTERM)
    assert second.ends() == 0
    # `first` has not been told to stop, and must not serve beside `third`.
    assert {ask(third.port)[0] for _ in range(30)} == {"third"}
    assert "serves again" not in first.log


def test_two_new_agents_at_once_take_their_turns(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    start("one", handover=str(folder), never=True)
    old.says("prepares to take over")
    other = start("other", handover=str(folder), constants={"PROBE_SECONDS": 0.1})
    eventually((other.runtime / "serve-probe.sock").exists)
    eventually(lambda: "hands over to another" in other.probe())
    assert ask(old.port)[0] == "old"


def test_of_two_agents_that_nobody_ends_one_stands_back_and_says_so_until_the_other_goes(
    start: Start, folder: Path
) -> None:
    soon = {"STANDS_BACK_SECONDS": 0.3, "PROBE_SECONDS": 0.1}
    first = start("first", handover=str(folder), agent="kube-system/nmi-1", constants=soon)
    first.ready()
    eventually((folder / "serve.sock").exists)
    with Load(first.port) as load:
        other = {"__version__": "9.0"}
        second = start("second", handover=str(folder), agent="other/nmi-2", constants=other)
        second.ready()
        load.reaches("second")
        first.says("this agent stands back: other/nmi-2, version 9.0, serves this node")
        said = first.probe()
        assert said.startswith("not ready: this agent stands back"), said
        assert "delete one of the two DaemonSets" in said
        assert first.probe("live").startswith("ok"), "it is not started again, to take all back"
        assert second.probe().startswith("ok")
        second.tell(signal.SIGTERM)
        assert second.ends() == 0
        load.reaches("first")
    assert load.failures == []
    eventually(lambda: first.probe().startswith("ok"))
    assert first.log.count("stands back") == 1


def test_an_agent_that_follows_says_less_where_it_does_not_know_its_pod(
    start: Start, folder: Path
) -> None:
    old = serving(start, folder, constants={"STANDS_BACK_SECONDS": 0.1})
    start("new", handover=str(folder)).ready()
    old.says("this agent stands back: another, version ")


def test_an_address_that_changed_is_opened_and_not_taken(start: Start, folder: Path) -> None:
    old = serving(start, folder)
    port = free_port()
    new = start("new", handover=str(folder), port=port)
    new.ready()
    assert ask(port)[0] == "new"
    assert "is not taken over: it listens on" in new.log
    eventually(lambda: "serves" in old.log)


def test_who_is_led_to_an_address_that_the_new_agent_has_not_is_answered_once_that_serves(
    start: Start, folder: Path
) -> None:
    """The rules lead pods to the old address until then; nobody else accepts there."""
    old = serving(start, folder)
    kept = Client(old.port)
    assert kept.ask()[::2] == ("old", False)
    new = start("new", handover=str(folder), port=free_port(), **{"never settled": True})
    eventually(lambda: kept.ask()[2])  # the old one accepts no more
    waiting = [Client(old.port) for _ in range(40)]
    assert ask(new.port, "!ready")[0] == "new"
    old.says("serves")
    old.tell(signal.SIGTERM)
    assert [each.ask()[::2] for each in waiting] == [("old", True)] * 40
    assert old.ends() == 0
    for each in (kept, *waiting):
        each.close()


@pytest.mark.parametrize("what", ["gone", "a file", "open to all", "of another"])
def test_a_folder_that_is_not_ours_is_said_and_the_agent_starts_by_itself(
    start: Start, tmp_path: Path, what: str
) -> None:
    folder = tmp_path / "handover"
    if what == "a file":
        folder.write_text("")
    elif what != "gone":
        folder.mkdir()
        folder.chmod(0o777 if what == "open to all" else 0o700)
    if what == "of another":
        if os.geteuid():
            pytest.skip("only root can give a folder to another user")
        os.chown(folder, 4711, 4711)
    agent = start("a", handover=str(folder))
    agent.ready()
    assert ask(agent.port)[0] == "a"
    agent.says("no hand-over from an agent before this one: ")
    agent.says("an update will interrupt requests, for no agent can take over: ")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder to another group")
def test_a_folder_that_the_user_of_serve_may_write_to_is_ours_also_where_serve_stays_root(
    start: Start, folder: Path
) -> None:
    os.chown(folder, -1, 4711)
    folder.chmod(0o770)
    old = serving(start, folder, handover_users=[4711])
    with Load(old.port) as load:
        new = start("new", handover=str(folder), handover_users=[4711])
        new.ready()
        load.reaches("new")
    assert load.failures == []
    assert "no hand-over" not in old.log + new.log


@pytest.mark.skipif(os.geteuid() != 0, reason="it mounts a file system of one file")
def test_a_folder_that_is_full_is_said_and_pods_are_served(start: Start, folder: Path) -> None:
    options = ["-t", "tmpfs", "-o", "nr_inodes=1,mode=0700"]
    subprocess.run(["mount", *options, "tmpfs", str(folder)], check=True)
    try:
        agent = start("a", handover=str(folder))
        agent.ready()
        assert ask(agent.port)[0] == "a"
        agent.says("no agent can take over: No space left on device")
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_socket_that_was_left_behind_is_replaced(start: Start, folder: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as dead:
        dead.bind(str(folder / "serve.sock"))
        dead.listen()
    agent = serving(start, folder)
    eventually(lambda: start_again(start, folder))
    assert ask(agent.port)[0] == "next"


def start_again(start: Start, folder: Path) -> bool:
    start("next", handover=str(folder)).ready()
    return True


def test_sockets_of_a_stranger_are_not_accepted_from(start: Start, folder: Path) -> None:
    """What another program gives under our names is closed; the agent listens itself."""
    port = free_port()
    unix = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    unix.bind(str(folder / "serve.sock"))
    unix.listen()
    tcp = socket.socket()
    elsewhere = socket.create_server(("127.0.0.1", 0))
    given = [tcp, elsewhere, unix]

    def answer() -> None:
        connection, _ = unix.accept()
        connection.recv(100)
        names = b"listeners pods pods pods"
        socket.send_fds(connection, [names], [each.fileno() for each in given])
        connection.recv(100)
        connection.close()

    thread = threading.Thread(target=answer)
    thread.start()
    agent = start("a", handover=str(folder), port=port)
    agent.ready()
    thread.join()
    assert ask(port)[0] == "a"
    assert agent.log.count("is not taken over") == 3
    for each in given:
        each.close()


def test_who_connects_and_asks_for_something_else_gets_no_socket(
    start: Start, folder: Path
) -> None:
    agent = serving(start, folder)
    for words in (b"rubbish", b"take 9 1.0", b"take", b"\0" * 400):
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(folder / "serve.sock"))
            asking.send(words)
            packet, fds, _, _ = socket.recv_fds(asking, 512, 16)
            assert (packet, fds) == (b"", [])
    assert ask(agent.port)[0] == "old"


def test_who_connects_and_says_nothing_holds_no_probe_up(start: Start, folder: Path) -> None:
    agent = serving(start, folder)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute:
        mute.connect(str(folder / "serve.sock"))
        assert agent.probe("live") == "ok\n"
        assert agent.probe().startswith("ok")
        agent.says("the process that connected asks for nothing")
        assert mute.recv(1) == b"", "it is given up, and not asked again"


def test_the_loop_that_answers_probes_waits_half_a_second_for_who_says_nothing(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []

    def silent(
        _r: object, _w: object, _x: object, seconds: float
    ) -> tuple[list[int], list[int], list[int]]:
        waited.append(seconds)
        return [], [], []

    monkeypatch.setattr(handover, "check_outsider", lambda *_: None)
    monkeypatch.setattr(select, "select", silent)
    agents_folder = handover.HandoverFolder(folder)
    with (
        agents_folder.publish() as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as mute,
    ):
        mute.connect(str(folder / handover.SOCKET))
        assert agents_folder.accept(listening, {}, serving=True) is None
    assert sum(waited) <= 0.5


def test_a_pod_that_has_all_descriptors_of_our_user_under_way_is_named_as_the_cause(
    folder: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """To have them there takes no right but to run as the user of `serve`."""

    def refused(*_: object) -> int:
        raise OSError(errno.ETOOMANYREFS, os.strerror(errno.ETOOMANYREFS))

    monkeypatch.setattr(handover, "check_outsider", lambda *_: None)
    monkeypatch.setattr(socket, "send_fds", refused)
    agents_folder = handover.HandoverFolder(folder)
    with (
        agents_folder.publish() as listening,
        socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking,
    ):
        asking.connect(str(folder / handover.SOCKET))
        asking.send(b"take 1 0.3.0 kube-system/nmi-x")
        assert agents_folder.accept(listening, {}, serving=True) is None
    assert "end the pod that runs as the same user" in caplog.text


# Where another program has an address that pods are served without


@pytest.fixture
def taken() -> Iterator[socket.socket]:
    """An address that another program has."""
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_pods_are_served_while_another_has_an_address_and_it_is_had_as_soon_as_that_ends(
    start: Start, folder: Path, taken: socket.socket
) -> None:
    late = taken.getsockname()[1]
    agent = start("new", handover=str(folder), late=[late], constants={"RETRY_SECONDS": 0.1})
    agent.ready()
    assert ask(agent.port)[0] == "new"
    agent.says(f"another program has 127.0.0.1:{late} (late-{late}): pods are served")
    _, worker = ask(agent.port)
    client = Client(agent.port)
    taken.close()
    agent.says(f"127.0.0.1:{late} (late-{late}) is free")
    assert ask(late) == ("new", worker), "the same worker goes on"
    assert client.ask()[1:] == (worker, False), "and its connections, too"
    client.close()
    os.kill(worker, signal.SIGKILL)
    assert ask(late)[0] == "new", "its successor has the socket, too"


def test_a_late_address_is_handed_over_like_the_others(
    start: Start, folder: Path, taken: socket.socket
) -> None:
    late = taken.getsockname()[1]
    settings = {"handover": str(folder), "late": [late], "constants": {"RETRY_SECONDS": 0.1}}
    old = start("old", **settings)
    old.ready()
    new = start("new", **settings)
    new.ready()
    old.tell(signal.SIGTERM)
    assert old.ends() == 0
    taken.close()
    new.says("is free")
    assert ask(late)[0] == "new"
    newer = start("newer", **settings)
    newer.ready()
    new.tell(signal.SIGTERM)
    assert new.ends() == 0
    assert ask(late)[0] == "newer"
    assert "another program has" not in newer.log


def test_an_agent_whose_successor_serves_takes_no_address_from_it(
    start: Start, folder: Path, taken: socket.socket
) -> None:
    late = taken.getsockname()[1]
    settings = {"handover": str(folder), "late": [late], "constants": {"RETRY_SECONDS": 0.1}}
    old = start("old", **settings)
    old.ready()
    new = start("new", **settings)
    new.ready()
    old.says("serves")
    taken.close()
    new.says("is free")
    assert ask(late)[0] == "new"
    assert "is free" not in old.log


def test_what_may_not_come_later_is_waited_for(
    start: Start, folder: Path, taken: socket.socket
) -> None:
    agent = start("a", handover=str(folder), port=taken.getsockname()[1])
    agent.says("Address already in use")
    assert "not ready" in agent.probe() or not agent.probe()
