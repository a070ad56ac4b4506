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
    """Return a connection to a node; raise ExecFailed."""
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
