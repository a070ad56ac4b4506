"""Requests to run a command in a pod, and their answers, over a node's Unix socket."""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from typing import Any

from podidentity_sandbox.plan import NodePlan, Plan


class ExecFailed(Exception):
    """The command did not run; the text says why."""


class PodNotHere(ExecFailed):
    """The node has no such pod."""


def request_for(
    namespace: str, pod: str, container: str | None, command: Sequence[str], *, tty: bool
) -> bytes:
    """Return the line that asks a node to run `command` in the pod."""
    request = {
        "op": "exec",
        "namespace": namespace,
        "pod": pod,
        "container": container,
        "command": list(command),
        "tty": tty,
    }
    return json.dumps(request).encode() + b"\n"


def connect(connection: socket.socket, plan: Plan, node: NodePlan) -> None:
    """Connect to the socket of a node; raise ExecFailed."""
    try:
        connection.connect(str(plan.path / node.socket))
    except OSError as error:
        raise ExecFailed(f"node {node.name} does not answer: {error.strerror}") from error


def receive(connection: socket.socket) -> tuple[dict[str, Any], list[int]]:
    """Read what has come, at least one line; return the last, and any descriptor."""
    raw, fds = b"", []
    while not raw.endswith(b"\n"):
        chunk, got, _, _ = socket.recv_fds(connection, 65536, 1)
        fds.extend(got)
        raw += chunk
        if not chunk:
            break
    return last(raw), fds


def exit_code(raw: bytes) -> int:
    """Return the exit status that the last line says; raise ExecFailed."""
    return int(last(raw).get("exit", 0))


def last(raw: bytes) -> dict[str, Any]:
    """Return the last of the lines that came; raise ExecFailed, also for an error that it says."""
    if not raw.strip():
        raise ExecFailed("the node went away")
    answer: dict[str, Any] = json.loads(raw.splitlines()[-1])
    if "error" in answer:
        raise (PodNotHere if answer.get("code") == "NotFound" else ExecFailed)(answer["error"])
    return answer
