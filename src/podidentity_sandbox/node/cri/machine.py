"""Process 1 of a node with a container runtime: its namespaces, its cgroup, and its services.

    outer     the supervisor's child: when it ends, however, the kernel ends the node with all in it
    └ node    process 1 of new pid, mount, IPC, UTS and cgroup namespaces, in a cgroup of its own
      ├ containerd    started again when it ends, as systemd would
      └ kubelet       `podidentity_sandbox.node`, which the sandbox knows as this node

The node's files that a machine keeps on its disk (containerd's images) outlive a restart in the
sandbox's folder; /run, and with it every container, does not.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from podidentity_sandbox.node import syscalls
from podidentity_sandbox.node.cgroups import end_processes, remove_tree
from podidentity_sandbox.node.cri import containerd
from podidentity_sandbox.node.cri.cgroups import MEMORY_V1, TREE
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import Plan

_AGAIN_AFTER = 1.0
"""Seconds after which containerd is started again: RestartSec of its unit is 5."""
_PATIENCE = 120.0
"""Seconds that containerd may take to answer: a busy machine needs thirty."""


def main() -> None:
    """Be the node: `python -m podidentity_sandbox.node.cri.machine --folder DIR --node NAME …`."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--node", required=True)
    parser.add_argument("--ready-fd", type=int, required=True)
    given = parser.parse_args()
    plan = Plan.load(given.folder)
    if not plan.memory_root:
        sys.exit("the machine has no memory controller of cgroups, by which containers are limited")
    roots = plan.cgroups_of(plan.node(given.node))
    for root in roots:
        if root.is_dir():
            end_processes(root)
        remove_tree(root)
        root.mkdir()
    syscalls.unshare(syscalls.NEW_PIDS)
    child = os.fork()
    if child == 0:
        _be_node(plan, given.node, roots, given.ready_fd)
    os.close(given.ready_fd)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.kill(child, signal.SIGKILL))
    _, status = os.waitpid(child, 0)
    sys.exit(max(os.waitstatus_to_exitcode(status), 0))


def _be_node(plan: Plan, name: str, roots: list[Path], ready_fd: int) -> NoReturn:
    syscalls.die_with_parent(signal.SIGKILL)
    options = RuntimeOptions.load(plan.path)
    _enter(roots)
    state = plan.path / "nodes" / name
    state.mkdir(parents=True, exist_ok=True)
    containerd.write_files(options, plan.node(name), state / "containerd")
    code = 1
    try:
        code = Services(plan, name, options, state, ready_fd).run()
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or ""
        print(f"the node cannot go on: {error} {said}", file=sys.stderr, flush=True)  # noqa: T201
    os._exit(code)


def _enter(roots: list[Path]) -> None:
    """Enter the cgroups at `roots`, v2's first, and make the node's namespaces."""
    for root in roots:
        (root / "cgroup.procs").write_text("0")
    syscalls.unshare(
        syscalls.NEW_MOUNTS | syscalls.NEW_IPC | syscalls.NEW_UTS | syscalls.NEW_CGROUPS
    )
    syscalls.mount("none", "/", flags=syscalls.SHARED | syscalls.RECURSIVE)
    syscalls.mount("proc", "/proc", "proc", syscalls.NO_SUID | syscalls.NO_DEVICES)
    if (TREE / "cgroup.procs").exists():
        # v2 stands alone, and no file system is mounted over itself.
        syscalls.unmount(str(TREE))
    syscalls.mount("cgroup2", str(TREE), "cgroup2")
    if len(roots) > 1:
        MEMORY_V1.mkdir()
        syscalls.mount("cgroup", str(MEMORY_V1), "cgroup", data="memory")
    # No cgroup of v2 has both processes and others below it that are limited.
    services = TREE / "system.slice"
    services.mkdir()
    (services / "cgroup.procs").write_text("0")


class Services:
    """containerd and the kubelet of a node."""

    def __init__(
        self, plan: Plan, name: str, options: RuntimeOptions, state: Path, ready_fd: int
    ) -> None:
        self._plan = plan
        self._name = name
        self._options = options
        self._state = state
        self._ready_fd = ready_fd
        self._environment = {
            **os.environ,
            "PATH": f"{options.tools}/debian/usr/bin:{os.environ['PATH']}",
            "PYTHONPATH": f"{options.tools}/python",
            "PODIDENTITY_RUNTIME_ROOT": f"{options.tools}/debian",
        }
        if (options.runtime_driver or options.driver) == "systemd":
            self._environment["PODIDENTITY_RUNTIME_SYSTEMD"] = "1"

    def run(self) -> int:
        """Run until the kubelet ends; return its exit code."""
        runtime = self._containerd()
        self._await_containerd()
        containerd.import_images(self._options)
        kubelet = self._kubelet()
        os.close(self._ready_fd)
        while True:
            pid, status = os.wait()
            if pid == kubelet.pid:
                return max(os.waitstatus_to_exitcode(status), 0)
            if pid == runtime.pid:
                runtime.returncode = os.waitstatus_to_exitcode(status)
                time.sleep(_AGAIN_AFTER)
                runtime = self._containerd()

    def _containerd(self) -> subprocess.Popen[bytes]:
        with (self._plan.logs / f"{self._name}-containerd.log").open("ab") as log:
            started = subprocess.Popen(
                containerd.command(self._options),
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        containerd.PID_FILE.write_text(str(started.pid))
        return started

    def _await_containerd(self) -> None:
        end = time.monotonic() + _PATIENCE
        while True:
            with suppress(subprocess.CalledProcessError):
                containerd.ctr(self._options, "version")
                return
            if time.monotonic() > end:
                raise OSError(f"containerd does not answer; see {self._plan.logs}")
            time.sleep(0.05)

    def _kubelet(self) -> subprocess.Popen[bytes]:
        words = ("--folder", self._plan.folder, "--node", self._name)
        return subprocess.Popen(
            [
                *(sys.executable, "-P", "-m", "podidentity_sandbox.node", *words),
                *("--ready-fd", str(self._ready_fd), "--containerd"),
            ],
            env=self._environment,
            pass_fds=[self._ready_fd],
        )


if __name__ == "__main__":
    main()
