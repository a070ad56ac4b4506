"""A sandbox from outside: whether it runs, its parts and their memory, and orders to it.

Commands load it, and nothing of what serves.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from podidentity_sandbox.plan import OtherVersion, Plan
from podidentity_sandbox.world import SandboxError
from podidentity_sandbox.world.folder import Folder


def proof(plan: Plan) -> str:
    """Say by which proof the product can know its callers here."""
    if plan.cgroup_root:
        return "root: callers are proved by network namespace and cgroup"
    how = "rootless" if plan.rootless else "root"
    return f"{how}: no cgroups, so callers are proved by network namespace alone"


def memory_limits(plan: Plan) -> str:
    """Say whether a container that takes more memory than its limit is ended, and by what."""
    if not plan.memory_root:
        return "memory limits of containers are not enforced: no memory cgroup may be written here"
    if plan.memory_root == plan.cgroup_root:
        return "memory limits are enforced by cgroup v2: all of a container is ended at its limit"
    return "memory limits are enforced by cgroup v1: one process is ended at its container's limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Status:
    """A sandbox as it is now."""

    plan: Plan
    supervisor: int | None
    """The supervisor's process number on this machine."""
    parts: list[dict[str, Any]]
    """name, state, exit, memory_kib (proportional), pid: the number on this machine."""


def running_plan(folder: Folder) -> Plan:
    """Return the plan of a living sandbox; raise SandboxError that says what to do."""
    start = f"Start it with `podidentity sandbox up{_option(folder)}`"
    try:
        claim = folder.claim(make=False)
    except FileNotFoundError as cause:
        raise SandboxError(f"no sandbox named {folder.name!r} is running. {start}") from cause
    if claim is not None:
        claim.release()
        raise SandboxError(f"the sandbox {folder.name!r} crashed; its remains are there. {start}")
    try:
        return Plan.load(folder.path)
    except OtherVersion as cause:
        down = f"podidentity sandbox down{_option(folder)}"
        raise SandboxError(
            f"the sandbox {folder.name!r} is of another version: {cause}. "
            f"End it with `{down}`, and {start[0].lower()}{start[1:]}"
        ) from cause
    except (FileNotFoundError, ValueError) as cause:
        raise SandboxError(f"the sandbox {folder.name!r} is just starting. Try again") from cause


def ask(path: Path, order: Mapping[str, str], seconds: float = 120) -> dict[str, Any]:
    """Send an order and return the answer; raise SandboxError for a refusal, OSError for none."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(json.dumps(order).encode() + b"\n")
        with client.makefile("rb") as answers:
            line = answers.readline()
    if not line:
        raise ConnectionError("the sandbox went away")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise SandboxError(answer["error"])
    return answer


def status(folder: Folder) -> Status:
    """Return how a living sandbox does; raise SandboxError."""
    plan = running_plan(folder)
    try:
        parts = ask(folder.control, {"op": "status"})["parts"]
    except (OSError, ValueError, KeyError) as cause:
        raise SandboxError(
            f"the sandbox {folder.name!r} does not answer ({cause}). "
            f"End it with `podidentity sandbox down{_option(folder)}`"
        ) from cause
    outer = folder.holder()
    inner = children(outer) if outer else []
    supervisor = inner[0] if inner else None
    numbers = _numbers_inside(supervisor) if supervisor else {}
    for part in parts:
        part["pid"] = numbers.get(part["pid"])
    return Status(plan=plan, supervisor=supervisor, parts=parts)


def children(parent: int) -> list[int]:
    """Return the children of a process of one thread (proc_tid_children(5)); none of one gone."""
    try:
        return [int(n) for n in Path(f"/proc/{parent}/task/{parent}/children").read_text().split()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def _numbers_inside(supervisor: int) -> dict[int, int]:
    """Map process numbers of the parts in the sandbox's namespace to those on this machine.

    `NSpid` of /proc/PID/status lists a process's number in each namespace (proc_pid_status(5)).
    """
    numbers = {}
    for child in children(supervisor):
        with suppress(OSError):
            lines = Path(f"/proc/{child}/status").read_text().splitlines()
            inside = next(line.split() for line in lines if line.startswith("NSpid:"))
            numbers[int(inside[-1])] = child
    return numbers


def _option(folder: Folder) -> str:
    return "" if folder.name == "default" else f" --name {folder.name}"
