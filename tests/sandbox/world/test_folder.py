"""The lock tells a living sandbox from remains, and no folder of somebody else's is used."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.folder import Claim, Folder
from tests.sandbox.world.places import Place


@pytest.mark.parametrize("name", ["", "a" * 21, "../up", "A", "a b", "-a", "a/b", ".", "a\n", "ä"])
def test_other_names_are_refused(name: str) -> None:
    with pytest.raises(SandboxError, match="is no name for a sandbox"):
        Folder.of(name)


def claimed(folder: Folder) -> Claim:
    claim = folder.claim(make=True)
    assert claim is not None
    return claim


def test_the_lock_of_a_closed_folder_lives_on_with_whom_it_was_handed_to(place: Place) -> None:
    claim = claimed(place.folder())
    assert place.folder().path.stat().st_mode & 0o777 == 0o700
    assert place.folder().claim(make=True) is None
    with subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, pass_fds=[claim.fd]
    ) as holder:
        claim.write(holder.pid)
        claim.release()
        assert place.folder().claim(make=True) is None
        assert place.folder().holder() == holder.pid
        holder.kill()
    claimed(place.folder()).release()


def test_a_base_that_the_end_of_the_last_sandbox_removes_meanwhile_is_made_anew(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place.folder()
    make, made = Path.mkdir, [place.base]

    def remove_before(path: Path, mode: int = 0o777) -> None:
        if path == folder.path and made:
            made.pop().rmdir()
        make(path, mode=mode)

    monkeypatch.setattr(Path, "mkdir", remove_before)
    claim = claimed(folder)
    assert not made
    claim.release()


@pytest.mark.parametrize("trap", ["link", "file", "open to others"])
def test_a_base_that_somebody_else_may_have_laid_is_refused(tmp_path: Path, trap: str) -> None:
    base = tmp_path / "base"
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(0o700)
    match trap:
        case "link":
            base.symlink_to(elsewhere)
        case "file":
            base.touch()
        case _:
            base.mkdir()
            base.chmod(0o777)
    for make in (True, False):
        with pytest.raises((SandboxError, NotADirectoryError), match="not a folder of yours"):
            Folder.of("one", base).claim(make=make)
    assert list(elsewhere.iterdir()) == []


def test_removing_follows_no_link(tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.write_text("precious")
    tmp_path.chmod(0o700)
    claim = claimed(Folder.of("one", tmp_path))
    (claim.folder.path / "link").symlink_to(mine)
    (claim.folder.path / "links").symlink_to(tmp_path)
    claim.remove()
    claim.release()
    assert list(tmp_path.iterdir()) == [mine]


def test_removing_takes_what_a_pod_closed_to_its_owner(place: Place) -> None:
    claimed(place.folder()).release()
    closed = place.folder().path / "closed" / "deeper"
    closed.mkdir(parents=True)
    (closed / "file").touch()
    (closed / "link").symlink_to("/")
    for folder in (closed, closed.parent):
        folder.chmod(0)
    # Root is stopped by no mode; without these two capabilities it is, as anybody else.
    weaken = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]
    done = subprocess.run(
        [*(weaken if os.geteuid() == 0 else []), sys.executable, "-c", REMOVE, str(place.base)],
        check=False,
    )
    assert done.returncode == 0
    assert not place.base.exists()


REMOVE = """
import sys
from pathlib import Path
from podidentity_sandbox.world.folder import Folder
Folder.of("one", Path(sys.argv[1])).claim(make=False).remove()
"""


def test_a_lock_that_was_removed_while_it_was_waited_for_is_no_lock(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = place.folder()
    first = claimed(folder)
    opened = os.open

    def remove_meanwhile(path: Path, *arguments: int) -> int:
        fd = opened(path, *arguments)
        if removed:
            removed.pop().unlink()
        return fd

    removed = [folder.path / "lock"]
    first.release()
    monkeypatch.setattr(os, "open", remove_meanwhile)
    second = claimed(folder)
    assert os.fstat(second.fd).st_ino == (folder.path / "lock").stat().st_ino
    second.release()
