"""Requests to run a command in a pod, and their answers, over a node's Unix socket.

It loads no event loop, so that `podidentity sandbox exec` starts in no time.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from typing import Any

from podidentity_sandbox.plan import NodePlan, Plan


class ExecFailed(Exception):
    """The command did not run; the text says why."""


class PodNotHere(ExecFailed):
    """The node has no such pod."""


def request_for(namespace: str, pod: str, container: str | None, command: Sequence[str]) -> bytes:
    """Return the line that asks a node to run `command` in the pod."""
    request = {
        "op": "exec",
        "namespace": namespace,
        "pod": pod,
        "container": container,
        "command": list(command),
    }
    return json.dumps(request).encode() + b"\n"


def connect(connection: socket.socket, plan: Plan, node: NodePlan) -> None:
    """Connect to the socket of a node; raise ExecFailed."""
    try:
        connection.connect(str(plan.path / node.socket))
    except OSError as error:
        raise ExecFailed(f"node {node.name} does not answer: {error.strerror}") from error


def execute_attached(  # noqa: PLR0917 - as a person says them: where, what
    plan: Plan,
    node: NodePlan,
    namespace: str,
    pod: str,
    container: str | None,
    command: Sequence[str],
    *,
    interactive: bool = True,
) -> int:
    """Run `command` in the pod with this process's standard streams; return its exit code.

    Without `interactive` it reads nothing. Raises ExecFailed.
    """
    request = request_for(namespace, pod, container, command)
    with socket.socket(socket.AF_UNIX) as connection, open(os.devnull, "rb") as null:  # noqa: PTH123
        connect(connection, plan, node)
        socket.send_fds(connection, [request], [0 if interactive else null.fileno(), 1, 2])
        raw = b""
        while chunk := connection.recv(65536):
            raw += chunk
        return exit_code(raw)


def exit_code(raw: bytes) -> int:
    """Return the exit status that the last line says; raise ExecFailed."""
    answer: dict[str, Any] = json.loads(raw.splitlines()[-1]) if raw.strip() else {}
    if "error" in answer:
        raise (PodNotHere if answer.get("code") == "NotFound" else ExecFailed)(answer["error"])
    if "exit" not in answer:
        raise ExecFailed("the node went away")
    return int(answer["exit"])
