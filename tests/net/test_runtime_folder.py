"""The folder in which `net` listens is one that a worker of `serve` may write to."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest

from podidentity.cli.output import report
from podidentity.local_sockets import keep_names, listen
from podidentity.net.liveness import LIVENESS_SOCKET, LivenessSocket
from podidentity.settings import SERVE_UID

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The folder, to which the user of `serve` may write."""
    for parent in [tmp_path, *tmp_path.parents][:-2]:
        parent.chmod(0o755)
    made = tmp_path / "runtime"
    made.mkdir()
    made.chmod(0o777)
    keep_names(made)
    return made


def test_the_mode_of_a_socket_is_that_of_no_file_that_takes_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that is quick enough puts a link there, and `net` is root."""
    secret = tmp_path / "secret"
    secret.touch(mode=0o600)

    class Raced(socket.socket):
        def bind(self, address: object) -> None:
            super().bind(str(address))
            os.unlink(str(address))  # noqa: PTH108 - an attacker's hand
            os.symlink(secret, str(address))  # noqa: PTH211 - the same

    monkeypatch.setattr("podidentity.local_sockets.socket.socket", Raced)
    listen(tmp_path / "net.sock", mode=0o666, group=os.getegid()).close()
    assert secret.stat().st_mode & 0o777 == 0o600


def test_a_folder_that_is_missing_is_named_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the manifest it is a volume of both containers; without it each said ENOENT, no more."""
    with pytest.raises(FileNotFoundError) as raised:
        listen(tmp_path / "runtime" / "net.sock")
    assert report(raised.value) == 1
    told = capsys.readouterr().err
    assert f"{tmp_path}/runtime: there is no such folder" in told
    assert "mount one there that net and serve share" in told


@pytest.mark.parametrize("mode", [0o666, 0o660, 0o600])
def test_a_socket_has_the_mode_that_was_asked_for(tmp_path: Path, mode: int) -> None:
    before = os.umask(0o077)
    try:
        listen(tmp_path / "net.sock", mode=mode).close()
        assert os.umask(0o077) == 0o077
    finally:
        os.umask(before)
    assert (tmp_path / "net.sock").stat().st_mode & 0o777 == mode


@needs_root
def test_nobody_but_net_takes_the_name_of_its_sockets_away(folder: Path) -> None:
    """Else a worker could answer the kubelet's probe of `net`, or keep the next one from it."""
    listen(folder / "net-probe.sock").close()
    own = folder / "serve-probe.sock"
    assert _as_serve(lambda: listen(own).close())
    assert not _as_serve((folder / "net-probe.sock").unlink)
    assert not _as_serve(lambda: own.rename(folder / "net-probe.sock"))
    assert _as_serve(own.unlink)


@needs_root
async def test_serve_takes_no_place_of_the_kubelets_probe_of_net(folder: Path) -> None:
    probe = LivenessSocket(folder)

    def ask() -> None:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as asking:
            asking.connect(str(folder / LIVENESS_SOCKET))

    assert not _as_serve(ask)
    ask()
    probe.close()


def _as_serve(act: Callable[[], object]) -> bool:
    """Return whether the user of `serve` can do it."""
    pid = os.fork()
    if not pid:
        try:
            os.setgroups([])
            os.setresgid(SERVE_UID, SERVE_UID, SERVE_UID)
            os.setresuid(SERVE_UID, SERVE_UID, SERVE_UID)
            act()
        except PermissionError:
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
