"""Run a command in a pod, from outside, for programs: what it wrote is returned."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field

from podidentity_sandbox.node.execution_requests import (
    LARGEST_REQUEST,
    ExecFailed,
    PodNotHere,
    connect,
    exit_code,
    request_for,
)
from podidentity_sandbox.node.streams import STDERR, STDOUT, Console
from podidentity_sandbox.plan import NodePlan, Plan


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
    request = request_for(namespace, pod, container, command)
    async with asyncio.timeout(timeout):
        for node in plan.nodes:
            try:
                return await _execute_on(plan, node, request, stdin)
            except PodNotHere:
                continue
    raise ExecFailed(f'pods "{pod}" not found in namespace {namespace} on any node')


async def _execute_on(plan: Plan, node: NodePlan, request: bytes, stdin: bytes) -> ExecResult:
    said, ended = {STDOUT: bytearray(), STDERR: bytearray()}, asyncio.Future[int]()

    async def hear(stream: int, data: bytes) -> None:
        said[stream] += data

    with connect(plan, node) as connection:
        connection.setblocking(False)
        console = Console(stdin=False, tty=False)
        with os.fdopen(os.memfd_create("stdin"), "r+b", buffering=0) as given:
            given.write(stdin)
            given.seek(0)
            socket.send_fds(connection, [request], [given.fileno(), *console.child[1:]])
        console.started()
        hearing = asyncio.create_task(console.run(ended, hear))
        try:
            loop = asyncio.get_running_loop()
            code = exit_code(await loop.sock_recv(connection, LARGEST_REQUEST))
        finally:
            ended.set_result(0)
            await hearing
        return ExecResult(exit=code, stdout=bytes(said[STDOUT]), stderr=bytes(said[STDERR]))
