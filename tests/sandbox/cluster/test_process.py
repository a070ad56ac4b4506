"""The server as the sandbox runs it: a process with listening sockets handed down."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.sandbox.cluster.conftest import (
    ADMIN,
    DEFINITIONS,
    MAPS,
    MERGE,
    TOKEN,
    WIDGETS,
    check_refusal,
    listener,
    node_plan,
    saved_plan,
)


@contextlib.contextmanager
def serving(
    folder: Path, *listeners: socket.socket, inside: Sequence[str] = ()
) -> Iterator[subprocess.Popen[bytes]]:
    """The server's process, which is killed in the end; `inside` is a command that runs it."""
    ready, done = os.pipe()
    handed = [listener.fileno() for listener in listeners]
    program = [sys.executable, "-m", "podidentity_sandbox.cluster", "--folder", str(folder)]
    sockets = [word for number in handed for word in ("--listen-fd", str(number))]
    process = subprocess.Popen(
        [*inside, *program, *sockets, "--ready-fd", str(done)],
        pass_fds=[done, *handed],
        stderr=subprocess.PIPE,
    )
    os.close(done)
    with os.fdopen(ready) as end:
        assert end.read() == "ready\n"
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=60)


@pytest.fixture
def home(tmp_path: Path) -> Path:
    saved_plan(tmp_path, node_plan(0))
    return tmp_path


@pytest.fixture
def sockets() -> Iterator[list[socket.socket]]:
    made = [listener(), listener()]
    yield made
    for each in made:
        each.close()


def client(home: Path, sock: socket.socket) -> httpx2.Client:
    return httpx2.Client(
        base_url=f"https://127.0.0.1:{sock.getsockname()[1]}",
        headers={"Authorization": f"Bearer {ADMIN}"},
        verify=ssl.create_default_context(cafile=str(home / "ca.crt")),
        trust_env=False,
    )


def test_it_serves_on_every_socket_and_ends_quickly_with_watches_open(
    home: Path, sockets: list[socket.socket]
) -> None:
    with serving(home, *sockets) as server:
        for sock in sockets:
            with client(home, sock) as api:
                assert api.get("/readyz").text == "ok"
        with (
            client(home, sockets[0]) as api,
            api.stream("GET", MAPS, params={"watch": "true"}) as watch,
        ):
            events = watch.iter_lines()
            assert "kube-root-ca.crt" in next(events)
            server.terminate()
            assert list(events) == []
        server.communicate(timeout=60)
        assert server.returncode == 0


def test_its_key_and_what_it_holds_outlive_a_kill(
    home: Path, sockets: list[socket.socket], crd: dict[str, Any]
) -> None:
    with serving(home, *sockets), client(home, sockets[0]) as api:
        token = api.post(TOKEN, json={"spec": {}}).json()["status"]["token"]
        api.post(DEFINITIONS, json=crd)
        made = api.post(WIDGETS, json={"metadata": {"name": "w"}, "spec": {"size": 1}})
        api.post(MAPS, json={"metadata": {"name": "gone"}})
        api.delete(f"{MAPS}/gone")
        version = api.get(MAPS).json()["metadata"]["resourceVersion"]
    with serving(home, *sockets), client(home, sockets[0]) as api:
        assert api.get(f"{WIDGETS}/w").json() == made.json()
        assert api.get(f"{MAPS}/gone").status_code == 404
        now = api.get(MAPS).json()["metadata"]["resourceVersion"]
        assert int(now) >= int(version)
        bearer = {"Authorization": f"Bearer {token}"}
        assert api.get("/apis", headers=bearer).status_code == 200
        old = {"watch": "true", "resourceVersion": "3"}
        with api.stream("GET", MAPS, params=old) as watch:
            assert '"code":410' in next(watch.iter_lines())
    for secret in ("sa.key", "cluster.journal"):
        assert (home / secret).stat().st_mode & 0o077 == 0


SMALL_DISK = """
mkdir "$0"/disk && mount -t tmpfs -o size=600k,mode=700 tmpfs "$0"/disk && cp "$0"/*.* "$0"/disk
head -c 200000 /dev/zero >"$0"/disk/filler && exec "$@"
"""
FULL = "etcdserver: mvcc: database space exceeded"


def fill(api: httpx2.Client, names: Iterator[str]) -> tuple[list[str], httpx2.Response]:
    """Make config maps until the server takes no more; return those it took, and its refusal."""
    taken: list[str] = []
    while True:
        name = next(names)
        body = {"metadata": {"name": name}, "data": {"a": "x" * 20_000}}
        answer = api.post(MAPS, json=body)
        if not answer.is_success:
            return taken, answer
        taken.append(name)


def test_on_a_full_disk_nothing_changes_and_with_space_all_goes_on(
    home: Path, sockets: list[socket.socket]
) -> None:
    user = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
    inside = ["unshare", *user, "--mount", "sh", "-ec", SMALL_DISK, str(home)]
    names = (f"m{number}" for number in itertools.count())
    with (
        serving(home / "disk", *sockets, inside=inside) as server,
        client(home, sockets[0]) as api,
    ):
        taken, refusal = fill(api, names)
        assert taken
        check_refusal(refusal, 500, FULL)
        assert api.get(f"{MAPS}/{taken[-1]}").is_success
        assert api.patch(f"{MAPS}/{taken[0]}", json={"data": None}, headers=MERGE).is_success
        disk = Path(f"/proc/{server.pid}/root{home}/disk")
        (disk / "filler").unlink()
        more, _ = fill(api, names)
        assert more
        (home / "cluster.journal").write_bytes((disk / "cluster.journal").read_bytes())
    with serving(home, *sockets), client(home, sockets[0]) as api:
        kept = {item["metadata"]["name"] for item in api.get(MAPS).json()["items"]}
        assert kept == {"kube-root-ca.crt", *taken, *more}
