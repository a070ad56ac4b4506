"""Run a command in a pod, from outside, over its node's Unix socket: for people and for programs.

It loads no event loop by itself, so that `podidentity sandbox exec` starts in no time.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Any

from podidentity_sandbox.plan import NodePlan, Plan

LARGEST_REQUEST = 160 * 1024
"""Bytes; a packet must fit the buffer of a socket."""


class ExecFailed(Exception):
    """The command did not run; the text says why."""


class PodNotHere(ExecFailed):
    """The node has no such pod."""


def request_for(namespace: str, pod: str, container: str | None, command: Sequence[str]) -> bytes:
    """Return the request that a node run `command` in the pod; raise ExecFailed."""
    words = {"namespace": namespace, "pod": pod, "container": container, "command": list(command)}
    request = json.dumps(words).encode()
    if len(request) > LARGEST_REQUEST:
        raise ExecFailed(f"a command of more than {LARGEST_REQUEST} bytes")
    return request


def connect(plan: Plan, node: NodePlan) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        connection.connect(str(plan.path / node.socket))
    except OSError as error:
        connection.close()
        raise ExecFailed(f"node {node.name} does not answer: {error.strerror}") from error
    return connection


def execute_attached(
    plan: Plan, node: NodePlan, request: bytes, *, interactive: bool = True
) -> int:
    """Have a node run a command with this process's standard streams; return its exit code.

    Without `interactive` it reads nothing. Raises ExecFailed.
    """
    with connect(plan, node) as connection, open(os.devnull, "rb") as null:  # noqa: PTH123
        socket.send_fds(connection, [request], [0 if interactive else null.fileno(), 1, 2])
        return exit_code(connection.recv(LARGEST_REQUEST))


def exit_code(raw: bytes) -> int:
    """Return the exit status that the answer says; raise ExecFailed."""
    answer: dict[str, Any] = json.loads(raw or b"{}")
    if "absent" in answer:
        raise PodNotHere(answer["absent"])
    if "exit" not in answer:
        raise ExecFailed(answer.get("error", "the node went away"))
    return int(answer["exit"])


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """The result of a command."""

    exit: int
    """128 + signal where a signal ended it."""
    stdout: bytes = field(repr=False)
    stderr: bytes = field(repr=False)


async def execute(
    plan: Plan,
    namespace: str,
    pod: str,
    command: Sequence[str],
    *,
    stdin: bytes = b"",
    container: str | None = None,
    timeout: float = 60.0,  # noqa: ASYNC109 - callers in a row of one line each
) -> ExecResult:
    """Run `command` in the pod, on whichever node it is, and return what it wrote.

    Raises ExecFailed, and TimeoutError after `timeout` seconds; the command is ended then.
    """
    import asyncio

    request = request_for(namespace, pod, container, command)
    with ExitStack() as opened:
        given, out, err = (
            opened.enter_context(os.fdopen(os.memfd_create(name), "r+b", buffering=0))
            for name in ("stdin", "stdout", "stderr")
        )
        given.write(stdin)
        given.seek(0)
        async with asyncio.timeout(timeout):
            for node in plan.nodes:
                with suppress(PodNotHere), connect(plan, node) as connection:
                    connection.setblocking(False)
                    socket.send_fds(connection, [request], [f.fileno() for f in (given, out, err)])
                    loop = asyncio.get_running_loop()
                    code = exit_code(await loop.sock_recv(connection, LARGEST_REQUEST))
                    out.seek(0)
                    err.seek(0)
                    return ExecResult(exit=code, stdout=out.read(), stderr=err.read())
    raise ExecFailed(f'pods "{pod}" not found in namespace {namespace} on any node')
