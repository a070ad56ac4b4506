"""The programs that stay, each started in its process: `net`, `serve`, both, or `mic`.

They stay small. Their flags are read by the command line in a process that ends, which leaves a
plan of plain values (`cli.plans`); and each function here imports the modules of its program alone.
Two megabytes less in each process are a hundredth of what the agent may hold on a node.
"""

from __future__ import annotations

import gc
import logging
import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NoReturn

if TYPE_CHECKING:
    from podidentity.supervisor.programs import Ready
    from podidentity.supervisor.worker import Inherited
    from podidentity.telemetry.lines import Writer

_log = logging.getLogger("podidentity.nmi")


@dataclass(frozen=True, slots=True, kw_only=True)
class AgentPlan:
    """What the flags of a program come to, for each of its processes."""

    program: Literal["net", "serve", "both", "mic"]
    log_format: Literal["text", "json"]
    verbose: bool
    net: bytes = b""
    """A `net.plan.NetPlan`, pickled as the next two: each process loads its own modules only."""
    serve: bytes = b""
    """A `supervisor.main.Plan`."""
    worker: bytes
    """The NmiSettings; of `mic` the MicSettings."""
    serve_user: int | None = None
    """User and group that `serve` is to become; None: it stays who it is."""
    unprivileged: str = ""
    """Why `serve` stays root, where it does."""
    made: str = ""
    """A folder that was made for the two, to be removed at the end."""


def main(arguments: Sequence[str]) -> int:
    plan = _read(arguments)
    return plan if isinstance(plan, int) else run(plan)


def run(plan: AgentPlan) -> int:
    return {"net": _net, "serve": _serve, "both": _both, "mic": _mic}[plan.program](plan)


def _read(arguments: Sequence[str]) -> AgentPlan | int:
    """Have a child read the flags; return its exit code where that is all there is to do."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if not pid:
        os.close(reading)
        _tell(arguments, writing)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        told = pipe.read()
    _, status = os.waitpid(pid, 0)
    if status or not told:
        return os.waitstatus_to_exitcode(status)
    plan: AgentPlan = pickle.loads(told)  # noqa: S301 - of our own code, with our own rights
    return plan


def _tell(arguments: Sequence[str], writing: int) -> NoReturn:
    gc.disable()  # it ends before there is garbage
    code = 70  # EX_SOFTWARE
    try:
        from podidentity.cli.main import read

        found = read(arguments)
        if isinstance(found, int):
            code = found
        else:
            with os.fdopen(writing, "wb") as pipe:
                pickle.dump(found, pipe)
            code = 0
    except BrokenPipeError:
        pass  # Our parent was killed while we read: there is nobody to tell.
    except BaseException:  # noqa: BLE001 - nothing may return into what its parent does
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


_GARBAGE = (2_000, 5, 2)
"""Thresholds of Python's collector: 36,000 new objects that stay may lead to a pass through all."""
_LONG_PASS = 0.01
"""Seconds of the processor."""


def keep_passes_short() -> None:
    """Have the collector look again at nothing that a long pass through all objects has left.

    A tenant may store so many objects that each such pass takes 0.2 s. What is kept of them has no
    cycles, and goes with its last reference. What else is under way in that moment is little.
    """
    begun = 0.0

    def on_pass(phase: str, info: Mapping[str, int]) -> None:
        nonlocal begun
        now = time.thread_time()
        if phase == "start":
            begun = now
        elif info["generation"] == len(_GARBAGE) - 1 and now - begun > _LONG_PASS:
            gc.freeze()

    gc.callbacks[:] = [on_pass]
    gc.set_threshold(*_GARBAGE)


@contextmanager
def _loading() -> Iterator[None]:
    """Load modules, which all stay: to look for garbage among them takes a tenth of the time."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        keep_passes_short()


def _net(plan: AgentPlan, begun: Ready = lambda: None) -> int:
    # It speaks no TLS: asyncio does without that library, which takes 3 MB. So does nobody else.
    sys.modules.setdefault("ssl", None)  # type: ignore[arg-type] # as `import` documents it
    with _loading():
        from podidentity.kernel.interception import InterceptionError
        from podidentity.net.main import run

    found = pickle.loads(plan.net)  # noqa: S301 - ours
    return _run(plan, lambda _: run(found, begun), (InterceptionError, OSError, ValueError))


def _serve(plan: AgentPlan, begun: Ready = lambda: None) -> int:
    with _loading():
        from podidentity.supervisor.listeners import ListenError
        from podidentity.supervisor.main import Supervisor
        from podidentity.telemetry.logs import configure_unthreaded

    configure_unthreaded(plan.log_format, verbose=plan.verbose)
    begun()
    try:
        told = pickle.loads(plan.serve)  # noqa: S301 - ours
        return Supervisor(told, lambda given: _work(plan, given)).run()
    except (ListenError, OSError, ValueError) as error:
        return _cannot_begin(error)


def _both(plan: AgentPlan) -> int:
    from podidentity.supervisor import privileges
    from podidentity.supervisor.programs import run_both
    from podidentity.telemetry.logs import configure_unthreaded

    configure_unthreaded(plan.log_format, verbose=plan.verbose)

    def guard(begun: Ready) -> int:
        privileges.end_with_parent()
        return _net(plan, begun)

    def server(begun: Ready) -> int:
        if plan.unprivileged:
            _log.warning("%s", plan.unprivileged)
        privileges.give_up(plan.serve_user)
        privileges.end_with_parent()
        return _serve(plan, begun)

    try:
        return run_both(guard, server)
    finally:
        if plan.made:
            import shutil

            shutil.rmtree(plan.made, ignore_errors=True)


def _work(plan: AgentPlan, given: Inherited) -> int:
    # No neighbour is asked by HTTP/2: httpcore2 does without that library, which takes 1 MB.
    sys.modules.setdefault("h2", None)  # type: ignore[arg-type] # as `import` documents it
    with _loading():
        from podidentity.nmi.main import run
        from podidentity.wire.kube import KubeError

    settings = pickle.loads(plan.worker)  # noqa: S301 - ours
    return _run(plan, lambda log: run(settings, log, given), (KubeError, ValueError))


def _mic(plan: AgentPlan) -> int:
    sys.modules.setdefault("h2", None)  # type: ignore[arg-type] # as in `_work`
    with _loading():
        from podidentity.mic.main import run
        from podidentity.wire.kube import KubeError

    settings = pickle.loads(plan.worker)  # noqa: S301 - ours
    return _run(plan, lambda _: run(settings), (KubeError, OSError, ValueError))


def _run(
    plan: AgentPlan,
    program: Callable[[Writer], Coroutine[Any, Any, None]],
    fails: tuple[type[Exception], ...],
) -> int:
    """Run a program, given the log, to its end; `fails` are its errors where it cannot begin."""
    with _loading():
        import asyncio

        from podidentity.telemetry.logs import configure

    log = configure(plan.log_format, verbose=plan.verbose)
    try:
        asyncio.run(program(log))
    except fails as error:
        return _cannot_begin(error)
    finally:
        log.close()
    return 0


def _cannot_begin(error: Exception) -> int:
    from podidentity.cli.output import CommandError, report

    _log.debug("cannot begin: %r", error)
    return report(error if isinstance(error, OSError) else CommandError(str(error)))
