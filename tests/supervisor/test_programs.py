"""Both programs of one command, as processes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from podidentity.supervisor.privileges import may_become
from tests.supervisor.agents import PATIENCE, ROOT, eventually

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@contextmanager
def both(folder: Path, *codes: int) -> Iterator[subprocess.Popen[bytes]]:
    command = [sys.executable, "-m", "tests.supervisor.both", str(folder), *map(str, codes)]
    with subprocess.Popen(command, cwd=ROOT) as running:
        try:
            yield running
        finally:
            running.kill()


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that another user can reach, as pytest's own cannot be."""
    made = Path(f"/tmp/podidentity-both-{os.getpid()}")  # noqa: S108 - it is ours alone
    made.mkdir(mode=0o700)
    yield made
    for each in made.iterdir():
        each.unlink()
    made.rmdir()


def seen(folder: Path, name: str, number: int = 0) -> dict[str, str]:
    """Return what a run of a program said of itself, with its pid."""
    path = folder / f"{name}.{number}"
    eventually(path.exists)
    pid, *lines = path.read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {**status, "pid": pid}


def alive(pid: str) -> bool:
    try:
        os.kill(int(pid), 0)
    except ProcessLookupError:
        return False
    return True


@needs_root
def test_serve_has_a_user_of_its_own_and_no_right_and_can_gain_none(folder: Path) -> None:
    with both(folder):
        net, serve = seen(folder, "net"), seen(folder, "serve")
    assert net["Uid"].split()[0] == "0"
    assert serve["Uid"].split() == serve["Gid"].split() == ["64912"] * 4
    assert serve["Groups"].strip() == ""
    for kind in ("CapEff", "CapPrm", "CapInh", "CapAmb"):
        assert int(serve[kind], 16) == 0
    assert serve["NoNewPrivs"] == "1"


def test_where_it_cannot_be_another_user_it_has_no_capability_all_the_same(folder: Path) -> None:
    drop = (
        ["setpriv", "--bounding-set=-setuid", "--inh-caps=-all"]
        if not os.geteuid()
        else ["unshare", "--user", "--map-root-user"]
    )
    command = [*drop, sys.executable, "-m", "tests.supervisor.both", str(folder)]
    with subprocess.Popen(command, cwd=ROOT) as running:
        serve = seen(folder, "serve")
        running.terminate()
    assert serve["Uid"].split()[0] == "0"
    assert int(serve["CapEff"], 16) == int(serve["CapPrm"], 16) == 0
    assert serve["NoNewPrivs"] == "1"


@pytest.mark.parametrize("name", ["net", "serve"])
def test_a_program_that_ends_is_started_again_and_the_other_goes_on(
    folder: Path, name: str
) -> None:
    other = {"net": "serve", "serve": "net"}[name]
    with both(folder):
        first, kept = seen(folder, name), seen(folder, other)
        os.kill(int(first["pid"]), signal.SIGKILL)
        assert seen(folder, name, 1)["pid"] != first["pid"]
        assert alive(kept["pid"])
        assert not (folder / f"{other}.1").exists()


@pytest.mark.parametrize("codes", [(1,), (0, 1)], ids=["net", "serve"])
def test_a_program_that_cannot_begin_ends_the_command(folder: Path, codes: tuple[int, ...]) -> None:
    with both(folder, *codes) as running:
        assert running.wait(PATIENCE) == 1


def test_told_to_stop_it_ends_both(folder: Path) -> None:
    with both(folder) as running:
        pids = [seen(folder, name)["pid"] for name in ("net", "serve")]
        running.terminate()
        assert running.wait(PATIENCE) == 0
    assert not any(map(alive, pids))


def test_killed_it_leaves_nobody_behind(folder: Path) -> None:
    with both(folder) as running:
        pids = [seen(folder, name)["pid"] for name in ("net", "serve")]
        running.kill()
        running.wait(PATIENCE)
    eventually(lambda: not any(map(alive, pids)))


@needs_root
def test_a_file_that_the_other_user_could_not_read_keeps_this_one(tmp_path: Path) -> None:
    secret = tmp_path / "token"
    secret.write_text("x")
    secret.chmod(0o600)
    assert not may_become(64_912, reading=[secret])
    assert may_become(64_912, reading=[])
