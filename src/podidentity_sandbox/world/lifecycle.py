"""The life of a sandbox: `up` brings it up, `down` ends it and removes all of it.

The sockets that a person's own programs connect to (API server, proxy to Azure) are opened here,
before the new namespaces: a socket stays in the network namespace in which it was made. The kernel
ends processes, mounts, interfaces and rules with the namespaces; the folder, and as root the folder
in the cgroup tree, are removed here.
"""

from __future__ import annotations

import errno
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any

from podidentity_sandbox import weather as forecast
from podidentity_sandbox.kubernetes import nodes
from podidentity_sandbox.kubernetes import programs as kubernetes
from podidentity_sandbox.node.cri import containerd
from podidentity_sandbox.node.cri.options import RuntimeOptions
from podidentity_sandbox.plan import Plan
from podidentity_sandbox.weather import CALM, Weather
from podidentity_sandbox.world import SandboxError, cgroups, requirements
from podidentity_sandbox.world.api import Api, ready
from podidentity_sandbox.world.authority import write_certificates
from podidentity_sandbox.world.blueprint import TWO_NODES, Shape, draw_plan, write_kubeconfig
from podidentity_sandbox.world.environment import find_azure_cli
from podidentity_sandbox.world.folder import Claim, Folder
from podidentity_sandbox.world.inspection import ask, children
from podidentity_sandbox.world.network import listen_tcp
from podidentity_sandbox.world.supervisor import REAL_PARTS, RUNTIME_NODE

# ---- Down: ends a sandbox, running, hanging or dead

_POLITE = 10.0
"""Seconds for a clean end; the supervisor's own time-outs are shorter."""
_FORCED = 60.0
"""Seconds for the kernel to end what was killed, which a busy machine needs for many networks."""


class Outcome(StrEnum):
    """The state in which `down` found a sandbox."""

    RUNNING = "running"
    REMAINS = "remains"
    """Of one that had crashed."""
    NOTHING = "nothing"


def bring_down(name: str, base: Path | None = None) -> Outcome:
    """End the sandbox, remove all of it and return what it was; raise SandboxError."""
    folder, found = Folder.of(name, base), Outcome.REMAINS
    try:
        claim = folder.claim(make=False)
        if claim is None:
            found = Outcome.RUNNING
            _end_running(folder)
            claim = folder.claim(make=False)
    except FileNotFoundError:
        cgroups.remove(folder.path)
        return Outcome.NOTHING
    if claim is None:
        raise SandboxError(f"{folder.path} is still locked. Another `up` or `down` is at work")
    try:
        _remove(claim)
    finally:
        claim.release()
    return found


def _remove(claim: Claim) -> None:
    """Remove the remains of a sandbox without processes."""
    if (bond := _bonds.pop(claim.folder.path, None)) is not None:
        os.close(bond)
    cgroups.remove(claim.folder.path)
    claim.remove()


def names(base: Path) -> list[str]:
    """Return the names of all sandboxes of a person, living or not."""
    if not base.is_dir():
        return []
    return sorted(entry.name for entry in base.iterdir() if entry.is_dir())


def _end_running(folder: Folder) -> None:
    """End a living sandbox: by order, and by force when it does not obey."""
    pid = folder.holder()
    if pid is None:
        raise SandboxError(f"the sandbox {folder.name!r} is just starting. Try again")
    try:
        outer = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        with suppress(OSError, ValueError):
            ask(folder.control, {"op": "down"}, seconds=_POLITE / 2)
            if _ended(outer, _POLITE):
                return
        _kill(pid)
        if not _ended(outer, _FORCED):
            raise SandboxError(f"process {pid} cannot be ended. See /proc/{pid}/status")
    finally:
        os.close(outer)


def _kill(outer: int) -> None:
    """Kill process 1 of the namespace, the child of `unshare`, which then ends by itself.

    In this order `unshare` outlives every process of the namespace, so that its end says that all
    are gone: the kernel lets process 1 end last.
    """
    for child in children(outer) or [outer]:
        with suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)


def _ended(pidfd: int, seconds: float) -> bool:
    """Wait until a process ended; its descriptor is readable then (pidfd_open(2))."""
    waiting = select.poll()
    waiting.register(pidfd, select.POLLIN)
    return bool(waiting.poll(seconds * 1000))


# ---- Up: makes the folder and the plan, starts the supervisor, and waits until all is ready

_PATIENCE = 180.0
"""Seconds for all parts to serve and all nodes to be Ready; a slow machine needs ten."""

_SPACE = "2 MB, 130 MB with a real control plane"

_bonds: dict[Path, int] = {}
"""By the folder of each bound sandbox: the pipe by whose end it sees that this process ended."""


def bring_up(
    name: str,
    shape: Shape = TWO_NODES,
    *,
    base: Path | None = None,
    runtime: RuntimeOptions | None = None,
    weather: Weather = CALM,
    parts: Mapping[str, Sequence[str]] = REAL_PARTS,
    progress: Callable[[str], None] = lambda _line: None,
    bound: bool = False,
) -> Plan:
    """Bring the sandbox `name` up and return its plan when all nodes are Ready.

    Without root it is rootless, asked or not; without `runtime` programs of this machine are the
    containers. `progress` is given a line for each step. A `bound` sandbox ends with this process,
    however that ends, and leaves its folder for `down`. Raises SandboxError; then, and when
    interrupted, nothing of it remains.
    """
    folder = Folder.of(name, base)
    shape = replace(shape, rootless=shape.rootless or os.geteuid() != 0)
    if shape.kubernetes:
        shape = replace(shape, kubernetes_version=requirements.version(Path(shape.kubernetes)))
    try:
        claim = _claimed(folder, shape, runtime)
        daemon: subprocess.Popen[bytes] | None = None
        try:
            claim.empty()
            if runtime is not None:
                runtime.save(folder.path)
                parts = {**parts, "node": RUNTIME_NODE}
            with ExitStack() as opened:
                plan, daemon, reports = _start(claim, shape, parts, weather, opened, bound=bound)
                _follow(reports, plan, progress)
                if bound:
                    _bonds[folder.path] = os.dup(reports)
            _await_nodes(plan, progress)
        except BaseException:
            if daemon is not None:
                _kill(daemon.pid)
                daemon.wait()
            _remove(claim)
            claim.release()
            raise
    except OSError as cause:
        raise _wanting(folder, cause) from cause
    claim.release()
    daemon.returncode = 0  # it lives on without us: no warning that nobody waits for it
    return plan


def _wanting(folder: Folder, cause: OSError) -> Exception:
    """Return the error for a machine that has no space or no port left; else the cause."""
    if cause.errno in {errno.ENOSPC, errno.EDQUOT}:
        return SandboxError(
            f"no space left for {folder.path}: a sandbox needs {_SPACE}, and what its pods write. "
            f"`df -h {folder.base.parent}` says how full it is"
        )
    if cause.errno in {errno.EADDRINUSE, errno.EADDRNOTAVAIL}:
        return SandboxError(
            "no port of 127.0.0.1 is free for the API server or the proxy to Azure "
            "(any would do). `ss -ltnp` says who listens"
        )
    return cause


def _claimed(folder: Folder, shape: Shape, runtime: RuntimeOptions | None) -> Claim:
    """Return the claim of a folder on a machine that can hold the sandbox; raise SandboxError."""
    lacking = requirements.missing(_search_path(), rootless=shape.rootless)
    if runtime is not None and (why := containerd.missing(runtime)):
        lacking = [*lacking, why]
    if shape.real_nodes:
        lacking = [*lacking, *nodes.missing(Path(shape.kubernetes), _search_path())]
    if lacking:
        raise SandboxError("\n".join(["this machine cannot hold a sandbox:", *lacking]))
    claim = folder.claim(make=True)
    if claim is None:
        raise SandboxError(
            f"a sandbox named {folder.name!r} is running (process {folder.holder()}). "
            f"Use it, end it with `podidentity sandbox down --name {folder.name}`, "
            "or give this one another name"
        )
    return claim


def _search_path() -> str:
    folders = [str(Path(sys.executable).parent), *os.get_exec_path(), "/usr/sbin", "/sbin"]
    return ":".join(dict.fromkeys(filter(None, folders)))


def _start(
    claim: Claim,
    shape: Shape,
    parts: Mapping[str, Sequence[str]],
    weather: Weather,
    opened: ExitStack,
    *,
    bound: bool,
) -> tuple[Plan, subprocess.Popen[bytes], int]:
    """Write the folder and start the supervisor; return also the pipe that it reports to."""
    api = opened.enter_context(listen_tcp("127.0.0.1", 0))
    proxy = opened.enter_context(listen_tcp("127.0.0.1", 0))
    folder = claim.folder
    sockets, memory = ("", "") if shape.rootless else cgroups.make(folder.path)
    plan = draw_plan(
        folder.name,
        folder.path,
        shape,
        apiserver_port=api.getsockname()[1],
        azure_proxy_port=proxy.getsockname()[1],
        cgroup_root=sockets,
        memory_root=memory,
        azure_cli=find_azure_cli(),
    )
    plan.logs.mkdir(mode=0o700)
    plan.save()
    forecast.write(plan.path, weather)
    write_certificates(plan)
    write_kubeconfig(plan)
    if plan.kubernetes:
        kubernetes.write_files(plan)
    reader, writer = os.pipe()
    opened.callback(os.close, reader)
    fds = {"--api-fd": api.fileno(), "--proxy-fd": proxy.fileno(), "--report-fd": writer}
    module = ("-P", "-m", "podidentity_sandbox.world.supervisor")
    with (plan.logs / "world.log").open("ab") as log:
        daemon = subprocess.Popen(
            [
                *(
                    *requirements.unshare_command(rootless=shape.rootless),
                    sys.executable,
                    *module,
                ),
                *("--folder", plan.folder, "--parts", json.dumps(parts)),
                *(["--bound"] if bound else []),
                *(word for option, fd in fds.items() for word in (option, str(fd))),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd="/",
            # No part trusts the machine's authorities, which aiohttp reads twice when it is loaded.
            env={
                "PATH": _search_path(),
                "LANG": "C.UTF-8",
                "SSL_CERT_FILE": os.devnull,
            },
            pass_fds=(*fds.values(), claim.fd),
            start_new_session=True,
        )
    os.close(writer)
    claim.write(daemon.pid)
    return plan, daemon, reader


def _follow(reports: int, plan: Plan, tell: Callable[[str], None]) -> None:
    """Pass the supervisor's reports on until all parts are ready; raise SandboxError."""
    for news in _reports(reports, time.monotonic() + _PATIENCE):
        if "part" not in news:
            return
        if news["state"] == "ready":
            tell(f"{news['part']} is ready")
        if news["state"] == "ended":
            name = news["part"]
            raise SandboxError(f"{name} ended with {news['exit']}.\n{_tail(plan, name)}")
    raise SandboxError(f"the sandbox ended before it was ready.\n{_tail(plan, 'world')}")


def _reports(reader: int, deadline: float) -> Iterator[dict[str, Any]]:
    """Yield each report until the supervisor closes its end."""
    waiting = select.poll()
    waiting.register(reader, select.POLLIN)
    rest = b""
    while True:
        if not waiting.poll(max(0.0, deadline - time.monotonic()) * 1000):
            raise SandboxError(f"not ready after {_PATIENCE:g} s; `top` may say what is busy")
        chunk = os.read(reader, 4096)
        if not chunk:
            return
        *lines, rest = (rest + chunk).split(b"\n")
        yield from (json.loads(line) for line in lines)


def _await_nodes(plan: Plan, tell: Callable[[str], None]) -> None:
    late = Api(plan).wait_for("/api/v1/nodes", [n.name for n in plan.nodes], ready, _PATIENCE)
    if late:
        raise SandboxError(f"not Ready after {_PATIENCE:g} s: {', '.join(late)}")
    tell(f"{len(plan.nodes)} nodes are Ready")


def _tail(plan: Plan, name: str, lines: int = 15) -> str:
    """Return the end of a part's log: the folder will be gone when somebody wants to read it."""
    log = plan.logs / f"{name}.log"
    text = log.read_text(errors="replace").splitlines()[-lines:] if log.exists() else []
    return "\n".join(["Its log ends with:", *(f"  {line}" for line in text)])
