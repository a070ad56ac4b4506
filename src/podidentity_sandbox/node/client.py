"""Run a command in a pod, from outside, for programs: what it wrote is returned."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from podidentity_sandbox.node.execution_requests import (
    ExecFailed,
    PodNotHere,
    connect,
    exit_code,
    request_for,
)
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
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_UNIX) as connection, _Pipe() as out, _Pipe() as err:
        connect(connection, plan, node)
        connection.setblocking(False)
        given = os.memfd_create("stdin")
        try:
            with os.fdopen(os.dup(given), "wb") as file:
                file.write(stdin)
            os.lseek(given, 0, os.SEEK_SET)
            socket.send_fds(connection, [request], [given, out.write, err.write])
        finally:
            os.close(given)
        raw = b""
        while chunk := await loop.sock_recv(connection, 65536):
            raw += chunk
        return ExecResult(exit=exit_code(raw), stdout=out.drain(), stderr=err.drain())


class _Pipe:
    """Collects what a program writes, until it has ended.

    Not until the pipe is closed: a program that it left behind may hold it open for ever.
    """

    def __init__(self) -> None:
        self._read, self.write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._read, False)
        self._chunks: list[bytes] = []

    def __enter__(self) -> Self:
        asyncio.get_running_loop().add_reader(self._read, self._take)
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.get_running_loop().remove_reader(self._read)
        os.close(self._read)
        os.close(self.write)

    def _take(self) -> bool:
        try:
            chunk = os.read(self._read, 65536)
        except BlockingIOError:
            return False
        self._chunks.append(chunk)
        return bool(chunk)

    def drain(self) -> bytes:
        """Return all that was written."""
        while self._take():
            pass
        return b"".join(self._chunks)
