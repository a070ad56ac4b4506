"""The cluster or sandbox that a chapter runs in, and how a command is run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import tempfile
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from podidentity_sandbox.world.blueprint import Shape, write_kubeconfig
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.chapters import CaseRunner, Chapter
from tests.kubectls import find
from tests.kubernetes.control_plane import NEWEST_FOLDER, control_plane
from tests.sandbox.cluster.conftest import listener, node_plan, saved_plan, serving
from tests.sandboxes import own

# ---- What chapters run in: a cluster alone, or a sandbox with a node.

LIMIT = 180.0
"""Seconds that one command may take."""


def _runner(chapter: Chapter, version: str, kubeconfig: Path, folder: Path) -> CaseRunner:
    """Return what runs the chapter's commands with this kubectl, in its files' folder."""
    programs = folder / ".bin"
    programs.mkdir()
    (programs / "kubectl").symlink_to(find(version))
    shutil.copy(str(resources.files("podidentity.manifests") / "crds.yaml"), folder)
    for name, text in chapter.files.items():
        (folder / name).write_text(text)
    environment = {
        "HOME": str(folder),
        "KUBECONFIG": str(kubeconfig),
        "PATH": f"{programs}:/usr/bin:/bin",
        "TZ": "UTC",
    }
    return CaseRunner(chapter.cases, environment, seconds=LIMIT, folder=folder)


@contextlib.contextmanager
def running(chapter: Chapter, version: str, judge: str) -> Iterator[CaseRunner]:
    """Bring up what a chapter runs in, and take it down afterwards."""
    stage = {"cluster": _cluster, "world": _world}[chapter.stage] if judge == "light" else _real
    folder = Path(tempfile.mkdtemp(prefix="podidentity-kubectl-"))
    home = folder / "home"
    home.mkdir()
    try:
        with stage(folder, version) as kubeconfig:
            yield _runner(chapter, version, kubeconfig, home)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _world(_: Path, version: str) -> Iterator[Path]:
    name = own(f"kubectl-{version.replace('.', '-')}")
    try:
        yield bring_up(name, Shape(nodes=1), bound=True).kubeconfig
    finally:
        bring_down(name)


@contextlib.contextmanager
def _real(_: Path, __: str) -> Iterator[Path]:
    plane = control_plane(NEWEST_FOLDER)
    plane.under(plane.calm)
    plane.put_back(plane.beginning)
    yield write_kubeconfig(plane.plan)


@contextlib.contextmanager
def _cluster(folder: Path, _: str) -> Iterator[Path]:
    sock = listener()
    plan = saved_plan(
        folder,
        node_plan(0),
        rootless=os.geteuid() != 0,
        apiserver_port=sock.getsockname()[1],
    )
    write_kubeconfig(plan)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def play() -> None:
        async with serving(folder, sock):
            await stop.wait()

    def run() -> None:
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            runner.run(play())

    thread = threading.Thread(target=run)
    thread.start()
    try:
        yield plan.kubeconfig
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join()
