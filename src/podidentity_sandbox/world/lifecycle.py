"""Bring a sandbox up, take it down: what the commands, the demo and tests call."""

from __future__ import annotations

import os
from collections.abc import Callable

from podidentity_sandbox.plan import Plan
from podidentity_sandbox.world.folder import Folder
from podidentity_sandbox.world.launch import Wish, up
from podidentity_sandbox.world.teardown import Found, down


def bring_up(
    name: str,
    *,
    nodes: int = 2,
    rootless: bool = False,
    progress: Callable[[str], None] = lambda _line: None,
) -> Plan:
    """Bring the sandbox `name` up and return its plan when all nodes are Ready.

    `progress` is given a line for each step. Without root it is rootless, asked or not. Raises
    SandboxError; then, and when interrupted, nothing of it remains.
    """
    wish = Wish(
        folder=Folder.of(name),
        path=":".join(os.get_exec_path()),
        nodes=nodes,
        rootless=rootless or os.geteuid() != 0,
    )
    return up(wish, progress)


def bring_down(name: str) -> Found:
    """End the sandbox `name`, living or crashed, and remove all of it; raise SandboxError."""
    return down(Folder.of(name))
